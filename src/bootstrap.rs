//! The Envoy bootstrap, as text. Pure: options in, commented YAML out.
//!
//! Everything that Tidegate does not stream stands here, above all the listener: what never changes can never
//! drain. User text reaches the YAML only through the types below, which hold nothing that YAML could misread.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Pages for browsers.
pub mod page;
/// TLS for players.
pub mod tls;

use self::page::Page;
use self::tls::Https;

/// The frame of the bootstrap; `{{name}}` is filled with a value, or with a block of lines at that depth.
const ENVOY: &str = include_str!("bootstrap/envoy.yaml");
const SCOPES: &str = include_str!("bootstrap/scopes.yaml");
const LADDER: &str = include_str!("bootstrap/ladder.yaml");
/// What its three scripts share.
const LOOK: &str = include_str!("bootstrap/look.lua");
const PLAYER: &str = include_str!("bootstrap/player.yaml");
const TABLE: &str = include_str!("bootstrap/table.yaml");
const HTTPS: &str = include_str!("bootstrap/https.yaml");
const ON_DEMAND: &str = include_str!("bootstrap/on-demand.yaml");
const REPLIES: &str = include_str!("bootstrap/replies.yaml");

const ALL_CLUSTERS: &str = "\
# 0s: no listener opens before Tidegate has answered. A fresh Envoy that waits is better than one that says 404 to every player.
cds_config: { ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s }";
const NO_CLUSTERS: &str = "\
# No cds_config: a cluster comes with the first player of its server, see the filter on_demand.";

const LOAD_REPORTS: &str = "\
# Live sessions a server, streamed to Tidegate: the one number that cannot be seen from outside.
load_stats_config:
  api_type: GRPC
  transport_api_version: V3
  grpc_services: [ { envoy_grpc: { cluster_name: tidegate } } ]";

const STRICT_DNS: &str = "\
type: STRICT_DNS
dns_lookup_family: V4_PREFERRED
# The name of a control plane that is not there yet is asked for again soon.
dns_failure_refresh_rate: { base_interval: 1s, max_interval: 5s }";

/// What an Envoy has to know before it meets Tidegate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where Envoy finds the control plane.
    pub xds: Endpoint,
    /// Where players connect.
    pub http: SocketAddr,
    /// Where players connect by TLS, if they do.
    pub https: Option<Https>,
    /// Envoy's own admin page.
    pub envoy_admin: SocketAddr,
    /// The gateway this Envoy belongs to: its node cluster.
    pub gateway: Name,
    /// This Envoy: its node id.
    pub node_id: Name,
    /// How routes reach the listener.
    pub routes: Routes,
    /// When clusters reach Envoy.
    pub clusters: Clusters,
    /// Whether Envoy reports the live sessions of each server to Tidegate.
    pub load_reports: bool,
    /// What browsers are shown at a host that nobody has; none: our own page.
    pub unknown_page: Option<Page>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            xds: Endpoint { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 18000 },
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 10000)),
            https: None,
            envoy_admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 19000)),
            gateway: Name("default".to_owned()),
            node_id: Name("envoy".to_owned()),
            routes: Routes::default(),
            clusters: Clusters::default(),
            load_reports: true,
            unknown_page: None,
        }
    }
}

/// How routes reach the listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Routes {
    /// One scope a host: a change costs the same in a fleet of any size
    #[default]
    Scopes,
    /// One table of all hosts, built anew at each change: for small fleets
    Table,
}

/// When clusters reach Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Clusters {
    /// At once: a server's first player needs no control plane
    #[default]
    All,
    /// With the first player of a server: a large, mostly idle fleet takes a fifth of the memory
    OnDemand,
}

/// A host and a port to connect to, written `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Dns(String),
}

/// Why a text is not an [`Endpoint`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{text}` is not host:port ({why}); write it like tidegate.example.com:18000, 10.0.0.7:18000 or [::1]:18000"
)]
pub struct BadEndpoint {
    text: String,
    why: &'static str,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |why| BadEndpoint { text: text.to_owned(), why };
        if text.contains("://") {
            return Err(bad("without a scheme"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port =
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad("the port is 1 to 65535"))?;
        let host = if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Host::Ip(IpAddr::V6(inside.parse().map_err(|_| bad("not an IPv6 address in the brackets"))?))
        } else if host.contains(':') {
            return Err(bad("an IPv6 address stands in brackets"));
        } else if let Ok(address) = host.parse::<Ipv4Addr>() {
            Host::Ip(IpAddr::V4(address))
        } else if is_dns_name(host) {
            Host::Dns(host.to_owned())
        } else {
            return Err(bad("the host is neither an address nor a DNS name"));
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Ip(address) => write!(f, "{address}:{}", self.port),
            Host::Dns(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // A last label of digits is a mistyped address, never a top-level domain.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !numeric
}

/// The name of a gateway or of an Envoy: 1 to 128 printable ASCII characters, none a quote or a backslash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a name ({why}); write 1 to 128 printable ASCII characters without quotes and backslashes, like edge-eu-1"
)]
pub struct BadName {
    text: String,
    why: &'static str,
}

impl Name {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let why = match text.len() {
            0 => "it is empty",
            129.. => "it is too long",
            _ if !text.bytes().all(is_plain) => "it holds another character",
            _ if text.trim() != text => "it starts or ends with a space",
            _ => return Ok(Self(text.to_owned())),
        };
        Err(BadName { text: text.to_owned(), why })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True for what stands in double quotes in YAML as it is, and in a log as one line.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'`' | b'\\')
}

