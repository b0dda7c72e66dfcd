//! Objects as OpenKruiseGame and Agones leave them in a cluster, and the steps of their lives.
//!
//! They are what a watcher of the real controllers sees, in our own words: as much of it as a router reads,
//! and some of what it must step over. A Pod of these is never run: its scheduler does not exist.

mod agones;
mod okg;

use serde_json::{Map, Value, json};

pub use agones::{
    AgonesPort, agones_allocated, agones_fleet, agones_game_server, agones_ready, agones_scheduled,
    agones_state,
};
pub use okg::{
    okg_annotated, okg_container, okg_crashed, okg_game_server, okg_life, okg_network_disabled,
    okg_network_ready, okg_ops_state, okg_pod, okg_pre_delete, okg_ready, okg_running, okg_set, okg_state,
    okg_update_done, okg_update_prepared, okg_update_started,
};

/// No Pod of a test is ever given to a node by a scheduler.
pub const NO_SCHEDULER: &str = "tidegate-tests-never-run";

/// One step of a life: merge patches, `Null` where there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// To the object, all but the status of kinds with a status subresource.
    pub object: Value,
    /// To `/status`: `{"status": …}`.
    pub status: Value,
}

impl Step {
    pub(crate) fn object(object: Value) -> Self {
        Self { object, status: Value::Null }
    }

    pub(crate) fn status(status: &Value) -> Self {
        Self { object: Value::Null, status: json!({ "status": status }) }
    }

    /// Both at once, on an object at hand.
    pub fn apply_to(&self, object: &mut Value) {
        for patch in [&self.object, &self.status] {
            if !patch.is_null() {
                json_patch::merge(object, patch);
            }
        }
    }
}

/// The name of an object.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn texts(pairs: &[(&str, &str)]) -> Value {
    let texts: Map<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    Value::Object(texts)
}
