//! OpenKruiseGame: a `GameServerSet`, the Pods its workload makes, the `GameServer` beside each Pod.

use serde_json::{Value, json};

use super::{NO_SCHEDULER, Step, name_of};
use crate::stamp::now;

/// A `GameServerSet` with the network plugin `Kubernetes-Ingress` and this `networkConf`, order kept; without
/// a network if it is empty.
pub fn okg_set(name: &str, replicas: u32, conf: &[(&str, &str)]) -> Value {
    let entries: Vec<Value> =
        conf.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let container = json!({ "name": "game", "image": "registry.example.com/arena:1.4.2" });
    let mut set = json!({
        "apiVersion": "game.kruise.io/v1alpha1",
        "kind": "GameServerSet",
        "metadata": { "name": name, "annotations": {} },
        "spec": {
            "replicas": replicas,
            "gameServerTemplate": { "spec": { "containers": [container] } },
            "scaleStrategy": { "scaleDownStrategyType": "General" },
            "updateStrategy": { "rollingUpdate": { "podUpdatePolicy": "InPlaceIfPossible" } },
        },
    });
    if !entries.is_empty() {
        set["spec"]["network"] = json!({ "networkType": "Kubernetes-Ingress", "networkConf": entries });
    }
    set
}

/// The Pod of a set as the workload makes it: no state, no address, no node.
pub fn okg_pod(set: &Value, ordinal: u32) -> Value {
    let set_name = name_of(set);
    let name = format!("{set_name}-{ordinal}");
    let mut annotations = json!({ "lifecycle.apps.kruise.io/timestamp": now() });
    let network = &set["spec"]["network"];
    if !network.is_null() {
        annotations["game.kruise.io/network-type"] = network["networkType"].clone();
        // Go writes `<` and `>` in JSON as escapes, so a literal `<id>` is never on a Pod.
        let conf = network["networkConf"].to_string().replace('<', "\\u003c").replace('>', "\\u003e");
        annotations["game.kruise.io/network-conf"] = conf.into();
    }
    let template = &set["spec"]["gameServerTemplate"];
    if let Some(of_template) = template["metadata"]["annotations"].as_object() {
        for (key, value) in of_template {
            annotations[key] = value.clone();
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": format!("{set_name}-"),
            "labels": {
                "game.kruise.io/owner-gss": set_name,
                "lifecycle.apps.kruise.io/state": "Normal",
                "statefulset.kubernetes.io/pod-name": name,
                "apps.kubernetes.io/pod-index": ordinal.to_string(),
                "controller-revision-hash": format!("{set_name}-7c9f6d8b54"),
            },
            "annotations": annotations,
            // No owner: the garbage collector of a real cluster takes what belongs to none that exists.
        },
        "spec": {
            "containers": template["spec"]["containers"],
            "readinessGates": [{ "conditionType": "InPlaceUpdateReady" }],
            "restartPolicy": "Always",
            "schedulerName": NO_SCHEDULER,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 30,
        },
        "status": { "phase": "Pending", "qosClass": "BestEffort" },
    })
}

/// The `GameServer` beside a Pod, as it is made: its defaults, no status.
pub fn okg_game_server(pod: &Value) -> Value {
    let set = pod["metadata"]["labels"]["game.kruise.io/owner-gss"].clone();
    json!({
        "apiVersion": "game.kruise.io/v1alpha1",
        "kind": "GameServer",
        "metadata": {
            "name": name_of(pod),
            "labels": { "game.kruise.io/owner-gss": set },
            "annotations": { "game.kruise.io/gsTemplate-metadata-hash": "6b9c4d7f5" },
        },
        "spec": { "opsState": "None", "updatePriority": 0, "deletionPriority": 0, "networkDisabled": false },
    })
}

fn labels(labels: &Value) -> Step {
    Step::object(json!({ "metadata": { "labels": labels } }))
}

/// The `GameServer` controller has seen the Pod: state labels, and a network that is not ready.
pub fn okg_annotated() -> Step {
    let now = now();
    Step::object(json!({ "metadata": {
        "labels": {
            "game.kruise.io/gs-state": "Creating",
            "game.kruise.io/gs-opsState": "None",
            "game.kruise.io/gs-update-priority": "0",
            "game.kruise.io/gs-delete-priority": "0",
            "game.kruise.io/network-disabled": "false",
        },
        "annotations": {
            "game.kruise.io/opsState-last-changed-time": now,
            "game.kruise.io/network-trigger-time": now,
            "game.kruise.io/network-status":
                r#"{"currentNetworkState":"NotReady","createTime":null,"lastTransitionTime":null}"#,
        },
    } }))
}

/// The Pod runs and has an address; its container is not ready yet.
pub fn okg_running(pod: &Value, ip: &str) -> Step {
    Step::status(&json!({
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{ "ip": ip }],
        "startTime": now(),
        "conditions": conditions(&[("ContainersReady", false), ("Ready", false)]),
        "containerStatuses": containers(pod, None, false, 0),
    }))
}

/// Container and gates are ready; the state label follows.
pub fn okg_ready(pod: &Value) -> Step {
    let status = Step::status(&json!({
        "conditions": conditions(&[("InPlaceUpdateReady", true), ("ContainersReady", true), ("Ready", true)]),
        "containerStatuses": containers(pod, None, true, 0),
    }));
    Step { status: status.status, ..okg_state("Ready") }
}

