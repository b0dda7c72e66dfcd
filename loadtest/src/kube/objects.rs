//! The servers of a cluster, by number: their objects as the managers leave them, as large as real ones, with
//! the parts that a router must step over.

use cluster::objects::{
    agones_ready, name_of, okg_annotated, okg_game_server, okg_pod, okg_ready, okg_running, okg_set,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fleet::Door;

/// What all servers of Agones are called, and all of OpenKruiseGame, before their number.
const FLEET: &str = "games-x7k2p";
const SET: &str = "games";
/// All of them are here; the port is the game's.
const ADDRESS: &str = "127.0.0.1";

/// Who makes the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manager {
    /// A `GameServer` of Agones each
    Agones,
    /// A pod and a `GameServer` of `OpenKruiseGame` each, and a `GameServerSet`
    Okg,
}

impl Manager {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Agones => "agones",
            Self::Okg => "okg",
        }
    }

    /// What is patched once a server is routed.
    pub(super) fn marked(self) -> &'static str {
        match self {
            Self::Agones => "gameservers.agones.dev",
            Self::Okg => "gameservers.game.kruise.io",
        }
    }

    /// Where players find a server.
    pub(super) fn door(self, number: usize) -> Door {
        let host = match self {
            Self::Agones => format!("{FLEET}-{number}.example.com"),
            Self::Okg => format!("{SET}-{number}.example.com"),
        };
        Door { host, path: "/".to_owned() }
    }

    /// The objects of these servers; of `OpenKruiseGame` the set comes first, and it is of as many servers as
    /// the last number says.
    pub(super) fn objects(self, numbers: std::ops::Range<u32>, port: u16) -> Vec<Value> {
        match self {
            Self::Agones => numbers.map(|number| agones(number, port)).collect(),
            Self::Okg => okg(numbers, port),
        }
    }
}

/// The name of an Agones server.
pub(super) fn agones_name(number: u32) -> String {
    format!("{FLEET}-{number}")
}

fn agones(number: u32, port: u16) -> Value {
    let annotations = [("tidegate.dev/host", "<name>.example.com"), ("agones.dev/sdk-version", "1.55.0")];
    let mut server = agones_ready(&agones_name(number), &annotations, ADDRESS, port);
    server["spec"]["template"] = template();
    server["spec"]["counters"] = json!({ "rooms": { "count": 0, "capacity": 40 } });
    server["status"]["counters"] = server["spec"]["counters"].clone();
    server["status"]["lists"] = json!({ "players": { "capacity": 64, "values": [] } });
    server["metadata"]["generation"] = 1.into();
    server["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "agones.dev/v1",
        "kind": "GameServerSet",
        "name": FLEET,
        "uid": "0c8e6a52-6d3e-4f77-9df0-6a1f6f0f3b11",
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    managed(&mut server, &["controller", "sdk-server"]);
    server
}

fn okg(numbers: std::ops::Range<u32>, port: u16) -> Vec<Value> {
    let port = port.to_string();
    let conf = [
        ("IngressClassName", "tidegate"),
        ("Port", port.as_str()),
        ("Path", "/"),
        ("PathType", "Prefix"),
        ("Host", "games-<id>.example.com"),
    ];
    let mut set = okg_set(SET, numbers.end, &conf);
    set["spec"]["gameServerTemplate"]["spec"] = template()["spec"].clone();
    let mut objects = vec![set.clone()];
    for number in numbers {
        let mut pod = okg_pod(&set, number);
        objects.push(okg_game_server(&pod));
        for step in [okg_annotated(), okg_running(&pod, ADDRESS), okg_ready(&pod)] {
            step.apply_to(&mut pod);
        }
        managed(&mut pod, &["kruise-manager", "kubelet"]);
        objects.push(pod);
    }
    objects
}

/// A pod's template with what games carry: probes, resources, environment, volumes.
fn template() -> Value {
    let variables = ["REGION", "MATCHMAKER_URL", "LOG_LEVEL", "MAX_PLAYERS", "TICK_RATE", "SEASON"];
    let env: Vec<_> = variables.iter().map(|name| json!({ "name": name, "value": "as-it-is-set" })).collect();
    let probe =
        json!({ "httpGet": { "path": "/healthz", "port": 8080, "scheme": "HTTP" }, "periodSeconds": 10 });
    json!({ "metadata": {}, "spec": {
        "containers": [{
            "name": "game",
            "image": "registry.example.com/arena:1.4.2",
            "env": env,
            "livenessProbe": probe,
            "readinessProbe": probe,
            "resources": { "requests": { "cpu": "250m", "memory": "256Mi" }, "limits": { "memory": "512Mi" } },
            "volumeMounts": [{ "name": "maps", "mountPath": "/maps", "readOnly": true }],
        }],
        "volumes": [{ "name": "maps", "configMap": { "name": "maps-season-12" } }],
        "schedulerName": cluster::objects::NO_SCHEDULER,
        "terminationGracePeriodSeconds": 30,
    } })
}

/// `managedFields` as the API server keeps them: most often half of an object.
fn managed(object: &mut Value, managers: &[&str]) {
    let entries: Vec<_> = managers
        .iter()
        .map(|manager| {
            json!({
                "manager": manager,
                "operation": "Update",
                "apiVersion": object["apiVersion"],
                "time": "2026-11-20T10:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": fields(&object["metadata"]),
                    "f:spec": fields(&object["spec"]),
                    "f:status": fields(&object["status"]),
                },
            })
        })
        .collect();
    debug_assert!(!name_of(object).is_empty());
    object["metadata"]["managedFields"] = entries.into();
}

/// A field set: a name a field, `{}` at the leaves and for lists.
fn fields(value: &Value) -> Value {
    let Some(object) = value.as_object() else { return json!({}) };
    object
        .iter()
        .map(|(name, value)| (format!("f:{name}"), fields(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
