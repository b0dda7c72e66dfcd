//! Writes as the API does them: what a writer may say, what the server keeps to itself, and when an object
//! that is being deleted is gone.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::kinds::Resource;
use crate::owners::Owners;
use crate::patch::Patch;
use crate::refusal::Refusal;
use crate::stamp::{is_name, now, suffix, uid};
use crate::store::{Entry, Key, NAMESPACES, State, Version};

/// Who writes, and to which part of the object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    /// `fieldManager`, or what stands before the `/` of the user agent.
    pub(crate) manager: &'a str,
    /// The write goes to `/status`.
    pub(crate) status: bool,
    /// `force=true` of an apply.
    pub(crate) force: bool,
}

/// What is left of an object after a write.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is there; new if the flag is set.
    Stored(Arc<Version>, bool),
    /// It is gone; its last state.
    Gone(Arc<Version>),
}

impl Outcome {
    pub(crate) fn version(&self) -> &Arc<Version> {
        match self {
            Self::Stored(version, _) | Self::Gone(version) => version,
        }
    }
}

/// `POST` to a collection.
pub(crate) fn create(
    state: &mut State,
    at: usize,
    namespace: Option<&str>,
    mut object: Value,
    writer: Writer<'_>,
) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    let namespace = checked(&resource, namespace, &mut object)?;
    let metadata = &mut object["metadata"];
    if metadata["resourceVersion"].as_str().is_some_and(|revision| !revision.is_empty()) {
        return Err(Refusal::of(400, "resourceVersion should not be set on objects to be created"));
    }
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some(prefix)) if !prefix.is_empty() => format!("{prefix}{}", suffix()),
        _ => {
            return Err(Refusal::invalid(&resource, "", "metadata.name", "name or generateName is required"));
        }
    };
    if !is_name(&name) {
        let why = format!("{name:?} must consist of lower case alphanumeric characters, '-' or '.'");
        return Err(Refusal::invalid(&resource, &name, "metadata.name", &why));
    }
    let key: Key = (namespace.into(), name.as_str().into());
    if resource.namespaced {
        let home = state.entry(NAMESPACES, &("".into(), key.0.clone()))?;
        if home.object["metadata"]["deletionTimestamp"].is_string() {
            let message =
                format!("unable to create new content in namespace {} because it is being terminated", key.0);
            return Err(Refusal::of(403, message));
        }
    }
    if state.collections[at].objects.contains_key(&key) {
        return Err(Refusal::already_exists(&resource, &name));
    }
    stamp(metadata, &key);
    metadata["creationTimestamp"] = now().into();
    metadata["uid"] = uid().into();
    if let Some(metadata) = metadata.as_object_mut() {
        for of_server in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
            metadata.remove(of_server);
        }
        if resource.custom || resource.graceful {
            metadata.insert("generation".to_owned(), 1.into());
        }
    }
    if resource.status {
        first_status(&resource, &mut object);
    }
    let owners = resource.managed.then(|| {
        let mut owners = Owners::default();
        owners.updated(writer.manager, &Value::Null, &object);
        owners
    });
    Ok(Outcome::Stored(state.put(at, key, object, owners), true))
}

/// `PUT` of an object.
pub(crate) fn replace(
    state: &mut State,
    at: usize,
    key: &Key,
    mut object: Value,
    writer: Writer<'_>,
) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    let namespace = Some(&*key.0).filter(|_| resource.namespaced);
    checked(&resource, namespace, &mut object)?;
    let entry = state.entry(at, key)?;
    let metadata = &object["metadata"];
    if (resource.custom || resource.managed) && metadata["resourceVersion"].as_str().is_none_or(str::is_empty)
    {
        let why = "Invalid value: 0: must be specified for an update";
        return Err(Refusal::invalid(&resource, &key.1, "metadata.resourceVersion", why));
    }
    if let (Some(meant), Some(held)) = (metadata["uid"].as_str(), entry.object["metadata"]["uid"].as_str())
        && meant != held
    {
        let why = format!("Precondition failed: UID in precondition: {meant}, UID in object meta: {held}");
        return Err(Refusal::conflict(&resource, &key.1, &why));
    }
    settle(state, at, key, object, writer)
}