/// The bootstrap of an Envoy, as commented YAML. With TLS it needs [`tls::secret`] beside it.
pub fn bootstrap(options: &Options) -> String {
    let (title, routes, ladder) = match options.routes {
        Routes::Scopes => {
            let ladder = fill(LADDER, &[("look", LOOK)]);
            ("# Envoy under Tidegate: a static listener, routes by scope.", SCOPES, ladder)
        }
        Routes::Table => {
            ("# Envoy under Tidegate: a static listener, routes in one table.", TABLE, String::new())
        }
    };
    let (clusters, on_demand) = match options.clusters {
        Clusters::All => (ALL_CLUSTERS, ""),
        Clusters::OnDemand => (NO_CLUSTERS, ON_DEMAND),
    };
    let (discovery, xds) = match &options.xds.host {
        Host::Ip(address) => ("type: STATIC", socket_address(&address.to_string(), options.xds.port, false)),
        Host::Dns(name) => (STRICT_DNS, socket_address(name, options.xds.port, false)),
    };
    let https = options.https.as_ref().map(|https| {
        fill(HTTPS, &[("https", &listen_address(https.address)), ("secret", https.secret.as_str())])
    });
    let unknown = page::unknown(options.unknown_page.as_ref());
    let replies = fill(REPLIES, &[("page", page::PAGE), ("unknown", &unknown)]);
    // Anchors are for the second listener: they make it the same as the first by more than good intention.
    let (keepalive, players) = if https.is_some() { (" &keepalive", " &players") } else { ("", "") };
    fill(
        ENVOY,
        &[
            ("title", title),
            ("node_id", options.node_id.as_str()),
            ("gateway", options.gateway.as_str()),
            ("admin", &listen_address(options.envoy_admin)),
            ("load_reports", if options.load_reports { LOAD_REPORTS } else { "" }),
            ("discovery", discovery),
            ("xds", &xds),
            ("http", &listen_address(options.http)),
            ("routes", routes),
            ("ladder", &ladder),
            ("replies", &replies),
            ("player", PLAYER),
            ("keepalive", keepalive),
            ("players", players),
            ("https", https.as_deref().unwrap_or_default()),
            ("clusters", clusters),
            ("on_demand", on_demand),
        ],
    )
}

fn listen_address(address: SocketAddr) -> String {
    // `[::]` means everyone, players with IPv4 too, on any setting of the machine.
    let both = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    socket_address(&address.ip().to_string(), address.port(), both)
}

fn socket_address(address: &str, port: u16, ipv4_too: bool) -> String {
    let ipv4_too = if ipv4_too { ", ipv4_compat: true" } else { "" };
    format!("{{ socket_address: {{ address: \"{address}\", port_value: {port}{ipv4_too} }} }}")
}

/// Fills a template in one pass, so that a value is never read as a template. A line that is only a placeholder
/// takes its value as lines of the same depth, and goes when the value is empty.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let value = |name: &str| {
        let found = values.iter().find(|(key, _)| *key == name);
        found.expect("every placeholder of the template in this file has a value").1
    };
    let mut text = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        let inner = line.trim_start();
        if let Some(name) = inner.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) {
            let depth = &line[..line.len() - inner.len()];
            for block_line in value(name).lines() {
                text.push_str(if block_line.is_empty() { "" } else { depth });
                text.push_str(block_line);
                text.push('\n');
            }
            continue;
        }
        let mut rest = line;
        while let Some((before, name, after)) = placeholder(rest) {
            text.push_str(before);
            text.push_str(value(name));
            rest = after;
        }
        text.push_str(rest);
        text.push('\n');
    }
    text
}

