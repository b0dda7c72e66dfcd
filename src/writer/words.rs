//! What should stand on an object, and what is still missing there. No socket, no clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::WriteBack;
use crate::kinds::okg::{Front, wanted_status};
use crate::kinds::{ROUTED, Subject, Target};
use crate::model::{RouteKey, Server};
use crate::report::Placement;
use crate::spec::URL;

/// Octops' word that a GameServer is reachable.
const READY: &str = "octops.io/ingress-ready";
/// Longest note of an Event, in bytes (`events.k8s.io/v1` `note`).
const MAX_NOTE: usize = 1024;
/// Longest list of URLs that is written, in bytes.
const MAX_URLS: usize = 4096;

/// The marks of a server that players reach, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Players reach it; or the marks are taken away.
    routed: bool,
    /// Its URLs; one with wildcards alone has none.
    url: Option<String>,
    /// It is one of Octops'.
    ready: bool,
}

/// What its author should know, as an Event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Complaint {
    /// In one word.
    pub(super) reason: &'static str,
    /// In full.
    pub(super) note: String,
}

/// What is to be written to one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Write {
    /// The object.
    pub(super) target: Option<Target>,
    /// Its marks.
    pub(super) marks: Option<Marks>,
    /// The pod and its `network-status`.
    pub(super) network: Option<(Target, String)>,
    /// Its Events.
    pub(super) complaints: Vec<Complaint>,
    /// What is said of its sessions, and the patch that says it: written alone.
    pub(super) live: Option<(&'static str, Value)>,
}

/// The marks and the network status that should stand there, if others do.
pub(super) fn wanted(
    subject: &Subject,
    placement: &Placement,
    acknowledged: bool,
    public: &WriteBack,
) -> Write {
    let noted = &subject.noted;
    let marks = if placement.held.is_empty() {
        (noted.routed || noted.url.is_some()).then_some(Marks { routed: false, url: None, ready: false })
    } else if acknowledged && placement.open {
        let url = urls(&placement.held, &public.public_url);
        let is_there = noted.routed && noted.url.as_deref() == url.as_deref() && noted.ready != Some(false);
        (!is_there).then_some(Marks { routed: true, url, ready: noted.ready.is_some() })
    } else {
        // Those who are to go have been told of; that they are full or draining is not for the marks.
        None
    };
    let network = subject.network.as_ref().and_then(|network| {
        let front = Front { ip: public.public_address, port: public.public_port().unwrap_or_default() };
        let status = wanted_status(network, &subject.servers, acknowledged && placement.open, &front);
        (network.status.as_deref() != Some(&status)).then(|| (network.target.clone(), status))
    });
    Write {
        target: subject.target.clone(),
        marks: marks.filter(|_| subject.target.is_some()),
        network,
        complaints: Vec::new(),
        live: None,
    }
}

/// The URLs of these routes. A wildcard is none.
fn urls(held: &[RouteKey], template: &str) -> Option<String> {
    let urls = held.iter().filter(|key| !key.host.as_str().contains('*')).map(|key| {
        let path = if key.path.is_root() { "/" } else { key.path.as_str() };
        template.replace("{host}", key.host.as_str()).replace("{path}", path)
    });
    let mut list = String::new();
    for url in urls {
        if list.len() + url.len() >= MAX_URLS {
            break;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list += &url;
    }
    (!list.is_empty()).then_some(list)
}

/// What is wrong with these servers: one complaint a reason, however many there are.
pub(super) fn complaints(
    servers: &[Arc<Server>],
    placement: &Placement,
    refused: Option<String>,
) -> Vec<Complaint> {
    let wrong: BTreeSet<String> =
        servers.iter().flat_map(|server| &server.problems).map(ToString::to_string).collect();
    let lost: BTreeSet<String> = placement
        .lost
        .iter()
        .map(|(key, winner)| format!("{key} is held by {winner}, which is older"))
        .collect();
    [
        ("Misconfigured", wrong.into_iter().collect()),
        ("RouteTaken", lost.into_iter().collect()),
        ("RefusedByEnvoy", refused.into_iter().collect::<Vec<_>>()),
    ]
    .into_iter()
    .filter(|(_, notes)| !notes.is_empty())
    .map(|(reason, notes)| Complaint { reason, note: shortened(notes.join("; ")) })
    .collect()
}

fn shortened(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE - 4));
        note.push('…');
    }
    note
}

impl Write {
    /// What of it was not written before, with the complaints that were not made before.
    pub(super) fn beyond(
        mut self,
        written: &Self,
        complaints: Vec<Complaint>,
        complained: &BTreeSet<Complaint>,
    ) -> Self {
        self.marks = self.marks.filter(|marks| written.marks.as_ref() != Some(marks));
        self.network = self.network.filter(|network| written.network.as_ref() != Some(network));
        self.complaints =
            complaints.into_iter().filter(|complaint| !complained.contains(complaint)).collect();
        if self.target.is_none() {
            self.complaints.clear();
        }
        self
    }

    /// What of it is known by those alone to whom Envoys are connected, and was not said `before`. The rest is for the
    /// holder of the Lease to say.
    pub(super) fn of_envoys(self, before: &Self) -> Self {
        let marks = self.marks.filter(|marks| marks.routed && before.marks.as_ref() != Some(marks));
        let network = self.network.filter(|network| before.network.as_ref() != Some(network));
        Self { target: self.target, marks, network, ..Self::default() }
    }

    /// True when there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_none() && self.network.is_none() && self.complaints.is_empty()
    }

    /// Keeps what another one wrote.
    pub(super) fn take_over(&mut self, other: Self) {
        self.marks = other.marks.or(self.marks.take());
        self.network = other.network.or(self.network.take());
    }

    /// Its parts, as metrics name them.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'static str> {
        let object = self.marks.as_ref().map(|_| "object");
        let network = self.network.as_ref().map(|_| "network");
        let events = self.complaints.iter().map(|_| "event");
        let live = self.live.as_ref().map(|(what, _)| *what);
        object.into_iter().chain(network).chain(events).chain(live)
    }
}

impl Marks {
    /// As a merge patch (RFC 7386) of the object with this uid: null takes a key away.
    pub(super) fn patch(&self, uid: &str) -> Value {
        let mut annotations = json!({ URL: self.url });
        if self.ready {
            annotations[READY] = "true".into();
        }
        let routed = self.routed.then_some("true");
        json!({ "metadata": { "uid": uid, "annotations": annotations, "labels": { ROUTED: routed } } })
    }
}
