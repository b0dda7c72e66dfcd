//! One Envoy's delta stream as a value: requests in, pushes out. No socket, no clock.
//!
//! A stream that has converged is two cursors a type and nothing a name: what an Envoy lacks is what
//! changed behind the cursor. Names are kept only while they are exceptions: asked for, claimed at a
//! reconnect, in flight, or refused.
//!
//! Order: a scope goes behind its cluster on the same stream; a cluster goes only when the scopes that
//! named it are acknowledged as changed. Section names in comments are those of Envoy's xDS protocol page.

use std::collections::{BTreeSet, VecDeque};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use serde::Serialize;

use crate::model::{Gateway, MAX_NAME, is_name};
use crate::snapshot::{Kind, Name, Resource, Revision, Snapshot, Version};
use crate::translate;

mod channel;
mod push;

use channel::{Channel, Flight, Gather, Items};
pub use channel::{ChannelStatus, Counts};
pub use push::Push;

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

/// The state of one stream; it dies with it.
#[derive(Debug)]
pub struct Session {
    node: Option<Node>,
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

    /// The stream for people, a row a subscribed type.
    pub fn status(&self) -> Vec<ChannelStatus> {
        let rows = Type::ALL.into_iter().map(|kind| (kind, self.channel(kind)));
        rows.filter(|(_, channel)| channel.subscribed)
            .map(|(kind, channel)| ChannelStatus {
                kind,
                wildcard: channel.wildcard,
                names: channel.names.len(),
                sent: channel.sent,
                acked: channel.settled(),
                in_flight: channel.in_flight.len(),
                refused: channel.refused.clone(),
                counts: channel.counts,
            })
            .collect()
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

    fn gateway(&self) -> &str {
        self.node.as_ref().map_or(DEFAULT_GATEWAY, |node| &node.gateway.0)
    }

    /// Takes one request: its node, its subscriptions, its ACK or NACK, each of which may be there.
    pub fn on_request(
        &mut self,
        request: DeltaDiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Result<Vec<Note>, Refusal> {
        let mut notes = Vec::new();
        if self.node.is_none() {
            let node = node_of(&request)?;
            notes.push(Note::Connected(node.clone()));
            self.node = Some(node);
        }
        let names = request.resource_names_subscribe.iter().chain(&request.resource_names_unsubscribe);
        if let Some(long) =
            names.chain(request.initial_resource_versions.keys()).find(|name| name.len() > MAX_NAME_BYTES)
        {
            return Err(Refusal::LongName(long.len()));
        }
        let Some(kind) = Type::of(&request.type_url) else {
            notes.extend(self.on_unknown_type(request));
            return Ok(notes);
        };
        let (gateway, suspect) = (self.gateway().to_owned(), self.suspect);
        let channel = self.channel_mut(kind);
        if channel.subscribed {
            channel.resubscribe(&request);
        } else {
            channel.subscribe(kind, &request, snapshot, &gateway, suspect);
        }
        if channel.names.len() > MAX_NAMES {
            return Err(Refusal::TooManyNames);
        }
        if !request.response_nonce.is_empty() {
            // "ACK and NACK semantics": error_detail alone tells them apart.
            let reason = request.error_detail.map(|status| status.message);
            notes.extend(channel.on_verdict(kind, &request.response_nonce, reason));
        }
        Ok(notes)
    }

    /// A type that is not served holds nothing: its wildcard is answered empty and its names do not
    /// exist, so that no client waits for its timeout.
    fn on_unknown_type(&mut self, request: DeltaDiscoveryRequest) -> Option<Note> {
        const MAX_ANSWERS: usize = 16;
        let asks = request.response_nonce.is_empty() || !request.resource_names_subscribe.is_empty();
        if !asks || self.unknown.len() >= MAX_ANSWERS {
            return None;
        }
        self.nonce += 1;
        let names: BTreeSet<_> =
            request.resource_names_subscribe.into_iter().filter(|name| name != "*").collect();
        self.unknown.push_back(Push {
            type_url: request.type_url.clone(),
            kind: None,
            nonce: self.nonce,
            resources: Vec::new(),
            removed: names.into_iter().map(Name::from).collect(),
            revision: 0,
        });
        Some(Note::UnknownType(request.type_url))
    }

    /// The next response, when there is something to say and room to say it; call until it is `None`.
    pub fn next(&mut self, world: World<'_>) -> Result<Option<Push>, Refusal> {
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
            return Ok(Some(push));
        }
        Ok(self
            .next_clusters(world)
            .or_else(|| self.next_scopes(world))
            .or_else(|| self.next_table(world))
            // Routes that had nothing to say have caught up, which may free a cluster's removal.
            .or_else(|| self.next_clusters(world)))
    }

    fn next_clusters(&mut self, world: World<'_>) -> Option<Push> {
        if !self.clusters.subscribed || self.clusters.in_flight.len() >= FLIGHTS {
            return None;
        }
        let gateway = self.gateway().to_owned();
        let gather = Gather {
            kind: Kind::Cluster,
            gateway: &gateway,
            snapshot: world.snapshot,
            budget: self.chunk,
            live_until: Revision::MAX,
            lost_until: self.clusters_removable_until(world.snapshot.revision()),
        };
        let items = self.clusters.gather(&gather)?;
        Some(self.push(Type::Clusters, world.snapshot.revision(), items))
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

    fn next_scopes(&mut self, world: World<'_>) -> Option<Push> {
        if !self.scopes.subscribed || !self.scopes.in_flight.is_empty() {
            return None;
        }
        let head = world.snapshot.revision();
        let sent = self.clusters_sent();
        let first = self.scopes.owes;
        if first && sent < head {
            return None;
        }
        let gateway = self.gateway().to_owned();
        let gather = Gather {
            kind: Kind::Scope,
            gateway: &gateway,
            snapshot: world.snapshot,
            budget: if first { FIRST_SCOPES } else { self.chunk },
            live_until: sent,
            lost_until: sent,
        };
        let items = self.scopes.gather(&gather)?;
        Some(self.push(Type::Scopes, head, items))
    }

    /// Clusters that changed up to here were sent. An Envoy that takes none, or by name, waits for none.
    fn clusters_sent(&self) -> Revision {
        if self.clusters.subscribed && self.clusters.wildcard {
            self.clusters.complete
        } else {
            Revision::MAX
        }
    }

    fn next_table(&mut self, world: World<'_>) -> Option<Push> {
        let sent = self.clusters_sent();
        let routes = &mut self.routes;
        if !routes.subscribed || !routes.in_flight.is_empty() {
            return None;
        }
        // There is one table; whatever else is asked for does not exist.
        let asks_table = routes.asked.remove(translate::TABLE);
        let mut items: Items =
            std::mem::take(&mut routes.asked).into_iter().map(|name| (name, None)).collect();
        if asks_table {
            routes.asked.insert(translate::TABLE.into());
        }
        if !items.is_empty() {
            // Alone, so that a refused table is refused by its own name.
            return Some(self.push(Type::Routes, world.snapshot.revision(), items));
        }
        if let Some((revision, table)) = world.table.filter(|(revision, _)| sent >= *revision) {
            let name = Name::from(translate::TABLE);
            let asked = routes.asked.remove(&name);
            let news = routes.table != Some(table.version) && !routes.refuses(&name, Some(table.version));
            if routes.wants(&name) && (asked || news) {
                routes.refused.remove(&name);
                routes.table = Some(table.version);
                items.insert(name, Some(table.clone()));
            }
            routes.sent = *revision;
        }
        if items.is_empty() && !std::mem::take(&mut routes.owes) {
            return None;
        }
        routes.owes = false;
        Some(self.push(Type::Routes, world.snapshot.revision(), items))
    }

    fn push(&mut self, kind: Type, revision: Revision, items: Items) -> Push {
        self.nonce += 1;
        let nonce = self.nonce;
        let (stream, suspect) = (self.stream, self.suspect);
        let channel = self.channel_mut(kind);
        let mut push = Push {
            type_url: kind.url().into(),
            kind: Some(kind),
            nonce,
            resources: Vec::new(),
            removed: Vec::new(),
            revision,
        };
        let through = if channel.owes_stale() { channel.acked } else { channel.sent };
        let mut flight = Flight { nonce, items: Vec::with_capacity(items.len()), through };
        for (name, resource) in items {
            flight.items.push((name.clone(), resource.as_ref().map(|resource| resource.version)));
            match resource {
                None => push.removed.push(name),
                Some(resource) if kind == Type::Scopes => {
                    let again = channel.generation(&name, stream, suspect);
                    let again = again.and_then(|generation| translate::scope_again(&resource, &generation));
                    push.resources.push(again.unwrap_or(resource).body);
                }
                Some(resource) => push.resources.push(resource.body),
            }
        }
        channel.end_resync();
        channel.in_flight.push_back(flight);
        channel.counts.pushes += 1;
        channel.counts.resources += push.resources.len() as u64;
        channel.counts.removed += push.removed.len() as u64;
        push
    }
}

fn node_of(request: &DeltaDiscoveryRequest) -> Result<Node, Refusal> {
    use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
    let node = request.node.as_ref().ok_or(Refusal::NoNode)?;
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
    Ok(Node { id, gateway: Gateway(gateway.into()), version })
}

#[cfg(test)]
mod tests;
