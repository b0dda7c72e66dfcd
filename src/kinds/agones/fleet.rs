//! A Fleet: it has no server of its own, and shows what its GameServers would come to.

use serde::Deserialize;

use super::{At, FLEET, GAME_SERVER, GameServer, Spec, Status, is_asked, listed, or_default, read};
use crate::kinds::{Meta, Rules};
use crate::model::{Problem, ProblemKind, Server, ServerId, Source};
use crate::spec::{self, Facts, PREFIX, State};

const TEMPLATE: At =
    At { annotations: "spec.template.metadata.annotations", ports: "spec.template.spec.ports" };

/// `agones.dev/v1` `Fleet`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fleet {
    /// `metadata`; its annotations are not copied to the GameServers.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    /// `spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: FleetSpec,
}

/// `spec` of a Fleet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FleetSpec {
    /// `spec.replicas`
    #[serde(deserialize_with = "or_default")]
    pub replicas: i64,
    /// `spec.template`
    #[serde(deserialize_with = "or_default")]
    pub template: Template,
}

/// `spec.template` of a Fleet: what its GameServers begin with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Template {
    /// `spec.template.metadata`: its labels and annotations are copied.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    /// `spec.template.spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
}

/// What a Fleet's GameServers would come to, before there are any: `count` examples without an address.
/// They have every mistake of the template, and those of annotations that nobody copies to a GameServer.
pub fn sample(fleet: &Fleet, count: usize, rules: &Rules, source: Source) -> Vec<Server> {
    let stray = stray(fleet);
    let example = |at: usize| {
        let mut metadata = fleet.spec.template.metadata.clone();
        metadata.namespace.clone_from(&fleet.metadata.namespace);
        metadata.name = format!("{}-xxxxx-{}", fleet.metadata.name, letters(at)).into();
        metadata.age = fleet.metadata.age;
        metadata.deleting = false;
        metadata.labels.insert(FLEET.to_owned(), fleet.metadata.name.to_string());
        let status = Status { state: "Scheduled".into(), ..Status::default() };
        let server = GameServer { metadata, spec: fleet.spec.template.spec.clone(), status };
        let read = read(&server, None, rules, source, TEMPLATE);
        let mut server = match (read, &stray) {
            (None, Some(_)) if !is_asked(&server.metadata) => without_route(&server.metadata, source),
            (read, _) => read?,
        };
        server.problems.extend(stray.clone());
        Some(server)
    };
    (0..count).filter_map(example).collect()
}

/// Annotations on a Fleet itself, which Agones copies to nobody.
fn stray(fleet: &Fleet) -> Option<Problem> {
    let meta = &fleet.metadata;
    let reaches_nobody = |key: &&String| key.starts_with(PREFIX) || key.starts_with("octops");
    let stray: Vec<_> = meta.annotations.keys().filter(reaches_nobody).map(String::as_str).collect();
    (!stray.is_empty()).then(|| {
        let why = format!(
            "{} stand on the Fleet itself, and Agones copies them to no GameServer; write them in {}",
            listed(stray.into_iter()),
            TEMPLATE.annotations
        );
        Problem::new(ProblemKind::UnknownField, GAME_SERVER.annotations, why)
    })
}

fn without_route(meta: &Meta, source: Source) -> Server {
    spec::read(Facts {
        id: ServerId::new(source, &meta.namespace, &meta.name),
        name: None,
        age: meta.age,
        fleet: meta.label(FLEET),
        address: None,
        ports: &[],
        state: State::Starting,
        layers: &[],
        host_template: None,
        problems: Vec::new(),
    })
}

/// `aaaaa`, `aaaab` and so on, in place of the five letters that Kubernetes draws.
fn letters(at: usize) -> String {
    let letter = |place: u32| char::from(b"abcdefghijklmnopqrstuvwxyz"[at / 26_usize.pow(place) % 26]);
    (0..5).rev().map(letter).collect()
}
