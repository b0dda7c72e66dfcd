//! The words of the house: servers, hosts, paths, gateways, and what a fleet wants of them.
//!
//! Everything here was checked when it was made: a `Host` is a host, a `PathPrefix` a path. No room
//! below or above has to ask again. Plain values, no behaviour beyond parsing, ordering and printing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Longest host accepted, in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST: usize = 253;
/// Longest path prefix accepted, in bytes: it is part of a resource's name.
pub const MAX_PATH: usize = 256;
/// Longest gateway or share name accepted, in bytes.
pub const MAX_NAME: usize = 128;

/// Who reports a server. A room of `sources` declares its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Source(pub &'static str);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Identity {
    namespace: Box<str>,
    name: Box<str>,
    source: Source,
}

/// One game server, for as long as its name lives. Ordered by namespace, then name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(Arc<Identity>);

impl ServerId {
    /// The server that `source` calls `namespace/name`.
    pub fn new(source: Source, namespace: &str, name: &str) -> Self {
        Self(Arc::new(Identity { namespace: namespace.into(), name: name.into(), source }))
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Who reports it.
    pub fn source(&self) -> Source {
        self.0.source
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.0.source.0, self.0.namespace, self.0.name)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ServerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing was written.
    #[error("is empty; expected a host such as game-0.example.com, *.example.com or *")]
    Empty,
    /// More than [`MAX_HOST`] bytes.
    #[error("is longer than {MAX_HOST} characters")]
    Long,
    /// A port belongs to the listener, not to a host.
    #[error("names a port; write the host alone, the port is Envoy's")]
    Port,
    /// Only a whole first label may be `*`.
    #[error("has a * that is not the whole first label; *.example.com and * are allowed")]
    Star,
    /// The label at this position, counted from 0, breaks RFC 1123.
    #[error(
        "has a bad label at position {0}; a label is 1-63 letters, digits or hyphens and starts and ends with a letter or digit"
    )]
    Label(usize),
}

/// A host that players type, in lower case: exact, `*.parent` (one label deep) or `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Host(Arc<str>);

impl Host {
    /// Reads a host as a user writes it. Upper case and one trailing dot are forgiven.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if lower.is_empty() {
            return Err(BadHost::Empty);
        }
        if lower.len() > MAX_HOST {
            return Err(BadHost::Long);
        }
        if lower == "*" {
            // "*." is what is left of "*.<nothing>": that must not become the host of all hosts.
            return if text == "*" { Ok(Self(lower.into())) } else { Err(BadHost::Star) };
        }
        if lower.contains(':') {
            return Err(BadHost::Port);
        }
        let (skipped, labels) = lower.strip_prefix("*.").map_or((0, lower.as_str()), |rest| (1, rest));
        if labels.contains('*') {
            return Err(BadHost::Star);
        }
        match labels.split('.').position(|label| !is_label(label)) {
            Some(at) => Err(BadHost::Label(at + skipped)),
            None => Ok(Self(lower.into())),
        }
    }

    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, to be kept without a copy.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// RFC 1123, section 2.1: letters, digits and hyphens, no hyphen at either end. An underscore is
/// refused by browsers' cookie and certificate rules, so it is refused here.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a path prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with `/`.
    #[error("does not begin with /")]
    Relative,
    /// More than [`MAX_PATH`] bytes.
    #[error("is longer than {MAX_PATH} characters")]
    Long,
    /// A segment is empty, `.` or `..`; Envoy normalises these away before it looks for a route.
    #[error("has an empty, . or .. segment; Envoy removes these before it looks for a route")]
    Segment,
    /// This character can't stand in a prefix.
    #[error("has the character {0:?}; letters, digits and - . _ ~ @ + = are allowed")]
    Character(char),
}

/// A path prefix without a trailing slash (the root is `/`). Ordered by segment, so that all
/// prefixes with one first segment stand together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathPrefix(Option<Arc<str>>); // none: the root, which nearly all servers have

impl PathPrefix {
    /// `/`, which is a prefix of every path.
    pub const fn root() -> Self {
        Self(None)
    }

