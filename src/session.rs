//! One Envoy's delta stream as a value: requests in, pushes out. No socket, no clock.
//!
//! A stream that has converged is two cursors a type and nothing a name: what an Envoy lacks is what
//! changed behind the cursor. Names are kept only while they are exceptions: asked for, claimed at a
//! reconnect, in flight, or refused.
//!
//! Order: a scope goes behind its cluster on the same stream; a cluster goes only when the scopes that
//! named it are acknowledged as changed. Section names in comments are those of Envoy's xDS protocol page.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node as ProtoNode;
use serde::Serialize;

use crate::model::{Gateway, MAX_NAME, is_name};
use crate::snapshot::{Kind, Name, Resource, Revision, Snapshot, Version};
use crate::translate;

mod channel;
mod gather;
mod push;
mod request;

use channel::{Channel, Flight};
pub use channel::{ChannelStatus, Counts};
use gather::{Gather, Items};
pub use push::{Push, Sent};
pub use request::{Held, Request};

/// Most bytes of resources in one response: a NACK costs no more than that, nor does Envoy's main
/// thread stand still for longer.
pub const CHUNK: usize = 1 << 20;
/// Most bytes of the first scopes of a stream. Envoy opens its listeners at the first answer, so that
/// answer should be the whole fleet: a chunk of it would be a listener that knows a part.
pub const FIRST_SCOPES: usize = 64 << 20;
/// Most CDS responses that wait for their ACK: Envoy may hold it back while a cluster warms.
pub const FLIGHTS: usize = 8;
/// Most names that one stream may subscribe by name.
pub const MAX_NAMES: usize = 200_000;
/// Most names that an Envoy may say it holds, of one type.
pub const MAX_CLAIMS: usize = 1_000_000;
/// Longest resource name that is read, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// The gateway of an Envoy whose node names no cluster.
pub const DEFAULT_GATEWAY: &str = "default";

/// The types that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// CDS
    Clusters,
    /// SRDS
    Scopes,
    /// RDS: the one table
    Routes,
}

impl Type {
    /// In the order in which they are sent: make before break.
    pub const ALL: [Self; 3] = [Self::Clusters, Self::Scopes, Self::Routes];

    /// The type that a type URL names.
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Its type URL.
    pub fn url(self) -> &'static str {
        match self {
            Self::Clusters => translate::CLUSTER,
            Self::Scopes => translate::SCOPE,
            Self::Routes => translate::ROUTES,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// `node.id`
    pub id: String,
    /// `node.cluster`: which servers it serves.
    pub gateway: Gateway,
    /// Its version, as it says it.
    pub version: String,
}

impl Node {
    /// Reads what an Envoy says of itself.
    pub fn read(node: &ProtoNode) -> Result<Self, Refusal> {
        use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
        let gateway = if node.cluster.is_empty() { DEFAULT_GATEWAY } else { &node.cluster };
        if !is_name(gateway) {
            return Err(Refusal::BadGateway(gateway.chars().take(MAX_NAME).collect()));
        }
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(text)) => text.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|version| format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
                .unwrap_or_default(),
            None => String::new(),
        };
        let id = node.id.chars().take(MAX_NAME).collect();
        Ok(Self { id, gateway: Gateway(gateway.into()), version })
    }
}

/// Why a stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// "the node identifier is only guaranteed on the first request of a stream": it must be there.
    #[error("the first request has no node; set node.id and node.cluster in the bootstrap")]
    NoNode,
    /// A node cluster that is no gateway name.
    #[error("node.cluster {0:?} is not a gateway: expected 1 to {MAX_NAME} letters, digits and - . _")]
    BadGateway(String),
    /// More names than one stream may hold.
    #[error("more than {MAX_NAMES} names are subscribed")]
    TooManyNames,
    /// More names than one Envoy can hold.
    #[error("more than {MAX_CLAIMS} names in initial_resource_versions")]
    TooManyClaims,
    /// Bytes that are no request.
    #[error("not an envoy.service.discovery.v3.DeltaDiscoveryRequest")]
    Malformed,
    /// A name that can't be ours.
    #[error("a resource name of {0} bytes; at most {MAX_NAME_BYTES} are read")]
    LongName(usize),
    /// It read too slowly: what it missed is forgotten. A new stream compares names.
    #[error("the stream fell behind the oldest change that is kept; reconnect to compare")]
    FellBehind,
}

