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
    Affinity, Age, Desired, GameVersion, Gateway, Gateways, Host, MAX_NAME, Mode, PathPrefix, Priority,
    Problem, ProblemKind, Protocol, Redirect, RouteKey, Server, ServerId, Share, Weight, is_name,
};

mod levers;

pub use levers::RETRY_AFTER;

/// All our annotations begin with this.
pub const PREFIX: &str = "tidegate.dev/";
/// The annotation that says where players reach a server: its URLs, comma-separated. It is written, not read.
pub const URL: &str = "tidegate.dev/url";
const SHARE: &str = "tidegate.dev/share";
/// Most hosts, gateways or maintenance paths one server may name.
pub const MAX_ITEMS: usize = 64;
/// Longest annotation value that is read, in bytes.
pub const MAX_VALUE: usize = 4096;
/// Longest maintenance text, in bytes; Envoy's limit for a whole direct response is 4096.
pub const MAX_TEXT: usize = 512;
/// Most problems kept of one server.
pub const MAX_PROBLEMS: usize = 32;
/// The idle timeout of a server that names none.
pub const IDLE_TIMEOUT: Duration = Duration::from_hours(1);
const MAX_IDLE_TIMEOUT: Duration = Duration::from_hours(30 * 24);

/// Every annotation, without its prefix.
const KNOWN: [&str; 23] = [
    "host",
    "path",
    "strip-prefix",
    "port",
    "protocol",
    "gateway",
    "share",
    "weight",
    "priority",
    "affinity",
    "version",
    "drain",
    "drain-allow-cookie",
    "retry-after",
    "maintenance",
    "maintenance-paths",
    "max-sessions",
    "max-connections",
    "max-pending-requests",
    "new-sessions-per-second",
    "idle-timeout",
    "response-timeout",
    "https-redirect",
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
    /// Where a value really stands, by its key: for what was written in another tool's words.
    pub written: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Layer<'a> {
    /// Annotations as they stand in `field`.
    pub fn new(field: &'a str, values: &'a BTreeMap<String, String>) -> Self {
        Self { field, values, written: None }
    }

    fn field_of(&self, key: &str) -> String {
        let written = self.written.and_then(|written| written.get(key));
        written.cloned().unwrap_or_else(|| format!("{}[\"{key}\"]", self.field))
    }
}