    /// Reads a prefix as a user writes it. A trailing slash is forgiven.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        let Some(inner) = text.strip_prefix('/') else { return Err(BadPath::Relative) };
        if text.len() > MAX_PATH {
            return Err(BadPath::Long);
        }
        if inner.is_empty() {
            return Ok(Self::root());
        }
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if let Some(bad) = inner.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._~@+=/".contains(*c))) {
            return Err(BadPath::Character(bad));
        }
        if inner.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(BadPath::Segment);
        }
        Ok(Self::below_root(inner))
    }

    fn below_root(inner: &str) -> Self {
        Self((!inner.is_empty()).then(|| format!("/{inner}").into()))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("/")
    }

    /// True of `/`.
    pub fn is_root(&self) -> bool {
        self.0.is_none()
    }

    /// The first segment; empty for the root.
    pub fn first_segment(&self) -> &str {
        self.segments().next().unwrap_or_default()
    }

    /// `/segment` alone: the least prefix that has it as its first.
    pub fn of_segment(segment: &str) -> Self {
        Self::below_root(segment)
    }

    /// This prefix with `below` hung under it.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self(Some(format!("{self}{below}").into())),
        }
    }

    /// True when every path under `other` is under this one too.
    pub fn covers(&self, other: &Self) -> bool {
        self.is_root()
            || other
                .as_str()
                .strip_prefix(self.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str()[1..].split('/').filter(|segment| !segment.is_empty())
    }
}

impl Ord for PathPrefix {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.segments().cmp(other.segments())
    }
}

impl PartialOrd for PathPrefix {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PathPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What players ask for and servers claim: a host and a path prefix on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteKey {
    /// The host.
    pub host: Host,
    /// The prefix on it.
    pub path: PathPrefix,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_root() { write!(f, "{}", self.host) } else { write!(f, "{}{}", self.host, self.path) }
    }
}

/// A name of a user's choosing: 1 to [`MAX_NAME`] letters, digits and `- . _`.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// A set of Envoys with one job: their `node.cluster`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Gateway(pub Arc<str>);

/// Which gateways serve a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateways {
    /// All there are and will be.
    Every,
    /// These alone. Empty when all that was written was wrong: then none.
    Named(BTreeSet<Gateway>),
}

impl Gateways {
    /// True when the Envoys of `view` serve it. `None` is any gateway that nobody names.
    pub fn include(&self, view: Option<&Gateway>) -> bool {
        match (self, view) {
            (Self::Every, _) => true,
            (Self::Named(named), Some(gateway)) => named.contains(gateway),
            (Self::Named(_), None) => false,
        }
    }

    /// True when some Envoy serves both.
    pub fn meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Every, Self::Every) => true,
            (Self::Every, Self::Named(named)) | (Self::Named(named), Self::Every) => !named.is_empty(),
            (Self::Named(one), Self::Named(other)) => !one.is_disjoint(other),
        }
    }

    /// The gateways named; none for `Every`.
    pub fn named(&self) -> impl Iterator<Item = &Gateway> {
        match self {
            Self::Every => None,
            Self::Named(named) => Some(named),
        }
        .into_iter()
        .flatten()
    }
}

/// How Envoy speaks to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    #[default]
    Http1,
    /// HTTP/2 in the clear, WebSockets by extended CONNECT (RFC 8441).
    H2c,
    /// HTTP/2 over TLS, the certificate as for `Tls`.
    H2,
    /// HTTP/1.1 over TLS; the server's certificate is not checked, as pods sign their own.
    Tls,
}

/// A part of the players of a shared host, 0 to 1000; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Weight(pub u16);

impl Weight {
    /// The most a server can ask for.
    pub const MAX: u16 = 1000;
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

/// Who of a share takes new players first, 0 to 100: those of a lower one only while nobody of a higher one is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Priority(pub u8);

impl Priority {
    /// The most a server can ask for.
    pub const MAX: u8 = 100;
}

/// How a player who comes back is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Not at all: each join is a new one.
    #[default]
    None,
    /// By a cookie, which leads to the same server while that is open.
    Cookie,
}

/// The generation of the game that a server runs, 0 to 1000000. A player of a share never goes back to a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GameVersion(pub u32);

impl GameVersion {
    /// The most a server can state.
    pub const MAX: u32 = 1_000_000;
}

/// Servers that agree to hold a host and path together. Two namespaces never share: a stranger
/// can't join a share by guessing its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Share {
    /// The namespace of its members.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Where new players of a draining server are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    /// True for `https`.
    pub https: bool,
    /// The host to go to.
    pub host: Arc<str>,
    /// The port, when one is written.
    pub port: Option<u16>,
    /// The path and query, when one is written; else players keep their own.
    pub path: Option<Arc<str>>,
}

/// Whom a server lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "mode")]
pub enum Mode {
    /// Everybody.
    Open,
    /// Nobody yet: it is starting.
    Starting,
    /// Those inside stay; new players get 503, or go where the redirect points.
    Draining {
        /// Where new players go.
        redirect: Option<Redirect>,
    },
    /// Those inside stay; new requests under these paths (all, if none is named) get 503 and the text.
    Maintenance {
        /// What players are told.
        text: Arc<str>,
        /// The paths in maintenance, below the server's own prefix; empty: all.
        paths: Vec<PathPrefix>,
    },
    /// Nobody: it should be open, but its address or port is missing or wrong.
    Misconfigured,
    /// It is gone: it has no cluster and no route, and its hosts are free for others.
    Stopped,
}