fn placeholder(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn yaml(options: &Options) -> Value {
        serde_saphyr::from_str(&bootstrap(options)).unwrap()
    }

    fn cluster(options: &Options) -> Value {
        yaml(options)["static_resources"]["clusters"][0].clone()
    }

    fn address(cluster: &Value) -> Value {
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
            .clone()
    }

    /// `TIDEGATE_BLESS=1 cargo test goldens` rewrites the files, to be read as a diff.
    #[test]
    fn goldens_in_the_repository_are_what_is_printed() {
        for (file, routes, clusters) in [
            ("bootstrap.yaml", Routes::Scopes, Clusters::All),
            ("bootstrap-table.yaml", Routes::Table, Clusters::All),
            ("bootstrap-on-demand.yaml", Routes::Scopes, Clusters::OnDemand),
        ] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy").join(file);
            let printed = bootstrap(&Options { routes, clusters, ..Options::default() });
            if std::env::var_os("TIDEGATE_BLESS").is_some() {
                std::fs::write(&path, &printed).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == printed,
                "envoy/{file} is not what `bootstrap` prints: TIDEGATE_BLESS=1 rewrites it"
            );
        }
    }

    #[test]
    fn the_node_is_who_it_was_told_to_be() {
        let name = "edge: {eu} # {{http}} & *a !b %c [1], it is";
        let options =
            Options { node_id: name.parse().unwrap(), gateway: "eu".parse().unwrap(), ..Options::default() };
        let printed = yaml(&options);
        assert_eq!(printed["node"]["id"], name);
        assert_eq!(printed["node"]["cluster"], "eu");
    }

    #[test]
    fn a_name_that_could_break_the_yaml_is_refused() {
        let long = "x".repeat(129);
        for text in
            ["", " ", "a\"b", "it's", "a`b", "a\\b", "a\nb", "a\tb", "a\u{7f}", "é", " a", "a ", &long]
        {
            let error = text.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("like edge-eu-1"), "{error}");
        }
        assert!("x".repeat(128).parse::<Name>().is_ok());
    }

    /// Every character, alone and inside, either is refused or comes back from the YAML as it was.
    #[test]
    fn no_accepted_name_is_misread() {
        for character in (0u8..=255).map(char::from) {
            for text in
                [format!("{character}"), format!("a{character}b"), format!("{character}{character}: b")]
            {
                if let Ok(name) = text.parse::<Name>() {
                    assert_eq!(yaml(&Options { node_id: name, ..Options::default() })["node"]["id"], *text);
                }
            }
        }
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for text in [
            "127.0.0.1:18000",
            "[::1]:1",
            "[2001:db8::7]:65535",
            "tidegate:18000",
            "a-b.c_d.svc.cluster.local.:80",
            "1.2.3.x:5",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_endpoint_says_what_was_expected() {
        let long = format!("{}:80", "a.".repeat(130));
        for text in [
            "",
            ":",
            "tidegate",
            "tidegate:",
            ":18000",
            "tidegate:0",
            "tidegate:65536",
            "tidegate:x",
            "::1:18000",
            "[::1]",
            "[::1:80",
            "[127.0.0.1]:80",
            "http://tidegate:18000",
            "1.2.3:80",
            "999.1.1.1:80",
            "-a:80",
            "a-:80",
            "a..b:80",
            "a b:80",
            "a\"b:80",
            "a\n:80",
            "é:80",
            "tidegate:+80 ",
            &long,
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{text}` is not host:port")) && error.contains("10.0.0.7:18000"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_name_is_resolved_and_an_address_is_not() {
        let options = |xds: &str| Options { xds: xds.parse().unwrap(), ..Options::default() };
        let named = cluster(&options("tidegate.games.svc:18000"));
        assert_eq!(
            (named["type"].as_str(), address(&named)["address"].as_str()),
            (Some("STRICT_DNS"), Some("tidegate.games.svc"))
        );
        let v6 = cluster(&options("[fd00::7]:18001"));
        assert_eq!(
            (v6["type"].as_str(), address(&v6)["address"].as_str()),
            (Some("STATIC"), Some("fd00::7"))
        );
        assert_eq!(address(&v6)["port_value"], 18001);
    }

    #[test]
    fn the_unspecified_ipv6_address_listens_for_ipv4_too() {
        let listener = |http: &str| {
            let printed = yaml(&Options { http: http.parse().unwrap(), ..Options::default() });
            printed["static_resources"]["listeners"][0]["address"]["socket_address"].clone()
        };
        assert_eq!(listener("[::]:80")["ipv4_compat"], true);
        assert_eq!(listener("[::1]:80")["ipv4_compat"], Value::Null);
        assert_eq!(listener("0.0.0.0:80")["ipv4_compat"], Value::Null);
    }

    #[test]
    fn load_reports_can_be_left_out() {
        assert_eq!(yaml(&Options::default())["cluster_manager"]["load_stats_config"]["api_type"], "GRPC");
        let without = yaml(&Options { load_reports: false, ..Options::default() });
        assert_eq!(without["cluster_manager"]["load_stats_config"], Value::Null);
        assert_eq!(without["cluster_manager"]["enable_deferred_cluster_creation"], true);
    }

    #[test]
    fn no_listener_comes_over_xds() {
        for routes in [Routes::Scopes, Routes::Table] {
            assert_eq!(
                yaml(&Options { routes, ..Options::default() })["dynamic_resources"]["lds_config"],
                Value::Null
            );
        }
    }
}
