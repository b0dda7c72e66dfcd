//! `v1` `Pod`, as far as it is read. Restart counts, times, images and the like are not: versions of a pod
//! that differ in those alone are equal.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use super::{Meta, okg};

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata`
    #[serde(deserialize_with = "metadata")]
    pub metadata: Meta,
    /// `spec`
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
    /// `status`
    #[serde(deserialize_with = "or_default")]
    pub status: Status,
}

/// `spec` of a pod, or of a template of pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// `spec.containers`
    #[serde(deserialize_with = "list")]
    pub containers: Vec<Container>,
}

/// `spec.containers[]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    /// Its ports; often none is declared, as Kubernetes does not ask for it.
    #[serde(deserialize_with = "list")]
    pub ports: Vec<ContainerPort>,
}

/// `spec.containers[].ports[]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<Box<str>>,
    /// Its number; 0 for what is no port.
    #[serde(deserialize_with = "number")]
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`; `TCP` when it is not said.
    pub protocol: Option<Box<str>>,
}

impl ContainerPort {
    /// True when HTTP can be spoken there.
    pub fn is_tcp(&self) -> bool {
        self.container_port != 0 && self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }
}

/// `status`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// `status.phase`: `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<Box<str>>,
    /// `status.podIP`
    #[serde(rename = "podIP")]
    pub pod_ip: Option<Box<str>>,
    /// `status.podIPs`: the same first, then that of the other family.
    #[serde(rename = "podIPs", deserialize_with = "list")]
    pub pod_ips: Vec<PodIp>,
    /// `status.conditions`, those that are read.
    #[serde(deserialize_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// `status.containerStatuses`
    #[serde(deserialize_with = "list")]
    pub container_statuses: Vec<ContainerStatus>,
}

/// `status.podIPs[]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: Option<Box<str>>,
}

/// `status.conditions[]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// `Ready` or `ContainersReady`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: Box<str>,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub status: Box<str>,
}

/// `status.containerStatuses[]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// The container's name.
    #[serde(deserialize_with = "or_default")]
    pub name: Box<str>,
    /// Its readiness probe passes, or it runs and has none.
    #[serde(deserialize_with = "or_default")]
    pub ready: bool,
}

impl Pod {
    /// `status.podIP`, once it is set; none of a pod that has ended: its address may be another's by now.
    pub fn ip(&self) -> Option<IpAddr> {
        if self.is_over() {
            return None;
        }
        let all = self.status.pod_ips.iter().filter_map(|address| address.ip.as_deref());
        self.status.pod_ip.as_deref().into_iter().chain(all).find_map(|text| text.parse().ok())
    }

    /// True when all its containers have ended for good.
    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Failed" | "Succeeded"))
    }

    /// True when a condition is `True`.
    pub fn is(&self, condition: &str) -> bool {
        self.status.conditions.iter().any(|held| *held.kind == *condition && &*held.status == "True")
    }

    /// Whether a container is ready; `None` while the kubelet has not said.
    pub fn is_container_ready(&self, name: &str) -> Option<bool> {
        self.status.container_statuses.iter().find(|status| *status.name == *name).map(|status| status.ready)
    }
}

/// Conditions that are read. The others change with every probe and every update.
const CONDITIONS: [&str; 2] = ["Ready", "ContainersReady"];

fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Condition>, D::Error> {
    let mut conditions: Vec<Condition> = list(from)?;
    conditions.retain(|condition| CONDITIONS.contains(&&*condition.kind));
    Ok(conditions)
}

/// OpenKruiseGame writes its `network-status` again and again; it is only read where nobody but us writes it.
fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<Meta, D::Error> {
    let mut meta: Meta = or_default(from)?;
    if meta.annotation(okg::NETWORK_TYPE) != Some(okg::OWN_TYPE) {
        meta.annotations.remove(okg::NETWORK_STATUS);
    }
    Ok(meta)
}

/// `null` is what is not there.
pub(super) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A list without its `null`s.
pub(super) fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list: Option<Vec<Option<T>>> = Option::deserialize(from)?;
    Ok(list.into_iter().flatten().flatten().collect())
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let number: Option<i64> = Option::deserialize(from)?;
    Ok(number.and_then(|number| number.try_into().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
