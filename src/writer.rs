//! Writes to game servers that they are routed, and to their authors what is wrong: the only room that changes
//! a cluster.
//!
//! - **True**: an object is told so when every Envoy of its gateways that is connected here has acknowledged its
//!   cluster and scopes, and there is at least one.
//! - **Rare**: a patch of the metadata for each life of a server, and another only when its URLs change; what
//!   stands there already is not written again, and an allocation's own writes meet no conflict.
//! - **Never on another**: each patch names the uid, so that a server that was made again under the same name
//!   is not told of its predecessor.
//! - **By one**: the holder of a Lease writes; every replica serves Envoys. It does not know those of the others, so
//!   a replica whose Envoys have acknowledged what nobody wrote for a while says so in its place, once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::cli::WriteBack;
use crate::engine::Engine;
use crate::envoys::Envoys;
use crate::kinds::{Key, Subject};
use crate::metrics::{Metrics, WriteLabel};
use crate::model::Gateways;
use crate::owner::Desk;
use crate::report::{self, Placement};
use crate::session::Type;
use crate::snapshot::{Kind, Name, Revision};
use crate::sources::kube::Touched;
use crate::store::Store;

mod lease;
mod live;
mod send;
mod words;

use live::Live;
use send::{Outcome, Sender};
use words::{Complaint, Write};

/// Touched servers that may wait to be taken, in batches.
pub const TOUCHED: usize = 64;
/// Writes under way at once.
const FLIGHTS: usize = 8;
/// Servers that the engine is asked about at once: it commits nothing meanwhile.
const QUESTION: usize = 256;
/// The first and the longest pause after a write that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// What was written and is not shown by then is written again.
const SHOWN: Duration = Duration::from_secs(5);
/// What came meanwhile is looked at together.
const SWEEP: Duration = Duration::from_millis(20);

/// How often all servers are looked at again: one that lost a route to an older server is not told of by its own
/// objects.
const AUDIT: Duration = Duration::from_mins(1);

/// So long the holder of the Lease has for what Envoys of another replica have acknowledged, and for each such server
/// as long as it takes to write to one.
const LATE: Duration = Duration::from_secs(10);

/// Whose acknowledgement counts for an object that has no server any more.
static EVERYWHERE: Gateways = Gateways::Every;

/// A game server, and what of it is done.
struct Entry {
    subject: Subject,
    /// None until the engine holds what was told of it.
    placement: Option<Placement>,
    /// What was written, until the watch shows it.
    written: Write,
    written_at: Option<Instant>,
    /// Since when it is acknowledged here, with the object as it is.
    acked_since: Option<Instant>,
    /// What was written in the place of the Lease's holder, which may know better and take it back: it is not said again.
    stood_in: Write,
    /// What was complained of on this object.
    complained: BTreeSet<Complaint>,
    /// There is nothing to write before Envoys have acknowledged more.
    waits: bool,
    failures: u32,
    not_before: Option<Instant>,
}

/// What the writer needs.
pub struct Writer {
    /// The cluster.
    pub client: Client,
    /// Where the Lease is when the configuration does not say.
    pub namespace: String,
    /// Its configuration.
    pub config: WriteBack,
    /// Where the snapshot is.
    pub store: Arc<Store>,
    /// Where the engine is asked.
    pub desk: Desk,
    /// Who has acknowledged what.
    pub envoys: Arc<Envoys>,
    /// Where it counts.
    pub metrics: Metrics,
    /// How often live sessions are looked at: as often as they are reported.
    pub report_interval: Duration,
}

