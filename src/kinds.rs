//! The objects of a Kubernetes cluster, read to servers: OpenKruiseGame's, Agones', and Octops' words on them.
//!
//! Below the wall: the same reading serves a watched cluster, a dump of it in a directory, and manifests
//! that nobody has applied yet. An object is decoded to the few fields that are read, so that what does
//! not matter here (counters, probes, managed fields) makes two versions of it equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub mod agones;
mod fleet;
mod meta;
pub mod okg;
pub mod pod;

pub use fleet::{Change, Fleet, Network, Noted, ROUTED, Sources, Subject, Target};
pub use meta::{Meta, Owner};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` `Pod` of OpenKruiseGame
    Pod,
    /// `v1` `Pod` of Agones: another watch's than those of OpenKruiseGame.
    AgonesPod,
    /// `game.kruise.io/v1alpha1` `GameServer`
    OkgGameServer,
    /// `game.kruise.io/v1alpha1` `GameServerSet`
    GameServerSet,
    /// `agones.dev/v1` `GameServer`
    AgonesGameServer,
    /// `agones.dev/v1` `Fleet`: only explained, it has no server of its own.
    AgonesFleet,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Pod,
        Self::AgonesPod,
        Self::OkgGameServer,
        Self::GameServerSet,
        Self::AgonesGameServer,
        Self::AgonesFleet,
    ];

    /// The kind that an object's `apiVersion` and `kind` name.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.api_version() == api_version && known.name() == kind)
    }

    /// Its `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Pod | Self::AgonesPod => "v1",
            Self::OkgGameServer | Self::GameServerSet => "game.kruise.io/v1alpha1",
            Self::AgonesGameServer | Self::AgonesFleet => "agones.dev/v1",
        }
    }

    /// Its `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod | Self::AgonesPod => "Pod",
            Self::OkgGameServer | Self::AgonesGameServer => "GameServer",
            Self::GameServerSet => "GameServerSet",
            Self::AgonesFleet => "Fleet",
        }
    }

    /// Its name in the paths of the API.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pod | Self::AgonesPod => "pods",
            Self::OkgGameServer | Self::AgonesGameServer => "gameservers",
            Self::GameServerSet => "gameserversets",
            Self::AgonesFleet => "fleets",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.name())
    }
}

/// Which object, for as long as its name lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// One object, as far as it is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1` `Pod`
    Pod(Box<pod::Pod>),
    /// `game.kruise.io/v1alpha1` `GameServer`
    OkgGameServer(Box<okg::GameServer>),
    /// `game.kruise.io/v1alpha1` `GameServerSet`
    GameServerSet(Box<okg::GameServerSet>),
    /// `agones.dev/v1` `GameServer`
    AgonesGameServer(Box<agones::GameServer>),
    /// `agones.dev/v1` `Fleet`
    AgonesFleet(Box<agones::Fleet>),
}

impl Object {
    /// Decodes an object of a kind, from JSON text or a parsed value.
    pub fn decode<'de, D: serde::Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
        use serde::Deserialize;
        Ok(match kind {
            Kind::Pod | Kind::AgonesPod => Self::Pod(Deserialize::deserialize(from)?),
            Kind::OkgGameServer => Self::OkgGameServer(Deserialize::deserialize(from)?),
            Kind::GameServerSet => Self::GameServerSet(Deserialize::deserialize(from)?),
            Kind::AgonesGameServer => Self::AgonesGameServer(Deserialize::deserialize(from)?),
            Kind::AgonesFleet => Self::AgonesFleet(Deserialize::deserialize(from)?),
        })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(pod) if pod.metadata.label("agones.dev/role").is_some() => Kind::AgonesPod,
            Self::Pod(_) => Kind::Pod,
            Self::OkgGameServer(_) => Kind::OkgGameServer,
            Self::GameServerSet(_) => Kind::GameServerSet,
            Self::AgonesGameServer(_) => Kind::AgonesGameServer,
            Self::AgonesFleet(_) => Kind::AgonesFleet,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Pod(pod) => &pod.metadata,
            Self::OkgGameServer(server) => &server.metadata,
            Self::GameServerSet(set) => &set.metadata,
            Self::AgonesGameServer(server) => &server.metadata,
            Self::AgonesFleet(fleet) => &fleet.metadata,
        }
    }

    /// Its metadata.
    pub fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Pod(pod) => &mut pod.metadata,
            Self::OkgGameServer(server) => &mut server.metadata,
            Self::GameServerSet(set) => &mut set.metadata,
            Self::AgonesGameServer(server) => &mut server.metadata,
            Self::AgonesFleet(fleet) => &mut fleet.metadata,
        }
    }

    /// Which object it is.
    pub fn key(&self) -> Key {
        let meta = self.meta();
        Key { kind: self.kind(), namespace: meta.namespace.clone(), name: meta.name.clone() }
    }
}

