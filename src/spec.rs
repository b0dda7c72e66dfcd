//! What a user may write, and what it means: one grammar of annotations for every source.
//!
//! `read` never fails: a mistake becomes a [`Problem`] and costs no more than what it was about. A bad
//! host loses that host, a bad port closes the door, a bad weight leaves the default. What stands in
//! place of a bad value depends on the object alone, never on its past, so that every replica agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use jiff::SignedDuration;

use crate::model::{
    Age, Desired, Gateway, Gateways, Host, MAX_NAME, Mode, PathPrefix, Problem, ProblemKind, Protocol, Redirect,
    RouteKey, Server, ServerId, Share, Weight, is_name,
};

/// All our annotations begin with this.
pub const PREFIX: &str = "tidegate.dev/";
/// Most hosts, gateways or maintenance paths one server may name.
pub const MAX_ITEMS: usize = 64;
/// Longest annotation value that is read, in bytes.
pub const MAX_VALUE: usize = 4096;
/// Longest maintenance text, in bytes; Envoy's limit for a whole direct response is 4096.
pub const MAX_TEXT: usize = 512;
/// Most problems kept of one server.
pub const MAX_PROBLEMS: usize = 32;
/// The idle timeout of a server that names none.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Every annotation, without its prefix.
const KNOWN: [&str; 13] = [
    "host",
    "path",
    "strip-prefix",
    "port",
    "protocol",
    "gateway",
    "share",
    "weight",
    "drain",
    "maintenance",
    "maintenance-paths",
    "max-sessions",
    "idle-timeout",
];

/// What the fleet manager says of a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes players.
    Ready,
    /// It will.
    Starting,
    /// It takes no new ones.
    Draining,
    /// It is gone.
    Stopped,
}

/// A port that a server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub number: u16,
}

/// The annotations of one object.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// How a problem names this object's annotations, such as `metadata.annotations`.
    pub field: &'a str,
    /// The annotations.
    pub values: &'a BTreeMap<String, String>,
}

/// What a source knows of a server before its annotations are read.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Who it is.
    pub id: ServerId,
    /// When it was made.
    pub age: Age,
    /// Its fleet; none: the name without its number.
    pub fleet: Option<&'a str>,
    /// The address it listens at.
    pub address: Option<IpAddr>,
    /// Its ports; the first is the default.
    pub ports: &'a [Port],
    /// Its life.
    pub state: State,
    /// Annotations, the nearest object first: the nearest that has a key decides it.
    pub layers: &'a [Layer<'a>],
    /// Hosts for a server whose annotations name none, in the same grammar.
    pub host_template: Option<&'a str>,
    /// What the source itself found wrong.
    pub problems: Vec<Problem>,
}

/// Checks the whole of one server.
pub fn read(facts: Facts<'_>) -> Server {
    let mut reader = Reader { facts: &facts, problems: facts.problems.clone() };
    let desired = reader.desired();
    let mut problems = reader.problems;
    problems.truncate(MAX_PROBLEMS);
    Server { age: facts.age, desired, problems, id: facts.id }
}

/// The number behind the last hyphen of a name, as fleets count their servers.
pub fn ordinal(name: &str) -> Option<&str> {
    let (_, digits) = name.rsplit_once('-')?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

struct Reader<'a> {
    facts: &'a Facts<'a>,
    problems: Vec<Problem>,
}

/// A value as it was written, and where.
struct Written<'a> {
    field: String,
    text: &'a str,
}

impl<'a> Reader<'a> {
    fn desired(&mut self) -> Desired {
        self.unknown_fields();
        let endpoint = self.endpoint();
        let mode = self.mode(endpoint);
        Desired {
            endpoint,
            protocol: self.value("protocol", "http1, h2c or tls", protocol).unwrap_or_default(),
            gateways: self.gateways(),
            routes: self.routes(),
            strip_prefix: self.value("strip-prefix", "\"true\" or \"false\"", truth).unwrap_or(false),
            idle_timeout: self
                .value("idle-timeout", "a duration up to 30 days such as 90s, 30m or 1h; 0s for never", duration)
                .unwrap_or(IDLE_TIMEOUT),
            share: self.share(),
            weight: self.value("weight", "a whole number from 0 to 1000", weight).unwrap_or_default(),
            max_sessions: self.value(
                "max-sessions",
                "a whole number from 1 to 1000000; to let nobody in, use tidegate.dev/drain",
                |text| text.parse().ok().filter(|sessions| (1..=1_000_000).contains(sessions)),
            ),
            mode,
        }
    }

