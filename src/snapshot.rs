//! What every Envoy should hold: encoded resources by name, and in the order of their last change.
//!
//! A change takes a new revision and moves its key to the end of the order, so "what changed since" is
//! a walk in which each key stands once, however often it moved. A removal leaves a tombstone until
//! `compact`. Of what the bytes mean only this is known: a resource's message begins with its name.

use std::fmt;
use std::sync::Arc;

use prost::encoding::{decode_varint, encode_varint};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::Gateway;

mod shelf;

pub use shelf::Entry;
use shelf::{NOWHERE, Shelf};

/// The name of a resource on the wire.
pub type Name = Arc<str>;

/// The number of a change. Each change of each key has its own. An empty snapshot is at 1: a reader at
/// 0 has seen nothing, not even that there is nothing.
pub type Revision = u64;

/// The types that are kept. (The one RDS table is made of scopes when somebody asks for it.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.route.v3.ScopedRouteConfiguration`
    Scope,
}

/// A hash of a resource's content: equal on every replica and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of this content.
    pub fn of(content: &[u8]) -> Self {
        Self(xxh3_64(content))
    }

    /// It as text, without an allocation.
    pub fn digits(self) -> [u8; 16] {
        let mut digits = [0; 16];
        for (at, digit) in digits.iter_mut().enumerate() {
            let nibble = (self.0 >> (60 - 4 * at)) & 0xf;
            *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or_default()];
        }
        digits
    }

    /// Reads what an Envoy says it holds. What stands behind a `#` is a generation: the same content,
    /// sent once more (see `session`).
    pub fn parse(text: &str) -> Option<Self> {
        let hash = text.split_once('#').map_or(text, |(hash, _)| hash);
        u64::from_str_radix(hash, 16).ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of field 1, a string: `name` in each message that is served.
const NAME_KEY: u8 = 0x0a;

/// The content of one resource, encoded once and shared by every stream. Cheap to clone.
///
/// It is kept without the frame of `envoy.service.discovery.v3.Resource`, which says again what is known
/// here: that is put around it as it is sent. Nor is the name kept beside it.
#[derive(Clone)]
pub struct Resource {
    /// The version of its content.
    pub version: Version,
    content: Arc<[u8]>,
}

impl Resource {
    /// The message that begins with this name, in field 1, and goes on with `rest`.
    pub fn new(name: &str, rest: &[u8]) -> Self {
        let mut content = Vec::with_capacity(name.len() + rest.len() + 4);
        content.push(NAME_KEY);
        encode_varint(name.len() as u64, &mut content);
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(rest);
        Self { version: Version::of(&content), content: content.into() }
    }

    /// The encoded message.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Its name.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    fn name_bytes(&self) -> &[u8] {
        let mut rest = self.content.get(1..).unwrap_or_default();
        let length = decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
        length.and_then(|length| rest.get(..length)).unwrap_or_default()
    }
}

/// Two contents of one version are one content: an Envoy is told no more of it either.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for Resource {}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name(), self.version)
    }
}

/// One name's content by gateway. Most names have one content for every gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variants {
    /// For every gateway that is not named below.
    pub every: Option<Resource>,
    /// For these gateways instead; `None` hides the name from them.
    pub named: Vec<(Gateway, Option<Resource>)>,
}

impl Variants {
    /// One content for every gateway.
    pub fn everywhere(resource: Resource) -> Self {
        Self { every: Some(resource), named: Vec::new() }
    }

    /// What the Envoys of `gateway` should hold.
    pub fn view(&self, gateway: &str) -> Option<&Resource> {
        match self.named.iter().find(|(named, _)| &*named.0 == gateway) {
            Some((_, resource)) => resource.as_ref(),
            None => self.every.as_ref(),
        }
    }

    /// Each content there is.
    pub fn contents(&self) -> impl Iterator<Item = &Resource> {
        self.every.iter().chain(self.named.iter().filter_map(|(_, resource)| resource.as_ref()))
    }

    /// True when nobody should hold the name.
    pub fn is_gone(&self) -> bool {
        self.contents().next().is_none()
    }

    fn bytes(&self) -> usize {
        self.contents().map(|resource| resource.content.len()).sum()
    }
}

