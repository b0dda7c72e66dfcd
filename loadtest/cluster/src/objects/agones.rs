//! Agones: a `Fleet`, and a `GameServer` through its states. There is no status subresource.

use serde_json::{Value, json};

use super::{NO_SCHEDULER, Step, texts};

/// A port of a game server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgonesPort<'a> {
    /// Its name.
    pub name: &'a str,
    /// `Dynamic`, `Static`, `Passthrough` or `None`.
    pub policy: &'a str,
    /// What the container listens on.
    pub container: u16,
    /// What the node listens on; 0 while none is given.
    pub host: u16,
}

impl Default for AgonesPort<'_> {
    fn default() -> Self {
        Self { name: "default", policy: "Dynamic", container: 7654, host: 0 }
    }
}

/// A `GameServer` as it is made, in `PortAllocation`, with one TCP port: lists that nobody has filled are null.
pub fn agones_game_server(name: &str, annotations: &[(&str, &str)]) -> Value {
    json!({
        "apiVersion": "agones.dev/v1",
        "kind": "GameServer",
        "metadata": {
            "name": name,
            "annotations": texts(annotations),
            "labels": { "agones.dev/fleet": fleet_of(name) },
        },
        "spec": spec(),
        "status": {
            "state": "PortAllocation",
            "ports": null,
            "address": "",
            "addresses": null,
            "nodeName": "",
            "reservedUntil": null,
            "players": null,
            "eviction": { "safe": "Never" },
        },
    })
}

/// A `Fleet` whose servers carry these annotations.
pub fn agones_fleet(name: &str, replicas: u32, annotations: &[(&str, &str)]) -> Value {
    json!({
        "apiVersion": "agones.dev/v1",
        "kind": "Fleet",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "scheduling": "Packed",
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "template": { "metadata": { "annotations": texts(annotations) }, "spec": spec() },
        },
    })
}

fn spec() -> Value {
    let container = json!({ "name": "game", "image": "registry.example.com/arena:1.4.2" });
    json!({
        "container": "game",
        "ports": ports(&[AgonesPort::default()]),
        "health": { "periodSeconds": 5, "failureThreshold": 3, "initialDelaySeconds": 5 },
        "scheduling": "Packed",
        "sdkServer": { "logLevel": "Info", "grpcPort": 9357, "httpPort": 9358 },
        "template": { "spec": { "containers": [container], "schedulerName": NO_SCHEDULER } },
    })
}

fn ports(ports: &[AgonesPort<'_>]) -> Value {
    let each = ports.iter().map(|port| {
        let mut written = json!({
            "name": port.name,
            "portPolicy": port.policy,
            "containerPort": port.container,
            "protocol": "TCP",
            "range": "default",
            "container": "game",
        });
        if port.host > 0 {
            written["hostPort"] = port.host.into();
        }
        written
    });
    each.collect()
}

/// The name of the fleet that a server is of, as its name says: `arena` of `arena-x7k2p-9q4wd`.
fn fleet_of(name: &str) -> &str {
    let mut parts = name.rsplitn(3, '-');
    let (_, _, fleet) = (parts.next(), parts.next(), parts.next());
    fleet.unwrap_or(name)
}

/// Only the state moves: `Creating`, `Starting`, `RequestReady`, `Ready`, `Reserved`, `Shutdown`, `Unhealthy`, `Error`.
pub fn agones_state(state: &str) -> Step {
    Step::object(json!({ "status": { "state": state } }))
}

/// `Scheduled`: node, addresses and ports are known. `node` is the node's address, `pod_ip` the Pod's; leave
/// that empty for an Agones older than 1.40, which does not show it.
pub fn agones_scheduled(given: &[AgonesPort<'_>], node: &str, pod_ip: &str) -> Step {
    let mut addresses = vec![
        json!({ "type": "InternalIP", "address": node }),
        json!({ "type": "Hostname", "address": "node-1" }),
    ];
    if !pod_ip.is_empty() {
        addresses.push(json!({ "type": "PodIP", "address": pod_ip }));
    }
    let shown = given.iter().map(|port| {
        let number = if port.policy == "None" { port.container } else { port.host };
        json!({ "name": port.name, "port": number })
    });
    Step::object(json!({
        "metadata": { "finalizers": ["agones.dev/controller"] },
        "spec": { "ports": ports(given) },
        "status": {
            "state": "Scheduled",
            "ports": shown.collect::<Vec<_>>(),
            "address": node,
            "addresses": addresses,
            "nodeName": "node-1",
        },
    }))
}

/// `Allocated`, with what the allocator writes beside it.
pub fn agones_allocated(labels: &[(&str, &str)]) -> Step {
    Step::object(json!({
        "metadata": {
            "annotations": { "agones.dev/last-allocated": crate::stamp::now() },
            "labels": texts(labels),
        },
        "status": { "state": "Allocated" },
    }))
}

/// A `GameServer` that is `Ready` at this Pod address and container port.
pub fn agones_ready(name: &str, annotations: &[(&str, &str)], pod_ip: &str, port: u16) -> Value {
    let mut server = agones_game_server(name, annotations);
    let ports = [AgonesPort { container: port, host: 7000 + port % 1000, ..AgonesPort::default() }];
    for step in [agones_scheduled(&ports, "192.0.2.10", pod_ip), agones_state("Ready")] {
        step.apply_to(&mut server);
    }
    server
}