    fn wrong(&mut self, kind: ProblemKind, field: impl Into<String>, why: impl Into<String>) {
        self.problems.push(Problem::new(kind, field, why));
    }

    /// The nearest value of an annotation; one that is too long is reported and passed over.
    fn written(&mut self, key: &str) -> Option<Written<'a>> {
        let full = format!("{PREFIX}{key}");
        let (layer, text) =
            self.facts.layers.iter().find_map(|layer| Some((layer, layer.values.get(&full)?)))?;
        let field = format!("{}[\"{full}\"]", layer.field);
        if text.len() > MAX_VALUE {
            let why = format!("has {} bytes; at most {MAX_VALUE} are read. It is ignored", text.len());
            self.wrong(ProblemKind::TooLarge, field, why);
            return None;
        }
        Some(Written { field, text: text.trim() })
    }

    fn value<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Written { field, text } = self.written(key)?;
        let value = parse(text);
        if value.is_none() {
            let why = format!("{text:?} is not {expected}; the default is used");
            self.wrong(ProblemKind::BadValue, field, why);
        }
        value
    }

    /// The items of a comma list, each once, in order.
    fn items(&mut self, written: &Written<'a>) -> Vec<&'a str> {
        let mut items: Vec<&str> = Vec::new();
        for item in written.text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        if items.len() > MAX_ITEMS {
            let why = format!("has {} items; the first {MAX_ITEMS} are used", items.len());
            self.wrong(ProblemKind::TooLarge, written.field.clone(), why);
            items.truncate(MAX_ITEMS);
        }
        items
    }

    fn unknown_fields(&mut self) {
        for layer in self.facts.layers {
            for key in layer.values.keys() {
                let Some(short) = key.strip_prefix(PREFIX) else { continue };
                if KNOWN.contains(&short) {
                    continue;
                }
                let nearest = KNOWN
                    .into_iter()
                    .min_by_key(|known| strsim::damerau_levenshtein(known, &short.to_ascii_lowercase()))
                    .unwrap_or_default();
                let why = format!("is not an annotation of Tidegate; did you mean {PREFIX}{nearest}?");
                self.wrong(ProblemKind::UnknownField, format!("{}[\"{key}\"]", layer.field), why);
            }
        }
    }

    fn endpoint(&mut self) -> Option<SocketAddr> {
        let port = self.port();
        Some(SocketAddr::new(self.facts.address?, port?))
    }

    fn port(&mut self) -> Option<u16> {
        let ports = self.facts.ports;
        let Some(Written { field, text }) = self.written("port") else {
            // A source that found a bad port has said so itself.
            if ports.is_empty() && self.facts.problems.is_empty() && self.facts.state == State::Ready {
                let why = "is missing; expected a port from 1 to 65535, in the object or in tidegate.dev/port";
                self.wrong(ProblemKind::Missing, "port", why);
            }
            return ports.first().map(|port| port.number);
        };
        if let Some(port) = ports.iter().find(|port| port.name.as_deref() == Some(text)) {
            return Some(port.number);
        }
        if let Some(number) = text.parse().ok().filter(|number| *number != 0) {
            return Some(number);
        }
        let names: Vec<_> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
        let known = if names.is_empty() { "none of its ports has a name".into() } else { names.join(", ") };
        let why = format!("{text:?} is neither a port from 1 to 65535 nor the name of a port ({known})");
        self.wrong(ProblemKind::BadValue, field, why);
        None
    }

    fn routes(&mut self) -> Vec<RouteKey> {
        let hosts = match (self.written("host"), self.facts.host_template) {
            (Some(written), _) => written,
            (None, Some(text)) => Written { field: "hostTemplate".into(), text },
            (None, None) => return Vec::new(),
        };
        let path = match self.written("path") {
            None => PathPrefix::root(),
            // A path that can't be read must not become the root: that would be another server's.
            Some(written) => match self.path(&written.field, written.text) {
                Some(path) => path,
                None => return Vec::new(),
            },
        };
        let mut routes = BTreeSet::new();
        for item in self.items(&hosts) {
            let Some(text) = self.expand(&hosts.field, item) else { continue };
            match Host::parse(&text) {
                Ok(host) => _ = routes.insert(RouteKey { host, path: path.clone() }),
                Err(why) => {
                    self.wrong(ProblemKind::BadValue, hosts.field.clone(), format!("{text:?} {why}; this host is left out"));
                }
            }
        }
        routes.into_iter().collect()
    }

    fn path(&mut self, field: &str, text: &str) -> Option<PathPrefix> {
        let text = self.expand(field, text)?;
        match PathPrefix::parse(&text) {
            Ok(path) => Some(path),
            Err(why) => {
                let why = format!("{text:?} {why}; expected a path such as /game-0. It has no route until then");
                self.wrong(ProblemKind::BadValue, field, why);
                None
            }
        }
    }

    /// Puts the server's own words in place of `<id>`, `<name>`, `<namespace>` and `<fleet>`.
    fn expand(&mut self, field: &str, text: &str) -> Option<String> {
        let name = self.facts.id.name();
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('<') {
            expanded.push_str(before);
            let Some((token, behind)) = behind.split_once('>') else {
                self.wrong(ProblemKind::BadValue, field, format!("{text:?} has a < without a >"));
                return None;
            };
            match token {
                "name" => expanded.push_str(name),
                "namespace" => expanded.push_str(self.facts.id.namespace()),
                "fleet" => expanded.push_str(self.facts.fleet.unwrap_or_else(|| fleet_of(name))),
                "id" => match ordinal(name) {
                    Some(id) => expanded.push_str(id),
                    None => {
                        let why = format!("{text:?} has <id>, but the name {name:?} does not end in a hyphen and a number");
                        self.wrong(ProblemKind::BadValue, field, why);
                        return None;
                    }
                },
                _ => {
                    let why = format!("{text:?} has <{token}>; the tokens are <id>, <name>, <namespace> and <fleet>");
                    self.wrong(ProblemKind::BadValue, field, why);
                    return None;
                }
            }
            rest = behind;
        }
        expanded.push_str(rest);
        Some(expanded)
    }

    fn gateways(&mut self) -> Gateways {
        let Some(written) = self.written("gateway") else { return Gateways::Every };
        let mut named = BTreeSet::new();
        for item in self.items(&written) {
            if is_name(item) {
                named.insert(Gateway(item.into()));
            } else {
                let why = format!("{item:?} is not a gateway: 1 to {MAX_NAME} letters, digits and - . _; it is left out");
                self.wrong(ProblemKind::BadValue, written.field.clone(), why);
            }
        }
        // One that named gateways, if badly, did not ask for every gateway there is.
        Gateways::Named(named)
    }

    fn share(&mut self) -> Option<Share> {
        let expected = format!("a name of 1 to {MAX_NAME} letters, digits and - . _");
        let name = self.value("share", &expected, |text| is_name(text).then(|| Arc::from(text)))?;
        Some(Share { namespace: self.facts.id.namespace().into(), name })
    }

    fn mode(&mut self, endpoint: Option<SocketAddr>) -> Mode {
        let maintenance = self.maintenance();
        let drain = self.drain();
        match (self.facts.state, maintenance, drain) {
            (State::Stopped, _, _) => Mode::Stopped,
            (_, Some(Mode::Maintenance { text, paths }), _) if paths.is_empty() => Mode::Maintenance { text, paths },
            (_, _, Some(redirect)) => Mode::Draining { redirect },
            (State::Draining, _, None) => Mode::Draining { redirect: None },
            (State::Starting, _, _) => Mode::Starting,
            (State::Ready, _, _) if endpoint.is_none() => Mode::Misconfigured,
            (State::Ready, Some(maintenance), _) => maintenance,
            (State::Ready, None, None) => Mode::Open,
        }
    }

    fn maintenance(&mut self) -> Option<Mode> {
        let paths = self.maintenance_paths();
        let Some(Written { field, mut text }) = self.written("maintenance") else {
            if let Some((field, _)) = paths {
                self.wrong(ProblemKind::Missing, field, "does nothing without tidegate.dev/maintenance, the text that players are told");
            }
            return None;
        };
        if text.len() > MAX_TEXT {
            let why = format!("has {} bytes; players are told the first {MAX_TEXT}", text.len());
            self.wrong(ProblemKind::TooLarge, field, why);
            text = &text[..text.floor_char_boundary(MAX_TEXT)];
        }
        match paths {
            // All of them were wrong: nothing is closed that nobody asked to close.
            Some((_, paths)) if paths.is_empty() => None,
            Some((_, paths)) => Some(Mode::Maintenance { text: text.into(), paths }),
            None => Some(Mode::Maintenance { text: text.into(), paths: Vec::new() }),
        }
    }

    fn maintenance_paths(&mut self) -> Option<(String, Vec<PathPrefix>)> {
        let written = self.written("maintenance-paths")?;
        let mut paths = BTreeSet::new();
        for item in self.items(&written) {
            match PathPrefix::parse(item) {
                Ok(path) => _ = paths.insert(path),
                Err(why) => {
                    self.wrong(ProblemKind::BadValue, written.field.clone(), format!("{item:?} {why}; this path is left out"));
                }
            }
        }
        Some((written.field, paths.into_iter().collect()))
    }

    /// `None`: not draining. What is neither a truth nor a URL drains: whoever wrote it wants the
    /// door shut, and a shut door loses nothing.
    fn drain(&mut self) -> Option<Option<Redirect>> {
        let Written { field, text } = self.written("drain")?;
        match (truth(text), redirect(text)) {
            (Some(draining), _) => draining.then_some(None),
            (None, Some(redirect)) => Some(Some(redirect)),
            (None, None) => {
                let why = format!(
                    "{text:?} is neither \"true\", \"false\" nor a URL such as https://lobby.example.com/; it drains, with no redirect"
                );
                self.wrong(ProblemKind::BadValue, field, why);
                Some(None)
            }
        }
    }
}

