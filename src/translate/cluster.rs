//! A server's cluster: STATIC, its endpoint inline.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{
    Address, Http2ProtocolOptions, SocketAddress, TransportSocket, address,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use prost::Message;

use super::{any, cluster_name, duration, uint};
use crate::model::{Protocol, Server};
use crate::snapshot::Resource;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Envoy's own limit is 1024: fewer than the players of a lobby, each of whom holds a connection.
const MAX_SESSIONS: u32 = 1_000_000;
/// Players that may wait for a connection at once; a whole lobby may come back in one moment.
const MAX_PENDING: u32 = 10_000;

/// The cluster of a server: STATIC, its endpoint inline. `None` while it has no address.
pub fn cluster(server: &Server) -> Option<Resource> {
    let endpoint = server.desired.endpoint?;
    let name = cluster_name(&server.id);
    let address = SocketAddress {
        address: endpoint.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(endpoint.port().into())),
        ..Default::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(Address { address: Some(address::Address::SocketAddress(address)) }),
            ..Default::default()
        })),
        ..Default::default()
    };
    // A WebSocket holds one connection and one request for its life, and is pending while it connects.
    // The limit on requests is the cap: one more gets 503 and the flag UO, which the listener words.
    let sessions = server.desired.max_sessions.unwrap_or(MAX_SESSIONS);
    let thresholds = Thresholds {
        max_connections: Some(uint(server.desired.max_connections.unwrap_or(MAX_SESSIONS))),
        max_pending_requests: Some(uint(server.desired.max_pending.unwrap_or(MAX_PENDING))),
        max_requests: Some(uint(sessions)),
        ..Default::default()
    };
    let content = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
        typed_extension_protocol_options: match server.desired.protocol {
            Protocol::H2c | Protocol::H2 => {
                [("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(), any(&http2()))].into()
            }
            Protocol::Http1 | Protocol::Tls => [].into(),
        },
        transport_socket: match server.desired.protocol {
            Protocol::Tls => Some(tls(None)),
            Protocol::H2 => Some(tls(Some("h2"))),
            Protocol::Http1 | Protocol::H2c => None,
        },
        ..Default::default()
    };
    Some(Resource::new(&name, &content.encode_to_vec()))
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
