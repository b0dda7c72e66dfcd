//! One type on one stream: what was asked for, what was sent, what was taken, what was refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use serde::Serialize;

use super::{Note, Refused, Type};
use crate::snapshot::{Kind, Name, Resource, Revision, Snapshot, Version};
use crate::translate;

/// Longest refusal that is kept, in bytes; Envoy's own limit is 4096.
const MAX_REASON: usize = 1024;
/// Most refusals of a stream that are kept with their words.
const MAX_REASONS: usize = 1000;

/// A response that waits for its answer.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) nonce: u64,
    pub(super) items: Vec<(Name, Option<Version>)>,
    /// All changes up to here were sent with it or before it.
    pub(super) through: Revision,
}

/// One type on one stream.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of the protocol, and all mixtures occur
pub(super) struct Channel {
    pub(super) subscribed: bool,
    pub(super) wildcard: bool,
    pub(super) names: HashSet<Name>,
    /// Live names that changed up to here were sent, or did not concern this Envoy.
    pub(super) cursor: Revision,
    /// The same for names that were lost.
    pub(super) lost_cursor: Revision,
    /// All that lived and had changed up to here was sent: the head when the cursor last stood at it. The
    /// cursor alone does not say so, for a key that changed before it and again behind it is met behind it.
    pub(super) complete: Revision,
    /// The same of all changes, losses too: the head when both cursors last stood at it.
    pub(super) sent: Revision,
    /// All changes up to here were acknowledged, as far as the last ACK tells.
    pub(super) acked: Revision,
    /// What the Envoy said it holds, until the first scan has passed it. `None`: a version not ours.
    pub(super) claimed: HashMap<Name, Option<Version>>,
    /// Claimed names that are nobody's any more, and the revision at which that was found.
    pub(super) stale: BTreeSet<Name>,
    pub(super) stale_since: Revision,
    /// The fleet could not be read whole, so that they are left to the Envoy.
    pub(super) in_doubt: bool,
    /// The stream is a reconnect, and the scan has not passed this revision yet.
    pub(super) resync_until: Option<Revision>,
    /// Names that must be answered though nothing changed.
    pub(super) asked: BTreeSet<Name>,
    /// The first wildcard request is answered even if there is nothing.
    pub(super) owes: bool,
    /// True once any response was acknowledged or refused.
    pub(super) heard: bool,
    pub(super) in_flight: VecDeque<Flight>,
    /// Parts of refused responses, to be sent on their own.
    pub(super) retries: VecDeque<Vec<Name>>,
    pub(super) refused: BTreeMap<Name, Refused>,
    /// How often a scope was in a refused response (see `Session::generation`).
    pub(super) generations: HashMap<Name, u32>,
    /// Routes only: the table's version that was sent or claimed.
    pub(super) table: Option<Version>,
    pub(super) counts: Counts,
}

/// How much went over one type of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Responses sent.
    pub pushes: u64,
    /// Resources in them.
    pub resources: u64,
    /// Names removed by them.
    pub removed: u64,
    /// Responses acknowledged.
    pub acks: u64,
    /// Responses refused.
    pub nacks: u64,
}

/// One type of one stream, for people.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelStatus {
    /// The type.
    #[serde(rename = "type")]
    pub kind: Type,
    /// All names, or those it asked for.
    pub wildcard: bool,
    /// Names it asked for.
    pub names: usize,
    /// Everything up to this revision is sent.
    pub sent: Revision,
    /// Everything up to this revision is acknowledged.
    pub acked: Revision,
    /// Responses that wait for an answer.
    pub in_flight: usize,
    /// Resources that it refused, with its words.
    pub refused: BTreeMap<Name, Refused>,
    /// Totals.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Channel {
    pub(super) fn wants(&self, name: &Name) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Everything up to here is acknowledged (or refused for good).
    pub(super) fn settled(&self) -> Revision {
        if self.in_flight.is_empty() && self.retries.is_empty() && !self.owes_stale() {
            self.sent
        } else {
            self.acked
        }
    }

    /// True while it holds names that are to go.
    pub(super) fn owes_stale(&self) -> bool {
        !self.stale.is_empty() && !self.in_doubt
    }

    /// Takes notice of whether the fleet is in doubt.
    pub(super) fn doubt(&mut self, in_doubt: bool) {
        if self.in_doubt && !in_doubt && !self.stale.is_empty() {
            // What was vouched for left them out.
            self.acked = 0;
        }
        self.in_doubt = in_doubt;
    }

    /// True while this very content is known to be refused.
    pub(super) fn refuses(&self, name: &Name, version: Option<Version>) -> bool {
        self.refused.get(name).is_some_and(|refused| refused.version == version)
    }
}

/// What one response will carry: each name once, so never both as added and as removed.
pub(super) type Items = BTreeMap<Name, Option<Resource>>;

/// What a channel reads from.
pub(super) struct Gather<'a> {
    pub(super) kind: Kind,
    pub(super) gateway: &'a str,
    pub(super) snapshot: &'a Snapshot,
    /// Most bytes of one response.
    pub(super) budget: usize,
    /// Changes up to here may be sent, ...
    pub(super) live_until: Revision,
    /// ... and losses up to here.
    pub(super) lost_until: Revision,
}

