//! What a file's objects are: servers of our own kind, which are ready to be told, and objects of Kubernetes,
//! from which `kinds` makes servers.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::object;
use crate::kinds::{Key, Kind, Manager, Object, Rules};
use crate::model::{ProblemKind, Server, ServerId};
use crate::spec;

/// Longest `apiVersion` or `kind` that is shown, in characters.
const MAX_SHOWN: usize = 80;
/// Longest reason that is passed on, in characters.
const MAX_WHY: usize = 200;

/// An object. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// One of ours, with its own problems.
    Server(Arc<Server>),
    /// One of Kubernetes', as far as it is read.
    Object(Arc<Object>),
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Id {
    /// One of ours.
    Server(ServerId),
    /// One of Kubernetes'. In a box: a fleet of our own has an id in two maps for each server, and none of these.
    Object(Box<Key>),
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It is new, or this is its new version.
    Put(Item),
    /// It is gone.
    Gone(Id),
}

impl Item {
    /// Which object it is.
    pub(super) fn id(&self) -> Id {
        match self {
            Self::Server(server) => Id::Server(server.id.clone()),
            Self::Object(object) => Id::Object(Box::new(object.key())),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(id) => write!(f, "{}/{}", id.namespace(), id.name()),
            Self::Object(key) => write!(f, "{} {}/{}", key.kind.name(), key.namespace, key.name),
        }
    }
}

/// What a part of a file turned out to be.
#[derive(Debug)]
pub(super) enum Part {
    /// An object that is read.
    Item(Item),
    /// A kind that is not read here: its `apiVersion` and `kind`.
    Other(String),
    /// It should be read, but can't be.
    Bad(ProblemKind, String),
}

/// Reads one object.
pub(super) fn read(value: &Value, rules: &Rules) -> Part {
    let Some(object) = value.as_object() else {
        return Part::Bad(
            ProblemKind::BadValue,
            format!("is {}; expected an object with apiVersion, kind and metadata", object::nature(value)),
        );
    };
    let text = |field: &str| object.get(field).and_then(Value::as_str);
    let (Some(api), Some(kind)) = (text("apiVersion"), text("kind")) else {
        let why = "has no apiVersion or no kind; a server has apiVersion: tidegate.dev/v1 and kind: Server";
        return Part::Bad(ProblemKind::Missing, why.into());
    };
    if (api, kind) == (object::API, "Server") {
        return match object::server(object, rules.host_template.as_deref()) {
            Ok(server) => Part::Item(Item::Server(server)),
            Err((kind, why)) => Part::Bad(kind, why),
        };
    }
    if api.starts_with(spec::PREFIX) {
        let (api, kind) = (shown(api), shown(kind));
        let why = format!(
            "has apiVersion {api:?} and kind {kind:?}; Tidegate's own are \"{}\" and \"Server\"",
            object::API
        );
        return Part::Bad(ProblemKind::BadValue, why);
    }
    let Some(known) = Kind::of(api, kind) else {
        return match nearest(api, kind) {
            Some(near) => {
                let why = format!("is {} {}; did you mean {near}?", shown(api), shown(kind));
                Part::Bad(ProblemKind::UnknownKind, why)
            }
            None => Part::Other(format!("{} {}", shown(api), shown(kind))),
        };
    };
    if let Err((kind, why)) = object::identity(object) {
        return Part::Bad(kind, why);
    }
    let mut track = serde_path_to_error::Track::new();
    match Object::decode(known, serde_path_to_error::Deserializer::new(value, &mut track)) {
        Ok(mut object) => {
            // It moves with every write and says nothing of the object.
            object.meta_mut().resource_version = None;
            Part::Item(Item::Object(Arc::new(object)))
        }
        Err(error) => {
            let name = value["metadata"]["name"].to_string();
            let why: String = error.to_string().chars().take(MAX_WHY).collect();
            Part::Bad(ProblemKind::BadValue, format!("{known} {name} can't be read: {}: {why}", track.path()))
        }
    }
}

/// What a kind of a fleet manager was meant to be, when it is nearly one that is read.
fn nearest(api: &str, kind: &str) -> Option<Kind> {
    let group = api.split_once('/').map_or(api, |(group, _)| group);
    if !Manager::ALL.iter().any(|manager| manager.group() == group) || kind.len() > MAX_SHOWN {
        return None;
    }
    let mut known =
        Kind::ALL.into_iter().filter(|known| known.api_version().split('/').next() == Some(group));
    known.find(|known| strsim::damerau_levenshtein(&known.name().to_lowercase(), &kind.to_lowercase()) <= 1)
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(value: &Value) -> String {
        match read(value, &Rules::default()) {
            Part::Item(item) => item.id().to_string(),
            Part::Other(kind) => format!("other {kind}"),
            Part::Bad(_, why) => why,
        }
    }

    fn object(api: &str, kind: &str) -> Value {
        json!({ "apiVersion": api, "kind": kind, "metadata": { "name": "a-0", "namespace": "eu" } })
    }

    #[test]
    fn every_kind_finds_its_reader() {
        for kind in Kind::ALL {
            assert_eq!(said(&object(kind.api_version(), kind.name())), format!("{} eu/a-0", kind.name()));
        }
        assert_eq!(said(&object("v1", "Secret")), "other v1 Secret");
        assert_eq!(said(&object("agones.dev/v1", "GameServerSet")), "other agones.dev/v1 GameServerSet");
        assert_eq!(
            said(&object("autoscaling.agones.dev/v1", "Fleet")),
            "other autoscaling.agones.dev/v1 Fleet"
        );
    }

    #[test]
    fn a_kind_that_is_nearly_one_is_a_mistake() {
        for (api, kind, meant) in [
            ("game.kruise.io/v1alpha1", "GameServersSet", "game.kruise.io/v1alpha1 GameServerSet"),
            ("game.kruise.io/v1", "GameServerSet", "game.kruise.io/v1alpha1 GameServerSet"),
            ("agones.dev/v1", "Gameserver", "agones.dev/v1 GameServer"),
            ("agones.dev/v2", "Fleet", "agones.dev/v1 Fleet"),
        ] {
            assert_eq!(said(&object(api, kind)), format!("is {api} {kind}; did you mean {meant}?"));
        }
        assert!(said(&object("tidegate.dev/v1", "Sever")).contains("kind \"Sever\""));
        assert!(said(&object("tidegate.dev/v2", "Server")).contains("apiVersion \"tidegate.dev/v2\""));
    }

    #[test]
    fn what_is_no_object_is_said() {
        assert!(said(&json!("text")).contains("is a text"));
        assert!(said(&json!({ "apiVersion": "v1", "metadata": {} })).contains("no kind"));
        for name in [json!(null), json!("a/b"), json!(""), json!(["a"]), json!("x".repeat(254))] {
            let value = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name } });
            assert!(
                said(&value).contains("has metadata.name") || said(&value).contains("has no metadata.name")
            );
        }
    }

    #[test]
    fn a_bad_object_names_its_field() {
        let mut pod = object("v1", "Pod");
        pod["metadata"]["labels"] = json!("none");
        let why = said(&pod);
        assert!(
            why.starts_with("v1 Pod \"a-0\" can't be read: metadata.labels: invalid type: string"),
            "{why}"
        );
    }

    #[test]
    fn the_version_of_an_object_says_nothing() {
        let version = |version: &str| {
            let mut pod = object("v1", "Pod");
            pod["metadata"]["resourceVersion"] = version.into();
            let Part::Item(item) = read(&pod, &Rules::default()) else { panic!() };
            item
        };
        assert_eq!(version("1"), version("2"));
    }
}
