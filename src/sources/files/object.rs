//! Our own kind, `Server` of `tidegate.dev/v1`, to a server. Every mistake becomes a `Problem` that names the
//! field, the value and what was expected; `spec` has the last word.
//!
//! An object that can't be named is no server and is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::SOURCE;
use crate::model::{Age, Problem, ProblemKind, Server, ServerId};
use crate::spec::{self, Facts, Layer, Port, State};

pub(super) const API: &str = "tidegate.dev/v1";
const FLEET_LABEL: &str = "tidegate.dev/fleet";
/// Longest name or namespace, in bytes, as in Kubernetes.
const MAX_NAME: usize = 253;

const OBJECT_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
/// What we read, and what an API server writes into every object.
const METADATA_FIELDS: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "labels",
    "annotations",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
const SPEC_FIELDS: &[&str] = &["address", "port", "ports", "state"];
const PORT_FIELDS: &[&str] = &["name", "port"];

/// Reads one server; an error is why it can't be named.
pub(super) fn server(
    object: &Map<String, Value>,
    host_template: Option<&str>,
) -> Result<Arc<Server>, (ProblemKind, String)> {
    let (namespace, name) = identity(object)?;
    let id = ServerId::new(SOURCE, &namespace, &name);
    let mut reader = Reader { problems: Vec::new() };
    let metadata = reader.object(object, "metadata", "metadata").unwrap_or_default();
    reader.known(object, "", OBJECT_FIELDS);
    reader.known(&metadata, "metadata.", METADATA_FIELDS);
    let age = reader.age(metadata.get("creationTimestamp"));
    let annotations = reader.annotations(&metadata);
    let labels = reader.object(&metadata, "labels", "metadata.labels").unwrap_or_default();
    let fleet = labels.get(FLEET_LABEL).and_then(scalar);

    let spec = reader.object(object, "spec", "spec");
    if spec.is_none() && !object.contains_key("spec") {
        reader.wrong(ProblemKind::Missing, "spec", "is missing; expected an address and a port");
    }
    let spec = spec.unwrap_or_default();
    reader.known(&spec, "spec.", SPEC_FIELDS);
    let state = reader.state(spec.get("state"));
    let address = reader.address(spec.get("address"), state);
    let ports = reader.ports(&spec, annotations.contains_key("tidegate.dev/port"));
    let layers = [Layer::new("metadata.annotations", &annotations)];
    Ok(Arc::new(spec::read(Facts {
        id,
        name: None,
        age,
        fleet: fleet.as_deref(),
        address,
        ports: &ports,
        state,
        layers: &layers,
        host_template,
        problems: reader.problems,
    })))
}

/// The namespace and the name of an object.
pub(super) fn identity(object: &Map<String, Value>) -> Result<(String, String), (ProblemKind, String)> {
    let metadata = object.get("metadata");
    let field =
        |field: &str| metadata.and_then(|metadata| metadata.get(field)).filter(|value| !value.is_null());
    let Some(name) = field("name") else {
        return Err((ProblemKind::Missing, "has no metadata.name; every object needs one".into()));
    };
    let name = identifier("metadata.name", name)?;
    let namespace =
        field("namespace").map_or(Ok("default".into()), |value| identifier("metadata.namespace", value))?;
    Ok((namespace, name))
}

fn identifier(field: &str, value: &Value) -> Result<String, (ProblemKind, String)> {
    let is_good = |text: &String| {
        (1..=MAX_NAME).contains(&text.len())
            && !text.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace())
    };
    scalar(value).filter(is_good).ok_or_else(|| {
        let why =
            format!("has {field} {}; expected 1 to {MAX_NAME} characters without / or spaces", shown(value));
        (ProblemKind::BadValue, why)
    })
}

