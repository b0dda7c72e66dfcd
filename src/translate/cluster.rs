//! A server's cluster: STATIC, its endpoint inline.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use prost::Message;

use super::{any, cluster_name, wire};
use crate::model::{Desired, Protocol, Server};
use crate::snapshot::Resource;

/// `Cluster.DiscoveryType.STATIC`
const STATIC: u64 = 0;
/// Linux sends a lost SYN again after 1 s. A server whose queue is full for a moment drops them, and 1 s would refuse all of
/// whom 2 s let in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Envoy's own limit is 1024: fewer than the players of a lobby, each of whom holds a connection.
const MAX_SESSIONS: u32 = 1_000_000;
/// Players that may wait for a connection at once; a whole lobby may come back in one moment.
const MAX_PENDING: u32 = 10_000;

/// Field numbers of `envoy.config.cluster.v3.Cluster` and of the messages in it.
mod tags {
    pub(super) const TYPE: u32 = 2;
    pub(super) const CONNECT_TIMEOUT: u32 = 4;
    pub(super) const CIRCUIT_BREAKERS: u32 = 10;
    pub(super) const TRANSPORT_SOCKET: u32 = 24;
    pub(super) const LOAD_ASSIGNMENT: u32 = 33;
    pub(super) const PROTOCOL_OPTIONS: u32 = 36;
    /// `CircuitBreakers.thresholds`
    pub(super) const THRESHOLDS: u32 = 1;
    /// `CircuitBreakers.Thresholds`
    pub(super) const MAX_CONNECTIONS: u32 = 2;
    pub(super) const MAX_PENDING_REQUESTS: u32 = 3;
    pub(super) const MAX_REQUESTS: u32 = 4;
    pub(super) const MAX_RETRIES: u32 = 5;
    /// `ClusterLoadAssignment`
    pub(super) const CLUSTER_NAME: u32 = 1;
    pub(super) const ENDPOINTS: u32 = 2;
    /// `LocalityLbEndpoints.lb_endpoints`
    pub(super) const LB_ENDPOINTS: u32 = 2;
    /// `LbEndpoint.endpoint`
    pub(super) const ENDPOINT: u32 = 1;
    /// `Endpoint.address`
    pub(super) const ADDRESS: u32 = 1;
    /// `Address.socket_address`
    pub(super) const SOCKET_ADDRESS: u32 = 1;
    /// `SocketAddress`
    pub(super) const HOST: u32 = 2;
    pub(super) const PORT: u32 = 3;
    /// Of an entry of any map.
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

/// The cluster of a server: STATIC, its endpoint inline. `None` while it has no address.
pub fn cluster(server: &Server) -> Option<Resource> {
    let endpoint = server.desired.endpoint?;
    let name = cluster_name(&server.id);
    let mut content = Vec::with_capacity(256);
    let buffer = &mut content;
    wire::choice(tags::TYPE, STATIC, buffer);
    wire::duration(tags::CONNECT_TIMEOUT, CONNECT_TIMEOUT, buffer);
    wire::message(tags::CIRCUIT_BREAKERS, buffer, |breakers| {
        wire::message(tags::THRESHOLDS, breakers, |thresholds| limits(&server.desired, thresholds));
    });
    let socket = match server.desired.protocol {
        Protocol::Tls => Some(tls(None)),
        Protocol::H2 => Some(tls(Some("h2"))),
        Protocol::Http1 | Protocol::H2c => None,
    };
    if let Some(socket) = socket {
        wire::bytes(tags::TRANSPORT_SOCKET, &socket.encode_to_vec(), buffer);
    }
    wire::message(tags::LOAD_ASSIGNMENT, buffer, |assignment| {
        wire::bytes(tags::CLUSTER_NAME, name.as_bytes(), assignment);
        wire::message(tags::ENDPOINTS, assignment, |locality| {
            wire::message(tags::LB_ENDPOINTS, locality, |lb| {
                wire::message(tags::ENDPOINT, lb, |inner| address(endpoint, inner));
            });
        });
    });
    if matches!(server.desired.protocol, Protocol::H2c | Protocol::H2) {
        wire::message(tags::PROTOCOL_OPTIONS, buffer, |entry| {
            wire::bytes(tags::KEY, b"envoy.extensions.upstreams.http.v3.HttpProtocolOptions", entry);
            wire::bytes(tags::VALUE, &any(&http2()).encode_to_vec(), entry);
        });
    }
    Some(Resource::new(&name, &content))
}

/// A WebSocket holds one connection and one request for its life, and is pending while it connects.
/// The limit on requests is the cap: one more gets 503 and the flag UO, which the listener words.
fn limits(desired: &Desired, thresholds: &mut Vec<u8>) {
    wire::uint(tags::MAX_CONNECTIONS, desired.max_connections.unwrap_or(MAX_SESSIONS), thresholds);
    let pending = desired.max_pending.unwrap_or(MAX_PENDING);
    wire::uint(tags::MAX_PENDING_REQUESTS, pending, thresholds);
    wire::uint(tags::MAX_REQUESTS, desired.max_sessions.unwrap_or(MAX_SESSIONS), thresholds);
    // Envoy's own limit is 3: of a lobby that comes back to a server which restarts, three would be waited for.
    wire::uint(tags::MAX_RETRIES, pending, thresholds);
}

fn address(endpoint: SocketAddr, buffer: &mut Vec<u8>) {
    wire::message(tags::ADDRESS, buffer, |address| {
        wire::message(tags::SOCKET_ADDRESS, address, |socket| {
            wire::bytes(tags::HOST, endpoint.ip().to_string().as_bytes(), socket);
            wire::number(tags::PORT, endpoint.port().into(), socket);
        });
    });
}

fn http2() -> HttpProtocolOptions {
    // allow_connect: a WebSocket over HTTP/2 is an extended CONNECT (RFC 8441).
    let options = Http2ProtocolOptions { allow_connect: true, ..Default::default() };
    HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(options)),
        })),
        ..Default::default()
    }
}

fn tls(alpn: Option<&str>) -> TransportSocket {
    let common = CommonTlsContext {
        alpn_protocols: alpn.into_iter().map(str::to_owned).collect(),
        ..Default::default()
    };
    let context = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(ConfigType::TypedConfig(any(&context))),
    }
}
