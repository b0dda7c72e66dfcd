//! What is known of the Envoys: their streams, what they refused, the sessions they report.
//!
//! Each stream writes its own row; people and metrics read them. Nothing here decides what is sent.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

mod ledger;
mod load;

pub use ledger::{Delta, Ledger};
use load::Loads;
pub use load::{Coverage, Report, Sessions};

use crate::model::{Gateways, Mode, Server};
use crate::session::{ChannelStatus, Node, Type};
use crate::snapshot::{Name, Revision, Version};

/// Most Envoys remembered for having refused something, and most refusals remembered as logged.
const MAX_REMEMBERED: usize = 10_000;

/// One open stream, for people.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    /// Who is at the other end.
    #[serde(flatten)]
    pub node: Node,
    /// Where it comes from.
    pub peer: String,
    /// When it came, in seconds since 1970.
    pub since: u64,
    /// Everything it subscribed is acknowledged up to this revision.
    pub acked: Revision,
    /// A row a type.
    pub types: Vec<ChannelStatus>,
}

/// The row of a stream, written by it at each message: it costs no lock that others wait for.
#[derive(Debug)]
pub struct Row {
    node: Node,
    peer: String,
    since: u64,
    acked: AtomicU64,
    types: Mutex<Vec<ChannelStatus>>,
    acks: watch::Sender<()>,
}

impl Row {
    /// Says how the stream is now; `fill` writes over the rows of the types.
    pub fn publish(&self, acked: Revision, fill: impl FnOnce(&mut Vec<ChannelStatus>)) {
        fill(&mut lock(&self.types));
        if self.acked.swap(acked, Ordering::Relaxed) != acked {
            self.acks.send_replace(());
        }
    }

    fn status(&self) -> StreamStatus {
        StreamStatus {
            node: self.node.clone(),
            peer: self.peer.clone(),
            since: self.since,
            acked: self.acked.load(Ordering::Relaxed),
            types: lock(&self.types).clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the Envoys of each gateway have acknowledged, to be asked about many routes.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Revisions in order.
    by_gateway: BTreeMap<Arc<str>, Vec<Revision>>,
}

impl Acknowledged {
    /// Of the Envoys of a gateway, or of all but `others`: how many there are, and how many have
    /// acknowledged everything up to `revision`.
    pub fn of(&self, gateway: Option<&str>, others: &BTreeSet<String>, revision: Revision) -> (usize, usize) {
        let concerned = self.by_gateway.iter().filter(|(name, _)| match gateway {
            Some(gateway) => ***name == *gateway,
            None => !others.contains(&***name),
        });
        concerned.fold((0, 0), |(all, acked), (_, revisions)| {
            let behind = revisions.partition_point(|acked| *acked < revision);
            (all + revisions.len(), acked + revisions.len() - behind)
        })
    }
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<u64, Arc<Row>>,
    suspects: HashSet<String>,
    logged: HashSet<(Type, Name, Option<Version>)>,
}

/// The register of all Envoys.
#[derive(Debug)]
pub struct Envoys {
    state: Mutex<State>,
    acks: watch::Sender<()>,
    /// A lock of its own: no stream waits for a report of a large fleet.
    loads: Mutex<Loads>,
    reports: watch::Sender<()>,
}

impl Default for Envoys {
    fn default() -> Self {
        let (acks, reports) = (watch::Sender::new(()), watch::Sender::new(()));
        Self { state: Mutex::default(), acks, loads: Mutex::default(), reports }
    }
}

impl Envoys {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The row of a new stream.
    pub fn join(&self, stream: u64, node: Node, peer: String, since: u64) -> Arc<Row> {
        let (acked, types, acks) = (AtomicU64::new(0), Mutex::default(), self.acks.clone());
        let row = Arc::new(Row { node, peer, since, acked, types, acks });
        self.state().streams.insert(stream, row.clone());
        self.acks.send_replace(());
        self.reports.send_replace(());
        row
    }

    fn rows(&self) -> Vec<Arc<Row>> {
        self.state().streams.values().cloned().collect()
    }

    /// Wakes when an Envoy came or went, or acknowledged more.
    pub fn acks(&self) -> watch::Receiver<()> {
        self.acks.subscribe()
    }

    /// Forgets a stream.
    pub fn remove(&self, stream: u64) {
        if self.state().streams.remove(&stream).is_some() {
            self.acks.send_replace(());
            self.reports.send_replace(());
        }
    }

    /// The revision that every Envoy of these gateways has acknowledged; `None` while none is here.
    pub fn acknowledged_by_all(&self, gateways: &Gateways) -> Option<Revision> {
        let state = self.state();
        let concerned = state.streams.values().filter(|stream| match gateways {
            Gateways::Every => true,
            Gateways::Named(named) => named.contains(&stream.node.gateway),
        });
        concerned.map(|stream| stream.acked.load(Ordering::Relaxed)).min()
    }

    /// The Envoys that have not acknowledged everything up to this revision.
    pub fn behind(&self, revision: Revision) -> Vec<Node> {
        let state = self.state();
        let behind = state.streams.values().filter(|row| row.acked.load(Ordering::Relaxed) < revision);
        behind.map(|row| row.node.clone()).collect()
    }

    /// All rows, oldest stream first.
    pub fn list(&self) -> Vec<StreamStatus> {
        self.rows().iter().map(|row| row.status()).collect()
    }

    /// Remembers that this Envoy refused a response, for its next streams.
    pub fn suspect(&self, node: &str) {
        let mut state = self.state();
        if state.suspects.len() >= MAX_REMEMBERED {
            state.suspects.clear();
        }
        state.suspects.insert(node.to_owned());
    }

    /// True when this Envoy refused a response before.
    pub fn is_suspect(&self, node: &str) -> bool {
        self.state().suspects.contains(node)
    }

    /// True the first time that this content is refused by anyone: it is logged once, not once an Envoy.
    pub fn is_news(&self, kind: Type, name: &Name, version: Option<Version>) -> bool {
        let mut state = self.state();
        if state.logged.len() >= MAX_REMEMBERED {
            state.logged.clear();
        }
        state.logged.insert((kind, name.clone(), version))
    }

    /// What Envoys refuse now, by type and name: which Envoy, and its words.
    pub fn refusals(&self) -> BTreeMap<(Type, Name), BTreeMap<String, String>> {
        let mut refusals: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for stream in self.rows() {
            for row in lock(&stream.types).iter() {
                for (name, refused) in &*row.refused {
                    let by_envoy = refusals.entry((row.kind, name.clone())).or_default();
                    by_envoy.insert(stream.node.id.clone(), refused.reason.clone());
                }
            }
        }
        refusals
    }

    /// What the Envoys of each gateway have acknowledged.
    pub fn acknowledged(&self) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        for row in self.rows() {
            let revisions = acknowledged.by_gateway.entry(row.node.gateway.0.clone()).or_default();
            revisions.push(row.acked.load(Ordering::Relaxed));
        }
        for revisions in acknowledged.by_gateway.values_mut() {
            revisions.sort_unstable();
        }
        acknowledged
    }

    /// Takes an Envoy's report of its live sessions in place of its last one.
    pub fn report(&self, stream: u64, report: Report<'_>) {
        let node = report.node;
        let same = |row: &&Arc<Row>| row.node.id == node.id && row.node.gateway == node.gateway;
        let acked = self.rows().iter().filter(same).map(|row| row.acked.load(Ordering::Relaxed)).min();
        lock(&self.loads).take(stream, report, acked);
        self.reports.send_replace(());
    }

    /// Takes what an Envoy reported out of the sums: it is gone, or silent.
    pub fn forget_report(&self, stream: u64, deltas: Vec<Delta>) {
        lock(&self.loads).remove(stream, deltas);
        self.reports.send_replace(());
    }

    /// Wakes at each report, and when an Envoy that reported is gone.
    pub fn reports(&self) -> watch::Receiver<()> {
        self.reports.subscribe()
    }

    /// Of these clusters those that nobody reported before.
    pub fn unreported<'a>(&self, clusters: impl Iterator<Item = &'a Name>) -> Vec<Name> {
        let loads = lock(&self.loads);
        clusters.filter(|cluster| !loads.knows(cluster)).cloned().collect()
    }

