//! OpenKruiseGame: pods of a `GameServerSet`, with what its `GameServer` and its set say.

use serde::Deserialize;

use super::pod::Pod;
use super::{Meta, Rules};
use crate::model::{Server, Source};

/// `game.kruise.io/v1alpha1` `GameServer`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GameServer {
    /// `metadata`
    pub metadata: Meta,
}

/// `game.kruise.io/v1alpha1` `GameServerSet`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GameServerSet {
    /// `metadata`
    pub metadata: Meta,
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
pub fn awaited(_set: &GameServerSet) -> impl Iterator<Item = String> {
    std::iter::empty()
}

/// The servers of a pod: one a port that its network has.
pub fn servers(
    _pod: &Pod,
    _server: Option<&GameServer>,
    _set: Option<&GameServerSet>,
    _rules: &Rules,
    _source: Source,
) -> Vec<Server> {
    Vec::new()
}

/// The servers of an awaited pod that is not there; none when its set does not await it.
pub fn absent(
    _name: &str,
    _server: Option<&GameServer>,
    _set: &GameServerSet,
    _rules: &Rules,
    _source: Source,
) -> Vec<Server> {
    Vec::new()
}

/// For a pod of our own network type: its `game.kruise.io/network-status`, if any is written.
pub fn network_status(_pod: &Pod) -> Option<Option<&str>> {
    None
}

/// True when the network of a server is switched off.
pub fn is_network_disabled(_pod: &Pod, _server: Option<&GameServer>) -> bool {
    false
}
