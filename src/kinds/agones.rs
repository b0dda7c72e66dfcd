//! Agones: a `GameServer` with our annotations or Octops'.
//!
//! A route is asked for by Octops' mode annotation or by any annotation of ours. Octops' words are put
//! into ours (`octops`), so that there is one grammar; where the server is reached stands in `place`,
//! and what its state means to players in `life`. All of it depends on the object alone, never on its
//! past: the loop from Allocated by `RequestReady` to Ready comes to equal servers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::pod::{Pod, or_default};
use super::{Meta, PublishAt, Rules};
use crate::model::{Problem, ProblemKind, Server, ServerId, Source};
use crate::spec::{self, Facts, Layer, State, WRITTEN};

mod custom;
mod fleet;
mod life;
mod octops;
mod place;
mod template;

pub use fleet::{Fleet, FleetSpec, Template, sample};

/// `agones.dev/v1` `GameServer`. Counters, lists, players and the pod's template are not read: versions
/// that differ there alone are equal, and the SDK may write one a second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GameServer {
    /// `metadata`
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    /// `spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
    /// `status`
    #[serde(deserialize_with = "or_default")]
    pub status: Status,
}

/// `spec` of a GameServer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// `spec.ports`, in the order of `status.ports`.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<Port>,
}

/// A port of `spec.ports`. Its protocol is not read: the default is UDP, and Octops routes HTTP to it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// `name`
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    /// `containerPort`; 0 when it is not said.
    #[serde(deserialize_with = "or_default")]
    pub container_port: i64,
    /// `portPolicy`: Dynamic (also when it is empty), Static, Passthrough or None.
    #[serde(deserialize_with = "or_default")]
    pub port_policy: Box<str>,
}

/// `status` of a GameServer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `status.state`
    #[serde(deserialize_with = "or_default")]
    pub state: Box<str>,
    /// `status.ports`: where the ports are reached at the node.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<StatusPort>,
    /// `status.address`: an IP address or a DNS name of the node.
    #[serde(deserialize_with = "or_default")]
    pub address: Box<str>,
    /// `status.addresses`: the node's, and since Agones 1.40 those of the pod.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<Address>,
}

impl Status {
    /// True once the controller has told the addresses, which it does when the pod is scheduled.
    fn is_told(&self) -> bool {
        !(self.address.is_empty() && self.addresses.is_empty())
    }
}

/// A port of `status.ports`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatusPort {
    /// `name`
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    /// `port`
    #[serde(deserialize_with = "or_default")]
    pub port: i64,
}

/// An address of `status.addresses`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `type`: a node's address type, or `PodIP`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: Box<str>,
    /// `address`
    #[serde(deserialize_with = "or_default")]
    pub address: Box<str>,
}

/// Where the parts of a GameServer stand, for problems to name them.
#[derive(Clone, Copy)]
struct At {
    annotations: &'static str,
    ports: &'static str,
}

const GAME_SERVER: At = At { annotations: "metadata.annotations", ports: "spec.ports" };

impl At {
    fn annotation(self, key: &str) -> String {
        format!("{}[\"{key}\"]", self.annotations)
    }
}

/// The servers of a GameServer: one, or none when nobody asked for a route, when its class is another
/// controller's, or before it is scheduled.
///
/// `pod` is the pod of its name: asked for its address where Agones does not tell it (before 1.40).
pub fn servers(server: &GameServer, pod: Option<&Pod>, rules: &Rules, source: Source) -> Vec<Server> {
    let own = |pod: &&Pod| pod.metadata.label("agones.dev/gameserver") == Some(&*server.metadata.name);
    let ip = pod.filter(own).and_then(Pod::ip);
    read(server, ip, rules, source, GAME_SERVER).into_iter().collect()
}

/// True when it runs and does not say its pod's address, as before Agones 1.40, though that is wanted.
pub fn wants_pod(server: &GameServer, rules: &Rules) -> bool {
    is_ours(&server.metadata, rules) && life::of(server, rules).is_some() && place::wants_pod(server, rules)
}

/// The fleet that a GameServer is of.
pub fn fleet_of(server: &GameServer) -> Option<&str> {
    server.metadata.label(FLEET)
}

