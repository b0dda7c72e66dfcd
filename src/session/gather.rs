//! What a channel has to say next: picked from the snapshot a slice at a time, so that no reader holds
//! changes up for long, be the fleet as large as it may.

use std::collections::HashSet;

use super::channel::Channel;
use super::{Sent, Step};
use crate::snapshot::{Entry, Kind, Name, Resource, Revision, Snapshot};

/// Most names that are looked at without letting changes in between: a millisecond or less.
const SLICE: usize = 8192;

/// What one response will carry: each name once, so never both as added and as removed.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) resources: Vec<Sent>,
    pub(super) removed: Vec<Name>,
    /// Names in it that a scan may meet once more.
    seen: HashSet<Name>,
    bytes: usize,
    /// Of a whole answer: the head when it was begun.
    base: Option<Revision>,
}

impl Items {
    pub(super) fn one(name: Name, resource: Option<Resource>) -> Self {
        let mut items = Self::default();
        items.put(name, resource);
        items
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    fn put(&mut self, name: Name, resource: Option<Resource>) {
        match resource {
            Some(resource) => self.add(resource),
            None => self.remove(name),
        }
    }

    fn add(&mut self, resource: Resource) {
        self.bytes += resource.content().len();
        self.resources.push(Sent { resource, generation: None });
    }

    fn remove(&mut self, name: Name) {
        self.bytes += name.len();
        self.removed.push(name);
    }

    /// Takes out of a whole answer what changed while it was picked: it is met again behind `base`.
    fn forget_moved(&mut self, gather: &Gather<'_>, base: Revision, until: Revision) {
        if base >= gather.snapshot.revision() {
            return;
        }
        let lives = gather.snapshot.changed_since(gather.kind, base);
        let lost = gather.snapshot.lost_since(gather.kind, base, gather.lost_until);
        let moved: HashSet<&str> = lives
            .take_while(|entry| entry.revision() <= until)
            .chain(lost)
            .map(|entry| entry.name())
            .collect();
        if !moved.is_empty() {
            self.resources.retain(|sent| !moved.contains(sent.resource.name()));
            self.removed.retain(|name| !moved.contains(&**name));
            self.seen.retain(|name| !moved.contains(&**name));
        }
    }

    fn has_seen(&self, name: &str) -> bool {
        !self.seen.is_empty() && self.seen.contains(name)
    }
}

/// What a channel reads from.
pub(super) struct Gather<'a> {
    pub(super) kind: Kind,
    pub(super) gateway: &'a str,
    pub(super) snapshot: &'a Snapshot,
    /// Most bytes of one response.
    pub(super) budget: usize,
    /// The answer should hold all that lives, in one response.
    pub(super) whole: bool,
    /// Changes up to here may be sent, ...
    pub(super) live_until: Revision,
    /// ... and losses up to here.
    pub(super) lost_until: Revision,
    /// An Envoy that refused something is not believed.
    pub(super) suspect: bool,
}

impl Gather<'_> {
    fn get(&self, name: &str) -> Option<&Resource> {
        self.snapshot.get(self.kind, name, self.gateway)
    }

    /// True when the name's last change, be it a loss, is one that may be sent.
    fn may_send(&self, name: &str) -> bool {
        let Some(entry) = self.snapshot.entry(self.kind, name) else { return true };
        let lives = entry.view(self.gateway).is_some();
        entry.revision() <= if lives { self.live_until } else { self.lost_until }
    }
}

/// How far a scan came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// All the way.
    Done,
    /// As many names as one slice has.
    Slice,
    /// As many bytes as one response has.
    Full,
}

impl Channel {
    /// What the next response carries: a retry alone, or what was asked for, then what changed, then what
    /// was lost.
    pub(super) fn gather(&mut self, gather: &Gather<'_>) -> Step<Items> {
        while let Some(names) = self.retries.pop_front() {
            let mut items = Items::default();
            // What changed since, and may not be sent yet, is met again behind the cursor.
            for name in names.into_iter().filter(|name| self.wants(name) && gather.may_send(name)) {
                let resource = gather.get(&name).cloned();
                items.put(name, resource);
            }
            if !items.is_empty() {
                return Step::Say(items);
            }
        }
        if !self.compare(gather) {
            return Step::Again;
        }
        let mut items = self.draft.take().map(|draft| *draft).unwrap_or_default();
        self.gather_asked(gather, &mut items);
        let until = gather.live_until.min(gather.snapshot.revision());
        if gather.whole {
            // First what lived when the answer was begun; changes come in between. Then what they were.
            let base = *items.base.get_or_insert(until);
            if self.gather_live(gather, base, &mut items) == Scan::Slice {
                self.draft = Some(Box::new(items));
                return Step::Again;
            }
            items.forget_moved(gather, base, until);
        }
        let scan = self.gather_live(gather, until, &mut items);
        if self.cursor >= gather.snapshot.revision() {
            self.complete = self.cursor;
        }
        // Behind all that came before it: where a key moves from scope to scope, the new one is there first.
        self.gather_lost(gather, &mut items);
        let both = self.complete.min(self.lost_cursor);
        if both >= gather.snapshot.revision() {
            self.sent = self.complete;
        } else if gather.kind == Kind::Cluster {
            // A cluster's loss waits for the scopes' ACK, so that under steady change the head is never reached. Nobody
            // orders by what clusters vouch for; who asks compares it with a name's last change, which is behind
            // it if the name moved.
            self.sent = self.sent.max(both);
        }
        if items.is_empty() && scan == Scan::Slice {
            return Step::Again;
        }
        if items.is_empty() && !self.owes {
            self.end_resync();
            return Step::Idle;
        }
        self.owes = false;
        Step::Say(items)
    }