/// What the shell should count, log or show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The first request: this Envoy is here.
    Connected(Node),
    /// A response was taken.
    Acked {
        /// Its type.
        kind: Type,
        /// Its nonce.
        nonce: u64,
    },
    /// A response was refused; its resources are sent again in halves.
    Nacked {
        /// Its type.
        kind: Type,
        /// Its nonce.
        nonce: u64,
        /// How many resources it had.
        resources: usize,
        /// Envoy's words.
        reason: String,
    },
    /// A resource was refused alone: it is not sent again until its content changes.
    Quarantined {
        /// Its type.
        kind: Type,
        /// Its name.
        name: Name,
        /// Its content; `None` for a removal.
        version: Option<Version>,
        /// Envoy's words.
        reason: String,
    },
    /// A nonce that no response in flight has: its subscriptions count, its verdict does not.
    StaleNonce,
    /// A type that is not served; it was answered as an empty one.
    UnknownType(String),
}

/// A resource that an Envoy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The content that was refused; `None` for a removal.
    #[serde(skip)]
    pub version: Option<Version>,
    /// Envoy's words.
    pub reason: String,
}

/// What a session reads when it decides what to send.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// All resources.
    pub snapshot: &'a Snapshot,
    /// The gateway's RDS table and the revision it was made at, if the stream wants one.
    pub table: Option<&'a (Revision, Resource)>,
    /// What nobody knows can be taken for gone; else Envoys keep it.
    pub whole: bool,
}

/// What comes of asking a session for its next response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T = Push> {
    /// This is to be sent.
    Say(T),
    /// More is to be looked at: ask again, and let changes to the snapshot in before.
    Again,
    /// There is nothing to say.
    Idle,
}

/// The state of one stream; it dies with it.
#[derive(Debug)]
pub struct Session {
    node: Option<Node>,
    gateway: Arc<str>,
    stream: u64,
    /// This Envoy refused something on an earlier stream.
    suspect: bool,
    /// [`CHUNK`], or less in tests.
    chunk: usize,
    nonce: u64,
    clusters: Channel,
    scopes: Channel,
    routes: Channel,
    unknown: VecDeque<Push>,
}

impl Session {
    /// A stream that has not spoken. `stream` should differ from that of the same Envoy's last stream,
    /// whichever replica it was with: the time it began does.
    pub fn new(stream: u64) -> Self {
        Self {
            node: None,
            gateway: DEFAULT_GATEWAY.into(),
            stream,
            suspect: false,
            chunk: CHUNK,
            nonce: 0,
            clusters: Channel::default(),
            scopes: Channel::default(),
            routes: Channel::default(),
            unknown: VecDeque::new(),
        }
    }

    /// Who is at the other end, once it has said so.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Says, before the first request, that this Envoy refused a response on an earlier stream. Of such a
    /// response it may hold parts that it does not tell of, so its claims are not believed, and nothing
    /// that is sent to it may look like what it half took.
    pub fn suspect(&mut self) {
        self.suspect = true;
    }

    /// True when the stream subscribes the RDS table, which `next` then needs.
    pub fn wants_table(&self) -> bool {
        self.routes.subscribed && (self.routes.wildcard || self.routes.names.contains(translate::TABLE))
    }

    /// The revision up to which every subscribed type is acknowledged.
    pub fn settled(&self) -> Revision {
        let subscribed =
            [&self.clusters, &self.scopes, &self.routes].into_iter().filter(|channel| channel.subscribed);
        subscribed.map(Channel::settled).min().unwrap_or(0)
    }

    /// Writes the stream for people over what stood there, a row a subscribed type.
    pub fn status(&self, rows: &mut Vec<ChannelStatus>) {
        rows.clear();
        let channels = Type::ALL.into_iter().map(|kind| (kind, self.channel(kind)));
        rows.extend(channels.filter(|(_, channel)| channel.subscribed).map(|(kind, channel)| {
            ChannelStatus {
                kind,
                wildcard: channel.wildcard,
                names: channel.names.len(),
                sent: channel.sent,
                acked: channel.settled(),
                in_flight: channel.in_flight.len(),
                refused: channel.refused.clone(),
                counts: channel.counts,
            }
        }));
    }

    fn channel(&self, kind: Type) -> &Channel {
        match kind {
            Type::Clusters => &self.clusters,
            Type::Scopes => &self.scopes,
            Type::Routes => &self.routes,
        }
    }