fn fleet_of(name: &str) -> &str {
    ordinal(name).map_or(name, |id| &name[..name.len() - id.len() - 1])
}

fn truth(text: &str) -> Option<bool> {
    bool::from_str(text).ok()
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "http1" => Some(Protocol::Http1),
        "h2c" => Some(Protocol::H2c),
        "tls" => Some(Protocol::Tls),
        _ => None,
    }
}

fn weight(text: &str) -> Option<Weight> {
    text.parse().ok().filter(|weight| *weight <= Weight::MAX).map(Weight)
}

fn duration(text: &str) -> Option<Duration> {
    let signed: SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok().filter(|duration| *duration <= MAX_IDLE_TIMEOUT)
}

fn redirect(text: &str) -> Option<Redirect> {
    let uri: Uri = text.parse().ok()?;
    let https = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    // No user names or passwords: they would be shown to every player.
    let host = Host::parse(authority.host()).ok().filter(|host| !host.as_str().contains('*'))?;
    if authority.as_str().contains('@') {
        return None;
    }
    let path = (!text.ends_with(authority.as_str()))
        .then(|| uri.path_and_query().map(|path| Arc::from(path.as_str())))
        .flatten();
    Some(Redirect { https, host: host.as_str().into(), port: authority.port_u16(), path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Source;

    fn read_with(annotations: &[(&str, &str)], change: impl FnOnce(&mut Facts<'_>)) -> Server {
        let values: BTreeMap<_, _> =
            annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        let ports = [Port { name: Some("game".into()), number: 7000 }, Port { name: None, number: 7001 }];
        let layers = [Layer { field: "metadata.annotations", values: &values }];
        let mut facts = Facts {
            id: ServerId::new(Source("test"), "eu", "lobby-7"),
            age: Age::Unknown,
            fleet: None,
            address: Some([10, 0, 0, 7].into()),
            ports: &ports,
            state: State::Ready,
            layers: &layers,
            host_template: None,
            problems: Vec::new(),
        };
        change(&mut facts);
        read(facts)
    }

    fn good(annotations: &[(&str, &str)]) -> Desired {
        let server = read_with(annotations, |_| ());
        assert_eq!(server.problems, []);
        server.desired
    }

    /// The one problem, as a user sees it.
    #[track_caller]
    fn problem(annotations: &[(&str, &str)]) -> (String, Desired) {
        let server = read_with(annotations, |_| ());
        let [problem] = &server.problems[..] else { panic!("{:?}", server.problems) };
        (problem.to_string(), server.desired)
    }

    fn keys(desired: &Desired) -> Vec<String> {
        desired.routes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tokens_are_the_servers_own_words() {
        let desired = good(&[("host", "game<id>.example.com, <name>.<namespace>.example.com,*.x"), ("path", "/<fleet>/<id>")]);
        assert_eq!(keys(&desired), ["*.x/lobby/7", "game7.example.com/lobby/7", "lobby-7.eu.example.com/lobby/7"]);
    }

    #[test]
    fn a_server_without_a_host_has_no_route_unless_there_is_a_template() {
        assert_eq!(keys(&good(&[])), [""; 0]);
        let server = read_with(&[], |facts| facts.host_template = Some("<name>.games.example.com"));
        assert_eq!(keys(&server.desired), ["lobby-7.games.example.com"]);
        let server = read_with(&[("host", "")], |facts| facts.host_template = Some("<name>.games.example.com"));
        assert_eq!(keys(&server.desired), [""; 0], "an empty host is a choice");
    }

    #[test]
    fn a_bad_host_loses_that_host_alone() {
        let (why, desired) = problem(&[("host", "good.example.com,bad_.example.com")]);
        assert!(why.starts_with("metadata.annotations[\"tidegate.dev/host\"]: \"bad_.example.com\" has a bad label at position 0"), "{why}");
        assert_eq!(keys(&desired), ["good.example.com"]);
        let (why, _) = problem(&[("host", "game<nr>.example.com")]);
        assert!(why.contains("the tokens are <id>, <name>, <namespace> and <fleet>"), "{why}");
        let (why, _) = problem(&[("host", "game<id.example.com")]);
        assert!(why.contains("a < without a >"), "{why}");
    }

    #[test]
    fn a_bad_path_is_not_the_root() {
        let (why, desired) = problem(&[("host", "a.example.com"), ("path", "game")]);
        assert!(why.contains("\"game\" does not begin with /"), "{why}");
        assert_eq!(keys(&desired), [""; 0]);
    }

    #[test]
    fn a_port_is_a_number_or_a_name() {
        assert_eq!(good(&[]).endpoint.unwrap().port(), 7000);
        assert_eq!(good(&[("port", "7001")]).endpoint.unwrap().port(), 7001);
        assert_eq!(good(&[("port", "game")]).endpoint.unwrap().port(), 7000);
        for bad in ["0", "65536", "query", ""] {
            let (why, desired) = problem(&[("port", bad)]);
            assert!(why.contains("nor the name of a port (game)"), "{why}");
            assert_eq!(desired.mode, Mode::Misconfigured);
        }
        let server = read_with(&[], |facts| facts.ports = &[]);
        assert_eq!(server.problems[0].to_string(), "port: is missing; expected a port from 1 to 65535, in the object or in tidegate.dev/port");
        assert_eq!(server.desired.mode, Mode::Misconfigured);
    }

    #[test]
    fn an_unknown_annotation_is_named_with_its_neighbour() {
        let (why, _) = problem(&[("hots", "a.example.com")]);
        assert!(why.ends_with("did you mean tidegate.dev/host?"), "{why}");
        let (why, _) = problem(&[("idleTimeout", "1h")]);
        assert!(why.ends_with("did you mean tidegate.dev/idle-timeout?"), "{why}");
    }

    #[test]
    fn bad_values_leave_the_default() {
        for (key, bad) in [
            ("weight", "-1"),
            ("weight", "1001"),
            ("strip-prefix", "yes"),
            ("protocol", "http2"),
            ("idle-timeout", "5"),
            ("idle-timeout", "-1h"),
            ("idle-timeout", "31d"),
            ("max-sessions", "0"),
            ("share", "a b"),
        ] {
            let (why, desired) = problem(&[(key, bad)]);
            assert!(why.contains(&format!("{bad:?} is not ")), "{why}");
            assert_eq!(desired, good(&[]), "{key}={bad}");
        }
    }

    #[test]
    fn good_values_are_read() {
        let desired = good(&[
            ("weight", "0"),
            ("strip-prefix", "true"),
            ("protocol", "h2c"),
            ("idle-timeout", "1h30m"),
            ("max-sessions", "50"),
            ("share", "lobby"),
            ("gateway", "eu, us"),
        ]);
        assert_eq!((desired.weight, desired.strip_prefix, desired.protocol), (Weight(0), true, Protocol::H2c));
        assert_eq!((desired.idle_timeout.as_secs(), desired.max_sessions), (5400, Some(50)));
        assert_eq!(desired.share.unwrap().namespace.as_ref(), "eu");
        assert_eq!(desired.gateways.named().count(), 2);
        assert_eq!(good(&[("idle-timeout", "0s")]).idle_timeout, Duration::ZERO);
    }

    #[test]
    fn a_badly_named_gateway_is_not_every_gateway() {
        let (_, desired) = problem(&[("gateway", "e u")]);
        assert!(!desired.gateways.include(None));
    }

    #[test]
    fn drain_is_a_truth_or_a_url() {
        assert_eq!(good(&[("drain", "false")]).mode, Mode::Open);
        assert_eq!(good(&[("drain", "true")]).mode, Mode::Draining { redirect: None });
        let Mode::Draining { redirect: Some(redirect) } = good(&[("drain", "https://lobby.example.com:8443/in?a=b")]).mode else {
            panic!("no redirect")
        };
        assert_eq!((redirect.https, &*redirect.host, redirect.port, redirect.path.as_deref()), (true, "lobby.example.com", Some(8443), Some("/in?a=b")));
        let Mode::Draining { redirect: Some(redirect) } = good(&[("drain", "http://lobby.example.com")]).mode else {
            panic!("no redirect")
        };
        assert_eq!(redirect.path, None, "players keep their path");
        for bad in ["soon", "ftp://a.example.com", "https://", "https://me:secret@a.example.com/", "https://*.x/", ""] {
            let (why, desired) = problem(&[("drain", bad)]);
            assert!(why.contains("it drains, with no redirect"), "{why}");
            assert_eq!(desired.mode, Mode::Draining { redirect: None });
        }
    }

    #[test]
    fn maintenance_closes_all_or_the_named_paths() {
        let Mode::Maintenance { text, paths } = good(&[("maintenance", "back at 5")]).mode else { panic!() };
        assert_eq!((&*text, paths.len()), ("back at 5", 0));
        let Mode::Maintenance { paths, .. } = good(&[("maintenance", "x"), ("maintenance-paths", "/shop,/rank")]).mode else { panic!() };
        assert_eq!(paths.len(), 2);
        let (_, desired) = problem(&[("maintenance", "x"), ("maintenance-paths", "shop")]);
        assert_eq!(desired.mode, Mode::Open, "a mistyped path closes nothing");
        let (why, _) = problem(&[("maintenance-paths", "/shop")]);
        assert!(why.contains("does nothing without tidegate.dev/maintenance"), "{why}");
        let (why, desired) = problem(&[("maintenance", &"é".repeat(400))]);
        assert!(why.contains("has 800 bytes"), "{why}");
        let Mode::Maintenance { text, .. } = desired.mode else { panic!() };
        assert_eq!(text.len(), MAX_TEXT);
    }

    #[test]
    fn the_nearest_layer_decides() {
        let near = BTreeMap::from([("tidegate.dev/weight".to_owned(), "1".to_owned())]);
        let far = BTreeMap::from([
            ("tidegate.dev/weight".to_owned(), "2".to_owned()),
            ("tidegate.dev/max-sessions".to_owned(), "3".to_owned()),
        ]);
        let layers = [Layer { field: "near", values: &near }, Layer { field: "far", values: &far }];
        let server = read(Facts {
            id: ServerId::new(Source("test"), "eu", "lobby-7"),
            age: Age::Unknown,
            fleet: None,
            address: None,
            ports: &[],
            state: State::Starting,
            layers: &layers,
            host_template: None,
            problems: Vec::new(),
        });
        assert_eq!((server.desired.weight, server.desired.max_sessions), (Weight(1), Some(3)));
    }

    #[test]
    fn the_state_is_obeyed() {
        let mode = |state, annotations: &[(&str, &str)]| read_with(annotations, |facts| facts.state = state).desired.mode;
        assert_eq!(mode(State::Starting, &[]), Mode::Starting);
        assert_eq!(mode(State::Draining, &[]), Mode::Draining { redirect: None });
        assert_eq!(mode(State::Stopped, &[("maintenance", "x")]), Mode::Stopped);
        assert_eq!(mode(State::Starting, &[("drain", "true")]), Mode::Draining { redirect: None });
        assert_eq!(mode(State::Starting, &[("maintenance", "x")]).word(), "maintenance");
    }

    #[test]
    fn what_is_too_much_is_cut_and_said() {
        let hosts: Vec<_> = (0..70).map(|i| format!("h{i}.example.com")).collect();
        let (why, desired) = problem(&[("host", &hosts.join(","))]);
        assert!(why.contains("has 70 items; the first 64 are used"), "{why}");
        assert_eq!(desired.routes.len(), MAX_ITEMS);
        let (why, _) = problem(&[("host", &"a".repeat(5000))]);
        assert!(why.contains("has 5000 bytes"), "{why}");
        let many: Vec<_> = (0..50).map(|i| (format!("x{i}"), "y")).collect();
        let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        assert_eq!(read_with(&many, |_| ()).problems.len(), MAX_PROBLEMS);
    }
}