impl Gather<'_> {
    fn get(&self, name: &str) -> Option<&Resource> {
        self.snapshot.get(self.kind, name, self.gateway)
    }

    /// True when the name's last change, be it a loss, is one that may be sent.
    fn may_send(&self, name: &str) -> bool {
        let until = if self.get(name).is_some() { self.live_until } else { self.lost_until };
        self.snapshot.revision_of(self.kind, name).is_none_or(|revision| revision <= until)
    }
}

impl Channel {
    /// The first request of a type on a stream.
    pub(super) fn subscribe(
        &mut self,
        kind: Type,
        request: &DeltaDiscoveryRequest,
        snapshot: &Snapshot,
        gateway: &str,
        suspect: bool,
    ) {
        self.subscribed = true;
        let names = &request.resource_names_subscribe;
        // "Incremental xDS": empty lists on the first request are the legacy wildcard.
        self.wildcard = (names.is_empty() && request.resource_names_unsubscribe.is_empty())
            || names.iter().any(|n| n == "*");
        self.owes = self.wildcard;
        self.names = names.iter().filter(|name| *name != "*").map(|name| Name::from(&**name)).collect();
        (self.lost_cursor, self.stale_since) = (snapshot.revision(), snapshot.revision());
        // By name alone, only what is asked for and what changes from now on is sent.
        self.cursor = if self.wildcard { 0 } else { snapshot.revision() };
        let claimed = &request.initial_resource_versions;
        let kept = match kind {
            Type::Clusters => Kind::Cluster,
            Type::Scopes => Kind::Scope,
            Type::Routes => {
                self.table = claimed.get(translate::TABLE).and_then(|version| Version::parse(version));
                // Skipped below when it is claimed at the version that will be made.
                self.asked =
                    self.names.iter().filter(|name| !claimed.contains_key(&***name)).cloned().collect();
                return;
            }
        };
        if !claimed.is_empty() {
            self.resync_until = Some(snapshot.revision());
        }
        for (name, version) in claimed {
            let name = Name::from(&**name);
            match snapshot.get(kept, &name, gateway) {
                // Learned by name or by wildcard: what is gone must be said, or it lives on for ever.
                None => _ = self.stale.insert(name),
                Some(_) => _ = self.claimed.insert(name, Version::parse(version).filter(|_| !suspect)),
            }
        }
        // A name whose newest version is claimed on the first message may be skipped; any other is answered.
        let current = |name: &Name| {
            let held = snapshot.get(kept, name, gateway).map(|resource| resource.version);
            held.is_some() && self.claimed.get(name).copied().flatten() == held
        };
        self.asked = self.names.iter().filter(|name| !current(name)).cloned().collect();
    }