/// What a source knows of a server before its annotations are read.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Who it is.
    pub id: ServerId,
    /// Its name in hosts and paths; none: that of its id.
    pub name: Option<&'a str>,
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
        let routes = self.routes();
        let mode = self.mode(endpoint, &routes);
        Desired {
            endpoint,
            protocol: self.value("protocol", "http1, h2c, h2 or tls", protocol).unwrap_or_default(),
            gateways: self.gateways(),
            routes,
            strip_prefix: self.value("strip-prefix", "\"true\" or \"false\"", truth).unwrap_or(false),
            idle_timeout: self
                .value(
                    "idle-timeout",
                    "a duration from 1s to 720h such as 90s, 30m or 1h30m; 0s for never",
                    duration,
                )
                .unwrap_or(IDLE_TIMEOUT),
            share: self.share(),
            weight: self.value("weight", "a whole number from 0 to 1000", weight).unwrap_or_default(),
            priority: self.shared(
                "priority",
                "a whole number from 0 to 100; the highest takes new players first",
                priority,
            ),
            affinity: self.shared("affinity", "\"cookie\" or \"none\"", affinity),
            version: self.shared("version", "a whole number from 0 to 1000000", version),
            response_timeout: self.value(
                "response-timeout",
                "a duration from 1s to 720h such as 15s or 5m; 0s for never",
                duration,
            ),
            https_redirect: self.value("https-redirect", "\"true\" or \"false\"", truth).unwrap_or(false),
            max_sessions: self.value(
                "max-sessions",
                "a whole number from 1 to 1000000; to let nobody in, use tidegate.dev/drain",
                count,
            ),
            max_connections: self.value("max-connections", "a whole number from 1 to 1000000", count),
            max_pending: self.value("max-pending-requests", "a whole number from 1 to 1000000", count),
            new_sessions_per_second: self.new_sessions_per_second(),
            drain_cookie: self.drain_cookie(),
            retry_after: self.retry_after(),
            mode,
        }
    }

    fn wrong(&mut self, kind: ProblemKind, field: impl Into<String>, why: impl Into<String>) {
        self.problems.push(Problem::new(kind, field, why));
    }

    /// The nearest value of an annotation; one that is too long is reported and passed over.
    fn written(&mut self, key: &str) -> Option<Written<'a>> {
        self.read(key).filter(|written| written.text.len() <= MAX_VALUE)
    }

    /// The same, but what is too long is cut and not passed over: for what shuts a door.
    fn cut(&mut self, key: &str) -> Option<Written<'a>> {
        let Written { field, text } = self.read(key)?;
        Some(Written { field, text: &text[..text.floor_char_boundary(MAX_VALUE)] })
    }

    fn read(&mut self, key: &str) -> Option<Written<'a>> {
        let full = format!("{PREFIX}{key}");
        let (layer, text) =
            self.facts.layers.iter().find_map(|layer| Some((layer, layer.values.get(&full)?)))?;
        let field = layer.field_of(&full);
        if text.len() > MAX_VALUE {
            let why = format!("has {} bytes; at most {MAX_VALUE} are read", text.len());
            self.wrong(ProblemKind::TooLarge, field.clone(), why);
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
                // What is said of a server is no wish of its author's.
                if KNOWN.contains(&short) || *key == URL {
                    continue;
                }
                let nearest = KNOWN
                    .into_iter()
                    .min_by_key(|known| strsim::damerau_levenshtein(known, &short.to_ascii_lowercase()))
                    .unwrap_or_default();
                let why = format!("is not an annotation of Tidegate; did you mean {PREFIX}{nearest}?");
                self.wrong(ProblemKind::UnknownField, layer.field_of(key), why);
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
            let about_port = |problem: &Problem| {
                problem.field == "spec" || problem.field.to_ascii_lowercase().contains("port")
            };
            let said = self.facts.problems.iter().any(about_port);
            if ports.is_empty() && !said && self.facts.state == State::Ready {
                let why =
                    "is missing; expected a port from 1 to 65535, in the object or in tidegate.dev/port";
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
        let paths = self.paths();
        let mut routes = BTreeSet::new();
        for item in self.items(&hosts) {
            let Some(text) = self.expand(&hosts.field, item) else { continue };
            match Host::parse(&text) {
                Ok(host) => {
                    routes
                        .extend(paths.iter().map(|path| RouteKey { host: host.clone(), path: path.clone() }));
                }
                Err(why) => {
                    self.wrong(
                        ProblemKind::BadValue,
                        hosts.field.clone(),
                        format!("{text:?} {why}; this host is left out"),
                    );
                }
            }
        }
        routes.into_iter().collect()
    }

    /// The paths on every host. What can't be read must not become the root: that would be another server's.
    fn paths(&mut self) -> Vec<PathPrefix> {
        let Some(written) = self.written("path") else { return vec![PathPrefix::root()] };
        // "Not written" is the root; written and empty is a mistake, and said as one.
        let items = if written.text.is_empty() { vec![""] } else { self.items(&written) };
        items.into_iter().filter_map(|item| self.path(&written.field, item)).collect()
    }

    fn path(&mut self, field: &str, text: &str) -> Option<PathPrefix> {
        let text = self.expand(field, text)?;
        match PathPrefix::parse(&text) {
            Ok(path) => Some(path),
            Err(why) => {
                let why = format!(
                    "{text:?} {why}; expected a path such as /game-0. It has no route there until then"
                );
                self.wrong(ProblemKind::BadValue, field, why);
                None
            }
        }
    }

    /// Puts the server's own words in place of `<id>`, `<name>`, `<namespace>` and `<fleet>`.
    fn expand(&mut self, field: &str, text: &str) -> Option<String> {
        let name = self.facts.name.unwrap_or(self.facts.id.name());
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
                "id" => {
                    let Some(id) = ordinal(name) else {
                        let why = format!(
                            "{text:?} has <id>, but the name {name:?} does not end in a hyphen and a number"
                        );
                        self.wrong(ProblemKind::BadValue, field, why);
                        return None;
                    };
                    expanded.push_str(id);
                }
                _ => {
                    let why = format!(
                        "{text:?} has <{token}>; the tokens are <id>, <name>, <namespace> and <fleet>"
                    );
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
        let items = self.items(&written);
        if items.is_empty() {
            let why = "names no gateway, so that no Envoy serves it; leave it out for every gateway";
            self.wrong(ProblemKind::BadValue, written.field.clone(), why);
        }
        for item in items {
            if is_name(item) {
                named.insert(Gateway(item.into()));
            } else {
                let why = format!(
                    "{item:?} is not a gateway: 1 to {MAX_NAME} letters, digits and - . _; it is left out"
                );
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

    /// What means something among the members of a share only.
    fn shared<T: Default + PartialEq>(
        &mut self,
        key: &str,
        expected: &str,
        parse: fn(&str) -> Option<T>,
    ) -> T {
        let value = self.value(key, expected, parse).unwrap_or_default();
        let is_alone = !self.facts.layers.iter().any(|layer| layer.values.contains_key(SHARE));
        if is_alone
            && value != T::default()
            && let Some(Written { field, .. }) = self.written(key)
        {
            let why =
                "does nothing without tidegate.dev/share, the name that servers of one host have in common";
            self.wrong(ProblemKind::Missing, field, why);
        }
        value
    }

    fn mode(&mut self, endpoint: Option<SocketAddr>, routes: &[RouteKey]) -> Mode {
        let maintenance = self.maintenance();
        let drain = self.drain(routes);
        match (self.facts.state, maintenance, drain) {
            (State::Stopped, _, _) => Mode::Stopped,
            (_, Some(Mode::Maintenance { text, paths }), _) if paths.is_empty() => {
                Mode::Maintenance { text, paths }
            }
            (_, _, Some(draining)) => draining,
            (State::Draining, _, None) => Mode::Draining { redirect: None },
            (State::Starting, _, _) => Mode::Starting,
            (State::Ready, _, _) if endpoint.is_none() => Mode::Misconfigured,
            (State::Ready, Some(maintenance), _) => maintenance,
            (State::Ready, None, None) => Mode::Open,
        }
    }

    fn maintenance(&mut self) -> Option<Mode> {
        let paths = self.maintenance_paths();
        let Some(Written { field, mut text }) = self.cut("maintenance") else {
            if let Some((field, _)) = paths {
                self.wrong(
                    ProblemKind::Missing,
                    field,
                    "does nothing without tidegate.dev/maintenance, the text that players are told",
                );
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
        // An empty list names no path, so it is not the list: all are in maintenance.
        let written = self
            .written("maintenance-paths")
            .filter(|written| !written.text.replace([',', ' '], "").is_empty())?;
        let mut paths = BTreeSet::new();
        for item in self.items(&written) {
            match PathPrefix::parse(item) {
                Ok(path) => _ = paths.insert(path),
                Err(why) => {
                    self.wrong(
                        ProblemKind::BadValue,
                        written.field.clone(),
                        format!("{item:?} {why}; this path is left out"),
                    );
                }
            }
        }
        Some((written.field, paths.into_iter().collect()))
    }

    /// What is neither a truth nor a URL drains: whoever wrote it wants the door shut, and a shut door
    /// loses nothing.
    fn drain(&mut self, routes: &[RouteKey]) -> Option<Mode> {
        let Written { field, text } = self.cut("drain")?;
        if let Some(draining) = truth(text) {
            return draining.then_some(Mode::Draining { redirect: None });
        }
        let redirect = redirect(text);
        if let Some(own) =
            redirect.as_ref().and_then(|redirect| routes.iter().find(|key| leads_to(redirect, key)))
        {
            let why = format!("{text:?} leads to {own}, this server itself; it drains, with no redirect");
            self.wrong(ProblemKind::BadValue, field, why);
            return Some(Mode::Draining { redirect: None });
        }
        if redirect.is_none() {
            let why = format!(
                "{text:?} is neither \"true\", \"false\" nor a URL such as https://lobby.example.com/; it drains, with no redirect"
            );
            self.wrong(ProblemKind::BadValue, field, why);
        }
        Some(Mode::Draining { redirect })
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
        "h2" => Some(Protocol::H2),
        "tls" => Some(Protocol::Tls),
        _ => None,
    }
}

fn weight(text: &str) -> Option<Weight> {
    text.parse().ok().filter(|weight| *weight <= Weight::MAX).map(Weight)
}

fn priority(text: &str) -> Option<Priority> {
    text.parse().ok().filter(|priority| *priority <= Priority::MAX).map(Priority)
}

fn affinity(text: &str) -> Option<Affinity> {
    match text {
        "none" => Some(Affinity::None),
        "cookie" => Some(Affinity::Cookie),
        _ => None,
    }
}

fn version(text: &str) -> Option<GameVersion> {
    text.parse().ok().filter(|version| *version <= GameVersion::MAX).map(GameVersion)
}

fn duration(text: &str) -> Option<Duration> {
    let signed: SignedDuration = text.parse().ok()?;
    let is_said = |duration: &Duration| {
        duration.is_zero() || (Duration::from_secs(1)..=MAX_IDLE_TIMEOUT).contains(duration)
    };
    Duration::try_from(signed).ok().filter(is_said)
}

fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| (1..=1_000_000).contains(count))
}

/// True when players who are redirected come to the same route again.
fn leads_to(redirect: &Redirect, key: &RouteKey) -> bool {
    let path = redirect.path.as_deref().map(|path| path.split('?').next().unwrap_or_default());
    let stays = path.is_none_or(|path| PathPrefix::parse(path).is_ok_and(|path| key.path.covers(&path)));
    *redirect.host == *key.host.as_str() && stays
}

fn redirect(text: &str) -> Option<Redirect> {
    // What a browser would keep to itself, or Envoy pass on raw, is no place to send players.
    if !text.is_ascii() || text.contains('#') {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let https = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    // No user names or passwords: they would be shown to every player.
    let host = Host::parse(authority.host()).ok().filter(|host| !host.as_str().contains('*'))?;
    if authority.as_str().contains('@')
        || (authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0))
    {
        return None;
    }
    // The parser makes "/" of nothing, but "https://a" leaves players their path and "https://a/" does not.
    let behind = text.split_once("://")?.1.strip_prefix(authority.as_str())?;
    let path =
        (!behind.is_empty()).then(|| uri.path_and_query().map(|path| Arc::from(path.as_str()))).flatten();
    Some(Redirect { https, host: host.as_str().into(), port: authority.port_u16(), path })
}

#[cfg(test)]
mod tests;