/// `PATCH` of an object; an apply makes one that is not there.
pub(crate) fn patch(
    state: &mut State,
    at: usize,
    key: &Key,
    patch: &Patch,
    writer: Writer<'_>,
) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    let Patch::Apply(wanted) = patch else {
        let new = patch.applied_to(&state.entry(at, key)?.object)?;
        return settle(state, at, key, new, writer);
    };
    if writer.manager.is_empty() {
        return Err(Refusal::of(
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let Ok(Entry { object: old, owners, .. }) = state.entry(at, key) else {
        return apply_new(state, at, key, wanted, writer);
    };
    let mut owners = owners.clone().unwrap_or_default();
    let new = owners.apply(&resource, writer.manager, writer.force, old, wanted)?;
    let outcome = settle(state, at, key, new, writer)?;
    if let Some(entry) = state.collections[at].objects.get_mut(key) {
        entry.owners = Some(owners);
    }
    Ok(outcome)
}

fn apply_new(
    state: &mut State,
    at: usize,
    key: &Key,
    wanted: &Value,
    writer: Writer<'_>,
) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    if let Some(uid) = wanted["metadata"]["uid"].as_str() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Refusal::conflict(&resource, &key.1, &why));
    }
    let mut object = wanted.clone();
    object["metadata"]["name"] = (*key.1).into();
    let namespace = Some(&*key.0).filter(|_| resource.namespaced);
    let outcome = create(state, at, namespace, object, writer)?;
    let mut owners = Owners::default();
    owners.apply(&resource, writer.manager, false, &Value::Null, wanted)?;
    if let Some(entry) = state.collections[at].objects.get_mut(key) {
        entry.owners = Some(owners);
    }
    Ok(outcome)
}

/// The same for every write to an object that is there: what the server owns is put back, the rest is stored
/// if it differs, and an object that waited for this write to be gone is.
fn settle(
    state: &mut State,
    at: usize,
    key: &Key,
    mut new: Value,
    writer: Writer<'_>,
) -> Result<Outcome, Refusal> {
    let resource = state.resource(at);
    let Entry { object: old, version, owners } = state.entry(at, key)?;
    let namespace = Some(&*key.0).filter(|_| resource.namespaced);
    checked(&resource, namespace, &mut new)?;
    let metadata = &mut new["metadata"];
    if metadata["name"] != *key.1 {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            metadata["name"].as_str().unwrap_or_default(),
            key.1
        );
        return Err(Refusal::of(400, message));
    }
    if metadata["resourceVersion"]
        .as_str()
        .is_some_and(|meant| !meant.is_empty() && meant != version.revision.to_string())
    {
        return Err(Refusal::outdated(&resource, &key.1));
    }
    if let Some(uid) = metadata["uid"].as_str()
        && old["metadata"]["uid"] != uid
    {
        // Not 409: that is only what a PUT says.
        let why = format!("Invalid value: {uid:?}: field is immutable");
        return Err(Refusal::invalid(&resource, &key.1, "metadata.uid", &why));
    }
    for of_server in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "managedFields",
    ] {
        hand_back(metadata, &old["metadata"], of_server);
    }
    if writer.status {
        new = status_only(&resource, old, &new);
    } else if resource.status {
        hand_back(&mut new, old, "status");
    }
    if (resource.custom || resource.graceful) && is_other_generation(&resource, old, &new) {
        let generation = old["metadata"]["generation"].as_u64().unwrap_or_default();
        new["metadata"]["generation"] = (generation + 1).into();
    }
    if new == *old {
        return Ok(Outcome::Stored(version.clone(), false));
    }
    let mut owners = owners.clone();
    if let Some(owners) = &mut owners {
        owners.updated(writer.manager, old, &new);
    }
    let metadata = &new["metadata"];
    let is_over = metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() == 0
        && !has_finalizers(&new);
    let version = state.put(at, key.clone(), new, owners);
    Ok(match is_over.then(|| state.remove(at, key)).flatten() {
        Some(last) => Outcome::Gone(last),
        None => Outcome::Stored(version, false),
    })
}

