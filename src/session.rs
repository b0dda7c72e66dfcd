//! One Envoy's delta stream as a value: requests in, pushes out. No socket, no clock.
//!
//! A stream that has converged is two cursors a type and nothing a name: what an Envoy lacks is what
//! changed behind the cursor. Names are kept only while they are exceptions: asked for, claimed at a
//! reconnect, in flight, or refused.
//!
//! Order: a scope goes behind its cluster on the same stream; a cluster goes only when the scopes that
//! named it are acknowledged as changed. Section names in comments are those of Envoy's xDS protocol page.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::{BufMut, Bytes};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::encoding::{WireType, encode_key, encode_varint, string};
use serde::Serialize;

use crate::model::{Gateway, MAX_NAME, is_name};
use crate::snapshot::{Kind, Name, Resource, Revision, Snapshot, Version};
use crate::translate;

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

/// One response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The type URL, of a served type or as it was asked.
    pub type_url: String,
    /// Its type; none for one that is not served.
    pub kind: Option<Type>,
    /// Its number on this stream.
    pub nonce: u64,
    /// What is new or changed, encoded; the bytes are shared with all other streams.
    pub resources: Vec<Bytes>,
    /// What is gone.
    pub removed: Vec<Name>,
    /// The revision it was made at, for people who read it.
    pub revision: Revision,
}

/// Field numbers of `DeltaDiscoveryResponse`.
mod tags {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
}

impl Push {
    /// Writes the `DeltaDiscoveryResponse` around the shared bytes: nothing else is encoded per Envoy.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        string::encode(tags::SYSTEM_VERSION_INFO, &self.revision.to_string(), buffer);
        for resource in &self.resources {
            encode_key(tags::RESOURCES, WireType::LengthDelimited, buffer);
            encode_varint(resource.len() as u64, buffer);
            buffer.put_slice(resource);
        }
        string::encode(tags::TYPE_URL, &self.type_url, buffer);
        string::encode(tags::NONCE, &self.nonce.to_string(), buffer);
        for name in &self.removed {
            encode_key(tags::REMOVED_RESOURCES, WireType::LengthDelimited, buffer);
            encode_varint(name.len() as u64, buffer);
            buffer.put_slice(name.as_bytes());
        }
    }

    /// About how many bytes `encode` writes; never fewer.
    pub fn size(&self) -> usize {
        let resources: usize = self.resources.iter().map(|resource| resource.len() + 6).sum();
        let removed: usize = self.removed.iter().map(|name| name.len() + 6).sum();
        resources + removed + self.type_url.len() + 64
    }
}

/// What a session reads when it decides what to send.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// All resources.
    pub snapshot: &'a Snapshot,
    /// The gateway's RDS table and the revision it was made at, if the stream wants one.
    pub table: Option<&'a (Revision, Resource)>,
}

#[derive(Debug)]
struct Flight {
    nonce: u64,
    items: Vec<(Name, Option<Version>)>,
    /// All changes up to here were sent with it or before it.
    through: Revision,
}

/// One type on one stream.
#[derive(Debug, Default)]
struct Channel {
    subscribed: bool,
    wildcard: bool,
    names: HashSet<Name>,
    /// Live names that changed up to here were sent, or did not concern this Envoy.
    cursor: Revision,
    /// The same for names that were lost.
    lost_cursor: Revision,
    /// All changes up to here were acknowledged, as far as the last ACK tells.
    acked: Revision,
    /// What the Envoy said it holds, until the first scan has passed it. `None`: a version not ours.
    claimed: HashMap<Name, Option<Version>>,
    /// Claimed names that are nobody's any more, and the revision at which that was found.
    stale: BTreeSet<Name>,
    stale_since: Revision,
    /// The stream is a reconnect, and the scan has not passed this revision yet.
    resync_until: Option<Revision>,
    /// Names that must be answered though nothing changed.
    asked: BTreeSet<Name>,
    /// The first wildcard request is answered even if there is nothing.
    owes: bool,
    /// True once any response was acknowledged or refused.
    heard: bool,
    in_flight: VecDeque<Flight>,
    /// Parts of refused responses, to be sent on their own.
    retries: VecDeque<Vec<Name>>,
    refused: BTreeMap<Name, Refused>,
    /// How often a scope was in a refused response (see `Session::generation`).
    generations: HashMap<Name, u32>,
    /// Routes only: the table's version that was sent or claimed.
    table: Option<Version>,
    counts: Counts,
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
    fn wants(&self, name: &Name) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Everything up to here is acknowledged (or refused for good).
    fn settled(&self) -> Revision {
        if self.in_flight.is_empty() && self.retries.is_empty() && self.stale.is_empty() {
            self.cursor.min(self.lost_cursor)
        } else {
            self.acked
        }
    }

    /// True while this very content is known to be refused.
    fn refuses(&self, name: &Name, version: Option<Version>) -> bool {
        self.refused.get(name).is_some_and(|refused| refused.version == version)
    }
}

