//! Hosts and path prefixes: what players ask for and servers claim.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Longest host accepted, in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST: usize = 253;
/// Longest path prefix accepted, in bytes: it is part of a resource's name.
pub const MAX_PATH: usize = 256;

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
