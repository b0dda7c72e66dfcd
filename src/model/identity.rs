//! Who a server is.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Who reports a server. A room of `sources` declares its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Source(pub &'static str);

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    /// The namespace, and the name right behind it: one allocation for both.
    text: Box<str>,
    /// Where the name begins.
    name_at: usize,
    source: Source,
}

impl Identity {
    fn parts(&self) -> (&str, &str, Source) {
        let (namespace, name) = self.text.split_at(self.name_at);
        (namespace, name, self.source)
    }
}

/// As its parts do: `Engine::named` looks for them without an id.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One game server, for as long as its name lives. Ordered by namespace, then name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(Arc<Identity>);

impl ServerId {
    /// The server that `source` calls `namespace/name`.
    pub fn new(source: Source, namespace: &str, name: &str) -> Self {
        let text = [namespace, name].concat().into();
        Self(Arc::new(Identity { text, name_at: namespace.len(), source }))
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &str {
        self.0.parts().0
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        self.0.parts().1
    }

    /// Who reports it.
    pub fn source(&self) -> Source {
        self.0.source
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.source().0, self.namespace(), self.name())
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
