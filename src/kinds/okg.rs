//! OpenKruiseGame: pods of a `GameServerSet`, with what its `GameServer` and its set say.
//!
//! The pod is the truth: it has the network's type and conf, the address, readiness and the labels of its
//! life. A `GameServer`'s status is a late copy of it and not read. What of it all decides is in `life`
//! (does it take players), `conf` and `ingress` (what `networkConf` asks for) and `read` (all of it in our words).

use serde::Deserialize;

use super::pod::{Pod, Spec, list, or_default};
use super::{Meta, Rules};
use crate::model::{Server, Source};

mod conf;
mod declared;
mod ingress;
mod life;
mod ordinals;
mod read;
mod status;

pub use read::{servers, unrouted, unrouted_set};
pub use status::{Front, wanted_status};

/// The annotation with the type of a pod's network.
pub const NETWORK_TYPE: &str = "game.kruise.io/network-type";
/// The annotation with its parameters: a JSON list of `{name, value}`.
pub const NETWORK_CONF: &str = "game.kruise.io/network-conf";
/// The annotation with what came of it.
pub const NETWORK_STATUS: &str = "game.kruise.io/network-status";
/// Our own network type: OpenKruiseGame makes no Service and no Ingress for it.
pub const OWN_TYPE: &str = "Tidegate";
/// The network type whose parameters are an Ingress.
pub const INGRESS_TYPE: &str = "Kubernetes-Ingress";

/// Most replicas of a set whose names are kept while their pods are away.
const MAX_AWAITED: u64 = 100_000;

/// `game.kruise.io/v1alpha1` `GameServer`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GameServer {
    /// `metadata`
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    /// `spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: GameServerSpec,
}

/// `spec` of a GameServer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GameServerSpec {
    /// `spec.opsState`: `None`, `Maintaining`, `WaitToBeDeleted`, `Allocated`, `Kill`, or the user's own.
    pub ops_state: Option<Box<str>>,
    /// `spec.networkDisabled`
    pub network_disabled: Option<bool>,
}

/// `game.kruise.io/v1alpha1` `GameServerSet`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GameServerSet {
    /// `metadata`
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    /// `spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: GameServerSetSpec,
}

/// `spec` of a GameServerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GameServerSetSpec {
    /// `spec.replicas`
    #[serde(deserialize_with = "or_default")]
    pub replicas: i64,
    /// `spec.reserveGameServerIds`: numbers, or ranges such as `"3-6"`.
    #[serde(deserialize_with = "list")]
    pub reserve_game_server_ids: Vec<serde_json::Value>,
    /// `spec.network`
    pub network: Option<SetNetwork>,
    /// `spec.gameServerTemplate`
    #[serde(deserialize_with = "or_default")]
    pub game_server_template: Template,
}

/// `spec.network` of a GameServerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SetNetwork {
    /// `spec.network.networkType`
    #[serde(deserialize_with = "or_default")]
    pub network_type: Box<str>,
    /// `spec.network.networkConf`: a list of `{name, value}`.
    pub network_conf: serde_json::Value,
}

/// `spec.gameServerTemplate`: what its pods are made from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Template {
    /// `metadata`
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    /// `spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
}

/// The set that a pod belongs to: its label `game.kruise.io/owner-gss`.
pub fn set_of(pod: &Pod) -> Option<&str> {
    pod.metadata.label("game.kruise.io/owner-gss")
}

/// The set whose server would have this name: what stands before its number.
pub fn set_name(server: &str) -> Option<&str> {
    crate::spec::ordinal(server).and_then(|ordinal| server.strip_suffix(ordinal)?.strip_suffix('-'))
}

/// The names of the servers whose addresses are kept while their pods are away (`Fixed`).
///
/// These are the first `replicas` numbers that are not reserved. After a scale-down that left a gap,
/// OpenKruiseGame keeps the numbers of the gap in its `StatefulSet` alone: then the name in the gap is
/// awaited, and the last ones are not.
pub fn awaited(set: &GameServerSet) -> impl Iterator<Item = String> {
    let count = if read::is_fixed(set) { ordinals::count(set) } else { 0 };
    let reserved = ordinals::Reserved::of(set);
    reserved.free(count.min(MAX_AWAITED)).map(|ordinal| format!("{}-{ordinal}", set.metadata.name))
}

/// True when two versions of a set differ, at most, in how many servers it has and which numbers it leaves
/// out: no server that is there reads differently.
pub fn differ_in_size_alone(one: &GameServerSet, other: &GameServerSet) -> bool {
    let is_size = |key: &str| key == ordinals::RESERVE_IDS;
    let unsized_ = |set: &GameServerSet| {
        let mut set = set.clone();
        set.spec.replicas = 0;
        set.spec.reserve_game_server_ids.clear();
        set.metadata.annotations.retain(|key, _| !is_size(key));
        set
    };
    unsized_(one) == unsized_(other)
}

/// The servers of an awaited pod that is not there; none when its set does not await it.
pub fn absent(
    name: &str,
    server: Option<&GameServer>,
    set: &GameServerSet,
    rules: &Rules,
    source: Source,
) -> Vec<Server> {
    let ordinal = ordinals::of(name, &set.metadata.name);
    let count = ordinals::count(set).min(MAX_AWAITED);
    let is_awaited = ordinal
        .is_some_and(|ordinal| read::is_fixed(set) && ordinals::Reserved::of(set).is_within(ordinal, count));
    if is_awaited { read::of_template(name, server, set, rules, source) } else { Vec::new() }
}

/// The first servers that a set would make, with all that is wrong in what they are made from. A set of no
/// replicas has one.
pub fn sample(set: &GameServerSet, count: usize, rules: &Rules, source: Source) -> Vec<Server> {
    let count = ordinals::count(set).max(1).min(count as u64);
    let names = ordinals::Reserved::of(set).free(count).map(|at| format!("{}-{at}", set.metadata.name));
    names.flat_map(|name| read::of_template(&name, None, set, rules, source)).collect()
}

/// For a pod of our own network type: its `game.kruise.io/network-status`, if any is written.
pub fn network_status(pod: &Pod) -> Option<Option<&str>> {
    let is_own = pod.metadata.annotation(NETWORK_TYPE) == Some(OWN_TYPE);
    is_own.then(|| pod.metadata.annotation(NETWORK_STATUS).filter(|status| !status.is_empty()))
}

/// True when the network of a server is switched off.
pub fn is_network_disabled(pod: &Pod, server: Option<&GameServer>) -> bool {
    life::is_disabled(&pod.metadata, server)
}

#[cfg(test)]
mod tests;
