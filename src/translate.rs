//! One server, or what is held on one scope, to Envoy's protos and their bytes. No state.
//!
//! The same input gives the same bytes on every replica: no map of protobuf's is encoded in hash
//! order. Routes are encoded piece by piece so that a scope and the RDS table share one translation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{
    Address, DataSource, HeaderValue, HeaderValueOption, Http2ProtocolOptions, SocketAddress,
    TransportSocket, address, data_source,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, UpgradeConfig};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::{Key, key};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, RedirectAction, Route, RouteAction, RouteConfiguration, RouteList,
    RouteMatch, ScopedRouteConfiguration, VirtualHost, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as ProtoDuration, UInt32Value};
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as XdsExtension;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{OnMatch, on_match};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name as ProtoName};
use serde_json::json;

use crate::model::{Host, Mode, PathPrefix, Protocol, Redirect, Server, ServerId};
use crate::snapshot::{Name, Resource};

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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Envoy's own limit is 1024: fewer than the players of a lobby, each of whom holds a connection.
const MAX_SESSIONS: u32 = 1_000_000;
/// Players that may wait for a connection at once; a whole lobby may come back in one moment.
const MAX_PENDING: u32 = 10_000;

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
        host.routes = held.iter().flat_map(|held| routes(held)).collect();
        return host.encode_to_vec();
    }
    let mut bytes = host.encode_to_vec();
    append(&mut bytes, tags::MATCHER, &prefix_map(&held).encode_to_vec());
    bytes
}