/// The text of a scalar: people forget the quotes around `true` and `7001`.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(super) fn nature(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as a problem shows it: as JSON when that is short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => nature(value).to_owned(),
        _ => match value.to_string() {
            text if text.len() <= 80 => text,
            text => text.chars().take(80).chain(['…']).collect(),
        },
    }
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn wrong(&mut self, kind: ProblemKind, field: impl Into<String>, why: impl Into<String>) {
        self.problems.push(Problem::new(kind, field, why));
    }

    /// An object below `parent`; absent and null are none.
    fn object(&mut self, parent: &Map<String, Value>, key: &str, field: &str) -> Option<Map<String, Value>> {
        match parent.get(key)? {
            Value::Object(object) => Some(object.clone()),
            Value::Null => None,
            other => {
                let why = format!("is {}; expected an object. It is ignored", nature(other));
                self.wrong(ProblemKind::BadValue, field, why);
                None
            }
        }
    }

    /// Reports the fields that nobody reads.
    fn known(&mut self, object: &Map<String, Value>, parent: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let mut why = "is not a field of a Server".to_owned();
            if let Some(near) = spec::nearest(key, known) {
                why = format!("{why}; did you mean {parent}{near}?");
                if parent == "spec." {
                    why.push_str(" Hosts, paths and the like are annotations, such as tidegate.dev/host");
                }
            }
            self.wrong(ProblemKind::UnknownField, format!("{parent}{}", spec::shown(key)), why);
        }
    }

    fn age(&mut self, value: Option<&Value>) -> Age {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Age::Unknown };
        let made = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if made.is_none() {
            let why = format!(
                "{} is not a time such as 2026-05-01T10:00:00Z; the server counts as the youngest",
                shown(value)
            );
            self.wrong(ProblemKind::BadValue, "metadata.creationTimestamp", why);
        }
        made.map_or(Age::Unknown, |made| Age::Since(made.as_millisecond()))
    }

    /// Our annotations; others are none of our business.
    fn annotations(&mut self, metadata: &Map<String, Value>) -> BTreeMap<String, String> {
        let all = self.object(metadata, "annotations", "metadata.annotations").unwrap_or_default();
        let mut annotations = BTreeMap::new();
        for (key, value) in all.into_iter().filter(|(key, _)| key.starts_with(spec::PREFIX)) {
            if let Some(text) = scalar(&value) {
                annotations.insert(key, text);
            } else {
                let why = format!("is {}; expected a text. It is ignored", nature(&value));
                let field = format!("metadata.annotations[\"{}\"]", spec::shown(&key));
                self.wrong(ProblemKind::BadValue, field, why);
            }
        }
        annotations
    }

    fn state(&mut self, value: Option<&Value>) -> State {
        let Some(value) = value.filter(|value| !value.is_null()) else { return State::Ready };
        match value.as_str() {
            Some("Ready") => State::Ready,
            Some("Starting") => State::Starting,
            Some("Draining") => State::Draining,
            Some("Stopped") => State::Stopped,
            _ => {
                let why = format!(
                    "{} is not a state; expected Ready, Starting, Draining or Stopped. Ready is used",
                    shown(value)
                );
                self.wrong(ProblemKind::BadValue, "spec.state", why);
                State::Ready
            }
        }
    }

    fn address(&mut self, value: Option<&Value>, state: State) -> Option<IpAddr> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            // One that starts has none yet, one that stopped has none any more.
            if matches!(state, State::Ready | State::Draining) {
                self.wrong(ProblemKind::Missing, "spec.address", "is missing; write the server's IP address");
            }
            return None;
        };
        let address = value.as_str().and_then(|text| text.trim().parse().ok());
        if address.is_none() {
            let why = format!(
                "{} is not an address; write an IP address such as 10.0.0.7, not a name and no port",
                shown(value)
            );
            self.wrong(ProblemKind::BadValue, "spec.address", why);
        }
        address
    }

    /// All ports, the default first; none when the default is bad and no annotation chooses another: a
    /// mistyped port must not send players to whatever stands next in the list.
    fn ports(&mut self, spec: &Map<String, Value>, is_chosen: bool) -> Vec<Port> {
        let mut written = Vec::new();
        if let Some(value) = spec.get("port").filter(|value| !value.is_null()) {
            written.push(self.port("spec.port", None, value));
        }
        match spec.get("ports") {
            None | Some(Value::Null) => {}
            Some(Value::Array(ports)) => {
                for (at, port) in ports.iter().enumerate() {
                    written.push(self.named_port(&format!("spec.ports[{at}]"), port));
                }
            }
            Some(other) => {
                let why =
                    format!("is {}; expected a list such as [{{name: game, port: 7000}}]", nature(other));
                self.wrong(ProblemKind::BadValue, "spec.ports", why);
            }
        }
        if matches!(written.first(), Some(None)) && !is_chosen {
            return Vec::new();
        }
        written.into_iter().flatten().collect()
    }

    fn named_port(&mut self, field: &str, value: &Value) -> Option<Port> {
        let Some(port) = value.as_object() else {
            let why = format!("is {}; expected a port such as {{name: game, port: 7000}}", shown(value));
            self.wrong(ProblemKind::BadValue, field, why);
            return None;
        };
        self.known(port, &format!("{field}."), PORT_FIELDS);
        let name = port.get("name").and_then(scalar);
        let field = format!("{field}.port");
        let Some(number) = port.get("port") else {
            self.wrong(ProblemKind::Missing, field, "is missing; expected a whole number from 1 to 65535");
            return None;
        };
        self.port(&field, name, number)
    }

    fn port(&mut self, field: &str, name: Option<String>, value: &Value) -> Option<Port> {
        let number = scalar(value).and_then(|text| text.trim().parse().ok()).filter(|number| *number != 0);
        if number.is_none() {
            let why = format!("{} is not a port; expected a whole number from 1 to 65535", shown(value));
            self.wrong(ProblemKind::BadValue, field, why);
        }
        Some(Port { name, number: number? })
    }
}

#[cfg(test)]
mod tests;