/// Stores a whole object, status and all, whatever is there now. The namespace is made if need be.
pub(crate) fn put(state: &mut State, at: usize, mut object: Value) -> Result<Arc<Version>, Refusal> {
    let resource = state.resource(at);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let namespace =
        checked(&resource, Some(&namespace).filter(|_| resource.namespaced).map(|n| &**n), &mut object)?;
    let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
        return Err(Refusal::invalid(&resource, "", "metadata.name", "is required"));
    };
    let key: Key = (namespace.into(), name.into());
    if resource.namespaced {
        namespace_exists(state, &key.0);
    }
    let metadata = &mut object["metadata"];
    stamp(metadata, &key);
    let entry = state.collections[at].objects.get(&key);
    for of_server in ["uid", "creationTimestamp", "resourceVersion"] {
        if let Some(Entry { object: old, .. }) = entry
            && (metadata[of_server].is_null() || of_server == "resourceVersion")
        {
            hand_back(metadata, &old["metadata"], of_server);
        }
    }
    if metadata["uid"].is_null() {
        metadata["uid"] = uid().into();
    }
    if metadata["creationTimestamp"].is_null() {
        metadata["creationTimestamp"] = now().into();
    }
    if let Some(entry) = entry
        && entry.object == object
    {
        return Ok(entry.version.clone());
    }
    Ok(state.put(at, key, object, None))
}

/// Makes a namespace unless it is there.
pub(crate) fn namespace_exists(state: &mut State, name: &str) {
    let key: Key = ("".into(), name.into());
    if !state.collections[NAMESPACES].objects.contains_key(&key) {
        let labels = json!({ "kubernetes.io/metadata.name": name });
        let metadata = json!({ "name": name, "uid": uid(), "creationTimestamp": now(), "labels": labels });
        let (spec, status) = (json!({ "finalizers": ["kubernetes"] }), json!({ "phase": "Active" }));
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": spec, "status": status });
        state.put(NAMESPACES, key, object, None);
    }
}

/// What every write checks of what it was given; the namespace it goes to.
fn checked(resource: &Resource, namespace: Option<&str>, object: &mut Value) -> Result<String, Refusal> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Refusal::of(400, "the object is not a JSON object"));
    };
    for (field, wanted) in [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())] {
        let said = fields.entry(field).or_insert_with(|| wanted.clone().into());
        if *said != wanted {
            let message =
                format!("the {field} in the data ({said}) does not match the expected one ({wanted})");
            return Err(Refusal::of(400, message));
        }
    }
    let metadata = fields.entry("metadata").or_insert_with(|| Map::new().into());
    if !metadata.is_object() {
        return Err(Refusal::of(400, format!("metadata is {metadata}; expected an object")));
    }
    match (namespace, metadata["namespace"].as_str()) {
        (Some(namespace), Some(said)) if said != namespace => Err(Refusal::of(
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        (None, _) if resource.namespaced => {
            Err(Refusal::of(405, "the server does not allow this method on the requested resource"))
        }
        (Some(namespace), _) if resource.namespaced => Ok(namespace.to_owned()),
        _ => Ok(String::new()),
    }
}

fn stamp(metadata: &mut Value, key: &Key) {
    metadata["name"] = (*key.1).into();
    if !key.0.is_empty() {
        metadata["namespace"] = (*key.0).into();
    }
}

/// What a new object's status is, when its writer has no say in it.
fn first_status(resource: &Resource, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    if resource.graceful {
        fields.insert("status".to_owned(), json!({ "phase": "Pending", "qosClass": "BestEffort" }));
    } else if resource.plural == "namespaces" {
        fields.insert("status".to_owned(), json!({ "phase": "Active" }));
    }
}

/// What a write to `/status` leaves of what it says: of a custom object the status alone, of a built-in one
/// labels, annotations and finalizers too.
fn status_only(resource: &Resource, old: &Value, new: &Value) -> Value {
    let mut kept = old.clone();
    hand_back(&mut kept, new, "status");
    if !resource.custom {
        for field in ["labels", "annotations", "finalizers"] {
            hand_back(&mut kept["metadata"], &new["metadata"], field);
        }
    }
    kept
}

/// Makes a field of one object what it is in the other; absent, if it is.
fn hand_back(to: &mut Value, from: &Value, field: &str) {
    let Some(to) = to.as_object_mut() else { return };
    match from.get(field) {
        // Most often it is the same: to compare is cheaper than to copy.
        Some(value) if to.get(field) == Some(value) => {}
        Some(value) => drop(to.insert(field.to_owned(), value.clone())),
        None => drop(to.remove(field)),
    }
}

fn is_other_generation(resource: &Resource, old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
    let counts = |name: &String| name != "metadata" && !(resource.status && name == "status");
    let differs = |name: &String| counts(name) && old.get(name) != new.get(name);
    old.keys().chain(new.keys()).any(differs)
}

pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}
