//! Events in, a commit out: compares desires, asks `claims` who holds what, and translates only the
//! keys that were touched. One task owns it; its cost is that of the change, never of the fleet.
//!
//! The order inside a commit is the order of the wire: clusters that come, scopes that come, scopes
//! that go, clusters that go. `session` keeps it so that no Envoy holds a route to a cluster it lacks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::claims::{Claims, Standing};
use crate::model::{
    Event, Gateway, Host, Mode, PathPrefix, Problem, ProblemKind, RouteKey, Server, ServerId, Source,
};
use crate::snapshot::{Change, Kind, Name, Resource, Variants};
use crate::translate::{self, Held};

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
    servers: HashMap<ServerId, Arc<Server>>,
    claims: Claims,
    /// Of hosts with a rooted scope on some gateway; the others are split.
    layouts: HashMap<Host, Layout>,
    awaited: BTreeSet<Source>,
    doubtful: BTreeSet<Source>,
    tables: BTreeMap<Gateway, Resource>,
    counts: Counts,
}

impl Engine {
    /// An empty fleet that waits for each of these sources to list.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self {
            servers: HashMap::new(),
            claims: Claims::default(),
            layouts: HashMap::new(),
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
        self.servers.values()
    }

    /// One server.
    pub fn server(&self, id: &ServerId) -> Option<&Arc<Server>> {
        self.servers.get(id)
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
                Event::Reset { source, servers } => {
                    let listed: BTreeSet<_> = servers.iter().map(|server| server.id.clone()).collect();
                    let gone: Vec<_> = self
                        .servers
                        .keys()
                        .filter(|id| id.source() == source && !listed.contains(id))
                        .cloned()
                        .collect();
                    for id in gone {
                        self.remove(&id, &mut batch);
                    }
                    for server in servers {
                        self.put(server, &mut batch);
                    }
                    self.awaited.remove(&source);
                }
                Event::Doubt { source, doubts: true } => _ = self.doubtful.insert(source),
                Event::Doubt { source, doubts: false } => _ = self.doubtful.remove(&source),
            }
        }
        let Batch { mut commit, changed, touched } = batch;
        if !touched.is_empty() {
            self.tables.clear();
        }
        commit.work.keys = touched.len();

        commit.moves = self.moves(&touched);
        commit.losses = self.losses(&changed);

        let (arrived, departed) = self.cluster_changes(&changed);
        let (opened, closed) = self.scope_changes(&touched);
        for change in [arrived, opened, closed, departed].into_iter().flatten() {
            let made = change
                .variants
                .every
                .iter()
                .chain(change.variants.named.iter().filter_map(|(_, r)| r.as_ref()));
            for resource in made {
                commit.work.translations += 1;
                commit.work.bytes += resource.body.len();
            }
            commit.changes.push(change);
        }
        commit
    }

    fn put(&mut self, server: Arc<Server>, batch: &mut Batch) {
        batch.commit.work.events += 1;
        let held = self.servers.get(&server.id);
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
        let keys = self.claims.replace(before.as_ref(), after);
        // A new problem is worth keeping, but no Envoy need hear of it.
        if !same_wire {
            batch.touch(keys);
            batch.changed.insert(server.id.clone());
        }
        self.counts.add(&server);
        if let Some(old) = self.servers.insert(server.id.clone(), server) {
            self.counts.take(&old);
        }
    }

    fn remove(&mut self, id: &ServerId, batch: &mut Batch) {
        batch.commit.work.events += 1;
        let Some(held) = self.servers.remove(id) else { return };
        self.counts.take(&held);
        batch.commit.work.servers += 1;
        if held.desired.mode != Mode::Stopped {
            batch.touch(self.claims.replace(Some(&held), None));
        }
        batch.changed.insert(id.clone());
    }

    fn moves(&self, touched: &Touched) -> Vec<Move> {
        let moved = touched.iter().filter_map(|(key, from)| {
            let (from, to) = (from.clone()?, self.claims.oldest(key)?.id.clone());
            (from != to).then(|| Move { key: key.clone(), from, to })
        });
        moved.collect()
    }

    fn losses(&self, changed: &BTreeSet<ServerId>) -> Vec<(ServerId, RouteKey, ServerId)> {
        let servers = changed.iter().filter_map(|id| self.servers.get(id));
        let claims = servers.flat_map(|server| server.desired.routes.iter().map(move |key| (server, key)));
        let lost = claims.filter_map(|(server, key)| match self.claims.standing(server, key)? {
            Standing::LostTo(winner) => Some((server.id.clone(), key.clone(), winner)),
            Standing::Holds => None,
        });
        lost.collect()
    }

    /// The clusters of changed servers: those that live, and those that go.
    fn cluster_changes(&self, changed: &BTreeSet<ServerId>) -> (Vec<Change>, Vec<Change>) {
        let (mut arrived, mut departed) = (Vec::new(), Vec::new());
        for id in changed {
            let resource = self
                .servers
                .get(id)
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
            let list = if variants == Variants::default() { &mut departed } else { &mut arrived };
            list.push(Change { kind: Kind::Cluster, name, variants });
        }
        (arrived, departed)
    }

    /// The scopes of touched keys: those that live, and those that go.
    fn scope_changes(&mut self, touched: &Touched) -> (Vec<Change>, Vec<Change>) {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        let mut keys = touched.keys().peekable();
        while let Some(first) = keys.next() {
            let host = &first.host;
            let mut paths = vec![&first.path];
            while let Some(next) = keys.next_if(|next| next.host == *host) {
                paths.push(&next.path);
            }
            for (name, segment) in self.scopes_of(host, &paths) {
                let variants = self.scope_variants(host, &name, segment.as_deref());
                let list = if variants == Variants::default() { &mut closed } else { &mut opened };
                list.push(Change { kind: Kind::Scope, name, variants });
            }
        }
        (opened, closed)
    }

    /// The scopes that changes at these paths may alter: with the layout as it was, one or two a path;
    /// when it flips, all of the host's.
    fn scopes_of(&mut self, host: &Host, paths: &[&PathPrefix]) -> Vec<(Name, Option<String>)> {
        let layout = self.layout(host);
        let before = self.layouts.get(host).cloned().unwrap_or_default();
        let mut segments: BTreeSet<&str> = BTreeSet::new();
        segments.extend(paths.iter().map(|path| path.first_segment()));
        if before != layout {
            segments.extend(self.claims.paths(host).map(PathPrefix::first_segment));
        }
        segments.remove("");
        let mut scopes = Vec::new();
        if before.is_ever_rooted() || layout.is_ever_rooted() {
            scopes.push((translate::scope_name(host, None), None));
        }
        if before.is_ever_split() || layout.is_ever_split() {
            scopes.extend(
                segments
                    .into_iter()
                    .map(|segment| (translate::scope_name(host, Some(segment)), Some(segment.to_owned()))),
            );
        }
        if layout == Layout::default() {
            self.layouts.remove(host);
        } else {
            self.layouts.insert(host.clone(), layout);
        }
        scopes
    }

    fn layout(&self, host: &Host) -> Layout {
        let root = PathPrefix::root();
        let is_held = |view: Option<&Gateway>| !self.claims.holders(host, &root, view).is_empty();
        let rooted = is_held(None);
        let except = self.claims.named_at(host, &root).filter(|gateway| is_held(Some(gateway)) != rooted);
        Layout { rooted, except: except.cloned().collect() }
    }

    fn scope_variants(&self, host: &Host, name: &Name, segment: Option<&str>) -> Variants {
        let layout = self.layouts.get(host).cloned().unwrap_or_default();
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
        self.tables.insert(gateway.clone(), table.clone());
        table
    }
}

/// The keys of a batch that were touched, with the oldest claimant that each had before the batch.
type Touched = BTreeMap<RouteKey, Option<ServerId>>;

/// What a batch of events has done so far.
#[derive(Default)]
struct Batch {
    commit: Commit,
    /// Servers whose wire may differ.
    changed: BTreeSet<ServerId>,
    touched: Touched,
}

impl Batch {
    fn touch(&mut self, keys: Touched) {
        for (key, before) in keys {
            self.touched.entry(key).or_insert(before);
        }
    }
}

#[cfg(test)]
mod tests;