impl Mode {
    /// The mode in one word, as metrics and JSON bodies name it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Starting => "starting",
            Self::Draining { .. } => "draining",
            Self::Maintenance { .. } => "maintenance",
            Self::Misconfigured => "misconfigured",
            Self::Stopped => "stopped",
        }
    }
}

/// When a server was made, in milliseconds since 1970. A server that does not say is younger than
/// all that do: it can't take a host from one whose age is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Age {
    /// Made then.
    Since(i64),
    /// Not said.
    #[default]
    Unknown,
}

/// What one server should be on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// Where it listens; none when that is missing or wrong.
    pub endpoint: Option<SocketAddr>,
    /// How Envoy speaks to it.
    pub protocol: Protocol,
    /// Which Envoys serve it.
    pub gateways: Gateways,
    /// The hosts and paths it claims, sorted, each once.
    pub routes: Vec<RouteKey>,
    /// The server sees `/` in place of its prefix.
    pub strip_prefix: bool,
    /// A stream with no bytes either way is cut after this; zero is never.
    #[serde(rename = "idle_timeout_seconds", serialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// A request that is whole gets 504 when no answer has ended by then; none is never. WebSockets have no such end.
    #[serde(rename = "response_timeout_seconds", serialize_with = "maybe_seconds")]
    pub response_timeout: Option<Duration>,
    /// Players who come by plain HTTP are sent to HTTPS.
    pub https_redirect: bool,
    /// Whom it holds its routes together with.
    pub share: Option<Share>,
    /// Its part of a share's players.
    pub weight: Weight,
    /// Whether a share's new players are its own, or wait for others to close.
    pub priority: Priority,
    /// How a player of its share who comes back is known.
    pub affinity: Affinity,
    /// The generation of the game that it runs.
    pub version: GameVersion,
    /// More sessions than this, on one Envoy, get 503.
    pub max_sessions: Option<u32>,
    /// Most connections of one Envoy to it.
    pub max_connections: Option<u32>,
    /// Most requests that wait, at one Envoy, for a connection to it.
    pub max_pending: Option<u32>,
    /// More new sessions than this in a second, at one Envoy, get 503.
    pub new_sessions_per_second: Option<u32>,
    /// Who sends a cookie of this name is let in while it drains.
    pub drain_cookie: Option<Arc<str>>,
    /// What those who are refused are told to wait; whole seconds, at least one.
    #[serde(rename = "retry_after_seconds", serialize_with = "seconds")]
    pub retry_after: Duration,
    /// Whom it lets in.
    #[serde(flatten)]
    pub mode: Mode,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn maybe_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.as_ref().map(Duration::as_secs).serialize(serializer)
}

/// One server as its source reports it, with all that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Who it is.
    pub id: ServerId,
    /// When it was made; the oldest claimant of a route holds it.
    pub age: Age,
    /// What it should be on the wire.
    #[serde(flatten)]
    pub desired: Desired,
    /// What its author should mend.
    pub problems: Vec<Problem>,
}

/// The kinds of what a user can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// A field that nobody reads, so probably a typing error.
    UnknownField,
    /// A value that can't be used; what stands in its place is said.
    BadValue,
    /// Something that must be there is not.
    Missing,
    /// An object that another file or line holds already.
    Duplicate,
    /// Text that is neither YAML nor JSON.
    Unparsable,
    /// An object kind that this source does not read.
    UnknownKind,
    /// More than a limit allows.
    TooLarge,
    /// A file or directory that can't be read.
    Unreadable,
}

/// A user's mistake, as data: what field, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// The field, such as `metadata.annotations["tidegate.dev/host"]`, or a place in a file.
    pub field: String,
    /// The value, what was expected and what to do.
    pub why: String,
}

impl Problem {
    /// A problem of `kind` at `field`.
    pub fn new(kind: ProblemKind, field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind, field: field.into(), why: why.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// What a source tells the engine.
#[derive(Clone, Debug)]
pub enum Event {
    /// This server is new or has changed.
    Upsert(Arc<Server>),
    /// This server is gone.
    Remove(ServerId),
    /// The source has listed: these are all it has. The first one of a source ends its wait.
    Reset {
        /// Who lists.
        source: Source,
        /// All its servers.
        servers: Vec<Arc<Server>>,
    },
    /// The source knows, or no longer fears, that there is something it could never read. While it
    /// does, what Envoys hold and nobody knows is left to them.
    Doubt {
        /// Who doubts.
        source: Source,
        /// Whether it does.
        doubts: bool,
    },
}

#[cfg(test)]
mod tests;
