//! What `game.kruise.io/network-status` should say of a pod of our own network type. OpenKruiseGame copies it
//! to the GameServer, where matchmakers read it.
//!
//! Something is written at once, or OpenKruiseGame patches the pod for ever. `Ready` waits for Envoys to have
//! taken the routes. Addresses are never taken back: an empty list is a status it would write again and again.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kinds::Network;
use crate::kinds::pod::list;
use crate::model::Server;

/// Where players reach Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Its address, when one is known; matchmakers of the Open Match kind hand out this and the port.
    pub ip: Option<IpAddr>,
    /// Its port for players, such as 443.
    pub port: u16,
}

/// `game.kruise.io/network-status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    internal_addresses: Vec<Address>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    external_addresses: Vec<Address>,
    current_network_state: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Address {
    /// The CRD wants it there, be it empty.
    ip: String,
    #[serde(deserialize_with = "list")]
    ports: Vec<NetworkPort>,
    #[serde(rename = "endPoint", skip_serializing_if = "Option::is_none")]
    end_point: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct NetworkPort {
    name: String,
    protocol: String,
    port: u16,
}

impl NetworkPort {
    fn tcp(name: &str, port: u16) -> Self {
        Self { name: name.to_owned(), protocol: "TCP".into(), port }
    }
}

/// The annotation's value. `acked`: every Envoy has taken the servers' routes.
///
/// What is `Ready` stays so while its addresses are the same: an Envoy that has just come is no loss of the
/// others, and a matchmaker would pass over the server for nothing.
pub fn wanted_status(network: &Network, servers: &[Arc<Server>], acked: bool, front: &Front) -> String {
    // What stands there and can't be read is written anew.
    let old: Status =
        network.status.as_deref().and_then(|status| serde_json::from_str(status).ok()).unwrap_or_default();
    let internal = internal(network, servers);
    let external = external(servers, front);
    let is_whole = !internal.is_empty() && !external.is_empty();
    let was_ready = old.current_network_state.as_deref() == Some("Ready")
        && old.internal_addresses == internal
        && old.external_addresses == external;
    let state = match (network.disabled, is_whole, acked || was_ready) {
        (true, _, _) => "NotReady",
        (false, true, true) => "Ready",
        (false, _, _) => "Waiting",
    };
    let or_old = |new: Vec<Address>, old| if new.is_empty() { old } else { new };
    let status = Status {
        internal_addresses: or_old(internal, old.internal_addresses),
        external_addresses: or_old(external, old.external_addresses),
        current_network_state: Some(state.to_owned()),
    };
    serde_json::to_string(&status).unwrap_or_default()
}

/// The pod's own address, with the ports of its servers.
fn internal(network: &Network, servers: &[Arc<Server>]) -> Vec<Address> {
    let ports = servers.iter().filter_map(|server| Some(server.desired.endpoint?.port()));
    let ports: Vec<_> = ports.map(|port| NetworkPort::tcp(&port.to_string(), port)).collect();
    match network.ip {
        Some(ip) if !ports.is_empty() => vec![Address { ip: ip.to_string(), ports, end_point: None }],
        _ => Vec::new(),
    }
}

/// One a host, with its paths as the names of its ports: OpenKruiseGame's Ingress plugin has it so.
fn external(servers: &[Arc<Server>], front: &Front) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for route in servers.iter().flat_map(|server| &server.desired.routes) {
        // A wildcard is nothing that players could type.
        let host = Some(route.host.as_str()).filter(|host| !host.starts_with('*')).map(str::to_owned);
        let port = NetworkPort::tcp(route.path.as_str(), front.port);
        match addresses.iter_mut().find(|address| address.end_point == host) {
            Some(address) => address.ports.push(port),
            None => addresses.push(Address {
                ip: front.ip.map(|ip| ip.to_string()).unwrap_or_default(),
                ports: vec![port],
                end_point: host,
            }),
        }
    }
    addresses
}
