//! Agones: a `GameServer` with our annotations or Octops'.

use serde::Deserialize;

use super::pod::Pod;
use super::{Meta, Rules};
use crate::model::{Server, Source};

/// `agones.dev/v1` `GameServer`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GameServer {
    /// `metadata`
    pub metadata: Meta,
}

/// `agones.dev/v1` `Fleet`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fleet {
    /// `metadata`
    pub metadata: Meta,
}

/// The servers of a GameServer: one, or none when nobody asked for a route.
pub fn servers(_server: &GameServer, _pod: Option<&Pod>, _rules: &Rules, _source: Source) -> Vec<Server> {
    Vec::new()
}

/// True when it runs and does not say its pod's address, as before Agones 1.40, though that is wanted.
pub fn wants_pod(_server: &GameServer, _rules: &Rules) -> bool {
    false
}

/// Whether Octops' ready annotation is true; `None` without Octops' annotations.
pub fn ready(_server: &GameServer) -> Option<bool> {
    None
}