/// `xds.type.matcher.v3.Matcher` with its map in the order of its keys: prost's own would be encoded
/// in hash order, and the version would differ from replica to replica.
#[derive(Clone, PartialEq, prost::Message)]
struct Matcher {
    #[prost(message, optional, tag = "2")]
    matcher_tree: Option<MatcherTree>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatcherTree {
    #[prost(message, optional, tag = "1")]
    input: Option<XdsExtension>,
    #[prost(message, optional, tag = "3")]
    prefix_match_map: Option<MatchMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatchMap {
    #[prost(btree_map = "string, message", tag = "1")]
    map: BTreeMap<String, OnMatch>,
}

fn prefix_map(held: &[&Held]) -> Matcher {
    let by_path: BTreeMap<&str, &Held> = held.iter().map(|held| (held.path.as_str(), *held)).collect();
    let map = by_path.keys().map(|path| {
        // The map finds the longest key that the path begins with, be it /game-1 for /game-10: each key
        // holds the routes of all keys it begins with itself, so that a miss falls to the next shorter.
        let shorter = (1..=path.len()).rev().filter_map(|end| by_path.get(path.get(..end)?));
        let list = RouteList { routes: shorter.flat_map(|held| routes(held)).collect() };
        let action = XdsExtension { name: "routes".into(), typed_config: Some(any(&list)) };
        (
            (*path).to_owned(),
            OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..Default::default() },
        )
    });
    let input = HttpRequestHeaderMatchInput { header_name: ":path".into() };
    Matcher {
        matcher_tree: Some(MatcherTree {
            input: Some(XdsExtension { name: "path".into(), typed_config: Some(any(&input)) }),
            prefix_match_map: Some(MatchMap { map: map.collect() }),
        }),
    }
}

/// The holders that take players.
pub fn open(holders: &[Arc<Server>]) -> Vec<&Server> {
    holders
        .iter()
        .map(|server| &**server)
        .filter(|server| is_open(server) && server.desired.weight.0 > 0)
        .collect()
}

/// The routes of one held path, in the order they are tried.
fn routes(held: &Held) -> Vec<Route> {
    let Some(oldest) = held.holders.first() else { return Vec::new() };
    let open = open(&held.holders);
    let first = open.first().copied().unwrap_or(oldest);
    let mut routes = Vec::new();
    if first.desired.https_redirect {
        routes.push(to_https(first, &held.path));
    }
    if open.is_empty() {
        routes.push(closed(oldest, &held.path));
        return routes;
    }
    if let Mode::Maintenance { text, paths } = &first.desired.mode {
        for path in paths {
            let path = held.path.join(path);
            routes.push(route(first, below(&path), Action::DirectResponse(refusal("maintenance", text))));
        }
    }
    let action = |rewrite: &str| {
        Action::Route(RouteAction {
            cluster_specifier: Some(target(&open)),
            prefix_rewrite: rewrite.to_owned(),
            // Games hold requests open for as long as they like; only silence ends one, unless they ask.
            timeout: Some(duration(first.desired.response_timeout.unwrap_or_default())),
            idle_timeout: Some(duration(first.desired.idle_timeout)),
            upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
            ..Default::default()
        })
    };
    if first.desired.strip_prefix && !held.path.is_root() {
        // Two matches, for one would make "//x" of "/game-0/x", or not match "/game-0".
        let folder = PathSpecifier::Prefix(format!("{}/", held.path));
        routes.push(route(first, folder, action("/")));
        routes.push(route(first, PathSpecifier::Path(held.path.to_string()), action("/")));
    } else {
        routes.push(route(first, below(&held.path), action("")));
    }
    routes
}

/// True when it takes players on some path.
pub fn is_open(server: &Server) -> bool {
    server.desired.endpoint.is_some()
        && match &server.desired.mode {
            Mode::Open => true,
            Mode::Maintenance { paths, .. } => !paths.is_empty(),
            Mode::Starting | Mode::Draining { .. } | Mode::Misconfigured | Mode::Stopped => false,
        }
}

/// Envoy writes `x-forwarded-proto` itself, or a load balancer that it trusts did.
fn to_https(server: &Server, path: &PathPrefix) -> Route {
    let redirect = RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
        response_code: RedirectResponseCode::PermanentRedirect.into(),
        ..Default::default()
    };
    let mut route = route(server, below(path), Action::Redirect(redirect));
    let plain = HeaderMatcher {
        name: "x-forwarded-proto".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::Exact("http".into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    if let Some(matches) = &mut route.r#match {
        matches.headers.push(plain);
    }
    route
}

fn closed(server: &Server, path: &PathPrefix) -> Route {
    let unusable = || Action::DirectResponse(refusal("misconfigured", "this server has no usable address"));
    let action = match &server.desired.mode {
        Mode::Draining { redirect: Some(redirect) } => Action::Redirect(redirection(redirect)),
        Mode::Starting => Action::DirectResponse(refusal("starting", "this server is starting")),
        Mode::Maintenance { text, .. } if text.is_empty() => {
            Action::DirectResponse(refusal("maintenance", "this server is in maintenance"))
        }
        Mode::Maintenance { text, .. } => Action::DirectResponse(refusal("maintenance", text)),
        Mode::Misconfigured => unusable(),
        Mode::Open if server.desired.endpoint.is_none() => unusable(),
        // Open with a weight of 0 is a drain by another name.
        Mode::Draining { redirect: None } | Mode::Open | Mode::Stopped => {
            Action::DirectResponse(refusal("draining", "this server takes no new players"))
        }
    };
    route(server, below(path), action)
}

fn route(server: &Server, path: PathSpecifier, action: Action) -> Route {
    let refuses = matches!(action, Action::DirectResponse(_));
    Route {
        // Never empty: the listener's ladder takes an empty name for "no route found".
        name: match &server.desired.share {
            Some(share) => format!("{}/{}", share.namespace, share.name),
            None => format!("{}/{}", server.id.namespace(), server.id.name()),
        },
        r#match: Some(RouteMatch { path_specifier: Some(path), ..Default::default() }),
        response_headers_to_add: if refuses {
            vec![header("retry-after", &RETRY_AFTER.to_string()), header("content-type", "application/json")]
        } else {
            Vec::new()
        },
        action: Some(action),
        ..Default::default()
    }
}

/// Matches the path and what is below it, but not `/game-10` for `/game-1`.
fn below(path: &PathPrefix) -> PathSpecifier {
    if path.is_root() {
        PathSpecifier::Prefix("/".into())
    } else {
        PathSpecifier::PathSeparatedPrefix(path.to_string())
    }
}

fn target(open: &[&Server]) -> ClusterSpecifier {
    match open {
        [one] => ClusterSpecifier::Cluster(cluster_name(&one.id)),
        many => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: many
                .iter()
                .map(|server| ClusterWeight {
                    name: cluster_name(&server.id),
                    weight: Some(uint(server.desired.weight.0.into())),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    }
}

fn refusal(status: &str, message: &str) -> DirectResponseAction {
    let body = json!({ "status": status, "message": message }).to_string();
    DirectResponseAction {
        status: 503,
        body: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(body)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn redirection(redirect: &Redirect) -> RedirectAction {
    RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::SchemeRedirect(
            if redirect.https { "https" } else { "http" }.into(),
        )),
        host_redirect: redirect.host.to_string(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        path_rewrite_specifier: redirect
            .path
            .as_ref()
            .map(|path| PathRewriteSpecifier::PathRedirect(path.to_string())),
        response_code: RedirectResponseCode::TemporaryRedirect.into(),
        ..Default::default()
    }
}

fn header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    }
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
