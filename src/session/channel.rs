//! One type on one stream: what was asked for, what was sent, what was taken, what was refused.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;

use serde::Serialize;

use super::gather::Items;
use super::{Held, Note, Refused, Request, Sent, Type};
use crate::snapshot::{Name, Revision, Snapshot, Version};
use crate::translate;

/// Longest refusal that is kept, in bytes; Envoy's own limit is 4096.
const MAX_REASON: usize = 1024;
/// Most refusals of a stream that are kept with their words.
const MAX_REASONS: usize = 1000;

/// A response that waits for its answer.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) nonce: u64,
    pub(super) resources: Arc<[Sent]>,
    pub(super) removed: Arc<[Name]>,
    /// All changes up to here were sent with it or before it.
    pub(super) through: Revision,
}

/// What an Envoy that reconnects said it holds, until the first scan has passed it.
#[derive(Debug)]
pub(super) struct Resync {
    pub(super) held: Held,
    /// So many of them were compared.
    pub(super) compared: usize,
    /// A bit for each slot of the snapshot whose content it holds, if the slot did not change after
    /// `since`: then it is sent whatever the bit says.
    pub(super) known: Vec<u64>,
    pub(super) since: Revision,
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
    /// The slot that changed at the cursor, where the next scan goes on.
    pub(super) place: Option<u32>,
    /// The same as the cursor for names that were lost.
    pub(super) lost_cursor: Revision,
    /// All that lived and had changed up to here was sent: the head when the cursor last stood at it. The
    /// cursor alone does not say so, for a key that changed before it and again behind it is met behind it.
    pub(super) complete: Revision,
    /// The same of all changes, losses too: the head when both cursors last stood at it.
    pub(super) sent: Revision,
    /// All changes up to here were acknowledged, as far as the last ACK tells.
    pub(super) acked: Revision,
    /// The stream is a reconnect, and the scan has not passed it yet.
    pub(super) resync: Option<Box<Resync>>,
    /// Claimed names that are nobody's any more.
    pub(super) stale: BTreeSet<Name>,
    /// The head when the type was subscribed. What lived then is sent before stale names go.
    pub(super) began: Revision,
    /// The fleet could not be read whole, so that stale names are left to the Envoy.
    pub(super) in_doubt: bool,
    /// Names that must be answered though nothing changed.
    pub(super) asked: BTreeSet<Name>,
    /// The first wildcard request is answered even if there is nothing.
    pub(super) owes: bool,
    /// A first answer that is to be whole, and is not yet.
    pub(super) draft: Option<Box<Items>>,
    /// True once any response was acknowledged or refused.
    pub(super) heard: bool,
    pub(super) in_flight: VecDeque<Flight>,
    /// Parts of refused responses, to be sent on their own.
    pub(super) retries: VecDeque<Vec<Name>>,
    pub(super) refused: Arc<BTreeMap<Name, Refused>>,
    /// How many responses were refused (see `Channel::generation`).
    pub(super) generation: u64,
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
    pub refused: Arc<BTreeMap<Name, Refused>>,
    /// Totals.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Channel {
    pub(super) fn wants(&self, name: &str) -> bool {
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

    /// True while it holds names that are to go, or may: not all that it holds is compared.
    pub(super) fn owes_stale(&self) -> bool {
        let compares = self.resync.as_ref().is_some_and(|resync| resync.compared < resync.held.len());
        compares || !self.stale.is_empty() && !self.in_doubt
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
    pub(super) fn refuses(&self, name: &str, version: Option<Version>) -> bool {
        self.refused.get(name).is_some_and(|refused| refused.version == version)
    }

    /// The first request of a type on a stream.
    pub(super) fn subscribe(&mut self, kind: Type, request: &mut Request, snapshot: &Snapshot) {
        self.subscribed = true;
        let names = &request.subscribe;
        // "Incremental xDS": empty lists on the first request are the legacy wildcard.
        self.wildcard =
            (names.is_empty() && request.unsubscribe.is_empty()) || names.iter().any(|name| **name == *"*");
        self.owes = self.wildcard;
        self.names = names.iter().filter(|name| ***name != *"*").cloned().collect();
        (self.lost_cursor, self.began) = (snapshot.revision(), snapshot.revision());
        // By name alone, only what is asked for and what changes from now on is sent.
        self.cursor = if self.wildcard { 0 } else { snapshot.revision() };
        // A name that is held at its newest version need not be answered here, any other must: those are
        // taken out again as they are compared.
        self.asked = self.names.iter().cloned().collect();
        let held = mem::take(&mut request.held);
        if kind == Type::Routes {
            for (name, version) in held.iter() {
                self.asked.remove(name);
                self.table = self.table.or(version.filter(|_| name == translate::TABLE));
            }
        } else if !held.is_empty() {
            let since = snapshot.revision();
            self.resync = Some(Box::new(Resync { held, compared: 0, known: Vec::new(), since }));
        }
    }

    /// Any later request may subscribe and unsubscribe, ACKs and stale nonces included.
    pub(super) fn resubscribe(&mut self, request: &Request) {
        for name in &request.subscribe {
            if **name == *"*" {
                if !self.wildcard {
                    (self.wildcard, self.owes, self.cursor, self.place) = (true, true, 0, None);
                }
                continue;
            }
            // "the server must reply with the resource, even if it thinks the client has it"
            self.asked.insert(name.clone());
            self.names.insert(name.clone());
        }
        for name in &request.unsubscribe {
            if **name == *"*" {
                self.wildcard = false;
                continue;
            }
            let known = self.names.remove(name);
            if self.wildcard {
                // "Unsubscribing from Resources": still covered by the wildcard, so the client must be
                // told whether it is there.
                self.asked.insert(name.clone());
            } else if known {
                self.asked.remove(name);
                self.forgive(name);
            }
        }
    }

    /// Forgets that a name was refused.
    pub(super) fn forgive(&mut self, name: &str) {
        if self.refused.contains_key(name) {
            Arc::make_mut(&mut self.refused).remove(name);
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
            if !self.refused.is_empty() {
                flight.resources.iter().for_each(|sent| self.forgive(sent.resource.name()));
                flight.removed.iter().for_each(|name| self.forgive(name));
            }
            if self.retries.is_empty() && at == 0 {
                self.acked = self.acked.max(flight.through);
            }
            return vec![Note::Acked { kind, nonce: flight.nonce }];
        };
        self.counts.nacks += 1;
        self.generation += 1;
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let resources = flight.resources.len() + flight.removed.len();
        let mut notes = vec![Note::Nacked { kind, nonce: flight.nonce, resources, reason: reason.clone() }];
        let alone = match (&*flight.resources, &*flight.removed) {
            ([sent], []) => Some((Name::from(sent.resource.name()), Some(sent.resource.version))),
            ([], [name]) => Some((name.clone(), None)),
            _ => None,
        };
        if let Some((name, version)) = alone {
            // Somebody who refuses everything need not be quoted on everything.
            let kept = if self.refused.len() < MAX_REASONS { reason.clone() } else { String::new() };
            Arc::make_mut(&mut self.refused).insert(name.clone(), Refused { version, reason: kept });
            notes.push(Note::Quarantined { kind, name, version, reason });
        } else {
            self.split(&flight);
        }
        notes
    }

    /// A refused response may have been taken in part, and its message need not name the culprit:
    /// halves of it find it in as many rounds as its size has bits, and free the rest on the way.
    fn split(&mut self, flight: &Flight) {
        let resources = flight.resources.iter().map(|sent| Name::from(sent.resource.name()));
        let mut names: Vec<Name> = resources.chain(flight.removed.iter().cloned()).collect();
        let second = names.split_off(names.len() / 2);
        for half in [second, names].into_iter().filter(|half| !half.is_empty()) {
            self.retries.push_front(half);
        }
    }

    /// A scope that stood before the culprit in a refused response is known to Envoy's main thread but
    /// not to its workers, and the same content again is skipped as known. Content of another
    /// generation is not: each refusal begins one, for all that is sent after it. What was refused on an
    /// earlier stream is not known, perhaps not even that something was: there the stream is part of it.
    pub(super) fn generation(&self, stream: u64, suspect: bool) -> Option<Box<str>> {
        if suspect || self.resync.is_some() {
            return Some(format!("{stream:x}.{}", self.generation).into());
        }
        (self.generation > 0).then(|| self.generation.to_string().into())
    }
}
