//! Who wrote which field: what server-side apply decides conflicts by.
//!
//! It is the rule of `metadata.managedFields` without its form: fields are JSON pointers, a list is one
//! field, and nothing is shown on the object. Kinds with `Resource::managed` are tracked from their creation,
//! others from their first apply on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::kinds::Resource;
use crate::refusal::Refusal;

/// A writer: its name, and whether it applied. `a` that applied and `a` that updated are two writers.
type Manager = (String, bool);

/// The fields of each writer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Owners(BTreeMap<Manager, BTreeSet<String>>);

impl Owners {
    /// A plain write: what changed is the writer's now, and nobody owns what went.
    pub(crate) fn updated(&mut self, manager: &str, old: &Value, new: &Value) {
        let (before, after) = (fields(old), fields(new));
        let changed: BTreeSet<_> = after
            .iter()
            .filter(|(path, value)| before.get(*path) != Some(value))
            .map(|(path, _)| path)
            .collect();
        for owned in self.0.values_mut() {
            owned.retain(|path| after.contains_key(path) && !changed.contains(path));
        }
        let mine = self.0.entry((manager.to_owned(), false)).or_default();
        mine.extend(changed.into_iter().cloned());
        self.0.retain(|_, owned| !owned.is_empty());
    }

    /// An apply: the object afterwards; a conflict names those who own what it would change.
    pub(crate) fn apply(
        &mut self,
        resource: &Resource,
        manager: &str,
        force: bool,
        old: &Value,
        wanted: &Value,
    ) -> Result<Value, Refusal> {
        let me = (manager.to_owned(), true);
        let (held, applied) = (fields(old), fields(wanted));
        let differs = |path: &String| held.get(path).is_some_and(|value| Some(value) != applied.get(path));
        let mut conflicts = Vec::new();
        for ((name, _), owned) in self.0.iter().filter(|(other, _)| **other != me) {
            let lost = owned.iter().filter(|path| applied.contains_key(*path) && differs(path));
            conflicts.extend(lost.map(|path| (name.clone(), path.clone())));
        }
        if !conflicts.is_empty() && !force {
            return Err(conflicting(resource, &conflicts));
        }
        let mut new = old.clone();
        json_patch::merge(&mut new, wanted);
        // What this writer applied before and no longer does goes, unless somebody else owns it too.
        let before = self.0.remove(&me).unwrap_or_default();
        for path in before.difference(&applied.keys().cloned().collect()) {
            if !self.0.values().any(|owned| owned.contains(path)) {
                cut(&mut new, path);
            }
        }
        for owned in self.0.values_mut() {
            owned.retain(|path| !(applied.contains_key(path) && differs(path)));
        }
        self.0.retain(|_, owned| !owned.is_empty());
        self.0.insert(me, applied.into_keys().collect());
        Ok(new)
    }
}

fn conflicting(resource: &Resource, conflicts: &[(String, String)]) -> Refusal {
    let api = resource.api_version();
    let texts = conflicts.iter().map(|(name, path)| {
        let path = path.replace('/', ".");
        (format!("conflict with {name:?} using {api}: {path}"), path)
    });
    let (mut messages, mut causes) = (Vec::new(), Vec::new());
    for (message, field) in texts {
        causes.push(json!({ "reason": "FieldManagerConflict", "message": message, "field": field }));
        messages.push(message);
    }
    let count = messages.len();
    let plural = if count == 1 { "" } else { "s" };
    let message = format!("Apply failed with {count} conflict{plural}: {}", messages.join("\n"));
    Refusal { details: json!({ "causes": causes }), ..Refusal::of(409, message) }
}

/// The fields of an object that have owners, by JSON pointer.
fn fields(object: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let user = ["labels", "annotations", "finalizers", "ownerReferences"];
                for name in user.iter().filter(|name| !value[**name].is_null()) {
                    leaves(format!("/metadata/{name}"), &value[*name], &mut found);
                }
            }
            _ => leaves(format!("/{name}"), value, &mut found),
        }
    }
    found
}

fn leaves<'a>(path: String, value: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
    match value {
        Value::Object(inside) if !inside.is_empty() => {
            for (name, value) in inside {
                leaves(format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), value, found);
            }
        }
        Value::Null => {}
        _ => {
            found.insert(path, value);
        }
    }
}

fn cut(object: &mut Value, pointer: &str) {
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && let Some(Value::Object(parent)) = object.pointer_mut(parent)
    {
        parent.remove(&name.replace("~1", "/").replace("~0", "~"));
    }
}
