//! Deletion: at once, in two steps for Pods, and held by finalizers.

use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::stamp;
use crate::store::{Key, NAMESPACES, State};
use crate::write::{Outcome, has_finalizers};

/// `DeleteOptions`, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// `gracePeriodSeconds`.
    pub(crate) grace: Option<i64>,
    /// `preconditions.uid`.
    pub(crate) uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub(crate) revision: Option<String>,
}

impl Options {
    /// Reads a body, and the query's `gracePeriodSeconds`.
    pub(crate) fn parse(body: &[u8], grace: Option<&str>) -> Result<Self, Refusal> {
        let body: Value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(body)
                .map_err(|error| Refusal::of(400, format!("DeleteOptions: {error}")))?
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let preconditions = &body["preconditions"];
        let grace = match grace {
            Some(text) => Some(
                text.parse()
                    .map_err(|_| Refusal::of(400, format!("gracePeriodSeconds: {text:?} is no number")))?,
            ),
            None => body["gracePeriodSeconds"].as_i64(),
        };
        Ok(Self {
            grace,
            uid: text(&preconditions["uid"]),
            revision: text(&preconditions["resourceVersion"]),
        })
    }
}

/// `DELETE` of an object.
pub(crate) fn delete(state: &mut State, at: usize, key: &Key, options: &Options) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    let entry = state.entry(at, key)?;
    let metadata = &entry.object["metadata"];
    for (field, meant) in [("UID", &options.uid), ("ResourceVersion", &options.revision)] {
        let held = metadata[if field == "UID" { "uid" } else { "resourceVersion" }].as_str();
        if let Some(meant) = meant
            && held != Some(meant)
        {
            let held = held.unwrap_or_default();
            let why = format!(
                "Precondition failed: {field} in precondition: {meant}, {field} in object meta: {held}"
            );
            return Err(Refusal::conflict(&resource, &key.1, &why));
        }
    }
    let grace = if resource.graceful { pod_grace(&entry.object, options.grace) } else { 0 };
    if grace == 0 && !has_finalizers(&entry.object) {
        if at == NAMESPACES {
            empty(state, &key.1);
        }
        let last = state.remove(at, key).ok_or_else(|| Refusal::not_found(&resource, &key.1))?;
        return Ok(Outcome::Gone(last));
    }
    // Deleted before: only a shorter grace changes anything.
    let is_deleted = metadata["deletionTimestamp"].is_string();
    if is_deleted && metadata["deletionGracePeriodSeconds"].as_i64().is_some_and(|held| grace >= held) {
        return Ok(Outcome::Stored(entry.version.clone(), false));
    }
    let (mut object, owners) = (entry.object.clone(), entry.owners.clone());
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = stamp::at(grace).into();
    metadata["deletionGracePeriodSeconds"] = grace.into();
    if let Some(generation) = metadata["generation"].as_u64() {
        metadata["generation"] = (generation + 1).into();
    }
    Ok(Outcome::Stored(state.put(at, key.clone(), object, owners), false))
}

/// Deletes all at once what is left of an object, whatever holds it: what a kubelet and controllers do in the end.
pub(crate) fn finish(state: &mut State, at: usize, key: &Key) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    state.entry(at, key)?;
    if at == NAMESPACES {
        empty(state, &key.1);
    }
    let last = state.remove(at, key).ok_or_else(|| Refusal::not_found(&resource, &key.1))?;
    Ok(Outcome::Gone(last))
}

/// A Pod that no node has, or that has ended, needs no grace.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let runs = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    if !runs || ended {
        return 0;
    }
    asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

/// A namespace takes with it what is in it. The real server takes a while for that and asks finalizers.
fn empty(state: &mut State, namespace: &str) {
    for at in 0..state.collections.len() {
        let objects = &state.collections[at].objects;
        let inside: Vec<Key> = objects.keys().filter(|key| *key.0 == *namespace).cloned().collect();
        for key in inside {
            state.remove(at, &key);
        }
    }
}

/// The answer when an object is gone: Pods and namespaces show their last state, others a `Status`.
pub(crate) fn success(state: &State, at: usize, key: &Key, uid: &Value) -> Value {
    let resource = state.resource(at);
    let details = json!({ "name": *key.1, "group": resource.group, "kind": resource.plural, "uid": uid });
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
