//! The objects of a cluster put together: which of them make a server, and what a new version of one changes.
//!
//! Pure bookkeeping. Objects go in, `Event`s come out, and only for servers that really differ: a version
//! of an object that is equal in all that is read costs one comparison.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Key, Kind, Object, Rules, agones, okg, pod};
use crate::model::{Event, Mode, Server, Source};
use crate::spec::{EMPTY, SESSIONS, URL};

/// The label of a server that every Envoy routes: an allocation can select it.
pub const ROUTED: &str = "tidegate.dev/routed";

/// An object that is told how its server fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which object.
    pub key: Key,
    /// Its uid: what is said of it is not said of another with its name.
    pub uid: Box<str>,
}

/// What stands on an object already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Its [`URL`] annotation.
    pub url: Option<Box<str>>,
    /// Its [`ROUTED`] label is `"true"`.
    pub routed: bool,
    /// Octops' ready annotation is true; `None` on an object that is none of Octops'.
    pub ready: Option<bool>,
    /// Its [`SESSIONS`] annotation.
    pub sessions: Option<Box<str>>,
    /// Its [`EMPTY`] annotation.
    pub empty: Option<Box<str>>,
    /// `spec.opsState` of a GameServer of OpenKruiseGame.
    pub ops_state: Option<Box<str>>,
    /// It takes no new players, and would not with the ops state that it had before it was called empty.
    pub drained: bool,
}

/// A pod that waits for its `game.kruise.io/network-status`, as those of our own network type do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The pod.
    pub target: Target,
    /// Its address.
    pub ip: Option<std::net::IpAddr>,
    /// What stands there now.
    pub status: Option<Box<str>>,
    /// `networkDisabled` was asked for.
    pub disabled: bool,
}

/// All that one game server comes to, and whom to tell of it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its routes: one server a port; none of one that is no game server any more, and has its marks still.
    pub servers: Vec<Arc<Server>>,
    /// The object that carries the annotations; none while a pod has no GameServer.
    pub target: Option<Target>,
    /// What stands on it.
    pub noted: Noted,
    /// The pod of our own network type.
    pub network: Option<Network>,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new, or this is its new version.
    Put(Arc<Object>),
    /// It is gone.
    Gone(Key),
}

/// The sources that a fleet's servers are reported by.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// For OpenKruiseGame.
    pub okg: Source,
    /// For Agones.
    pub agones: Source,
}

/// All objects of a cluster, or of a directory.
#[derive(Debug)]
pub struct Fleet {
    rules: Rules,
    sources: Sources,
    objects: HashMap<Key, Arc<Object>>,
    /// How many objects there are, by kind and namespace.
    counts: BTreeMap<(Kind, Box<str>), usize>,
    /// The pods of a GameServerSet, and those it waits for, by the set's key.
    members: HashMap<Key, BTreeSet<Box<str>>>,
    /// What was told, by the object that stands for the game server: a pod, or an Agones GameServer.
    told: HashMap<Key, Vec<Arc<Server>>>,
    /// Game servers whose objects changed since somebody asked.
    touched: BTreeSet<Key>,
    /// What was a game server and is none any more, while its object still says that it is routed. What never was one
    /// here is another's to mark.
    parted: BTreeSet<Key>,
    wants_agones_pods: bool,
}

impl Fleet {
    /// No objects yet.
    pub fn new(rules: Rules, sources: Sources) -> Self {
        Self {
            rules,
            sources,
            objects: HashMap::new(),
            counts: BTreeMap::new(),
            members: HashMap::new(),
            told: HashMap::new(),
            touched: BTreeSet::new(),
            parted: BTreeSet::new(),
            wants_agones_pods: false,
        }
    }

    /// Every server of a source, in no order.
    pub fn servers(&self, source: Source) -> impl Iterator<Item = &Arc<Server>> {
        self.told.values().flatten().filter(move |server| server.id.source() == source)
    }

    /// How many objects of a kind there are, in one namespace or in all.
    pub fn count(&self, kind: Kind, namespace: Option<&str>) -> usize {
        let counts = self.counts.iter().filter(|((of, space), _)| {
            *of == kind && namespace.is_none_or(|namespace| **space == *namespace)
        });
        counts.map(|(_, count)| count).sum()
    }

    /// True once a GameServer of Agones did not say its pod's address, so that its pod has to.
    pub fn wants_agones_pods(&self) -> bool {
        self.wants_agones_pods
    }

