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

mod identity;
mod route;

pub use identity::{ServerId, Source};
pub use route::{BadHost, BadPath, Host, MAX_HOST, MAX_PATH, PathPrefix, RouteKey};

/// Longest gateway or share name accepted, in bytes.
pub const MAX_NAME: usize = 128;

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

/// The fleet that a server is of. Nearly always the server's name begins with it, and then it takes no memory
/// of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// So many bytes of the server's name.
    Begins(u16),
    /// This name.
    Named(Box<str>),
}

impl Fleet {
    /// The fleet of this name, for a server of that name.
    pub fn of(server: &str, fleet: &str) -> Self {
        match u16::try_from(fleet.len()) {
            Ok(length) if server.starts_with(fleet) => Self::Begins(length),
            _ => Self::Named(fleet.into()),
        }
    }
}

/// One server as its source reports it, with all that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Who it is.
    pub id: ServerId,
    /// What it belongs to; printed as [`Server::fleet`].
    #[serde(skip)]
    pub fleet: Fleet,
    /// When it was made; the oldest claimant of a route holds it.
    pub age: Age,
    /// What it should be on the wire.
    #[serde(flatten)]
    pub desired: Desired,
    /// What its author should mend.
    pub problems: Vec<Problem>,
}

impl Server {
    /// The name of its fleet, within its namespace.
    pub fn fleet(&self) -> &str {
        match &self.fleet {
            Fleet::Begins(length) => self.id.name().get(..usize::from(*length)).unwrap_or_default(),
            Fleet::Named(name) => name,
        }
    }
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

impl ProblemKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::UnknownField,
        Self::BadValue,
        Self::Missing,
        Self::Duplicate,
        Self::Unparsable,
        Self::UnknownKind,
        Self::TooLarge,
        Self::Unreadable,
    ];
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
