//! Objects as they are written to the servers they make, each with the object that an operator's annotations go to.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::kinds::{self, Key, Kind, Object, Rules, Sources, Subject, okg};
use crate::model::Mode;
use crate::plan::{Layer, Member};
use crate::sources::files::Read;
use crate::spec::{PREFIX, ordinal};

/// What a game of Agones says of its own door, which counts before its object's annotations.
const SAID: &str = "agones.dev/sdk-tidegate-drain";

/// An object, and where it stands.
pub(super) struct Raw {
    pub(super) value: Value,
    pub(super) read: Read,
    /// The file and line; none in a cluster.
    pub(super) at: Option<String>,
}

/// A member, and what a write to a cluster has to know of it.
pub(super) struct Found {
    pub(super) member: Member,
    /// Which object; none of one of our own kind.
    pub(super) key: Option<Key>,
}

/// The servers of these objects, by namespace and name; and what is left out of them, and why.
pub(super) fn members(raws: Vec<Raw>, rules: &Rules, sources: Sources) -> (Vec<Found>, Vec<String>) {
    let mut fleet = kinds::Fleet::new(rules.clone(), sources);
    let (mut found, mut left) = (Vec::new(), Vec::new());
    let (mut values, mut objects) = (HashMap::new(), Vec::new());
    for Raw { value, read, at } in raws {
        match read {
            Read::Server(server) => {
                let labels = texts(&value["metadata"]["labels"]);
                let name = server.id.name();
                let family =
                    || ordinal(name).map_or(name, |id| &name[..name.len() - id.len() - 1]).to_owned();
                let state = value["spec"]["state"].as_str().filter(|state| *state != "Ready");
                let member = Member {
                    namespace: server.id.namespace().to_owned(),
                    name: name.to_owned(),
                    fleet: Some(labels.get("tidegate.dev/fleet").cloned().unwrap_or_else(family)),
                    shut_by: state.map(|state| format!("its spec.state is {state}")),
                    behind: Vec::new(),
                    servers: vec![server],
                    ..bare(&value, at, labels)
                };
                found.push(Found { member, key: None });
            }
            Read::Object(object) => {
                values.insert(object.key(), (value, at));
                objects.push(kinds::Change::Put(object));
            }
        }
    }
    fleet.apply(objects);
    for (root, subject) in fleet.touched() {
        let Some(subject) = subject else { continue };
        let target = subject.target.as_ref().map(|target| target.key.clone());
        let Some((key, (value, at))) = target.and_then(|key| values.get_key_value(&key)) else {
            let Key { kind, namespace, name } = &root;
            left.push(format!(
                "{} {namespace}/{name} has no GameServer (yet), which its annotations go to; it is left out",
                kind.name()
            ));
            continue;
        };
        let member = clustered(&fleet, &root, &subject, value, at.clone(), &values, rules);
        found.push(Found { member, key: Some(key.clone()) });
    }
    found.sort_by(|one, other| {
        let rank = |found: &Found| (found.member.namespace.clone(), ranked(&found.member.name));
        rank(one).cmp(&rank(other))
    });
    (found, left)
}

/// `game-2` stands before `game-10`.
fn ranked(name: &str) -> (String, u64, String) {
    let number = ordinal(name).and_then(|id| id.parse().ok());
    let family = ordinal(name).map_or(name, |id| &name[..name.len() - id.len()]);
    (family.to_owned(), number.unwrap_or_default(), name.to_owned())
}

fn bare(value: &Value, at: Option<String>, labels: BTreeMap<String, String>) -> Member {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Member {
        api_version: text(&value["apiVersion"]),
        kind: text(&value["kind"]),
        namespace: String::new(),
        name: String::new(),
        at,
        labels,
        fleet: None,
        annotations: ours(value),
        behind: Vec::new(),
        shut_by: None,
        servers: Vec::new(),
    }
}

/// A game server of a fleet manager.
fn clustered(
    fleet: &kinds::Fleet,
    root: &Key,
    subject: &Subject,
    value: &Value,
    at: Option<String>,
    values: &HashMap<Key, (Value, Option<String>)>,
    rules: &Rules,
) -> Member {
    let mut labels = BTreeMap::new();
    let mut behind = Vec::new();
    let mut of = None;
    let mut shut_by = None;
    match (fleet.get(root), root.kind) {
        (pod, Kind::Pod) => {
            let (pod, set) = match pod {
                Some(Object::Pod(pod)) => (Some(pod), okg::set_of(pod)),
                _ => (None, okg::set_name(&root.name)),
            };
            of = set.map(str::to_owned);
            let set = set.map(|set| Key { kind: Kind::GameServerSet, name: set.into(), ..root.clone() });
            let game = fleet.get(&Key { kind: Kind::OkgGameServer, ..root.clone() });
            for key in set.iter().chain([root]) {
                let Some((value, _)) = values.get(key) else { continue };
                let whose = format!("{} {}/{}", key.kind.name(), key.namespace, key.name);
                behind.push(Layer { whose, annotations: ours(value) });
            }
            if let Some((value, _)) = values.get(root) {
                labels.extend(texts(&value["metadata"]["labels"]));
            }
            let label = |key: &str| pod.and_then(|pod| pod.metadata.label(key)).map(str::to_owned);
            let (mut state, mut disabled) = (None, None);
            if let Some(Object::OkgGameServer(game)) = game {
                state = game.spec.ops_state.as_deref().filter(|state| !state.is_empty()).map(str::to_owned);
                disabled = game.spec.network_disabled;
            }
            let state = state.or_else(|| label("game.kruise.io/gs-opsState"));
            let disabled = disabled
                .unwrap_or_else(|| label("game.kruise.io/network-disabled").as_deref() == Some("true"));
            let shuts = |state: &String| rules.ops_states.get(state) == Some(&kinds::Door::Drain);
            if let Some(state) = state.filter(shuts) {
                shut_by = Some(format!("its spec.opsState is {state}"));
            } else if disabled {
                shut_by = Some("its spec.networkDisabled is true".to_owned());
            } else if pod.is_some_and(|pod| pod.metadata.deleting) {
                shut_by = Some("its pod is going".to_owned());
            }
        }
        (Some(Object::AgonesGameServer(game)), _) => {
            of = crate::kinds::agones::fleet_of(game).map(str::to_owned);
            let state = &*game.status.state;
            if value["metadata"]["annotations"][SAID].as_str().is_some_and(|said| said.trim() != "false") {
                shut_by = Some(format!("the game itself says so, by {SAID}"));
            } else if game.metadata.deleting {
                shut_by = Some("it is going".to_owned());
            } else if subject.servers.iter().any(|server| matches!(server.desired.mode, Mode::Stopped)) {
                shut_by = Some(format!("its status.state is {state}"));
            }
        }
        _ => {}
    }
    labels.extend(texts(&value["metadata"]["labels"]));
    Member {
        namespace: root.namespace.to_string(),
        name: root.name.to_string(),
        fleet: of,
        behind,
        shut_by,
        servers: subject.servers.clone(),
        ..bare(value, at, labels)
    }
}

fn ours(value: &Value) -> BTreeMap<String, String> {
    let mut all = texts(&value["metadata"]["annotations"]);
    all.retain(|key, _| key.starts_with(PREFIX));
    all
}

/// A map of texts; people forget the quotes around `true` and `7001`.
fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// A value of an annotation as it is read.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