    /// Any later request may subscribe and unsubscribe, ACKs and stale nonces included.
    pub(super) fn resubscribe(&mut self, request: &DeltaDiscoveryRequest) {
        for name in &request.resource_names_subscribe {
            if name == "*" {
                if !self.wildcard {
                    (self.wildcard, self.owes, self.cursor) = (true, true, 0);
                }
                continue;
            }
            // "the server must reply with the resource, even if it thinks the client has it"
            let name = Name::from(&**name);
            self.claimed.remove(&name);
            self.asked.insert(name.clone());
            self.names.insert(name);
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                self.wildcard = false;
                continue;
            }
            let name = Name::from(&**name);
            let known = self.names.remove(&name);
            if self.wildcard {
                // "Unsubscribing from Resources": still covered by the wildcard, so the client must be
                // told whether it is there.
                self.asked.insert(name);
            } else if known {
                self.asked.remove(&name);
                self.refused.remove(&name);
            }
        }
    }

    pub(super) fn on_verdict(&mut self, kind: Type, nonce: &str, reason: Option<String>) -> Vec<Note> {
        let nonce: Option<u64> = nonce.parse().ok();
        let Some(at) = self.in_flight.iter().position(|flight| Some(flight.nonce) == nonce) else {
            return vec![Note::StaleNonce];
        };
        let Some(flight) = self.in_flight.remove(at) else { return vec![Note::StaleNonce] };
        self.heard = true;
        let Some(mut reason) = reason else {
            self.counts.acks += 1;
            for (name, _) in &flight.items {
                self.refused.remove(name);
            }
            if self.retries.is_empty() && at == 0 {
                self.acked = self.acked.max(flight.through);
            }
            return vec![Note::Acked { kind, nonce: flight.nonce }];
        };
        self.counts.nacks += 1;
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let resources = flight.items.len();
        let mut notes = vec![Note::Nacked { kind, nonce: flight.nonce, resources, reason: reason.clone() }];
        if let [(name, version)] = &flight.items[..] {
            // Somebody who refuses everything need not be quoted on everything.
            let kept = if self.refused.len() < MAX_REASONS { reason.clone() } else { String::new() };
            self.refused.insert(name.clone(), Refused { version: *version, reason: kept });
            notes.push(Note::Quarantined { kind, name: name.clone(), version: *version, reason });
        } else {
            self.split(flight.items);
        }
        notes
    }

    /// A refused response may have been taken in part, and its message need not name the culprit:
    /// halves of it find it in as many rounds as its size has bits, and free the rest on the way.
    fn split(&mut self, items: Vec<(Name, Option<Version>)>) {
        let mut names: Vec<_> = items.into_iter().map(|(name, _)| name).collect();
        for name in &names {
            *self.generations.entry(name.clone()).or_default() += 1;
        }
        let second = names.split_off(names.len() / 2);
        for half in [second, names].into_iter().filter(|half| !half.is_empty()) {
            self.retries.push_front(half);
        }
    }

    /// A scope that stood before the culprit in a refused response is known to Envoy's main thread but
    /// not to its workers, and the same content again is skipped as known. Content of another
    /// generation is not. What was refused on an earlier stream is not known, perhaps not even that
    /// something was: there the stream is the generation.
    pub(super) fn generation(&self, name: &Name, stream: u64, suspect: bool) -> Option<String> {
        let count = self.generations.get(name);
        if suspect || self.resync_until.is_some() {
            return Some(format!("{stream:x}.{}", count.copied().unwrap_or_default()));
        }
        count.map(ToString::to_string)
    }

    /// What the next response carries: a retry alone, or what was asked for, then what changed, then what
    /// was lost. `None` when there is nothing to say.
    pub(super) fn gather(&mut self, gather: &Gather<'_>) -> Option<Items> {
        while let Some(names) = self.retries.pop_front() {
            // What changed since, and may not be sent yet, is met again behind the cursor.
            let wanted = names.into_iter().filter(|name| self.wants(name) && gather.may_send(name));
            let items: Items = wanted.map(|name| (name.clone(), gather.get(&name).cloned())).collect();
            if !items.is_empty() {
                return Some(items);
            }
        }
        let mut items = Items::new();
        let mut bytes = 0;
        let asked = self.asked.iter().filter(|name| gather.may_send(name)).take_while(|name| {
            let has_room = bytes < gather.budget;
            bytes += gather.get(name).map_or(name.len(), |resource| resource.body.len());
            has_room
        });
        items.extend(asked.map(|name| (name.clone(), gather.get(name).cloned())));
        for name in items.keys() {
            self.asked.remove(name);
        }
        self.gather_live(gather, &mut items, &mut bytes);
        if self.cursor >= gather.snapshot.revision() {
            self.complete = self.cursor;
        }
        // Behind all that came before it: where a key moves from scope to scope, the new one is there first.
        self.gather_lost(gather, &mut items, &mut bytes);
        if self.complete.min(self.lost_cursor) >= gather.snapshot.revision() {
            self.sent = self.complete;
        }
        if items.is_empty() && !self.owes {
            self.end_resync();
            return None;
        }
        self.owes = false;
        Some(items)
    }

    pub(super) fn end_resync(&mut self) {
        if self.resync_until.is_some_and(|until| self.cursor >= until) {
            self.resync_until = None;
            self.claimed = HashMap::new();
        }
    }

    fn gather_live(&mut self, gather: &Gather<'_>, items: &mut Items, bytes: &mut usize) {
        let head = gather.snapshot.revision().min(gather.live_until);
        if self.cursor >= head {
            return;
        }
        for (revision, name, entry) in gather.snapshot.changed_since(gather.kind, self.cursor) {
            if revision > head {
                break;
            }
            if *bytes >= gather.budget {
                return;
            }
            self.cursor = revision;
            let Some(resource) = entry.view(gather.gateway).filter(|_| self.wants(name)) else { continue };
            // It is back: if it goes again, that is in the order of changes like any other loss.
            self.stale.remove(name);
            let version = Some(resource.version);
            if self.claimed.remove(name) != Some(version) && !self.refuses(name, version) {
                *bytes += resource.body.len();
                items.insert(name.clone(), Some(resource.clone()));
            }
        }
        self.cursor = head;
    }

    fn gather_lost(&mut self, gather: &Gather<'_>, items: &mut Items, bytes: &mut usize) {
        let until = gather.lost_until.min(self.complete);
        for (revision, name, entry) in gather.snapshot.lost_since(gather.kind, self.lost_cursor, until) {
            if *bytes >= gather.budget {
                return;
            }
            if entry.was_lost_by(gather.gateway) && self.wants(name) && !self.refuses(name, None) {
                *bytes += name.len();
                items.insert(name.clone(), None);
            }
            self.lost_cursor = revision;
        }
        self.lost_cursor = self.lost_cursor.max(until);
        // Stale names were lost before this stream began: they go when what lived then has arrived.
        if until >= self.stale_since && !self.in_doubt {
            while *bytes < gather.budget
                && let Some(name) = self.stale.pop_first()
            {
                if gather.get(&name).is_none() {
                    *bytes += name.len();
                    items.entry(name).or_insert(None);
                }
            }
        }
    }
}
