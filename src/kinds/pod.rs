//! `v1` `Pod`, as far as it is read.

use std::net::IpAddr;

use serde::Deserialize;

use super::Meta;

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata`
    pub metadata: Meta,
}

impl Pod {
    /// `status.podIP`, once it is set.
    pub fn ip(&self) -> Option<IpAddr> {
        None
    }
}
