//! Events in, a commit out: compares desires, asks `claims` who holds what, and translates only the
//! keys that were touched. One task owns it; its cost is that of the change, never of the fleet.
//!
//! The order inside a commit is the order of the wire: clusters that come, scopes that come, scopes
//! that go, clusters that go. `session` keeps it so that no Envoy holds a route to a cluster it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};

use crate::claims::{Claims, Standing};
use crate::model::{
    Event, Gateway, Host, Mode, PathPrefix, Problem, ProblemKind, RouteKey, Server, ServerId, Source,
};
use crate::snapshot::{Change, Kind, Name, Resource, Variants};
use crate::translate::{self, Held};

/// Most gateways whose table is kept.
const MAX_TABLES: usize = 16;

/// Counts of what a change cost, to be compared between fleets of any size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Events looked at.
    pub events: usize,
    /// Servers that really changed.
    pub servers: usize,
    /// Route keys whose holders were looked up.
    pub keys: usize,
    /// Resources made.
    pub translations: usize,
    /// Bytes made.
    pub bytes: usize,
}

/// What a batch of events comes to.
#[derive(Debug, Default)]
pub struct Commit {
    /// New content by name, in the order in which Envoys should learn it.
    pub changes: Vec<Change>,
    /// What it cost.
    pub work: Work,
    /// Mistakes that were not there before.
    pub problems: Vec<(ServerId, Problem)>,
    /// Routes that went from one server to another.
    pub moves: Vec<Move>,
    /// Claims of changed servers that an older one keeps from them: server, route, winner.
    pub losses: Vec<(ServerId, RouteKey, ServerId)>,
}

/// A route whose oldest claimant is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The route.
    pub key: RouteKey,
    /// Who held it.
    pub from: ServerId,
    /// Who holds it now.
    pub to: ServerId,
}

/// The fleet in numbers, kept as it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Servers by mode.
    pub modes: BTreeMap<&'static str, usize>,
    /// Their problems by kind.
    pub problems: BTreeMap<ProblemKind, usize>,
}

impl Counts {
    fn add(&mut self, server: &Server) {
        *self.modes.entry(server.desired.mode.word()).or_default() += 1;
        for problem in &server.problems {
            *self.problems.entry(problem.kind).or_default() += 1;
        }
    }

    fn take(&mut self, server: &Server) {
        *self.modes.entry(server.desired.mode.word()).or_default() -= 1;
        for problem in &server.problems {
            *self.problems.entry(problem.kind).or_default() -= 1;
        }
    }
}

/// On which gateways a host's `/` is held, so that all its routes stand in one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// For every gateway that is not an exception.
    rooted: bool,
    /// Named gateways where it is the other way.
    except: BTreeSet<Gateway>,
}

impl Layout {
    fn is_rooted(&self, view: Option<&Gateway>) -> bool {
        self.rooted != view.is_some_and(|gateway| self.except.contains(gateway))
    }

    fn is_ever_rooted(&self) -> bool {
        self.rooted || !self.except.is_empty()
    }

    fn is_ever_split(&self) -> bool {
        !self.rooted || !self.except.is_empty()
    }
}

/// The fleet as all sources report it, and who holds what of it.
#[derive(Debug)]
pub struct Engine {
    servers: HashTable<Arc<Server>>,
    hasher: DefaultHashBuilder,
    claims: Claims,
    awaited: BTreeSet<Source>,
    doubtful: BTreeSet<Source>,
    tables: BTreeMap<Gateway, Resource>,
    counts: Counts,
}

impl Engine {
    /// An empty fleet that waits for each of these sources to list.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self {
            servers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            claims: Claims::default(),
            awaited: sources.into_iter().collect(),
            doubtful: BTreeSet::new(),
            tables: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// True when every source has listed once: before that, no Envoy may be answered.
    pub fn is_synced(&self) -> bool {
        self.awaited.is_empty()
    }

    /// True when what nobody knows can be taken for gone. An empty fleet is more likely a mistake than a
    /// wish to wipe every Envoy that comes back.
    pub fn is_whole(&self) -> bool {
        self.doubtful.is_empty() && !self.servers.is_empty()
    }