impl Writer {
    /// Writes until `touched` is closed, or the process ends.
    pub async fn run(
        self,
        mut touched: mpsc::Receiver<Touched>,
        shutdown: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let identity = lease::identity();
        let (lead, mut leads) = watch::channel(false);
        let lease = lease::Lease {
            client: self.client.clone(),
            namespace: self.config.lease_namespace.clone().unwrap_or_else(|| self.namespace.clone()),
            name: self.config.lease_name.clone(),
            identity: identity.clone(),
        };
        let mut holder = pin!(lease.hold(lead, shutdown));
        let (mut acks, mut revisions) = (self.envoys.acks(), self.store.revisions());
        let mut pace = interval(Duration::from_secs(1) / self.config.writes_per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut audit = interval(AUDIT);
        let report_interval = self.report_interval;
        let mut look = interval(report_interval);
        let mut work = Work {
            sender: Arc::new(Sender::new(self.client.clone(), identity)),
            writer: self,
            entries: HashMap::new(),
            open: BTreeSet::new(),
            ready: VecDeque::new(),
            flights: JoinSet::new(),
            flying: BTreeSet::new(),
            failure: None,
            live: Live::default(),
        };
        let mut sweep_at: Option<Instant> = None;
        loop {
            let is_leading = *leads.borrow();
            tokio::select! {
                batch = touched.recv() => match batch {
                    Some(batch) => work.take(batch),
                    None => return Ok(()),
                },
                Ok(()) = acks.changed() => {}
                Ok(()) = revisions.changed() => {}
                Ok(()) = leads.changed() => {
                    let leads = *leads.borrow_and_update();
                    info!(leads, "writing to the cluster's objects");
                    work.writer.metrics.writer.set(leads.into());
                    work.ready.clear();
                    // Who was empty while another one led is not known.
                    work.live = Live::default();
                }
                () = at(sweep_at) => {
                    sweep_at = None;
                    work.sweep(is_leading).await;
                    // Nothing else may wake those that failed, or that are left to another one for a while.
                    if !work.open.is_empty() {
                        sweep_at = Some(Instant::now() + RETRY.0);
                    }
                    continue;
                }
                Some(done) = work.flights.join_next() => {
                    if let Ok((key, write, outcome)) = done {
                        work.landed(&key, write, &outcome, is_leading);
                    }
                }
                _ = look.tick(), if is_leading => {
                    work.look(report_interval);
                    continue;
                }
                Some(poll) = work.live.answered() => {
                    work.live.hear(poll);
                    continue;
                }
                _ = pace.tick(), if work.has_ready() && work.flights.len() < FLIGHTS => {
                    work.fly();
                    continue;
                }
                _ = audit.tick() => work.audit(),
                // It only ends with the process.
                () = &mut holder => return Ok(()),
            }
            // A sweep looks at all that wait: while there is enough to write it need not be said what more there is, and
            // who waits for the Lease's holder is in no hurry.
            let is_eager = *leads.borrow() && work.ready.is_empty();
            let soon = Instant::now() + if is_eager { SWEEP } else { RETRY.0 };
            sweep_at = Some(sweep_at.map_or(soon, |at| at.min(soon)));
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

struct Work {
    writer: Writer,
    sender: Arc<Sender>,
    entries: HashMap<Key, Entry>,
    /// Those that are not as they should be, or that nobody has looked at.
    open: BTreeSet<Key>,
    /// What the last sweep found to write.
    ready: VecDeque<(Key, Write)>,
    flights: JoinSet<(Key, Write, Outcome)>,
    flying: BTreeSet<Key>,
    /// Why a write failed last: a right that is missing is said once, not once a server.
    failure: Option<String>,
    live: Live,
}

impl Work {
    fn has_ready(&self) -> bool {
        !(self.ready.is_empty() && self.live.ready.is_empty())
    }

    fn take(&mut self, batch: Touched) {
        for (key, subject) in batch {
            let Some(subject) = subject else {
                self.entries.remove(&key);
                self.open.remove(&key);
                continue;
            };
            let held = self.entries.remove(&key).filter(|entry| entry.subject.target == subject.target);
            let entry = match held {
                Some(entry) => Entry { subject, placement: None, waits: false, acked_since: None, ..entry },
                None => Entry {
                    subject,
                    placement: None,
                    written: Write::default(),
                    written_at: None,
                    acked_since: None,
                    stood_in: Write::default(),
                    complained: BTreeSet::new(),
                    waits: false,
                    failures: 0,
                    not_before: None,
                },
            };
            self.entries.insert(key.clone(), entry);
            self.open.insert(key);
        }
    }

    fn audit(&mut self) {
        for (key, entry) in &mut self.entries {
            (entry.placement, entry.waits) = (None, false);
            self.open.insert(key.clone());
        }
    }

    /// Looks at every server that is not as it should be, for what can be written now. Who does not lead writes only
    /// what the leader had time for and did not write, as it may have no Envoy of the server's gateways.
    async fn sweep(&mut self, leads: bool) {
        self.place().await;
        let (refusals, config) = (self.writer.envoys.refusals(), &self.writer.config);
        let now = Instant::now();
        let (mut ready, mut late, mut settled) = (VecDeque::new(), Vec::new(), Vec::new());
        // The Envoys of a gateway are asked once, not once a server.
        let mut floors: Vec<(Gateways, Option<Revision>)> = Vec::new();
        for key in self.open.iter().filter(|key| !self.flying.contains(*key)) {
            let Some(entry) = self.entries.get_mut(key) else {
                settled.push(key.clone());
                continue;
            };
            let Some(placement) = &entry.placement else { continue };
            let server = entry.subject.servers.first();
            let gateways = server.map_or(&EVERYWHERE, |server| &server.desired.gateways);
            let floor = if let Some((_, floor)) = floors.iter().find(|(known, _)| known == gateways) {
                *floor
            } else {
                let floor = self.writer.envoys.acknowledged_by_all(gateways);
                floors.push((gateways.clone(), floor));
                floor
            };
            let refused = if refusals.is_empty() { None } else { refused(&refusals, placement) };
            let acknowledged = refused.is_none() && floor.is_some_and(|floor| floor >= placement.revision);
            entry.acked_since = entry.acked_since.filter(|_| acknowledged).or(acknowledged.then_some(now));
            if entry.waits && !acknowledged && refused.is_none() {
                continue;
            }
            let wanted = words::wanted(&entry.subject, placement, acknowledged, config);
            let is_closed = !placement.open;
            // Whoever took it away again before the watch showed it is not a reason to think that it stands there.
            if entry.written_at.is_some_and(|at| now > at + SHOWN) || (acknowledged && wanted.is_empty()) {
                (entry.written, entry.written_at) = (Write::default(), None);
            }
            let stands = wanted.is_empty();
            let write = if leads {
                let complaints = words::complaints(&entry.subject.servers, placement, refused);
                wanted.beyond(&entry.written, complaints, &entry.complained)
            } else if acknowledged && placement.open {
                wanted.beyond(&entry.written, Vec::new(), &entry.complained).of_envoys(&entry.stood_in)
            } else {
                Write::default()
            };
            if write.is_empty() {
                entry.waits = stands;
                // Where no Envoy would say so, another replica's have.
                let is_marked =
                    || floor.is_none() && words::wanted(&entry.subject, placement, true, config).is_empty();
                if stands && (acknowledged || is_closed || is_marked()) {
                    settled.push(key.clone());
                }
            } else if entry.not_before.is_none_or(|when| when <= now) {
                match entry.acked_since.filter(|_| !leads) {
                    Some(since) => late.push((since, key.clone(), write)),
                    None => ready.push_back((key.clone(), write)),
                }
            }
        }
        for key in settled {
            self.open.remove(&key);
        }
        let patience = LATE + Duration::from_secs(late.len() as u64) / config.writes_per_second.max(1);
        let overdue = late.into_iter().filter(|(since, ..)| now.duration_since(*since) >= patience);
        ready.extend(overdue.map(|(_, key, write)| (key, write)));
        self.ready = ready;
        self.writer.metrics.unwritten.set(self.open.len().try_into().unwrap_or(i64::MAX));
    }

    /// Asks the engine where servers stand of which it is not known.
    async fn place(&mut self) {
        let unplaced = self.open.iter().filter_map(|key| {
            let entry = self.entries.get(key).filter(|entry| entry.placement.is_none())?;
            Some((key.clone(), entry.subject.servers.clone()))
        });
        let unplaced: Vec<_> = unplaced.collect();
        for chunk in unplaced.chunks(QUESTION) {
            let (chunk, store) = (chunk.to_vec(), self.writer.store.clone());
            let question = move |engine: &mut Engine| {
                store.read(|snapshot| {
                    let placed = chunk
                        .into_iter()
                        .map(|(key, servers)| (key, report::placement(engine, snapshot, &servers)));
                    placed.collect::<Vec<_>>()
                })
            };
            let Some(placed) = self.writer.desk.ask(question).await else { return };
            for (key, placement) in placed {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.placement = placement;
                }
            }
        }
    }

    /// Sends the next write that still fits its object.
    fn fly(&mut self) {
        while let Some((key, write)) = self.ready.pop_front().or_else(|| self.live.ready.pop_front()) {
            let fits = |entry: &Entry| entry.subject.target == write.target;
            if self.flying.contains(&key) || !self.entries.get(&key).is_some_and(fits) {
                continue;
            }
            self.flying.insert(key.clone());
            let sender = self.sender.clone();
            self.flights.spawn(async move {
                let outcome = sender.send(&write).await;
                (key, write, outcome)
            });
            return;
        }
    }

    fn landed(&mut self, key: &Key, write: Write, outcome: &Outcome, leads: bool) {
        self.flying.remove(key);
        let result = match outcome {
            Outcome::Done => "ok",
            Outcome::Gone => "gone",
            Outcome::Failed(_) => "failed",
        };
        for what in write.parts() {
            self.writer.metrics.writes.get_or_create(&WriteLabel { what, result }).inc();
        }
        if write.live.is_some() {
            self.live.landed(key, outcome);
            return;
        }
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.subject.target == write.target)
        else {
            return;
        };
        match outcome {
            Outcome::Done | Outcome::Gone => {
                let now = Instant::now();
                // The watch is about to say that one is gone. What stands there by then is another's.
                let is_gone = matches!(outcome, Outcome::Gone);
                entry.not_before = is_gone.then(|| now + SHOWN);
                if !is_gone {
                    entry.complained.extend(write.complaints.iter().cloned());
                }
                if !leads {
                    entry.stood_in.take_over(write.clone());
                }
                entry.written.take_over(write);
                (entry.written_at, entry.failures) = (Some(now), 0);
                self.failure = None;
            }
            Outcome::Failed(why) => {
                let pause = RETRY.0.saturating_mul(1 << entry.failures.min(6)).min(RETRY.1);
                if self.failure.as_ref() != Some(why) {
                    let (kind, namespace, name) = (key.kind, &key.namespace, &key.name);
                    warn!(%kind, %namespace, %name, why, "not written, trying again; others that fail so are not logged");
                    self.failure = Some(why.clone());
                }
                entry.failures += 1;
                entry.not_before = Some(Instant::now() + pause);
            }
        }
    }
}

/// Why an Envoy holds something of it as it was before.
fn refused(
    refusals: &BTreeMap<(Type, Name), BTreeMap<String, String>>,
    placement: &Placement,
) -> Option<String> {
    placement.resources.iter().find_map(|(kind, name)| {
        let kind = match kind {
            Kind::Cluster => Type::Clusters,
            Kind::Scope => Type::Scopes,
        };
        let (envoy, why) = refusals.get(&(kind, name.clone()))?.first_key_value()?;
        Some(format!("Envoy {envoy} refuses {name}: {why}"))
    })
}

#[cfg(test)]
mod tests;
