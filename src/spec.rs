//! What a user may write, and what it means: one grammar of annotations for every source.
//!
//! `read` never fails: a mistake becomes a [`Problem`] and costs no more than what it was about. A bad
//! host loses that host, a bad port closes the door, a bad weight leaves the default. What stands in
//! place of a bad value depends on the object alone, never on its past, so that every replica agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Age, Desired, Fleet, Gateway, Gateways, Host, MAX_NAME, PathPrefix, Problem, ProblemKind, RouteKey,
    Server, ServerId, Share, is_name,
};

mod door;
mod keys;
mod levers;
mod values;

pub use door::{leads_to, redirect};
pub use keys::{nearest, shown};
pub use levers::RETRY_AFTER;
use values::{Written, affinity, count, duration, priority, protocol, truth, version, weight};

/// All our annotations begin with this.
pub const PREFIX: &str = "tidegate.dev/";
/// The annotation that says where players reach a server: its URLs, comma-separated. It is written, not read.
pub const URL: &str = "tidegate.dev/url";
/// The annotation with a server's live sessions. It is written, not read.
pub const SESSIONS: &str = "tidegate.dev/sessions";
/// The annotation of a server that is drained and empty, by which a fleet manager was told so: the ops state that it had,
/// or `true`. It is written, and read to take it away again.
pub const EMPTY: &str = "tidegate.dev/empty";
/// Annotations that ask for nothing.
pub const WRITTEN: [&str; 3] = [URL, SESSIONS, EMPTY];
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
        written.cloned().unwrap_or_else(|| format!("{}[\"{}\"]", self.field, shown(key)))
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
    let fleet = facts.fleet.unwrap_or_else(|| fleet_of(facts.name.unwrap_or(facts.id.name())));
    let fleet = Fleet::of(facts.id.name(), fleet);
    Server { fleet, age: facts.age, desired, problems, id: facts.id }
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

impl Reader<'_> {
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

    fn endpoint(&mut self) -> Option<SocketAddr> {
        let port = self.port();
        Some(SocketAddr::new(self.facts.address?, port?))
    }

    fn port(&mut self) -> Option<u16> {
        let ports = self.facts.ports;
        let Some(Written { field, text, is_long }) = self.read("port") else {
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
        if is_long {
            // It was said, and the first port is not what was written.
            return None;
        }
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
        let hosts = match (self.listed("host"), self.facts.host_template) {
            (Some(written), _) => written,
            (None, Some(text)) => Written { field: "hostTemplate".into(), text, is_long: false },
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
        let Some(written) = self.listed("path") else { return vec![PathPrefix::root()] };
        // "Not written" is the root; written and empty is a mistake, and said as one.
        let is_empty = written.text.is_empty() && !written.is_long;
        let items = if is_empty { vec![""] } else { self.items(&written) };
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
        let Some(written) = self.listed("gateway") else { return Gateways::Every };
        let mut named = BTreeSet::new();
        let items = self.items(&written);
        if items.is_empty() && !written.is_long {
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
}

fn fleet_of(name: &str) -> &str {
    ordinal(name).map_or(name, |id| &name[..name.len() - id.len() - 1])
}

#[cfg(test)]
mod tests;
