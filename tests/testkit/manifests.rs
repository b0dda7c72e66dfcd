//! The Kubernetes manifests as the cluster would get them: rendered by kustomize, one by one.

use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// This repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program and the argument that render a folder, from `manifests/get-kubectl`.
fn renderer() -> &'static (String, String) {
    static RENDERER: OnceLock<(String, String)> = OnceLock::new();
    RENDERER.get_or_init(|| {
        let script = root().join("manifests/get-kubectl");
        let found = Command::new(&script).stderr(Stdio::inherit()).output().expect("get-kubectl starts");
        assert!(found.status.success(), "nothing renders: `{}` says how to get it", script.display());
        let line = String::from_utf8(found.stdout).expect("a path in UTF-8");
        let (program, argument) = line.trim_end().rsplit_once(' ').expect("a program and an argument");
        (program.to_owned(), argument.to_owned())
    })
}

/// The objects of a kustomization that is written here, in a folder of its own; `{manifests}` stands for the path to
/// the manifests of this repository.
pub fn render(kustomization: &str) -> Objects {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path().canonicalize().expect("it is there");
    let text = kustomization.replace("{manifests}", &way(&here, &root().join("manifests")));
    std::fs::write(here.join("kustomization.yaml"), text).expect("it is written");
    let (program, argument) = renderer();
    let run = Command::new(program).arg(argument).arg(&here).output().expect("it starts");
    assert!(run.status.success(), "{kustomization}\n{}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout).expect("UTF-8");
    let objects = text.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("YAML"));
    Objects(objects.collect())
}

/// The relative path from a folder to another: kustomize takes no absolute one.
fn way(from: &Path, to: &Path) -> String {
    let to = to.canonicalize().expect("it is there");
    let mut way = PathBuf::new();
    for _ in from.components().filter(|part| matches!(part, Component::Normal(_))) {
        way.push("..");
    }
    let rest = to.strip_prefix("/").expect("a canonical path starts at the root");
    way.join(rest).to_str().expect("UTF-8").to_owned()
}

/// Objects of Kubernetes.
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// Those of a kind.
    pub fn of<'a, 'k>(&'a self, kind: &'k str) -> impl Iterator<Item = &'a Value> + use<'a, 'k> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The one of a kind and name; a name with a hash behind it counts.
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        let mut found = self.of(kind).filter(|object| {
            let own = text(&object["metadata"]["name"]);
            own == name || (kind == "ConfigMap" && own.starts_with(&format!("{name}-")))
        });
        let one = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
        assert!(found.next().is_none(), "two of {kind} {name}");
        one
    }

    /// Every container, those that run first too, with its Deployment.
    pub fn containers(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.of("Deployment").flat_map(|deployment| {
            let spec = &deployment["spec"]["template"]["spec"];
            list(&spec["initContainers"]).chain(list(&spec["containers"])).map(move |one| (deployment, one))
        })
    }
}

/// The items of a list; none where there is none.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The texts of a list.
pub fn texts(value: &Value) -> Vec<&str> {
    list(value).map(text).collect()
}

/// A text.
#[track_caller]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a text, not {value}"))
}

/// The value of `--flag=value` or `--flag value` among arguments.
#[track_caller]
pub fn flag<'a>(arguments: &[&'a str], flag: &str) -> &'a str {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix(flag) {
            Some("") => return rest.next().expect("a value"),
            Some(value) if value.starts_with('=') => return &value[1..],
            _ => {}
        }
    }
    panic!("no {flag} in {arguments:?}")
}

const OVERLAYS: [&str; 2] = ["okg", "agones"];

/// What somebody may install.
pub struct Offer {
    /// The overlay.
    pub overlay: &'static str,
    /// Whether the component `tls` is in it.
    pub tls: bool,
    /// Whether the component `write-back` is in it.
    pub write_back: bool,
    /// What the cluster gets.
    pub objects: Objects,
}

/// Every overlay with every set of components, rendered once.
pub fn offers() -> &'static [Offer] {
    static OFFERS: OnceLock<Vec<Offer>> = OnceLock::new();
    OFFERS.get_or_init(rendered)
}

fn rendered() -> Vec<Offer> {
    let mut offers = Vec::new();
    for overlay in OVERLAYS {
        for (tls, write_back) in [(false, false), (true, false), (false, true), (true, true)] {
            let components: Vec<String> = [("tls", tls), ("write-back", write_back)]
                .into_iter()
                .filter(|(_, wanted)| *wanted)
                .map(|(name, _)| format!("\"{{manifests}}/components/{name}\""))
                .collect();
            let text = format!(
                "resources: [ \"{{manifests}}/overlays/{overlay}\" ]\ncomponents: [ {} ]\n",
                components.join(", ")
            );
            offers.push(Offer { overlay, tls, write_back, objects: render(&text) });
        }
    }
    offers
}

/// What a Deployment runs.
pub fn pod(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]
}

/// The arguments of a container.
pub fn arguments(container: &Value) -> Vec<&str> {
    texts(&container["args"])
}

/// The container of this name of a Deployment of this name, one that runs first or one that stays.
pub fn container<'a>(objects: &'a Objects, deployment: &str, name: &str) -> &'a Value {
    let is_it =
        |(owner, one): &(&Value, &Value)| owner["metadata"]["name"] == deployment && one["name"] == name;
    objects.containers().find(is_it).unwrap_or_else(|| panic!("no container {name} in {deployment}")).1
}

/// The port of `address:port`.
#[track_caller]
pub fn port_of(address: &str) -> u64 {
    address.rsplit_once(':').expect("address:port").1.parse().expect("a number")
}

/// The number of a container's port of this name.
pub fn container_port(container: &Value, name: &str) -> u64 {
    let port = list(&container["ports"]).find(|port| port["name"] == name);
    port.unwrap_or_else(|| panic!("no port {name}: {container}"))["containerPort"].as_u64().expect("a number")
}