/// The first container's readiness; the address stays.
pub fn okg_container(pod: &Value, ready: bool, restarts: u32) -> Step {
    Step::status(&json!({
        "conditions": conditions(&[("InPlaceUpdateReady", true), ("ContainersReady", ready), ("Ready", ready)]),
        "containerStatuses": containers(pod, None, ready, restarts),
    }))
}

/// The plugin found Service and Ingress.
pub fn okg_network_ready(ip: &str, host: &str, path: &str, port: u16) -> Step {
    let ports = json!([{ "name": path, "port": port }]);
    let status = json!({
        "internalAddresses": [{ "ip": ip, "ports": ports }],
        "externalAddresses": [{ "ip": "", "ports": ports, "endPoint": host }],
        "currentNetworkState": "Ready",
        "createTime": null,
        "lastTransitionTime": null,
    });
    let annotations = json!({ "game.kruise.io/network-status": status.to_string() });
    Step::object(json!({ "metadata": { "annotations": annotations } }))
}

/// The state label: `Creating`, `Ready`, `NotReady`, `PreUpdate`, `Updating`, `PreDelete`, `Deleting`, `Crash`.
pub fn okg_state(state: &str) -> Step {
    labels(&json!({ "game.kruise.io/gs-state": state }))
}

/// `opsState` as the Pod's label shows it, a hop after the `GameServer`'s spec.
pub fn okg_ops_state(state: &str) -> Step {
    Step::object(json!({ "metadata": {
        "labels": { "game.kruise.io/gs-opsState": state },
        "annotations": { "game.kruise.io/opsState-last-changed-time": now() },
    } }))
}

/// `networkDisabled` as the Pod's label shows it.
pub fn okg_network_disabled(disabled: bool) -> Step {
    labels(&json!({ "game.kruise.io/network-disabled": disabled.to_string() }))
}

/// An in-place update waits for its hook: players may leave.
pub fn okg_update_prepared() -> Step {
    labels(&json!({
        "lifecycle.apps.kruise.io/state": "PreparingUpdate",
        "game.kruise.io/gs-state": "PreUpdate",
    }))
}

/// An in-place update to this image: not ready, though name, uid and address stay.
pub fn okg_update_started(pod: &Value, image: &str) -> Step {
    let revision = format!(
        "{}-5d4c8b9f67",
        pod["metadata"]["labels"]["game.kruise.io/owner-gss"].as_str().unwrap_or_default()
    );
    let mut list = pod["spec"]["containers"].clone();
    list[0]["image"] = image.into();
    let object = json!({
        "metadata": {
            "labels": {
                "controller-revision-hash": revision,
                "lifecycle.apps.kruise.io/state": "Updating",
                "game.kruise.io/gs-state": "Updating",
            },
            "annotations": {
                "apps.kruise.io/inplace-update-state":
                    json!({ "revision": revision, "updateTimestamp": now(), "updateImages": true }).to_string(),
            },
        },
        "spec": { "containers": list },
    });
    let mut gates = conditions(&[("InPlaceUpdateReady", false), ("ContainersReady", true), ("Ready", false)]);
    for gate in gates.as_array_mut().into_iter().flatten().filter(|gate| gate["type"] == "InPlaceUpdateReady")
    {
        gate["reason"] = "StartInPlaceUpdate".into();
    }
    Step { object, status: json!({ "status": { "conditions": gates } }) }
}

/// The in-place update is over.
pub fn okg_update_done(pod: &Value, image: &str) -> Step {
    let object = json!({ "metadata": { "labels": {
        "lifecycle.apps.kruise.io/state": "Normal",
        "game.kruise.io/gs-state": "Ready",
    } } });
    let status = json!({ "status": {
        "conditions": conditions(&[("InPlaceUpdateReady", true), ("ContainersReady", true), ("Ready", true)]),
        "containerStatuses": containers(pod, Some(image), true, 1),
    } });
    Step { object, status }
}

/// A scale-down waits for its hook: the game saves what it has.
pub fn okg_pre_delete() -> Step {
    labels(&json!({
        "lifecycle.apps.kruise.io/state": "PreparingDelete",
        "game.kruise.io/gs-state": "PreDelete",
    }))
}

/// All containers have ended with an error.
pub fn okg_crashed() -> Step {
    let status = Step::status(&json!({
        "phase": "Failed",
        "conditions": conditions(&[("ContainersReady", false), ("Ready", false)]),
    }));
    Step { status: status.status, ..okg_state("Crash") }
}

/// The steps from a bare Pod to one that plays, in the order a watcher sees them; a node comes after the first.
pub fn okg_life(pod: &Value, ip: &str) -> [Step; 3] {
    [okg_annotated(), okg_running(pod, ip), okg_ready(pod)]
}

fn conditions(changed: &[(&str, bool)]) -> Value {
    let now = now();
    let fixed = [("PodScheduled", true), ("Initialized", true)];
    let all = fixed.iter().chain(changed).map(|(kind, holds)| {
        let status = if *holds { "True" } else { "False" };
        json!({ "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": now })
    });
    all.collect()
}

fn containers(pod: &Value, image: Option<&str>, ready: bool, restarts: u32) -> Value {
    let of_spec = pod["spec"]["containers"].as_array();
    let all = of_spec.into_iter().flatten().enumerate().map(|(place, container)| {
        let image = image.filter(|_| place == 0).map_or_else(|| container["image"].clone(), Value::from);
        json!({
            "name": container["name"],
            "image": image,
            "imageID": "",
            "ready": ready,
            "started": true,
            "restartCount": restarts,
            "state": { "running": { "startedAt": now() } },
        })
    });
    all.collect()
}
