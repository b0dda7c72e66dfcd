//! One server, or what is held on one scope, to Envoy's protos and their bytes. No state.
//!
//! The same input gives the same bytes on every replica: no map of protobuf's is encoded in hash
//! order. Routes are encoded piece by piece so that a scope and the RDS table share one translation.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::{Key, key};
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration, VirtualHost};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as ProtoDuration, UInt32Value};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name as ProtoName};

use crate::model::{Host, PathPrefix, Server, ServerId};
use crate::snapshot::{Name, Resource};

mod cluster;
mod matcher;
mod routes;

pub use cluster::cluster;
pub use routes::{is_open, open};

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
/// The header that Envoy chooses a scope by. Players can't set it, servers don't see it.
pub const SCOPE_HEADER: &str = "x-tidegate-scope";
/// What players are told to wait before they try again, in seconds.
pub const RETRY_AFTER: u32 = 5;
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
    let key = Key {
        fragments: vec![key::Fragment { r#type: Some(key::fragment::Type::StringKey(key.to_owned())) }],
    };
    let mut content = ScopedRouteConfiguration { key: Some(key), ..Default::default() }.encode_to_vec();
    let mut configuration = route_configuration(name).encode_to_vec();
    append(&mut configuration, tags::VIRTUAL_HOSTS, &virtual_host(name, "*", held));
    append(&mut content, tags::ROUTE_CONFIGURATION, &configuration);
    Resource::new(name, &content)
}

/// What makes other content of a scope when it stands behind it, so that an Envoy which half took it
/// takes it again. In protobuf a second occurrence of a message is merged into the first: the name behind
/// replaces the one before.
pub fn renamed(scope: &str, generation: &str) -> Vec<u8> {
    let renamed = RouteConfiguration { name: format!("{scope}#{generation}"), ..Default::default() };
    let mut behind = Vec::new();
    append(&mut behind, tags::ROUTE_CONFIGURATION, &renamed.encode_to_vec());
    behind
}

/// All routes of a gateway as one RouteConfiguration, for Envoys that can't use scopes.
pub fn table(hosts: impl IntoIterator<Item = (Host, Vec<Held>)>) -> Resource {
    let mut content = RouteConfiguration {
        // Scopes cut the port off by their key; a table has to be told.
        ignore_port_in_host_matching: true,
        ..route_configuration("")
    }
    .encode_to_vec();
    for (host, held) in hosts {
        append(&mut content, tags::VIRTUAL_HOSTS, &virtual_host(host.as_str(), host.as_str(), &held));
    }
    Resource::new(TABLE, &content)
}

fn route_configuration(name: &str) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        // A cluster that is late costs its own players a 503 until it comes, not everybody a NACK.
        validate_clusters: Some(BoolValue { value: false }),
        ..Default::default()
    }
}

/// The field numbers that pieces are joined by.
mod tags {
    pub(super) const VIRTUAL_HOSTS: u32 = 2; // RouteConfiguration.virtual_hosts
    pub(super) const ROUTE_CONFIGURATION: u32 = 5; // ScopedRouteConfiguration.route_configuration
    pub(super) const MATCHER: u32 = 21; // VirtualHost.matcher
}

fn append(message: &mut Vec<u8>, tag: u32, field: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, message);
    encode_varint(field.len() as u64, message);
    message.extend_from_slice(field);
}

fn virtual_host(name: &str, domain: &str, held: &[Held]) -> Vec<u8> {
    // A prefix sorts before all that extend it, so the reverse order tries the longest first.
    let mut held: Vec<_> = held.iter().collect();
    held.sort_by(|one, other| other.path.cmp(&one.path));
    let mut host = VirtualHost {
        name: name.to_owned(),
        domains: vec![domain.to_owned()],
        request_headers_to_remove: vec![SCOPE_HEADER.to_owned()],
        ..Default::default()
    };
    if held.len() < MAP_FROM {
        host.routes = held.iter().flat_map(|held| routes::routes(held)).collect();
        return host.encode_to_vec();
    }
    let mut bytes = host.encode_to_vec();
    append(&mut bytes, tags::MATCHER, &matcher::prefix_map(&held).encode_to_vec());
    bytes
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