    fn channel_mut(&mut self, kind: Type) -> &mut Channel {
        match kind {
            Type::Clusters => &mut self.clusters,
            Type::Scopes => &mut self.scopes,
            Type::Routes => &mut self.routes,
        }
    }

    /// Takes one request: its node, its subscriptions, its ACK or NACK, each of which may be there.
    pub fn on_request(&mut self, mut request: Request, snapshot: &Snapshot) -> Result<Vec<Note>, Refusal> {
        let mut notes = Vec::new();
        if self.node.is_none() {
            let node = Node::read(request.node.as_ref().ok_or(Refusal::NoNode)?)?;
            self.gateway = node.gateway.0.clone();
            notes.push(Note::Connected(node.clone()));
            self.node = Some(node);
        }
        let Some(kind) = Type::of(&request.type_url) else {
            notes.extend(self.on_unknown_type(request));
            return Ok(notes);
        };
        let channel = self.channel_mut(kind);
        if channel.subscribed {
            channel.resubscribe(&request);
        } else {
            channel.subscribe(kind, &mut request, snapshot);
        }
        if channel.names.len() > MAX_NAMES || channel.asked.len() > MAX_NAMES {
            return Err(Refusal::TooManyNames);
        }
        if !request.nonce.is_empty() {
            // "ACK and NACK semantics": error_detail alone tells them apart.
            notes.extend(channel.on_verdict(kind, &request.nonce, request.error));
        }
        Ok(notes)
    }

    /// A type that is not served holds nothing: its wildcard is answered empty and its names do not
    /// exist, so that no client waits for its timeout.
    fn on_unknown_type(&mut self, request: Request) -> Option<Note> {
        const MAX_ANSWERS: usize = 16;
        let asks = request.nonce.is_empty() || !request.subscribe.is_empty();
        if !asks || self.unknown.len() >= MAX_ANSWERS {
            return None;
        }
        self.nonce += 1;
        let names: BTreeSet<_> = request.subscribe.into_iter().filter(|name| **name != *"*").collect();
        self.unknown.push_back(Push {
            type_url: request.type_url.clone().into(),
            kind: None,
            nonce: self.nonce,
            resources: Arc::default(),
            removed: names.into_iter().collect(),
            revision: 0,
            behind: 0,
        });
        Some(Note::UnknownType(request.type_url))
    }

    /// The next response, when there is something to say and room to say it; call until it is `None`.
    pub fn next(&mut self, world: World<'_>) -> Result<Option<Push>, Refusal> {
        loop {
            match self.step(world)? {
                Step::Say(push) => return Ok(Some(push)),
                Step::Again => {}
                Step::Idle => return Ok(None),
            }
        }
    }

    /// The same in pieces, each of which looks at a bounded number of names.
    pub fn step(&mut self, world: World<'_>) -> Result<Step, Refusal> {
        for channel in [&mut self.clusters, &mut self.scopes] {
            channel.doubt(!world.whole);
        }
        let floor = world.snapshot.floor();
        for channel in [&self.clusters, &self.scopes] {
            if channel.subscribed && channel.lost_cursor < floor {
                return Err(Refusal::FellBehind);
            }
        }
        if let Some(push) = self.unknown.pop_front() {
            return Ok(Step::Say(push));
        }
        // Routes that had nothing to say have caught up, which may free a cluster's removal.
        for next in [Self::next_clusters, Self::next_scopes, Self::next_table, Self::next_clusters] {
            let step = next(self, world);
            if step != Step::Idle {
                return Ok(step);
            }
        }
        Ok(Step::Idle)
    }

    fn next_clusters(&mut self, world: World<'_>) -> Step {
        if !self.clusters.subscribed || self.clusters.in_flight.len() >= FLIGHTS {
            return Step::Idle;
        }
        let gateway = self.gateway.clone();
        let gather = Gather {
            kind: Kind::Cluster,
            gateway: &gateway,
            snapshot: world.snapshot,
            budget: self.chunk,
            whole: false,
            live_until: Revision::MAX,
            lost_until: self.clusters_removable_until(world.snapshot.revision()),
            suspect: self.suspect,
        };
        let behind = self.clusters.complete;
        match self.clusters.gather(&gather) {
            Step::Say(items) => {
                Step::Say(self.push(Type::Clusters, behind, world.snapshot.revision(), items))
            }
            Step::Again => Step::Again,
            Step::Idle => Step::Idle,
        }
    }

