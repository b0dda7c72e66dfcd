//! The task that owns a cluster's objects: what the watches hear goes in, events come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ::kube::Client;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use super::discovery::{self, Finding};
use super::watcher::{self, Id, News};
use super::{AGONES, OKG, Options, Outlets, Report, WatchRow, WatchState, source};
use crate::kinds::{Fleet, Key, Kind, Manager, Object, Sources};
use crate::model::{Event, Problem, ProblemKind};
use crate::owner::Burst;

/// News that may wait, over all watches, and that are taken at once.
const NEWS: usize = 4096;
/// Most objects that are reported as unreadable.
const MAX_PROBLEMS: usize = 1000;
/// How often a list that is not believed is asked for again.
const LIST_AGAIN: Duration = Duration::from_secs(30);
/// The pods of Agones, for versions that do not put a pod's address into its GameServer.
const AGONES_PODS: &str = "agones.dev/role=gameserver";
/// The pods of OpenKruiseGame.
const OKG_PODS: &str = "game.kruise.io/owner-gss";

#[derive(Debug)]
struct Watch {
    state: WatchState,
    /// It has listed once.
    listed: bool,
    /// Its last list was not believed.
    held: bool,
    why: Option<String>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Manage {
    installed: bool,
    /// Once each has listed, the manager has.
    watches: BTreeSet<Id>,
    /// Its servers were told.
    listed: bool,
    doubts: bool,
}

/// Nobody listens any more.
struct Closed;

struct Adapter {
    client: Client,
    options: Options,
    outlets: Outlets,
    news: mpsc::Sender<(Id, News)>,
    tasks: JoinSet<()>,
    fleet: Fleet,
    managers: BTreeMap<Manager, Manage>,
    watches: BTreeMap<Id, Watch>,
    unreadable: BTreeMap<String, String>,
    errors: u64,
}

/// See [`super::run`].
pub(super) async fn run(client: Client, options: Options, outlets: Outlets) -> anyhow::Result<()> {
    let (news, mut inbox) = mpsc::channel(NEWS);
    let (found, mut findings) = mpsc::channel(4);
    let mut adapter = Adapter {
        fleet: Fleet::new(options.rules.clone(), Sources { okg: OKG, agones: AGONES }),
        managers: options.managers.iter().map(|manager| (*manager, Manage::default())).collect(),
        client,
        options,
        outlets,
        news,
        tasks: JoinSet::new(),
        watches: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        errors: 0,
    };
    for manager in adapter.options.managers.clone() {
        adapter.tasks.spawn(discovery::run(adapter.client.clone(), manager, found.clone()));
    }
    let closed = adapter.outlets.events.clone();
    let mut again = tokio::time::interval(LIST_AGAIN);
    let mut heard = Vec::new();
    loop {
        let done = tokio::select! {
            () = closed.closed() => return Ok(()),
            Some((manager, finding)) = findings.recv() => adapter.find(manager, finding).await,
            _ = inbox.recv_many(&mut heard, NEWS) => adapter.hear(heard.drain(..)).await,
            _ = again.tick() => {
                adapter.list_again();
                Ok(())
            }
        };
        if done.is_err() {
            return Ok(());
        }
    }
}

impl Adapter {
    /// Takes what discovery says of a manager.
    async fn find(&mut self, manager: Manager, finding: Finding) -> Result<(), Closed> {
        let Some(manage) = self.managers.get_mut(&manager) else { return Ok(()) };
        let source = source(manager);
        let mut events = Vec::new();
        match finding {
            Finding::Installed => {
                (manage.installed, manage.listed) = (true, false);
                for kind in manager.kinds() {
                    self.watch(manager, *kind);
                }
            }
            Finding::Missing { confirmed } => {
                if manage.doubts == confirmed {
                    manage.doubts = !confirmed;
                    events.push(Event::Doubt { source, doubts: !confirmed });
                }
                if !manage.listed {
                    manage.listed = true;
                    events.push(Event::Reset { source, servers: Vec::new() });
                }
            }
        }
        self.tell();
        self.send(Instant::now(), events).await
    }