/// Why a GameServer makes no server.
pub fn unrouted(server: &GameServer, rules: &Rules) -> String {
    unasked(&server.metadata, rules).unwrap_or_else(|| {
        let from = match rules.publish_at {
            PublishAt::Scheduled => "Scheduled",
            PublishAt::Ready => "Ready",
        };
        format!("its status.state is {:?}; it is routed from {from} on", short(&server.status.state))
    })
}

/// Why a Fleet's GameServers would make no server.
pub fn unrouted_fleet(fleet: &Fleet, rules: &Rules) -> String {
    unasked(&fleet.spec.template.metadata, rules).unwrap_or_else(|| "it has no GameServer".to_owned())
}

fn unasked(meta: &Meta, rules: &Rules) -> Option<String> {
    if !is_asked(meta) {
        return Some("nothing asks for it: no octops.io/ mode and no tidegate.dev/ annotation".to_owned());
    }
    let class = octops::class(meta).filter(|class| !rules.claims(Some(class)))?;
    Some(super::unclaimed(Some(class)))
}

/// Whether Octops' ready annotation is true; `None` without Octops' annotations.
pub fn ready(server: &GameServer) -> Option<bool> {
    let meta = &server.metadata;
    octops::is_asked(meta).then(|| meta.annotation(octops::READY).and_then(octops::truth) == Some(true))
}

/// The label that Agones gives to a Fleet's GameServers.
const FLEET: &str = "agones.dev/fleet";

fn read(server: &GameServer, pod: Option<IpAddr>, rules: &Rules, source: Source, at: At) -> Option<Server> {
    let meta = &server.metadata;
    if !is_ours(meta, rules) {
        return None;
    }
    let life = life::of(server, rules)?;
    let place = place::of(server, pod, rules, at);
    let own = own(meta);
    let mut said = life::said_by_the_game(meta, &own, at);
    let mut octops = if octops::is_asked(meta) { octops::words(server, &own, at) } else { Words::default() };
    let mut problems = place.problems;
    problems.extend(life.problem);
    problems.append(&mut said.problems);
    problems.append(&mut octops.problems);
    let state = match life.state {
        State::Ready if place.is_awaited => State::Starting,
        state => state,
    };
    let layers = [said.layer(at), Layer::new(at.annotations, &own), octops.layer(at)];
    Some(spec::read(Facts {
        id: ServerId::new(source, &meta.namespace, &meta.name),
        name: None,
        age: meta.age,
        fleet: meta.label(FLEET),
        address: place.address,
        ports: &place.ports,
        state,
        layers: &layers,
        host_template: rules.host_template.as_deref(),
        problems,
    }))
}

fn is_asked(meta: &Meta) -> bool {
    octops::is_asked(meta) || meta.has_own_annotation()
}

/// True when a route is asked for, and not of another controller.
fn is_ours(meta: &Meta, rules: &Rules) -> bool {
    is_asked(meta) && octops::class(meta).is_none_or(|class| rules.claims(Some(class)))
}

/// Our annotations as users write them, without the one that we write.
fn own(meta: &Meta) -> BTreeMap<String, String> {
    let ours = meta
        .annotations
        .iter()
        .filter(|(key, _)| key.starts_with(spec::PREFIX) && !WRITTEN.contains(&key.as_str()));
    ours.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Words of another tool in ours, and where each really stands.
#[derive(Default)]
struct Words {
    values: BTreeMap<String, String>,
    written: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Words {
    /// Says `key`, an annotation of ours without its prefix; `field` is where it really stands.
    fn say(&mut self, key: &str, value: impl Into<String>, field: String) {
        let key = format!("{}{key}", spec::PREFIX);
        self.values.insert(key.clone(), value.into());
        self.written.insert(key, field);
    }

    fn wrong(&mut self, kind: ProblemKind, field: String, why: impl Into<String>) {
        self.problems.push(Problem::new(kind, field, why));
    }

    fn layer(&self, at: At) -> Layer<'_> {
        Layer { field: at.annotations, values: &self.values, written: Some(&self.written) }
    }
}

/// The first names of a list that may be long, for a problem.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<_> = names.collect();
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len() - names.len().min(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A value that may be long, for a problem.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(128)]
}

#[cfg(test)]
mod tests;