    /// Clusters that were lost up to here are named by no route that this Envoy holds.
    fn clusters_removable_until(&self, head: Revision) -> Revision {
        let routed = [&self.scopes, &self.routes].into_iter().filter(|channel| channel.subscribed);
        match routed.map(Channel::settled).min() {
            Some(settled) => settled,
            // No routes were asked for. At a reconnect that may only mean "not yet": Envoy restates its
            // types one after the other, all of them before it answers our first response.
            None if self.clusters.heard => head,
            None => 0,
        }
    }

    fn next_scopes(&mut self, world: World<'_>) -> Step {
        if !self.scopes.subscribed || !self.scopes.in_flight.is_empty() {
            return Step::Idle;
        }
        let head = world.snapshot.revision();
        let sent = self.clusters_sent();
        // The first answer waits for the clusters of the fleet as it was when it was asked for: were it to
        // wait for those that come meanwhile, it would wait as long as there is a change each moment.
        let first = self.scopes.owes;
        if first && sent < self.scopes.began {
            return Step::Idle;
        }
        let gateway = self.gateway.clone();
        let gather = Gather {
            kind: Kind::Scope,
            gateway: &gateway,
            snapshot: world.snapshot,
            budget: if first { FIRST_SCOPES } else { self.chunk },
            whole: first,
            live_until: sent,
            lost_until: sent,
            suspect: self.suspect,
        };
        let behind = self.scopes.complete;
        match self.scopes.gather(&gather) {
            Step::Say(items) => Step::Say(self.push(Type::Scopes, behind, head, items)),
            Step::Again => Step::Again,
            Step::Idle => Step::Idle,
        }
    }

    /// Clusters that changed up to here were sent. An Envoy that takes none, or by name, waits for none.
    fn clusters_sent(&self) -> Revision {
        if self.clusters.subscribed && self.clusters.wildcard {
            self.clusters.complete
        } else {
            Revision::MAX
        }
    }

    fn next_table(&mut self, world: World<'_>) -> Step {
        let sent = self.clusters_sent();
        let routes = &mut self.routes;
        if !routes.subscribed || !routes.in_flight.is_empty() {
            return Step::Idle;
        }
        let head = world.snapshot.revision();
        // There is one table; whatever else is asked for does not exist.
        let asks_table = routes.asked.remove(translate::TABLE);
        let others = std::mem::take(&mut routes.asked);
        if asks_table {
            routes.asked.insert(translate::TABLE.into());
        }
        if !others.is_empty() {
            // Alone, so that a refused table is refused by its own name.
            let mut items = Items::default();
            items.removed = others.into_iter().collect();
            return Step::Say(self.push(Type::Routes, 0, head, items));
        }
        let (mut items, behind) = (Items::default(), routes.sent);
        if let Some((revision, table)) = world.table.filter(|(revision, _)| sent >= *revision) {
            let asked = routes.asked.remove(translate::TABLE);
            let news =
                routes.table != Some(table.version) && !routes.refuses(translate::TABLE, Some(table.version));
            if routes.wants(translate::TABLE) && (asked || news) {
                routes.forgive(translate::TABLE);
                routes.table = Some(table.version);
                items = Items::one(translate::TABLE.into(), Some(table.clone()));
            }
            routes.sent = *revision;
        }
        if items.is_empty() && !std::mem::take(&mut routes.owes) {
            return Step::Idle;
        }
        routes.owes = false;
        Step::Say(self.push(Type::Routes, behind, head, items))
    }

    fn push(&mut self, kind: Type, behind: Revision, revision: Revision, mut items: Items) -> Push {
        self.nonce += 1;
        let nonce = self.nonce;
        let (stream, suspect) = (self.stream, self.suspect);
        let channel = self.channel_mut(kind);
        if kind == Type::Scopes
            && let Some(generation) = channel.generation(stream, suspect)
        {
            for sent in &mut items.resources {
                sent.generation = Some(generation.clone());
            }
        }
        let through = if channel.owes_stale() { channel.acked } else { channel.sent };
        let (resources, removed): (Arc<[Sent]>, Arc<[Name]>) = (items.resources.into(), items.removed.into());
        channel.end_resync();
        channel.in_flight.push_back(Flight {
            nonce,
            resources: resources.clone(),
            removed: removed.clone(),
            through,
        });
        channel.counts.pushes += 1;
        channel.counts.resources += resources.len() as u64;
        channel.counts.removed += removed.len() as u64;
        Push { type_url: kind.url().into(), kind: Some(kind), nonce, resources, removed, revision, behind }
    }
}

#[cfg(test)]
mod tests;
