//! All objects of a directory, and the servers that they make: `ledger` says what a file changes, and what
//! that comes to is said as events. Our own servers are told as they are; Kubernetes' objects go through the
//! same `kinds::Fleet` as those of a watched cluster.

use std::sync::Arc;

use super::content::Content;
use super::item::{Change, Id, Item};
use super::ledger::Ledger;
use super::{AGONES, OKG, SOURCE, SOURCES};
use crate::kinds::{self, Rules, Sources};
use crate::model::{Event, Server, Source};

/// A directory's objects and servers.
#[derive(Debug)]
pub(super) struct Fleet {
    ledger: Ledger,
    objects: kinds::Fleet,
}

impl Fleet {
    /// Without a file yet.
    pub(super) fn new(rules: Rules) -> Self {
        let objects = kinds::Fleet::new(rules, Sources { okg: OKG, agones: AGONES });
        Self { ledger: Ledger::default(), objects }
    }

    /// Which file holds what.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What Kubernetes' objects come to.
    pub(super) fn objects(&self) -> &kinds::Fleet {
        &self.objects
    }

    /// Takes a file's new content. Returns what that changes.
    pub(super) fn replace(&mut self, name: &str, content: Content) -> Vec<Event> {
        let changes = self.ledger.replace(name, content);
        self.tell(changes)
    }

    /// Takes away a file that was deleted. Returns what that changes.
    pub(super) fn remove(&mut self, name: &str) -> Vec<Event> {
        let changes = self.ledger.remove(name);
        self.tell(changes)
    }

    fn tell(&mut self, changes: Vec<Change>) -> Vec<Event> {
        let (mut events, mut objects) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Put(Item::Server(server)) => events.push(Event::Upsert(server)),
                Change::Gone(Id::Server(id)) => events.push(Event::Remove(id)),
                Change::Put(Item::Object(object)) => objects.push(kinds::Change::Put(object)),
                Change::Gone(Id::Object(key)) => objects.push(kinds::Change::Gone(*key)),
            }
        }
        // All of a file at once: its pods and its sets are read together.
        events.extend(self.objects.apply(objects));
        // Nobody writes to what stands in files.
        self.objects.forget_touched();
        events
    }

    /// All that each source has, and whether there may be more.
    pub(super) fn listing(&self) -> Vec<Event> {
        let doubts = self.ledger.doubt().is_some();
        let listing = SOURCES.into_iter().flat_map(|source| {
            [Event::Doubt { source, doubts }, Event::Reset { source, servers: self.servers(source) }]
        });
        listing.collect()
    }

    fn servers(&self, source: Source) -> Vec<Arc<Server>> {
        if source != SOURCE {
            return self.objects.servers(source).cloned().collect();
        }
        let servers = self.ledger.all().filter_map(|(_, _, item)| match item {
            Item::Server(server) => Some(server.clone()),
            Item::Object(_) => None,
        });
        servers.collect()
    }
}

#[cfg(test)]
mod tests;