/// The state of one stream; it dies with it.
#[derive(Debug)]
pub struct Session {
    node: Option<Node>,
    stream: u64,
    /// This Envoy refused something on an earlier stream.
    suspect: bool,
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
        let subscribed = [&self.clusters, &self.scopes, &self.routes].into_iter().filter(|channel| channel.subscribed);
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
                sent: channel.cursor.min(channel.lost_cursor),
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
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest, snapshot: &Snapshot) -> Result<Vec<Note>, Refusal> {
        let mut notes = Vec::new();
        if self.node.is_none() {
            let node = node_of(&request)?;
            notes.push(Note::Connected(node.clone()));
            self.node = Some(node);
        }
        let names = request.resource_names_subscribe.iter().chain(&request.resource_names_unsubscribe);
        if let Some(long) = names.chain(request.initial_resource_versions.keys()).find(|name| name.len() > MAX_NAME_BYTES) {
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
        let names: BTreeSet<_> = request.resource_names_subscribe.into_iter().filter(|name| name != "*").collect();
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
        let removable = self.clusters_removable_until(world.snapshot.revision());
        let gather = Gather { kind: Kind::Cluster, gateway: &gateway, snapshot: world.snapshot, budget: CHUNK };
        let items = self.clusters.gather(&gather, Revision::MAX, removable)?;
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
        let budget = if first { FIRST_SCOPES } else { CHUNK };
        let gather = Gather { kind: Kind::Scope, gateway: &gateway, snapshot: world.snapshot, budget };
        let items = self.scopes.gather(&gather, sent, sent)?;
        Some(self.push(Type::Scopes, head, items))
    }

    /// Clusters that changed up to here were sent. An Envoy that takes none, or by name, waits for none.
    fn clusters_sent(&self) -> Revision {
        if self.clusters.subscribed && self.clusters.wildcard { self.clusters.cursor } else { Revision::MAX }
    }

    fn next_table(&mut self, world: World<'_>) -> Option<Push> {
        let sent = self.clusters_sent();
        let routes = &mut self.routes;
        if !routes.subscribed || !routes.in_flight.is_empty() {
            return None;
        }
        // There is one table; whatever else is asked for does not exist.
        let asks_table = routes.asked.remove(translate::TABLE);
        let mut items: Items = std::mem::take(&mut routes.asked).into_iter().map(|name| (name, None)).collect();
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
            (routes.cursor, routes.lost_cursor) = (*revision, *revision);
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
        let mut push =
            Push { type_url: kind.url().into(), kind: Some(kind), nonce, resources: Vec::new(), removed: Vec::new(), revision };
        let sent = channel.cursor.min(channel.lost_cursor);
        let through = if channel.stale.is_empty() { sent } else { channel.acked };
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

/// What one response will carry: each name once, so never both as added and as removed.
type Items = BTreeMap<Name, Option<Resource>>;

struct Gather<'a> {
    kind: Kind,
    gateway: &'a str,
    snapshot: &'a Snapshot,
    budget: usize,
}

impl Gather<'_> {
    fn get(&self, name: &str) -> Option<&Resource> {
        self.snapshot.get(self.kind, name, self.gateway)
    }
}

impl Channel {
    /// The first request of a type on a stream.
    fn subscribe(
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
        self.wildcard = (names.is_empty() && request.resource_names_unsubscribe.is_empty()) || names.iter().any(|n| n == "*");
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
                self.asked = self.names.iter().filter(|name| !claimed.contains_key(&***name)).cloned().collect();
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
    fn resubscribe(&mut self, request: &DeltaDiscoveryRequest) {
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

    fn on_verdict(&mut self, kind: Type, nonce: &str, reason: Option<String>) -> Vec<Note> {
        let nonce: Option<u64> = nonce.parse().ok();
        let Some(at) = self.in_flight.iter().position(|flight| Some(flight.nonce) == nonce) else {
            return vec![Note::StaleNonce];
        };
        let Some(flight) = self.in_flight.remove(at) else { return vec![Note::StaleNonce] };
        self.heard = true;
        let Some(reason) = reason else {
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
        let resources = flight.items.len();
        let mut notes = vec![Note::Nacked { kind, nonce: flight.nonce, resources, reason: reason.clone() }];
        if let [(name, version)] = &flight.items[..] {
            self.refused.insert(name.clone(), Refused { version: *version, reason: reason.clone() });
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
    fn generation(&self, name: &Name, stream: u64, suspect: bool) -> Option<String> {
        let count = self.generations.get(name);
        if suspect || self.resync_until.is_some() {
            return Some(format!("{stream:x}.{}", count.copied().unwrap_or_default()));
        }
        count.map(ToString::to_string)
    }

    /// What the next response carries: a retry alone, or what was asked for, then what changed up to
    /// `live_until`, then what was lost up to `lost_until`. `None` when there is nothing to say.
    fn gather(&mut self, gather: &Gather<'_>, live_until: Revision, lost_until: Revision) -> Option<Items> {
        while let Some(names) = self.retries.pop_front() {
            let wanted = names.into_iter().filter(|name| self.wants(name));
            let items: Items = wanted.map(|name| (name.clone(), gather.get(&name).cloned())).collect();
            if !items.is_empty() {
                return Some(items);
            }
        }
        let mut items = Items::new();
        let mut bytes = 0;
        while bytes < gather.budget
            && let Some(name) = self.asked.pop_first()
        {
            let resource = gather.get(&name).cloned();
            bytes += resource.as_ref().map_or(name.len(), |resource| resource.body.len());
            items.insert(name, resource);
        }
        self.gather_live(gather, live_until, &mut items, &mut bytes);
        // Behind what came before it: where a key moves from scope to scope, the new one is there first.
        self.gather_lost(gather, lost_until.min(self.cursor), &mut items, &mut bytes);
        if items.is_empty() && !self.owes {
            self.end_resync();
            return None;
        }
        self.owes = false;
        Some(items)
    }

    fn end_resync(&mut self) {
        if self.resync_until.is_some_and(|until| self.cursor >= until) {
            self.resync_until = None;
            self.claimed = HashMap::new();
        }
    }

    fn gather_live(&mut self, gather: &Gather<'_>, until: Revision, items: &mut Items, bytes: &mut usize) {
        let head = gather.snapshot.revision().min(until);
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

    fn gather_lost(&mut self, gather: &Gather<'_>, until: Revision, items: &mut Items, bytes: &mut usize) {
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
        if until >= self.stale_since {
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