/// A fleet manager whose objects are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// OpenKruiseGame
    Okg,
    /// Agones
    Agones,
}

impl Manager {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Okg, Self::Agones];

    /// Its API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Okg => "game.kruise.io",
            Self::Agones => "agones.dev",
        }
    }

    /// The kinds that its servers are made of. Agones' pods are asked only for what their GameServers do not
    /// say: see [`Fleet::wants_agones_pods`].
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Okg => &[Kind::GameServerSet, Kind::OkgGameServer, Kind::Pod],
            Self::Agones => &[Kind::AgonesGameServer],
        }
    }
}

/// How the objects of a cluster are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Hosts for servers that name none, in the grammar of `tidegate.dev/host`.
    pub host_template: Option<String>,
    /// The ingress classes that are ours; `""` claims objects that name none.
    pub classes: BTreeSet<String>,
    /// What an ops state of OpenKruiseGame means for new players; one that is not named lets them in.
    pub ops_states: BTreeMap<String, Door>,
    /// When a server of OpenKruiseGame counts as ready.
    pub readiness: Readiness,
    /// Which address players reach an Agones server at.
    pub upstream: Upstream,
    /// From which state on an Agones server is routed.
    pub publish_at: PublishAt,
}

impl Default for Rules {
    fn default() -> Self {
        let shut = ["Maintaining", "Kill"].map(|state| (state.to_owned(), Door::Drain));
        Self {
            host_template: None,
            classes: BTreeSet::from(["tidegate".to_owned()]),
            ops_states: BTreeMap::from(shut),
            readiness: Readiness::default(),
            upstream: Upstream::default(),
            publish_at: PublishAt::default(),
        }
    }
}

impl Rules {
    /// True when objects of this ingress class are ours.
    pub fn claims(&self, class: Option<&str>) -> bool {
        self.classes.contains(class.unwrap_or_default())
    }
}

/// Why objects of an ingress class are not routed, in a user's words.
fn unclaimed(class: Option<&str>) -> String {
    match class {
        Some(class) => {
            let class = &class[..class.floor_char_boundary(128)];
            format!(
                "its ingress class is {class:?}, which is not claimed here; --ingress-class {class} claims it"
            )
        }
        None => "it names no ingress class; --ingress-class= claims those that name none".to_owned(),
    }
}

/// Whether a state lets new players in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// It does.
    Open,
    /// Only those inside stay.
    Drain,
}

/// When a pod takes players.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// When the container that has the port is ready: an update of a sidecar in place changes nothing.
    #[default]
    Container,
    /// When the pod's condition `Ready` is true.
    Pod,
}

/// Where an Agones server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// At the pod's address and the container's port: needs no host port, nor a public node.
    #[default]
    Pod,
    /// At the node's address and the host port.
    Node,
}

/// From which state on an Agones server is routed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishAt {
    /// From `Scheduled`, so that the route is there when the server is allocated.
    #[default]
    Scheduled,
    /// From `Ready`.
    Ready,
}