    /// Begins the watches of a kind, one a namespace.
    fn watch(&mut self, manager: Manager, kind: Kind) {
        let own = match kind {
            Kind::Pod => OKG_PODS,
            Kind::AgonesPod => AGONES_PODS,
            _ => "",
        };
        // The labels that people select by are those of a game server. A pod of Agones has others, those of its template,
        // and is asked for an address alone.
        let asked = match kind {
            Kind::Pod | Kind::AgonesGameServer => self.options.selector.as_str(),
            _ => "",
        };
        let parts: Vec<_> = [own, asked].into_iter().filter(|part| !part.is_empty()).collect();
        let selector = parts.join(",");
        let mut namespaces: Vec<_> = self.options.namespaces.iter().cloned().map(Some).collect();
        if namespaces.is_empty() {
            namespaces.push(None);
        }
        for namespace in namespaces {
            let id = Id { kind, namespace, selector: selector.clone() };
            let task = self.tasks.spawn(watcher::run(self.client.clone(), id.clone(), self.news.clone()));
            let watch = Watch { state: WatchState::Listing, listed: false, held: false, why: None, task };
            self.watches.insert(id.clone(), watch);
            if let Some(manage) = self.managers.get_mut(&manager) {
                manage.watches.insert(id);
            }
        }
    }