/// A name's new content; empty variants remove it.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its type.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its content.
    pub variants: Variants,
}

/// Counts of what an [`Snapshot::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Names whose content became another.
    pub upserted: usize,
    /// Names that went.
    pub removed: usize,
    /// Bytes of the new content.
    pub bytes: usize,
}

/// All resources. One writer; a reader takes clones of what it sends, which share the bytes.
#[derive(Debug)]
pub struct Snapshot {
    revision: Revision,
    floor: Revision,
    clusters: Shelf,
    scopes: Shelf,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { revision: 1, floor: 0, clusters: Shelf::default(), scopes: Shelf::default() }
    }
}

impl Snapshot {
    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Tombstones up to here are gone: a reader that stopped before has to compare names again.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// How many names of a kind somebody should hold.
    pub fn len(&self, kind: Kind) -> usize {
        self.shelf(kind).len()
    }

    /// How many tombstones there are.
    pub fn tombstones(&self) -> usize {
        self.clusters.tombstones() + self.scopes.tombstones()
    }

    /// Takes the changes in their order; a change to the same content is none.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let mut applied = Applied::default();
        for Change { kind, name, variants } in changes {
            let shelf = match kind {
                Kind::Cluster => &mut self.clusters,
                Kind::Scope => &mut self.scopes,
            };
            let (gone, bytes) = (variants.is_gone(), variants.bytes());
            if !shelf.put(name, variants, self.revision + 1) {
                continue;
            }
            self.revision += 1;
            if gone {
                applied.removed += 1;
            } else {
                applied.upserted += 1;
                applied.bytes += bytes;
            }
        }
        applied
    }

    /// What the Envoys of `gateway` should hold under this name.
    pub fn get(&self, kind: Kind, name: &str, gateway: &str) -> Option<&Resource> {
        self.entry(kind, name)?.into_view(gateway)
    }

    /// A name that somebody holds or may still hold.
    pub fn entry(&self, kind: Kind, name: &str) -> Option<Entry<'_>> {
        self.shelf(kind).entry(name)
    }

    /// The place of a name whose content for every gateway has this very version. A look-up that ends in
    /// the slot: the content, which begins with the name, need not be read to compare it.
    pub fn place_of(&self, kind: Kind, name: &str, version: Version) -> Option<u32> {
        self.shelf(kind).place_of(name, version)
    }

    /// The revision at which this name last changed.
    pub fn revision_of(&self, kind: Kind, name: &str) -> Option<Revision> {
        Some(self.entry(kind, name)?.revision())
    }

    /// Names that live and changed after `seen`, oldest change first.
    pub fn changed_since(&self, kind: Kind, seen: Revision) -> impl Iterator<Item = Entry<'_>> {
        self.shelf(kind).changed_since(seen, NOWHERE)
    }

    /// The same from where a reader left off: `place` is that of the entry that changed at `seen`. One that
    /// has moved since does no harm.
    pub fn changed_from(
        &self,
        kind: Kind,
        seen: Revision,
        place: Option<u32>,
    ) -> impl Iterator<Item = Entry<'_>> {
        self.shelf(kind).changed_since(seen, place.unwrap_or(NOWHERE))
    }

    /// Names that some gateway lost after `seen` and up to `until`, oldest first.
    pub fn lost_since(&self, kind: Kind, seen: Revision, until: Revision) -> impl Iterator<Item = Entry<'_>> {
        self.shelf(kind).lost_since(seen, until)
    }

    /// Forgets the tombstones up to `floor`.
    pub fn compact(&mut self, floor: Revision) {
        let floor = floor.min(self.revision);
        self.clusters.compact(floor);
        self.scopes.compact(floor);
        self.floor = self.floor.max(floor);
    }

    /// The revision above which the newest `keep` tombstones stand.
    pub fn floor_keeping(&self, keep: usize) -> Revision {
        self.clusters.floor_keeping(keep).max(self.scopes.floor_keeping(keep))
    }

    fn shelf(&self, kind: Kind) -> &Shelf {
        match kind {
            Kind::Cluster => &self.clusters,
            Kind::Scope => &self.scopes,
        }
    }
}

#[cfg(test)]
mod tests;