    /// Compares a slice of what the Envoy says it holds; true when all of it is.
    fn compare(&mut self, gather: &Gather<'_>) -> bool {
        let Some(resync) = &mut self.resync else { return true };
        let until = (resync.compared + SLICE).min(resync.held.len());
        for (name, version) in (resync.compared..until).filter_map(|at| resync.held.get(at)) {
            let known = version
                .filter(|_| !gather.suspect)
                .and_then(|version| gather.snapshot.place_of(gather.kind, name, version));
            // What has another content by gateway is few, and looked up by its name.
            let entry = if known.is_none() { gather.snapshot.entry(gather.kind, name) } else { None };
            let held = entry.and_then(|entry| Some((entry.place(), entry.view(gather.gateway)?)));
            let place = match held {
                _ if known.is_some() => known,
                Some((place, resource)) => {
                    (Some(resource.version) == version && !gather.suspect).then_some(place)
                }
                None => {
                    // Learned by name or by wildcard: what is gone must be said, or it lives on for ever.
                    self.stale.insert(name.into());
                    None
                }
            };
            let Some(place) = place else { continue };
            let (word, bit) = (place as usize / 64, place % 64);
            if resync.known.len() <= word {
                resync.known.resize(word + 1, 0);
            }
            resync.known[word] |= 1 << bit;
            if !self.asked.is_empty() {
                self.asked.remove(name);
            }
        }
        resync.compared = until;
        let is_done = until == resync.held.len();
        if is_done {
            // By name alone nothing is scanned: it has been compared with all it asked for.
            self.end_resync();
        }
        is_done
    }

    /// True when the Envoy said that it holds this very content.
    fn knows(&self, entry: &Entry<'_>) -> bool {
        self.resync.as_ref().is_some_and(|resync| {
            let (word, bit) = (entry.place() as usize / 64, entry.place() % 64);
            entry.revision() <= resync.since
                && resync.known.get(word).is_some_and(|known| known & (1 << bit) != 0)
        })
    }

    pub(super) fn end_resync(&mut self) {
        let is_passed = |since| self.cursor >= since;
        if self.resync.as_ref().is_some_and(|r| r.compared == r.held.len() && is_passed(r.since)) {
            self.resync = None;
        }
    }

    fn gather_asked(&mut self, gather: &Gather<'_>, items: &mut Items) {
        // By name alone an answer waits for nothing: who asks does not hold it.
        let may_send = |name: &&Name| !self.wildcard || gather.may_send(name);
        let picked = self.asked.iter().filter(may_send).take_while(|name| {
            let has_room = items.bytes < gather.budget;
            if has_room {
                items.put((*name).clone(), gather.get(name).cloned());
            }
            has_room
        });
        let picked: Vec<Name> = picked.cloned().collect();
        if picked.len() == self.asked.len() {
            self.asked.clear();
        }
        for name in picked {
            self.asked.remove(&name);
            items.seen.insert(name);
        }
    }

    fn gather_live(&mut self, gather: &Gather<'_>, until: Revision, items: &mut Items) -> Scan {
        if self.cursor >= until {
            return Scan::Done;
        }
        let entries = gather.snapshot.changed_from(gather.kind, self.cursor, self.place);
        for (looked_at, entry) in entries.enumerate() {
            if entry.revision() > until {
                break;
            }
            if items.bytes >= gather.budget {
                return Scan::Full;
            }
            if looked_at >= SLICE {
                return Scan::Slice;
            }
            (self.cursor, self.place) = (entry.revision(), Some(entry.place()));
            let Some(resource) = entry.view(gather.gateway) else { continue };
            let is_plain = self.wildcard && self.refused.is_empty() && self.stale.is_empty();
            if !(is_plain && items.seen.is_empty()) {
                let name = entry.name();
                if !self.wants(name) {
                    continue;
                }
                // It is back: if it goes again, that is in the order of changes like any other loss.
                self.stale.remove(name);
                if self.refuses(name, Some(resource.version)) || items.has_seen(name) {
                    continue;
                }
            }
            if !self.knows(&entry) {
                items.add(resource.clone());
            }
        }
        self.cursor = until;
        Scan::Done
    }

    fn gather_lost(&mut self, gather: &Gather<'_>, items: &mut Items) {
        let until = gather.lost_until.min(self.complete);
        for entry in gather.snapshot.lost_since(gather.kind, self.lost_cursor, until) {
            if items.bytes >= gather.budget {
                return;
            }
            self.lost_cursor = entry.revision();
            let name = entry.name();
            if entry.was_lost_by(gather.gateway)
                && self.wants(name)
                && !self.refuses(name, None)
                && !items.has_seen(name)
            {
                self.stale.remove(name);
                items.remove(name.into());
            }
        }
        self.lost_cursor = self.lost_cursor.max(until);
        // Stale names were lost before this stream began: they go when what lived then has arrived.
        if until >= self.began && !self.in_doubt {
            while items.bytes < gather.budget
                && let Some(name) = self.stale.pop_first()
            {
                if gather.get(&name).is_none() && !items.has_seen(&name) {
                    items.remove(name);
                }
            }
        }
    }
}
