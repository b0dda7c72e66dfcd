//! `tidegate check`, as who writes a manifest or takes a dump meets it.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::tidegate::run;

const SET: &str = "\
apiVersion: v1
kind: Service
metadata: { name: lobby }
---
apiVersion: game.kruise.io/v1alpha1
kind: GameServerSet
metadata: { name: lobby, namespace: games }
spec:
  replicas: 5
  reserveGameServerIds: [1]
  network:
    networkType: Kubernetes-Ingress
    networkConf:
    - { name: IngressClassName, value: higress }
    - { name: Port, value: \"5000\" }
    - { name: Path, value: / }
    - { name: PathType, value: Prefix }
    - { name: Host, value: game<id>.example.com }
";

const FLEET: &str = "\
apiVersion: agones.dev/v1
kind: Fleet
metadata: { name: arena }
spec:
  replicas: 3
  template:
    metadata:
      annotations:
        octops.io/gameserver-ingress-mode: domain
        octops.io/gameserver-ingress-domain: example.gg
        tidegate.dev/weight: heavy
    spec: { ports: [{ name: game, containerPort: 7000 }] }
";

/// A pod of the set, as a document of its own: JSON is YAML, too.
fn pod(name: &str, class: &str) -> String {
    let conf = json!([
        { "name": "IngressClassName", "value": class },
        { "name": "Host", "value": "game<id>.example.com" },
        { "name": "Path", "value": "/" },
        { "name": "PathType", "value": "Prefix" },
        { "name": "Port", "value": "5000" },
    ]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "games",
            "labels": { "game.kruise.io/owner-gss": "lobby" },
            "annotations": {
                "game.kruise.io/network-type": "Kubernetes-Ingress",
                "game.kruise.io/network-conf": conf.to_string(),
            },
        },
        "spec": { "containers": [{ "name": "game" }] },
        "status": {
            "phase": "Running", "podIP": "10.0.0.7",
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [{ "name": "game", "ready": true }],
        },
    });
    format!("---\n{pod}\n")
}

/// A file in a directory of its own.
struct Files(TempDir);

impl Files {
    fn of(text: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        std::fs::write(files.path(), text).unwrap();
        files
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("f.yaml")
    }

    /// What is printed, with the file as `f.yaml`, and the exit code.
    async fn check(&self, flags: &[&str]) -> (Vec<String>, i32) {
        let path = self.path().display().to_string();
        let output = run(&[&["check", &path], flags].concat()).await;
        let text = String::from_utf8(output.stdout).unwrap().replace(&path, "f.yaml");
        (text.lines().map(str::to_owned).collect(), output.status.code().unwrap())
    }
}

#[tokio::test]
async fn a_set_shows_the_hosts_of_its_first_servers() {
    let files = Files::of(SET);
    let (lines, code) = files.check(&["--ingress-class", "higress"]).await;
    assert_eq!(
        lines,
        [
            "games/lobby-0: game0.example.com, a sample of what f.yaml:5 would make",
            "games/lobby-2: game2.example.com, a sample of what f.yaml:5 would make",
            "games/lobby-3: game3.example.com, a sample of what f.yaml:5 would make",
            "f.yaml:1: left out, as nothing of them is read here: v1 Service",
            "servers: 0, samples: 3, routes: 3, problems: 0",
        ]
    );
    assert_eq!(code, 0);
    let (lines, _) = files.check(&["--ingress-class", "higress", "--samples", "1"]).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[tokio::test]
async fn what_nobody_claims_says_why() {
    let (lines, code) = Files::of(SET).check(&[]).await;
    assert_eq!(
        lines[0],
        "f.yaml:5: GameServerSet games/lobby is not routed: its ingress class is \"higress\", which is not \
         claimed here; --ingress-class higress claims it"
    );
    assert_eq!(code, 0, "another controller's fleet is no mistake: {lines:?}");
    // One line for all pods of one reason.
    let pods: String = (0..50).map(|at| pod(&format!("lobby-{at}"), "nginx")).collect();
    let (lines, code) = Files::of(&pods).check(&[]).await;
    assert_eq!((lines.len(), code), (2, 0), "{lines:?}");
    assert!(
        lines[0].starts_with(
            "f.yaml:2: Pod games/lobby-0 and 49 more are not routed: its ingress class is \"nginx\""
        ),
        "{lines:?}"
    );
}

#[tokio::test]
async fn servers_that_are_there_need_no_samples() {
    let files = Files::of(&(SET.to_owned() + &pod("lobby-4", "higress")));
    let (lines, code) = files.check(&["--ingress-class", "higress"]).await;
    assert_eq!(lines[0], "games/lobby-4: game4.example.com -> 10.0.0.7:5000, open");
    assert_eq!((lines.len(), code), (3, 0), "{lines:?}");
}

#[tokio::test]
async fn a_mistake_in_a_template_is_said_once_with_its_line() {
    let files = Files::of(&format!("# fleets\n---\n{FLEET}"));
    let (lines, code) = files.check(&[]).await;
    let wrong: Vec<_> = lines.iter().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(wrong.len(), 1, "{lines:?}");
    assert!(
        wrong[0].starts_with("  f.yaml:3: ")
            && wrong[0].contains("tidegate.dev/weight")
            && wrong[0].contains("heavy"),
        "{wrong:?}"
    );
    assert!(
        lines[0].starts_with("default/arena-") && lines[0].contains(".example.gg, a sample of"),
        "{lines:?}"
    );
    assert_eq!(code, 1);
    let (lines, _) = files.check(&["-o", "json"]).await;
    let json: Value = serde_json::from_str(&lines.concat()).unwrap();
    let server = &json["servers"][0];
    assert_eq!((&server["sample"], &server["place"]), (&true.into(), &"3".into()), "{server:#}");
    assert_eq!(server["problems"].as_array().unwrap().len(), 1);
    assert_eq!(json["routes"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn problems_of_our_own_servers_have_their_line_too() {
    let server = "apiVersion: tidegate.dev/v1\nkind: Server\nmetadata: { name: a }\nspec: { port: 70000, address: 10.0.0.1 }\n";
    let (lines, code) = Files::of(&format!("# a\n---\n{server}")).check(&[]).await;
    assert!(lines[1].starts_with("  f.yaml:3: spec.port: 70000 is not a port"), "{lines:?}");
    assert_eq!(code, 1);
}