    /// How far the sums go.
    pub fn coverage(&self) -> Coverage {
        let rows = self.rows();
        lock(&self.loads).coverage(rows.iter().map(|row| &row.node))
    }

    /// What is known of a server's sessions, whose cluster changed last at `revision`.
    pub fn sessions(
        &self,
        server: &Server,
        cluster: &str,
        revision: Option<Revision>,
        coverage: &Coverage,
    ) -> Sessions {
        let desired = &server.desired;
        // Whose process is gone or not there yet has nobody inside, and no cluster that somebody could count.
        let is_away =
            desired.mode == Mode::Stopped || (desired.mode == Mode::Starting && desired.endpoint.is_none());
        if is_away {
            return Sessions { sessions: Some(0), ..Sessions::default() };
        }
        // A name that is gone has a revision too, until everybody has heard of it.
        let has_cluster = desired.endpoint.is_some() && !desired.routes.is_empty();
        let total = lock(&self.loads).total(cluster);
        coverage.sessions(&desired.gateways, revision.filter(|_| has_cluster), &total)
    }

    /// The fleets with the most live sessions as `namespace/fleet`, and the sum of the others.
    pub fn fleets(&self, most: usize) -> (Vec<(Arc<str>, u64)>, u64) {
        lock(&self.loads).fleets(most)
    }

    /// The clusters with the most live sessions.
    pub fn busiest(&self, most: usize) -> Vec<(Name, u64)> {
        lock(&self.loads).busiest(most)
    }

    /// Live sessions of all clusters.
    pub fn all_sessions(&self) -> u64 {
        lock(&self.loads).all()
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_counted_by_gateway() {
        let envoys = Envoys::default();
        for (stream, gateway, acked) in [(1, "eu", 5), (2, "eu", 7), (3, "us", 6)] {
            let node = Node {
                id: stream.to_string(),
                gateway: crate::model::Gateway(gateway.into()),
                version: String::new(),
            };
            envoys.join(stream, node, String::new(), 0).publish(acked, |_| {});
        }
        let acknowledged = envoys.acknowledged();
        let none = BTreeSet::new();
        assert_eq!(acknowledged.of(None, &none, 6), (3, 2));
        assert_eq!(acknowledged.of(None, &["us".to_owned()].into(), 5), (2, 2));
        assert_eq!(acknowledged.of(Some("eu"), &none, 6), (2, 1));
        assert_eq!(acknowledged.of(Some("none"), &none, 0), (0, 0));
        envoys.remove(2);
        assert_eq!(envoys.acknowledged().of(Some("eu"), &none, 6), (1, 0));
    }
}
