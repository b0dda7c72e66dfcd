//! What is known of the Envoys: their streams, what they refused, the sessions they report.
//!
//! Each stream writes its own row; people and metrics read them. Nothing here decides what is sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use crate::model::Gateways;
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

/// Sessions by cluster, as one Envoy's last report has them.
type Load = HashMap<Name, u64>;

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<u64, StreamStatus>,
    loads: HashMap<u64, Load>,
    /// The sum of all loads, kept as they change: a report costs its own size, not that of all others.
    sessions: u64,
    suspects: HashSet<String>,
    logged: HashSet<(Type, Name, Option<Version>)>,
}

/// The register of all Envoys.
#[derive(Debug)]
pub struct Envoys {
    state: Mutex<State>,
    acks: watch::Sender<()>,
}

impl Default for Envoys {
    fn default() -> Self {
        Self { state: Mutex::default(), acks: watch::Sender::new(()) }
    }
}

impl Envoys {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the row of a stream.
    pub fn put(&self, stream: u64, status: StreamStatus) {
        let acked = status.acked;
        let before = self.state().streams.insert(stream, status);
        if before.is_none_or(|before| before.acked != acked) {
            self.acks.send_replace(());
        }
    }

    /// Wakes when an Envoy came or went, or acknowledged more.
    pub fn acks(&self) -> watch::Receiver<()> {
        self.acks.subscribe()
    }

    /// Forgets a stream, and the sessions it reported.
    pub fn remove(&self, stream: u64) {
        let mut state = self.state();
        let was_here = state.streams.remove(&stream).is_some();
        let gone = state.loads.remove(&stream);
        state.sessions -= gone.iter().flat_map(HashMap::values).sum::<u64>();
        drop(state);
        if was_here {
            self.acks.send_replace(());
        }
    }

    /// The revision that every Envoy of these gateways has acknowledged; `None` while none is here.
    pub fn acknowledged_by_all(&self, gateways: &Gateways) -> Option<Revision> {
        let state = self.state();
        let concerned = state.streams.values().filter(|stream| match gateways {
            Gateways::Every => true,
            Gateways::Named(named) => named.contains(&stream.node.gateway),
        });
        concerned.map(|stream| stream.acked).min()
    }

    /// All rows, oldest stream first.
    pub fn list(&self) -> Vec<StreamStatus> {
        self.state().streams.values().cloned().collect()
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
        for stream in self.state().streams.values() {
            for row in &stream.types {
                for (name, refused) in &row.refused {
                    let by_envoy = refusals.entry((row.kind, name.clone())).or_default();
                    by_envoy.insert(stream.node.id.clone(), refused.reason.clone());
                }
            }
        }
        refusals
    }

    /// Of the Envoys of a gateway, or of all but `others`: how many there are, and how many have
    /// acknowledged everything up to `revision`.
    pub fn acknowledged(
        &self,
        gateway: Option<&str>,
        others: &BTreeSet<String>,
        revision: Revision,
    ) -> (usize, usize) {
        let state = self.state();
        let concerned = state.streams.values().filter(|stream| match gateway {
            Some(gateway) => &*stream.node.gateway.0 == gateway,
            None => !others.contains(&*stream.node.gateway.0),
        });
        concerned
            .fold((0, 0), |(all, acked), stream| (all + 1, acked + usize::from(stream.acked >= revision)))
    }

    /// Takes an Envoy's report of its live sessions in place of its last one.
    pub fn report(&self, stream: u64, mut load: Load) {
        // A number from a socket: no sum of these, over any fleet, overflows.
        for sessions in load.values_mut() {
            *sessions = (*sessions).min(u32::MAX.into());
        }
        let mut state = self.state();
        state.sessions += load.values().sum::<u64>();
        let before = state.loads.insert(stream, load);
        state.sessions -= before.iter().flat_map(HashMap::values).sum::<u64>();
    }

    /// Live sessions of a cluster, summed over all Envoys.
    pub fn sessions(&self, cluster: &str) -> u64 {
        self.state().loads.values().filter_map(|load| load.get(cluster)).sum()
    }

    /// Live sessions of all clusters.
    pub fn all_sessions(&self) -> u64 {
        self.state().sessions
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
    fn sessions_are_summed_and_go_with_their_envoy() {
        let envoys = Envoys::default();
        envoys.report(1, [("a".into(), 3), ("b".into(), 1)].into());
        envoys.report(2, [("a".into(), 2)].into());
        envoys.report(1, [("a".into(), 1)].into());
        assert_eq!((envoys.sessions("a"), envoys.sessions("b"), envoys.all_sessions()), (3, 0, 3));
        envoys.remove(2);
        envoys.remove(2);
        assert_eq!((envoys.sessions("a"), envoys.all_sessions()), (1, 1));
    }

    #[test]
    fn a_report_that_can_not_be_true_harms_nobody() {
        let envoys = Envoys::default();
        envoys.report(1, [("a".into(), u64::MAX)].into());
        envoys.report(2, [("a".into(), u64::MAX)].into());
        envoys.remove(1);
        assert!(envoys.sessions("a") > 0);
    }
}