    /// A watch goes on from its list, so a list that is not believed has to be asked for again.
    fn list_again(&mut self) {
        for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.held) {
            watch.task.abort();
            watch.task = self.tasks.spawn(watcher::run(self.client.clone(), id.clone(), self.news.clone()));
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Takes everything that the watches heard meanwhile as one burst.
    async fn hear(&mut self, news: impl Iterator<Item = (Id, News)>) -> Result<(), Closed> {
        let heard = Instant::now();
        let mut events = Vec::new();
        let mut is_news = false;
        for (id, word) in news {
            self.outlets.metrics.kube_news.inc();
            is_news |= !matches!(word, News::Put(_) | News::Gone(_));
            events.extend(self.take(&id, word));
        }
        let agones = self.managers.get(&Manager::Agones);
        let watches_pods =
            agones.is_none_or(|manage| manage.watches.iter().any(|id| id.kind == Kind::AgonesPod));
        if !watches_pods && self.fleet.wants_agones_pods() {
            info!(
                "GameServers do not say their pods' addresses, as before Agones 1.40: the pods are watched"
            );
            self.watch(Manager::Agones, Kind::AgonesPod);
        }
        let events = self.ready(events);
        if is_news {
            self.tell();
        }
        let touched = if self.outlets.touched.is_some() {
            self.fleet.touched()
        } else {
            self.fleet.forget_touched();
            Vec::new()
        };
        self.send(heard, events).await?;
        match &self.outlets.touched {
            Some(listener) if !touched.is_empty() => listener.send(touched).await.map_err(|_| Closed),
            _ => Ok(()),
        }
    }

    fn take(&mut self, id: &Id, news: News) -> Vec<Event> {
        match news {
            News::Listed(objects, unread) => self.list(id, objects, unread),
            News::Put(object) => {
                self.enter(id, None);
                self.mended(&object.key());
                self.fleet.put(*object)
            }
            News::Gone(key) => {
                self.enter(id, None);
                self.mended(&key);
                self.fleet.remove(&key)
            }
            News::Unreadable(key, why) => {
                self.unreadable(id, key.as_ref(), why);
                Vec::new()
            }
            News::Quiet => {
                self.enter(id, None);
                Vec::new()
            }
            News::Failed(why) => {
                self.errors += 1;
                self.outlets.metrics.kube_errors.inc();
                self.enter(id, Some(why));
                Vec::new()
            }
        }
    }

    /// Takes a list: what is not in it is gone, unless nothing at all is.
    fn list(&mut self, id: &Id, mut objects: Vec<Object>, unread: Vec<(Key, String)>) -> Vec<Event> {
        for object in &objects {
            self.mended(&object.key());
        }
        for (key, why) in unread {
            self.unreadable(id, Some(&key), why);
            objects.extend(self.fleet.get(&key).cloned());
        }
        let known = self.fleet.count(id.kind, id.namespace.as_deref());
        let held = objects.is_empty() && known > 0;
        if let Some(watch) = self.watches.get_mut(id) {
            if held && !watch.held {
                warn!(kind = %id.kind, known, "the API server lists nothing where there was something: it is kept");
            }
            (watch.listed, watch.held) = (true, held);
        }
        self.enter(id, None);
        if held { Vec::new() } else { self.fleet.reset(id.kind, id.namespace.as_deref(), objects) }
    }

    /// Before a manager has listed, its events wait: then all its servers are said at once.
    fn ready(&mut self, mut events: Vec<Event>) -> Vec<Event> {
        for (manager, manage) in &mut self.managers {
            if manage.listed {
                continue;
            }
            let source = source(*manager);
            events.retain(|event| match event {
                Event::Upsert(server) => server.id.source() != source,
                Event::Remove(id) => id.source() != source,
                Event::Reset { .. } | Event::Doubt { .. } => true,
            });
            let mut watches = manage.watches.iter().filter_map(|id| self.watches.get(id));
            if !manage.installed || watches.any(|watch| !watch.listed) {
                continue;
            }
            if std::mem::take(&mut manage.doubts) {
                events.push(Event::Doubt { source, doubts: false });
            }
            manage.listed = true;
            let servers: Vec<_> = self.fleet.servers(source).cloned().collect();
            info!(?manager, servers = servers.len(), "listed");
            events.push(Event::Reset { source, servers });
        }
        events
    }

    fn enter(&mut self, id: &Id, failure: Option<String>) {
        let Some(watch) = self.watches.get_mut(id) else { return };
        let state = match (&failure, watch.listed, watch.held) {
            (Some(_), _, _) => WatchState::Failing,
            (None, false, _) => WatchState::Listing,
            (None, true, true) => WatchState::Held,
            (None, true, false) => WatchState::Watching,
        };
        if watch.state == state && watch.why == failure {
            return;
        }
        let namespace = id.namespace.as_deref().unwrap_or("all");
        if let Some(why) = &failure {
            warn!(kind = %id.kind, namespace, why, "the API server does not answer: what was known is kept");
        } else if watch.state == WatchState::Failing {
            info!(kind = %id.kind, namespace, "the API server answers again");
        }
        (watch.state, watch.why) = (state, failure);
        self.tell();
    }

    fn unreadable(&mut self, id: &Id, key: Option<&Key>, why: String) {
        let at = key.map_or_else(
            || format!("{} without a name", id.kind),
            |key| format!("{} {}/{}", key.kind, key.namespace, key.name),
        );
        if self.unreadable.get(&at) == Some(&why)
            || (self.unreadable.len() >= MAX_PROBLEMS && !self.unreadable.contains_key(&at))
        {
            return;
        }
        warn!(at, why, "an object can't be read: its last version is kept");
        self.unreadable.insert(at, why);
        self.tell();
    }

    fn mended(&mut self, key: &Key) {
        if self.unreadable.is_empty() {
            return;
        }
        let at = format!("{} {}/{}", key.kind, key.namespace, key.name);
        if self.unreadable.remove(&at).is_some() {
            info!(at, "an object can be read again");
            self.tell();
        }
    }

    /// Says how the cluster fares.
    fn tell(&self) {
        let watches: Vec<_> = self
            .watches
            .iter()
            .map(|(id, watch)| WatchRow {
                kind: id.kind.to_string(),
                namespace: id.namespace.clone(),
                state: watch.state.clone(),
                objects: self.fleet.count(id.kind, id.namespace.as_deref()),
                why: watch.why.clone(),
            })
            .collect();
        let held = self.watches.iter().find(|(_, watch)| watch.held).map(|(id, _)| {
            let known = self.fleet.count(id.kind, id.namespace.as_deref());
            format!(
                "the API server lists no {}: the {known} that were known are kept until it lists one",
                id.kind
            )
        });
        let problems = self.unreadable.iter().map(|(at, why)| {
            let why = format!("can't be read, its last version is kept: {why}");
            Problem::new(ProblemKind::Unparsable, at.clone(), why)
        });
        let report = Report {
            listed: self.managers.values().all(|manage| manage.listed),
            not_installed: self
                .managers
                .iter()
                .filter(|(_, manage)| manage.listed && !manage.installed)
                .map(|(manager, _)| *manager)
                .collect(),
            watches,
            held,
            problems: problems.collect(),
            errors: self.errors,
        };
        self.outlets.report.send_if_modified(|said| {
            let differs = *said != report;
            *said = report;
            differs
        });
    }

    async fn send(&self, heard: Instant, events: Vec<Event>) -> Result<(), Closed> {
        if events.is_empty() {
            return Ok(());
        }
        self.outlets.events.send(Burst { heard, events }).await.map_err(|_| Closed)
    }
}
