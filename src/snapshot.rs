//! What every Envoy should hold: encoded resources by name, and in the order of their last change.
//!
//! A change takes a new revision and moves its key to the end of the order, so "what changed since" is
//! a range scan in which each key stands once, however often it moved. A removal leaves a tombstone
//! until `compact`. Nothing here knows what the bytes mean.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::Gateway;

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

/// One resource as it goes over the wire: an encoded `envoy.service.discovery.v3.Resource`, made once
/// and shared by every stream. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The version of its content.
    pub version: Version,
    /// The encoded message, with name and version in it.
    pub body: Bytes,
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

    fn is_gone(&self) -> bool {
        self.every.is_none() && self.named.iter().all(|(_, resource)| resource.is_none())
    }

    fn bytes(&self) -> usize {
        self.every.iter().chain(self.named.iter().filter_map(|(_, r)| r.as_ref())).map(|r| r.body.len()).sum()
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

/// A name with its content and its past.
#[derive(Debug, Default)]
pub struct Entry {
    revision: Revision,
    variants: Variants,
    /// True when an Envoy of an unnamed gateway may still hold it though it should not.
    lost_by_every: bool,
    /// The same, of these gateways.
    lost_by: Vec<Gateway>,
}

impl Entry {
    /// What the Envoys of `gateway` should hold.
    pub fn view(&self, gateway: &str) -> Option<&Resource> {
        self.variants.view(gateway)
    }

    /// True when an Envoy of `gateway` may hold this name and should not.
    pub fn was_lost_by(&self, gateway: &str) -> bool {
        self.variants.view(gateway).is_none()
            && (self.lost_by_every || self.lost_by.iter().any(|lost| &*lost.0 == gateway))
    }

    fn has_past(&self) -> bool {
        self.lost_by_every || !self.lost_by.is_empty()
    }

    fn replace(&mut self, variants: Variants) {
        // A gateway that was served by `every` and is named and hidden now has lost it, too; it can't
        // be told from the others here, so "every" lost it and `was_lost_by` looks at who holds it.
        let hidden = variants.named.iter().any(|(_, resource)| resource.is_none());
        self.lost_by_every |= self.variants.every.is_some() && (variants.every.is_none() || hidden);
        for (gateway, resource) in &self.variants.named {
            let still = variants.view(&gateway.0).is_some();
            if resource.is_some() && !still && !self.lost_by.contains(gateway) {
                self.lost_by.push(gateway.clone());
            }
        }
        self.variants = variants;
    }
}

#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<Name, Entry>,
    /// Names that somebody should hold, by the revision of their last change.
    live: BTreeMap<Revision, Name>,
    /// Names that somebody may hold and should not, likewise. A name may stand in both.
    lost: BTreeMap<Revision, Name>,
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
        self.shelf(kind).live.len()
    }

    /// How many tombstones there are.
    pub fn tombstones(&self) -> usize {
        self.clusters.lost.len() + self.scopes.lost.len()
    }

    /// Takes the changes in their order; a change to the same content is none.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let mut applied = Applied::default();
        for Change { kind, name, variants } in changes {
            let shelf = match kind {
                Kind::Cluster => &mut self.clusters,
                Kind::Scope => &mut self.scopes,
            };
            let gone = variants.is_gone();
            match shelf.entries.get(&name) {
                Some(entry) if entry.variants == variants => continue,
                None if gone => continue,
                _ => {}
            }
            if gone {
                applied.removed += 1;
            } else {
                applied.upserted += 1;
                applied.bytes += variants.bytes();
            }
            self.revision += 1;
            let entry = shelf.entries.entry(name.clone()).or_default();
            shelf.live.remove(&entry.revision);
            shelf.lost.remove(&entry.revision);
            entry.revision = self.revision;
            entry.replace(if gone { Variants::default() } else { variants });
            if entry.has_past() {
                shelf.lost.insert(self.revision, name.clone());
            }
            if !gone {
                shelf.live.insert(self.revision, name);
            }
        }
        applied
    }

    /// What the Envoys of `gateway` should hold under this name.
    pub fn get(&self, kind: Kind, name: &str, gateway: &str) -> Option<&Resource> {
        self.shelf(kind).entries.get(name)?.view(gateway)
    }

    /// The revision at which this name last changed.
    pub fn revision_of(&self, kind: Kind, name: &str) -> Option<Revision> {
        Some(self.shelf(kind).entries.get(name)?.revision)
    }

    /// Names that live and changed after `seen`, oldest change first.
    pub fn changed_since(
        &self,
        kind: Kind,
        seen: Revision,
    ) -> impl Iterator<Item = (Revision, &Name, &Entry)> {
        let shelf = self.shelf(kind);
        shelf.range(&shelf.live, seen, Revision::MAX)
    }

    /// Names that some gateway lost after `seen` and up to `until`, oldest first.
    pub fn lost_since(
        &self,
        kind: Kind,
        seen: Revision,
        until: Revision,
    ) -> impl Iterator<Item = (Revision, &Name, &Entry)> {
        let shelf = self.shelf(kind);
        shelf.range(&shelf.lost, seen, until)
    }

    /// Forgets the tombstones up to `floor`.
    pub fn compact(&mut self, floor: Revision) {
        let floor = floor.min(self.revision);
        for shelf in [&mut self.clusters, &mut self.scopes] {
            let kept = shelf.lost.split_off(&(floor + 1));
            for name in std::mem::replace(&mut shelf.lost, kept).into_values() {
                match shelf.entries.get_mut(&name) {
                    Some(entry) if !entry.variants.is_gone() => {
                        entry.lost_by_every = false;
                        entry.lost_by.clear();
                    }
                    _ => _ = shelf.entries.remove(&name),
                }
            }
        }
        self.floor = self.floor.max(floor);
    }

    /// The revision above which the newest `keep` tombstones stand.
    pub fn floor_keeping(&self, keep: usize) -> Revision {
        let nth = |shelf: &Shelf| shelf.lost.keys().rev().nth(keep).copied().unwrap_or(0);
        nth(&self.clusters).max(nth(&self.scopes))
    }

    fn shelf(&self, kind: Kind) -> &Shelf {
        match kind {
            Kind::Cluster => &self.clusters,
            Kind::Scope => &self.scopes,
        }
    }
}

impl Shelf {
    fn range<'a>(
        &'a self,
        order: &'a BTreeMap<Revision, Name>,
        seen: Revision,
        until: Revision,
    ) -> impl Iterator<Item = (Revision, &'a Name, &'a Entry)> {
        let bounds = (Bound::Excluded(seen), Bound::Included(until.max(seen)));
        // `(Excluded(x), Included(x))` is an empty range, not a panic, for x < MAX; MAX is never reached.
        let range = (seen < until).then(|| order.range(bounds)).into_iter().flatten();
        range.map(|(revision, name)| {
            let entry = self.entries.get(name).expect("each name in an order has its entry");
            (*revision, name, entry)
        })
    }
}

#[cfg(test)]
mod tests;