    /// An object, as far as it is read.
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key).map(|object| &**object)
    }

    /// What was told of a game server, by the object that stands for it: a pod, or a GameServer of Agones.
    pub fn told(&self, root: &Key) -> &[Arc<Server>] {
        self.told.get(root).map_or(&[], Vec::as_slice)
    }

    /// The servers whose pods are away and awaited, each with its set; in no order.
    pub fn absent(&self) -> impl Iterator<Item = (Key, &Arc<Server>)> {
        let away = self.told.iter().filter(|(root, _)| root.kind == Kind::Pod && self.pod(root).is_none());
        away.flat_map(|(root, servers)| {
            let set = okg::set_name(&root.name).map(|set| set_key(&root.namespace, set));
            servers.iter().filter_map(move |server| Some((set.clone()?, server)))
        })
    }

    /// Why an object makes no server though it is there; `None` of one that does, or never makes one.
    pub fn unrouted(&self, key: &Key) -> Option<String> {
        if !self.told(key).is_empty() {
            return None;
        }
        match self.get(key)? {
            Object::Pod(_) if key.kind == Kind::AgonesPod => None,
            Object::Pod(pod) => Some(okg::unrouted(pod)),
            Object::GameServerSet(set) => Some(okg::unrouted_set(set)),
            Object::AgonesGameServer(server) => Some(agones::unrouted(server, &self.rules)),
            Object::AgonesFleet(fleet) => Some(agones::unrouted_fleet(fleet, &self.rules)),
            Object::OkgGameServer(_) => {
                let pod = Key { kind: Kind::Pod, ..key.clone() };
                let is_alone = self.get(&pod).is_none() && self.told(&pod).is_empty();
                is_alone.then(|| "its pod is not there, and the address is the pod's".to_owned())
            }
        }
    }

    /// Takes an object's new version. Returns what that changes.
    pub fn put(&mut self, object: impl Into<Arc<Object>>) -> Vec<Event> {
        self.apply([Change::Put(object.into())])
    }

    /// Forgets an object that is gone. Returns what that changes.
    pub fn remove(&mut self, key: &Key) -> Vec<Event> {
        self.apply([Change::Gone(key.clone())])
    }

    /// Takes what became of several objects at once. Returns what all of it changes: a pod that comes with its
    /// set is read once, and never as if it had none.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Event> {
        let mut roots = BTreeSet::new();
        for change in changes {
            roots.extend(match change {
                Change::Put(object) => self.enter(object),
                Change::Gone(key) => self.leave(&key),
            });
        }
        self.settle(roots)
    }

    /// Takes an object's new version. Returns the game servers that may differ by it.
    fn enter(&mut self, object: Arc<Object>) -> BTreeSet<Key> {
        let key = object.key();
        match self.objects.get(&key) {
            Some(held) if *held == object => return BTreeSet::new(),
            Some(_) => {}
            None => *self.counts.entry((key.kind, key.namespace.clone())).or_default() += 1,
        }
        if let Object::AgonesGameServer(server) = &*object {
            self.wants_agones_pods |= agones::wants_pod(server, &self.rules);
        }
        if let Some(roots) = self.resized(&key, &object) {
            self.objects.insert(key.clone(), object);
            self.line_up(&key);
            return roots;
        }
        // A pod that changes its set would leave the old one: a set adopts no strangers, but a dump may say so.
        let mut roots = self.roots(&key);
        self.objects.insert(key.clone(), object);
        self.line_up(&key);
        roots.extend(self.roots(&key));
        roots
    }

    /// For a set that has only grown or shrunk: the servers that are awaited or no longer. An autoscaler writes
    /// a set's size all day, and the servers that are there need not be read for it.
    fn resized(&self, key: &Key, object: &Object) -> Option<BTreeSet<Key>> {
        let (Object::GameServerSet(held), Object::GameServerSet(set)) = (self.get(key)?, object) else {
            return None;
        };
        if !okg::differ_in_size_alone(held, set) {
            return None;
        }
        let (before, after): (BTreeSet<_>, BTreeSet<_>) =
            (okg::awaited(held).collect(), okg::awaited(set).collect());
        let root = |name: &String| Key { kind: Kind::Pod, name: name.as_str().into(), ..key.clone() };
        Some(before.symmetric_difference(&after).map(root).collect())
    }

    /// Forgets an object. Returns the game servers that may differ by it.
    fn leave(&mut self, key: &Key) -> BTreeSet<Key> {
        let mut roots = self.roots(key);
        if self.objects.remove(key).is_none() {
            return BTreeSet::new();
        }
        if let Some(count) = self.counts.get_mut(&(key.kind, key.namespace.clone())) {
            *count -= 1;
        }
        self.line_up(key);
        roots.extend(self.roots(key));
        roots
    }

    /// Takes all objects of a kind, in one namespace or in all: a relist. What is not among them is gone.
    pub fn reset(&mut self, kind: Kind, namespace: Option<&str>, objects: Vec<Object>) -> Vec<Event> {
        let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        let concerns =
            |key: &&Key| key.kind == kind && namespace.is_none_or(|namespace| *key.namespace == *namespace);
        let mut gone: Vec<_> =
            self.objects.keys().filter(concerns).filter(|key| !listed.contains(key)).cloned().collect();
        gone.sort();
        let put = objects.into_iter().map(|object| Change::Put(object.into()));
        self.apply(put.chain(gone.into_iter().map(Change::Gone)))
    }

    /// Forgets which game servers changed: for whoever tells nobody of it, as the list would only grow.
    pub fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// The game servers whose objects changed since the last call, with what they come to now: nothing when they are
    /// gone, or none any more and without marks.
    pub fn touched(&mut self) -> Vec<(Key, Option<Subject>)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().map(|key| (key.clone(), self.subject(&key))).collect()
    }

    /// Keeps the lines of the sets in step with an object that came or went.
    fn line_up(&mut self, key: &Key) {
        match (key.kind, self.objects.get(key).map(|object| &**object)) {
            (Kind::Pod, Some(Object::Pod(pod))) => {
                if let Some(set) = okg::set_of(pod) {
                    let set = set_key(&key.namespace, set);
                    self.members.entry(set).or_default().insert(key.name.clone());
                }
            }
            (Kind::GameServerSet, Some(Object::GameServerSet(set))) => {
                let awaited = okg::awaited(set).map(Box::from);
                self.members.entry(key.clone()).or_default().extend(awaited);
            }
            _ => {}
        }
    }

    /// The game servers that an object has to do with.
    fn roots(&self, key: &Key) -> BTreeSet<Key> {
        let root = |kind, name: &str| Key { kind, namespace: key.namespace.clone(), name: name.into() };
        match key.kind {
            Kind::Pod | Kind::OkgGameServer => [root(Kind::Pod, &key.name)].into(),
            // A pod of Agones has the name of its GameServer.
            Kind::AgonesPod => [root(Kind::AgonesGameServer, &key.name)].into(),
            Kind::GameServerSet => {
                let members = self.members.get(key).into_iter().flatten();
                members.map(|name| root(Kind::Pod, name)).collect()
            }
            Kind::AgonesGameServer => [key.clone()].into(),
            Kind::AgonesFleet => BTreeSet::new(),
        }
    }

    fn settle(&mut self, roots: BTreeSet<Key>) -> Vec<Event> {
        let mut events = Vec::new();
        let mut gone = Vec::new();
        for root in roots {
            let new = self.read(&root);
            let held = self.told.remove(&root).unwrap_or_default();
            let mut kept = Vec::with_capacity(new.len());
            for server in new {
                match held.iter().find(|held| held.id == server.id) {
                    Some(held) if **held == server => kept.push(held.clone()),
                    _ => {
                        let server = Arc::new(server);
                        events.push(Event::Upsert(server.clone()));
                        kept.push(server);
                    }
                }
            }
            let lost = held.iter().filter(|held| !kept.iter().any(|server| server.id == held.id));
            gone.extend(lost.map(|server| Event::Remove(server.id.clone())));
            if self.parted.remove(&root) || !(kept.is_empty() && held.is_empty()) {
                self.touched.insert(root.clone());
                if kept.is_empty() && self.is_marked(&root) {
                    self.parted.insert(root.clone());
                }
            }
            if kept.is_empty() {
                self.forget(&root);
            } else {
                self.told.insert(root, kept);
            }
        }
        events.extend(gone);
        events
    }

    /// Takes a game server out of its set's line when neither the set nor an object knows it any more.
    fn forget(&mut self, root: &Key) {
        if root.kind != Kind::Pod || self.objects.contains_key(root) {
            return;
        }
        let Some(set) = okg::set_name(&root.name).map(|set| set_key(&root.namespace, set)) else { return };
        if let Some(line) = self.members.get_mut(&set) {
            line.remove(&root.name);
            if line.is_empty() {
                self.members.remove(&set);
            }
        }
    }

    /// The servers that the objects of one game server make.
    fn read(&self, root: &Key) -> Vec<Server> {
        match root.kind {
            Kind::Pod => {
                let (rules, source, server) = (&self.rules, self.sources.okg, self.game_server(root));
                if let Some(pod) = self.pod(root) {
                    let Some(set) = okg::set_of(pod) else { return Vec::new() };
                    okg::servers(pod, server, self.set(&root.namespace, set), rules, source)
                } else {
                    let set = okg::set_name(&root.name).and_then(|set| self.set(&root.namespace, set));
                    set.map_or_else(Vec::new, |set| okg::absent(&root.name, server, set, rules, source))
                }
            }
            Kind::AgonesGameServer => {
                let Some(Object::AgonesGameServer(server)) = self.get(root) else {
                    return Vec::new();
                };
                let pod = self.pod(&Key { kind: Kind::AgonesPod, ..root.clone() });
                agones::servers(server, pod, &self.rules, self.sources.agones)
            }
            Kind::AgonesPod | Kind::OkgGameServer | Kind::GameServerSet | Kind::AgonesFleet => Vec::new(),
        }
    }

    /// The object that carries a game server's annotations and its marks.
    fn bearer(&self, root: &Key) -> Option<&Object> {
        match root.kind {
            Kind::Pod => self.get(&Key { kind: Kind::OkgGameServer, ..root.clone() }),
            _ => self.get(root),
        }
    }

    /// True when a game server's object says that it is routed, and does not go with what it says.
    fn is_marked(&self, root: &Key) -> bool {
        self.bearer(root).map(Object::meta).is_some_and(|meta| {
            !meta.deleting && (meta.annotation(URL).is_some() || meta.label(ROUTED) == Some("true"))
        })
    }

    fn subject(&self, root: &Key) -> Option<Subject> {
        let servers = match self.told.get(root) {
            Some(servers) => servers.clone(),
            None if self.parted.contains(root) => Vec::new(),
            None => return None,
        };
        let object = self.bearer(root);
        let target = object.map(|object| Target { key: object.key(), uid: object.meta().uid.clone() });
        let noted = object.map(|object| Noted {
            url: object.meta().annotation(URL).map(Box::from),
            routed: object.meta().label(ROUTED) == Some("true"),
            ready: match object {
                Object::AgonesGameServer(server) => agones::ready(server),
                _ => None,
            },
            sessions: object.meta().annotation(SESSIONS).map(Box::from),
            empty: object.meta().annotation(EMPTY).map(Box::from),
            ops_state: match object {
                Object::OkgGameServer(server) => server.spec.ops_state.clone(),
                _ => None,
            },
            drained: self.is_drained(root, object, &servers),
        });
        let is_pod = root.kind == Kind::Pod && !servers.is_empty();
        let network = self.pod(root).filter(|_| is_pod).and_then(|pod| {
            okg::network_status(pod).map(|status| Network {
                target: Target { key: root.clone(), uid: pod.metadata.uid.clone() },
                ip: pod.ip(),
                status: status.map(Box::from),
                disabled: okg::is_network_disabled(pod, self.game_server(root)),
            })
        });
        Some(Subject { servers, target, noted: noted.unwrap_or_default(), network })
    }

    /// True when its people, or its fleet manager, let no new players in. That it was called empty is no such word.
    fn is_drained(&self, root: &Key, object: &Object, servers: &[Arc<Server>]) -> bool {
        let drains = |server: &Server| matches!(server.desired.mode, Mode::Draining { .. });
        if servers.is_empty() || !servers.iter().all(|server| drains(server)) {
            return false;
        }
        let (Object::OkgGameServer(server), Some(before)) = (object, object.meta().annotation(EMPTY)) else {
            return true;
        };
        // It drains by the ops state that says that it is empty: would it by the one before?
        let mut server = server.clone();
        server.spec.ops_state = Some(before.into());
        let Some(pod) = self.pod(root) else { return true };
        let set = okg::set_of(pod).and_then(|set| self.set(&root.namespace, set));
        let servers = okg::servers(pod, Some(&server), set, &self.rules, self.sources.okg);
        !servers.is_empty() && servers.iter().all(drains)
    }

    fn pod(&self, key: &Key) -> Option<&pod::Pod> {
        match self.get(key)? {
            Object::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    fn game_server(&self, root: &Key) -> Option<&okg::GameServer> {
        match self.get(&Key { kind: Kind::OkgGameServer, ..root.clone() })? {
            Object::OkgGameServer(server) => Some(server),
            _ => None,
        }
    }

    fn set(&self, namespace: &str, name: &str) -> Option<&okg::GameServerSet> {
        match self.get(&set_key(namespace, name))? {
            Object::GameServerSet(set) => Some(set),
            _ => None,
        }
    }
}

fn set_key(namespace: &str, name: &str) -> Key {
    Key { kind: Kind::GameServerSet, namespace: namespace.into(), name: name.into() }
}