    /// The sources that have not listed yet.
    pub fn awaited(&self) -> impl Iterator<Item = Source> {
        self.awaited.iter().copied()
    }

    /// All servers, in no order.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter()
    }

    /// One server.
    pub fn server(&self, id: &ServerId) -> Option<&Arc<Server>> {
        self.servers.find(self.hasher.hash_one(id), |server| server.id == *id)
    }

    /// Puts a server in the place of the one of its name, which comes back.
    fn insert(&mut self, server: Arc<Server>) -> Option<Arc<Server>> {
        let hash = self.hasher.hash_one(&server.id);
        if let Some(held) = self.servers.find_mut(hash, |held| held.id == server.id) {
            return Some(std::mem::replace(held, server));
        }
        let hasher = &self.hasher;
        self.servers.insert_unique(hash, server, |held| hasher.hash_one(&held.id));
        None
    }

    fn take(&mut self, id: &ServerId) -> Option<Arc<Server>> {
        let found = self.servers.find_entry(self.hasher.hash_one(id), |held| held.id == *id);
        Some(found.ok()?.remove().0)
    }

    /// The fleet in numbers.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Who claims what.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Takes a batch of events. Servers that are reported as they are held cost one comparison.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Commit {
        let mut batch = Batch::default();
        for event in events {
            match event {
                Event::Upsert(server) => self.put(server, &mut batch),
                Event::Remove(id) => self.remove(&id, &mut batch),
                Event::Reset { source, servers } => self.reset(source, servers, &mut batch),
                Event::Doubt { source, doubts: true } => _ = self.doubtful.insert(source),
                Event::Doubt { source, doubts: false } => _ = self.doubtful.remove(&source),
            }
        }
        let Batch { mut commit, mut changed, mut touched } = batch;
        changed.sort_unstable();
        changed.dedup();
        // Stable: of several touches of a key the first tells how it was before the batch.
        touched.sort_by(|one, other| one.key.cmp(&other.key));
        touched.dedup_by(|later, first| later.key == first.key);
        if !touched.is_empty() {
            self.tables.clear();
        }
        commit.work.keys = touched.len();

        commit.moves = self.moves(&touched);
        commit.losses = self.losses(&changed);

        let (arrived, departed) = self.cluster_changes(&changed);
        let (opened, closed) = self.scope_changes(&touched);
        commit.changes = arrived;
        commit.changes.extend([opened, closed, departed].into_iter().flatten());
        for resource in commit.changes.iter().flat_map(|change| change.variants.contents()) {
            commit.work.translations += 1;
            commit.work.bytes += resource.content().len();
        }
        commit
    }

    fn reset(&mut self, source: Source, servers: Vec<Arc<Server>>, batch: &mut Batch) {
        let listed: HashSet<&ServerId> = servers.iter().map(|server| &server.id).collect();
        let held = self.servers.iter().map(|server| &server.id);
        let gone: Vec<_> = held.filter(|id| id.source() == source && !listed.contains(id)).cloned().collect();
        for id in gone {
            self.remove(&id, batch);
        }
        drop(listed);
        for server in servers {
            self.put(server, batch);
        }
        self.awaited.remove(&source);
    }

    fn put(&mut self, server: Arc<Server>, batch: &mut Batch) {
        batch.commit.work.events += 1;
        let held = self.server(&server.id).cloned();
        let held = held.as_ref();
        if held == Some(&server) {
            return;
        }
        batch.commit.work.servers += 1;
        let known = held.map_or(&[][..], |held| &held.problems);
        let news = server.problems.iter().filter(|problem| !known.contains(problem));
        batch.commit.problems.extend(news.map(|problem| (server.id.clone(), problem.clone())));
        let before = held.filter(|held| held.desired.mode != Mode::Stopped).cloned();
        // One that stopped is known, but claims nothing.
        let after = (server.desired.mode != Mode::Stopped).then_some(&server);
        let same_wire = match (&before, after) {
            (Some(before), Some(after)) => before.desired == after.desired && before.age == after.age,
            (None, None) => true,
            _ => false,
        };
        // A new problem is worth keeping, but no Envoy need hear of it.
        if !same_wire {
            self.touch(before.as_ref(), after, batch);
            batch.changed.push(server.id.clone());
        }
        self.claims.replace(before.as_ref(), after);
        self.counts.add(&server);
        if let Some(old) = self.insert(server) {
            self.counts.take(&old);
        }
    }

    /// Notes how the keys of a server are before it changes.
    fn touch(&self, old: Option<&Arc<Server>>, new: Option<&Arc<Server>>, batch: &mut Batch) {
        let keys = old.into_iter().chain(new).flat_map(|server| &server.desired.routes);
        batch.touched.extend(keys.map(|key| Touch {
            key: key.clone(),
            oldest: self.claims.oldest(key).map(|server| server.id.clone()),
            layout: if key.path.is_root() { self.layout(&key.host) } else { Layout::default() },
        }));
    }

    fn remove(&mut self, id: &ServerId, batch: &mut Batch) {
        batch.commit.work.events += 1;
        let Some(held) = self.take(id) else { return };
        self.counts.take(&held);
        batch.commit.work.servers += 1;
        if held.desired.mode != Mode::Stopped {
            self.touch(Some(&held), None, batch);
            self.claims.replace(Some(&held), None);
        }
        batch.changed.push(id.clone());
    }

    fn moves(&self, touched: &[Touch]) -> Vec<Move> {
        let moved = touched.iter().filter_map(|Touch { key, oldest, .. }| {
            let (from, to) = (oldest.as_ref()?, &self.claims.oldest(key)?.id);
            (from != to).then(|| Move { key: key.clone(), from: from.clone(), to: to.clone() })
        });
        moved.collect()
    }

    fn losses(&self, changed: &[ServerId]) -> Vec<(ServerId, RouteKey, ServerId)> {
        let servers = changed.iter().filter_map(|id| self.server(id));
        let claims = servers.flat_map(|server| server.desired.routes.iter().map(move |key| (server, key)));
        let lost = claims.filter_map(|(server, key)| match self.claims.standing(server, key)? {
            Standing::LostTo(winner) => Some((server.id.clone(), key.clone(), winner)),
            Standing::Holds => None,
        });
        lost.collect()
    }

    /// The clusters of changed servers: those that live, and those that go.
    fn cluster_changes(&self, changed: &[ServerId]) -> (Vec<Change>, Vec<Change>) {
        let (mut arrived, mut departed) = (Vec::new(), Vec::new());
        for id in changed {
            let resource = self
                .server(id)
                .filter(|server| server.desired.mode != Mode::Stopped && !server.desired.routes.is_empty())
                .and_then(|server| Some((server, translate::cluster(server)?)));
            let variants = match resource {
                None => Variants::default(),
                Some((server, resource)) if server.desired.gateways.include(None) => {
                    Variants::everywhere(resource)
                }
                Some((server, resource)) => {
                    let named = server.desired.gateways.named();
                    Variants {
                        every: None,
                        named: named.map(|g| (g.clone(), Some(resource.clone()))).collect(),
                    }
                }
            };
            let name = translate::cluster_name(id).into();
            let list = if variants.is_gone() { &mut departed } else { &mut arrived };
            list.push(Change { kind: Kind::Cluster, name, variants });
        }
        (arrived, departed)
    }

    /// The scopes of touched keys: those that live, and those that go.
    fn scope_changes(&self, touched: &[Touch]) -> (Vec<Change>, Vec<Change>) {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for touched in touched.chunk_by(|one, other| one.key.host == other.key.host) {
            let host = &touched[0].key.host;
            let layout = self.layout(host);
            for (name, segment) in self.scopes_of(host, touched, &layout) {
                let variants = self.scope_variants(host, &name, segment, &layout);
                let list = if variants.is_gone() { &mut closed } else { &mut opened };
                list.push(Change { kind: Kind::Scope, name, variants });
            }
        }
        (opened, closed)
    }

    /// The scopes that touches of a host may alter: with the layout as it was, one or two a path; when it
    /// flips, all of the host's.
    fn scopes_of<'a>(
        &'a self,
        host: &Host,
        touched: &'a [Touch],
        layout: &Layout,
    ) -> Vec<(Name, Option<&'a str>)> {
        // Only a touch of the root can alter the layout, and the root is the first of a host's paths.
        let before = touched.first().filter(|touch| touch.key.path.is_root());
        let before = before.map_or(layout, |touch| &touch.layout);
        let mut segments: BTreeSet<&str> =
            touched.iter().map(|touch| touch.key.path.first_segment()).collect();
        if before != layout {
            segments.extend(self.claims.paths(host).map(PathPrefix::first_segment));
        }
        segments.remove("");
        let mut scopes = Vec::new();
        if before.is_ever_rooted() || layout.is_ever_rooted() {
            scopes.push((translate::scope_name(host, None), None));
        }
        if before.is_ever_split() || layout.is_ever_split() {
            let split = segments.into_iter().map(Some);
            scopes.extend(split.map(|segment| (translate::scope_name(host, segment), segment)));
        }
        scopes
    }

    fn layout(&self, host: &Host) -> Layout {
        let root = PathPrefix::root();
        let rooted = self.claims.is_held(host, &root, None);
        // Those that are named below the root only are on it like any other.
        let named = self.claims.named(host);
        let except = named.filter(|gateway| self.claims.is_held(host, &root, Some(gateway)) != rooted);
        Layout { rooted, except: except.cloned().collect() }
    }

    fn scope_variants(&self, host: &Host, name: &Name, segment: Option<&str>, layout: &Layout) -> Variants {
        let paths: Vec<&PathPrefix> = match segment {
            None => self.claims.paths(host).collect(),
            Some(segment) => self.claims.paths_of_segment(host, segment).collect(),
        };
        let content = |view: Option<&Gateway>| {
            // The host's scope holds all where it is rooted; elsewhere each segment has its own.
            if layout.is_rooted(view) != segment.is_none() {
                return None;
            }
            let held = self.held(host, paths.iter().copied(), view);
            (!held.is_empty()).then(|| translate::scope(name, &held))
        };
        let mut gateways: BTreeSet<&Gateway> = layout.except.iter().collect();
        if self.claims.named(host).next().is_some() {
            gateways.extend(paths.iter().flat_map(|path| self.claims.named_at(host, path)));
        }
        let every = content(None);
        let named = gateways
            .into_iter()
            .map(|gateway| (gateway.clone(), content(Some(gateway))))
            .filter(|(_, resource)| *resource != every)
            .collect();
        Variants { every, named }
    }

    fn held<'a>(
        &self,
        host: &Host,
        paths: impl Iterator<Item = &'a PathPrefix>,
        view: Option<&Gateway>,
    ) -> Vec<Held> {
        paths
            .map(|path| Held { path: path.clone(), holders: self.claims.holders(host, path, view) })
            .filter(|held| !held.holders.is_empty())
            .collect()
    }

    /// All routes of a gateway in one RouteConfiguration. Costs the whole fleet, so it is made when an
    /// Envoy asks for it, and kept until a route changes.
    pub fn table(&mut self, gateway: &Gateway) -> Resource {
        if let Some(table) = self.tables.get(gateway) {
            return table.clone();
        }
        let mut hosts: Vec<_> = self.claims.hosts().cloned().collect();
        hosts.sort();
        let hosts = hosts.into_iter().map(|host| {
            let held = self.held(&host, self.claims.paths(&host), Some(gateway));
            (host, held)
        });
        let table = translate::table(hosts.filter(|(_, held)| !held.is_empty()));
        // Gateways are named by whoever connects.
        if self.tables.len() >= MAX_TABLES {
            self.tables.clear();
        }
        self.tables.insert(gateway.clone(), table.clone());
        table
    }
}

/// A key whose claims change, as it was before.
struct Touch {
    key: RouteKey,
    /// Its oldest claimant.
    oldest: Option<ServerId>,
    /// Of its host, if this is the host's root.
    layout: Layout,
}

/// What a batch of events has done so far.
#[derive(Default)]
struct Batch {
    commit: Commit,
    /// Servers whose wire may differ, and keys whose claims do; some may stand here several times.
    changed: Vec<ServerId>,
    touched: Vec<Touch>,
}

#[cfg(test)]
mod tests;
