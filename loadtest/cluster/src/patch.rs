//! The four kinds of patch, by their content type.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::kinds::Resource;
use crate::refusal::Refusal;

/// What is to be changed.
pub(crate) enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// Kubernetes' own: as a merge, but the lists named in `KEYS` are merged item by item.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

impl Patch {
    /// Reads a patch; `content_type` says which it is.
    pub(crate) fn parse(resource: &Resource, content_type: &str, body: &Bytes) -> Result<Self, Refusal> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let unreadable = |error: serde_json::Error| {
            Refusal::of(400, format!("error decoding patch: {error}; a patch here is JSON, also to apply"))
        };
        let object = || match serde_json::from_slice(body).map_err(unreadable)? {
            object @ Value::Object(_) => Ok(object),
            other => Err(Refusal::of(400, format!("error decoding patch: {other} is no object"))),
        };
        match kind {
            "application/merge-patch+json" => Ok(Self::Merge(object()?)),
            "application/json-patch+json" => {
                Ok(Self::Json(serde_json::from_slice(body).map_err(unreadable)?))
            }
            "application/apply-patch+yaml" => Ok(Self::Apply(object()?)),
            // A CRD has no schema to merge by; the real server refuses it too.
            "application/strategic-merge-patch+json" if !resource.custom => Ok(Self::Strategic(object()?)),
            _ => Err(Refusal::of(
                415,
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// The object afterwards. An apply needs to know owners and is made by them; here it merges.
    pub(crate) fn applied_to(&self, old: &Value) -> Result<Value, Refusal> {
        let mut new = old.clone();
        match self {
            Self::Merge(patch) | Self::Apply(patch) => json_patch::merge(&mut new, patch),
            Self::Strategic(patch) => strategic(&mut new, patch),
            Self::Json(patch) => {
                // A `test` that fails is 422 with no reason a client could tell from a bad patch.
                json_patch::patch(&mut new, patch).map_err(|error| Refusal::of(422, error.to_string()))?;
            }
        }
        Ok(new)
    }
}

/// Lists whose items are told apart by a field. Other lists are replaced whole.
const KEYS: [(&str, &str); 5] = [
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ownerReferences", "uid"),
    ("volumes", "name"),
];

fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
            continue;
        }
        let held = target.entry(name.clone()).or_insert(Value::Null);
        match (held, value, KEYS.iter().find(|(list, _)| list == name)) {
            (Value::Array(held), Value::Array(wanted), Some((_, key))) => {
                for item in wanted {
                    match held.iter_mut().find(|old| old[*key] == item[*key]) {
                        Some(old) => strategic(old, item),
                        None => held.push(item.clone()),
                    }
                }
            }
            (held, value, _) => strategic(held, value),
        }
    }
}
