//! One server, or what is held on one scope, to Envoy's protos and their bytes. No state.
//!
//! The same input gives the same bytes on every replica: no map of protobuf's is encoded in hash
//! order. Routes are encoded piece by piece so that a scope and the RDS table share one translation.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::google::protobuf::{Any, Duration as ProtoDuration, UInt32Value};
use prost::{Message, Name as ProtoName};

use crate::model::{Host, PathPrefix, Server, ServerId};
use crate::snapshot::{Name, Resource};

mod cluster;
mod matcher;
mod pace;
mod place;
mod refusal;
mod routes;
mod share;
mod wire;

pub use cluster::cluster;
pub use place::is_same_place;
pub use refusal::cookies;
pub use routes::{is_open, open};
pub use share::{MAX_VERSIONS, takers};

/// The type URL of clusters.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The type URL of scopes.
pub const SCOPE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// The type URL of route tables.
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The name of the one RDS table.
pub const TABLE: &str = "tidegate";
/// All our clusters' names begin with this, so that Envoy's stats can be trimmed by it.
pub const CLUSTER_PREFIX: &str = "gs/";
/// Where a route that refuses has its sentence for pages, HTML-escaped: the namespace of its metadata.
pub const TEXT_SPACE: &str = "tidegate";
/// The field there.
pub const TEXT_FIELD: &str = "text";
/// From this many paths on, a scope's routes are found through a prefix map and not one by one.
pub const MAP_FROM: usize = 32;

/// A path of a host, and the servers that hold it, oldest first.
#[derive(Clone, Debug)]
pub struct Held {
    /// The path.
    pub path: PathPrefix,
    /// Its holders; at least one.
    pub holders: Vec<Arc<Server>>,
}

/// The name of a server's cluster.
pub fn cluster_name(id: &ServerId) -> String {
    format!("{CLUSTER_PREFIX}{id}")
}

/// The scope of the host `*`. As the name of a resource `*` alone means everything: an Envoy that reconnects
/// does not state that it holds one, so that it could be neither kept nor taken from it. No segment is empty.
const ANY_SCOPE: &str = "*/";
const ANY_HOST: &str = "*";

/// The name of a host's scope, or of the scope of one first segment of it; also its key, but for `*`.
pub fn scope_name(host: &Host, segment: Option<&str>) -> Name {
    match (host.as_str(), segment) {
        (host, Some(segment)) => format!("{host}/{segment}").into(),
        (ANY_HOST, None) => ANY_SCOPE.into(),
        (_, None) => host.shared(),
    }
}

/// One scope with its routes inline. `held` is not empty.
pub fn scope(name: &Name, held: &[Held]) -> Resource {
    let key = if **name == *ANY_SCOPE { ANY_HOST } else { name };
    let mut content = Vec::with_capacity(512);
    let buffer = &mut content;
    wire::message(tags::SCOPE_KEY, buffer, |inner| {
        wire::message(tags::FRAGMENTS, inner, |fragment| {
            wire::bytes(tags::STRING_KEY, key.as_bytes(), fragment);
        });
    });
    wire::message(tags::ROUTE_CONFIGURATION, buffer, |configuration| {
        wire::bytes(tags::NAME, name.as_bytes(), configuration);
        virtual_host(name, "*", held, configuration);
        late_clusters(configuration);
    });
    Resource::new(name, &content)
}

/// What makes other content of a scope when it stands behind it, so that an Envoy which half took it
/// takes it again. In protobuf a second occurrence of a message is merged into the first: the name behind
/// replaces the one before.
pub fn renamed(scope: &str, generation: &str) -> Vec<u8> {
    let name = format!("{scope}#{generation}");
    let mut behind = Vec::new();
    wire::message(tags::ROUTE_CONFIGURATION, &mut behind, |renamed| {
        wire::bytes(tags::NAME, name.as_bytes(), renamed);
    });
    behind
}

/// All routes of a gateway as one RouteConfiguration, for Envoys that can't use scopes.
pub fn table(hosts: impl IntoIterator<Item = (Host, Vec<Held>)>) -> Resource {
    let mut content = Vec::new();
    for (host, held) in hosts {
        virtual_host(host.as_str(), host.as_str(), &held, &mut content);
    }
    late_clusters(&mut content);
    // Scopes cut the port off by their key; a table has to be told.
    wire::number(tags::IGNORE_PORT_IN_HOST_MATCHING, 1, &mut content);
    Resource::new(TABLE, &content)
}

/// A cluster that is late costs its own players a 503 until it comes, not everybody a NACK.
fn late_clusters(configuration: &mut Vec<u8>) {
    // A `BoolValue` that is false: there, and empty.
    wire::bytes(tags::VALIDATE_CLUSTERS, &[], configuration);
}

/// Field numbers of what holds the routes.
mod tags {
    /// `ScopedRouteConfiguration`
    pub(super) const SCOPE_KEY: u32 = 3;
    pub(super) const ROUTE_CONFIGURATION: u32 = 5;
    /// `ScopedRouteConfiguration.Key.fragments`, `Fragment.string_key`
    pub(super) const FRAGMENTS: u32 = 1;
    pub(super) const STRING_KEY: u32 = 1;
    /// Of `RouteConfiguration` and `VirtualHost`.
    pub(super) const NAME: u32 = 1;
    /// `RouteConfiguration`
    pub(super) const VIRTUAL_HOSTS: u32 = 2;
    pub(super) const VALIDATE_CLUSTERS: u32 = 7;
    pub(super) const IGNORE_PORT_IN_HOST_MATCHING: u32 = 14;
    /// `VirtualHost`
    pub(super) const DOMAINS: u32 = 2;
    pub(super) const ROUTES: u32 = 3;
    pub(super) const MATCHER: u32 = 21;
}

fn virtual_host(name: &str, domain: &str, held: &[Held], configuration: &mut Vec<u8>) {
    // A prefix sorts before all that extend it, so the reverse order tries the longest first.
    let mut held: Vec<_> = held.iter().collect();
    held.sort_by(|one, other| other.path.cmp(&one.path));
    let mut sticky = held.iter().flat_map(|held| routes::sticky(held)).peekable();
    let matcher = match (sticky.peek().is_some(), held.len() < MAP_FROM) {
        (false, true) => None,
        (false, false) => Some(matcher::prefix_map(&held)),
        (true, true) => {
            let others = held.iter().flat_map(|held| routes::routes(held)).collect();
            Some(matcher::player_map(sticky, matcher::list(others)))
        }
        (true, false) => Some(matcher::player_map(sticky, matcher::prefix_map(&held).into())),
    };
    wire::message(tags::VIRTUAL_HOSTS, configuration, |host| {
        wire::bytes(tags::NAME, name.as_bytes(), host);
        wire::bytes(tags::DOMAINS, domain.as_bytes(), host);
        if matcher.is_none() {
            for held in &held {
                routes::write(held, tags::ROUTES, host);
            }
        }
        if let Some(matcher) = matcher {
            wire::bytes(tags::MATCHER, &matcher.encode_to_vec(), host);
        }
    });
}

fn uint(value: u32) -> UInt32Value {
    UInt32Value { value }
}

fn duration(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: duration.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().try_into().unwrap_or(0),
    }
}

fn any<M: Message + ProtoName>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
