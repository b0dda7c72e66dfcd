//! Live sessions of all servers: summed over the Envoys that report, and how far the sum can be believed.
//!
//! A sum is kept as it changes, so that a report costs what differs in it, and a question what it asks for. Whether it is
//! whole is a comparison of revisions: an Envoy's report covers a server if that Envoy had taken the last change of the
//! server's cluster when the report's period began.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::ledger::Delta;
use crate::model::Gateways;
use crate::session::Node;
use crate::snapshot::{Name, Revision};

/// Most Envoys that an answer names.
const MAX_NAMED: usize = 1000;
/// The fleet of clusters whose server is gone.
const NO_FLEET: &str = "";

/// What is known of a server's sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sessions {
    /// Live sessions at all Envoys of its gateways; none while that is not known.
    pub sessions: Option<u64>,
    /// The sum over those Envoys that reported.
    pub reported_sessions: u64,
    /// Envoys that have not reported since they took its last change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreported_by: Vec<Arc<str>>,
    /// Players who came before its cluster changed in place, and whom Envoy counts no more, gone or not.
    #[serde(skip_serializing_if = "is_zero")]
    pub uncounted_sessions: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The sum of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    /// Live sessions.
    pub(super) open: u64,
    /// Those that Envoys count no more.
    pub(super) uncounted: u64,
    /// `namespace/fleet` of its server, as metrics name it.
    fleet: Option<Arc<str>>,
}

/// How things stood when a report was read.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// What the Envoy had acknowledged, if its ADS stream is here.
    acked: Option<Revision>,
    /// The newest commit.
    head: Revision,
}

#[derive(Debug)]
struct Reporter {
    id: Arc<str>,
    gateway: Arc<str>,
    /// Of the last report, and of the one before it.
    marks: [Option<Mark>; 2],
    covered: Revision,
}

/// The sums and who reports them.
#[derive(Debug, Default)]
pub(super) struct Loads {
    reporters: BTreeMap<u64, Reporter>,
    totals: HashMap<Name, Total>,
    fleets: HashMap<Arc<str>, u64>,
    all: u64,
}

/// An Envoy's report, by what it differs from its last one.
#[derive(Debug)]
pub struct Report<'a> {
    /// Who reports.
    pub node: &'a Node,
    /// True when it lists a cluster of ours at all.
    pub lists_any: bool,
    /// The revision of the newest commit when it was read.
    pub head: Revision,
    /// What is new in it.
    pub deltas: Vec<Delta>,
    /// `namespace/fleet` of clusters that had no player before.
    pub fleets: HashMap<Name, Arc<str>>,
}

impl Loads {
    /// Takes a report of the stream. `acked` is what the same Envoy has acknowledged by now.
    pub(super) fn take(&mut self, stream: u64, report: Report<'_>, acked: Option<Revision>) {
        let Report { node, lists_any, head, deltas, fleets } = report;
        let reporter = self.reporters.entry(stream).or_insert_with(|| Reporter {
            id: node.id.as_str().into(),
            gateway: node.gateway.0.clone(),
            marks: [None; 2],
            covered: 0,
        });
        // The period of this report began when the last one was sent. An Envoy whose ADS stream is with another replica is
        // given one report more to take what was committed, and is believed once it lists anything.
        reporter.covered = match reporter.marks {
            [Some(Mark { acked: Some(acked), .. }), _] => acked,
            [Some(_), Some(Mark { head, .. })] if lists_any => head,
            _ => 0,
        };
        reporter.marks = [Some(Mark { acked, head }), reporter.marks[0]];
        self.add(deltas, &fleets);
    }

    /// Forgets a stream and what it reported.
    pub(super) fn remove(&mut self, stream: u64, deltas: Vec<Delta>) {
        self.reporters.remove(&stream);
        self.add(deltas, &HashMap::new());
    }

    fn add(&mut self, deltas: Vec<Delta>, fleets: &HashMap<Name, Arc<str>>) {
        for Delta { cluster, open, uncounted } in deltas {
            let total = self.totals.entry(cluster.clone()).or_default();
            if total.fleet.is_none() {
                let fleet = fleets.get(&cluster).map_or(NO_FLEET, |fleet| &**fleet);
                // The name is kept once a fleet.
                let held = self.fleets.get_key_value(fleet).map(|(held, _)| held.clone());
                total.fleet = Some(held.unwrap_or_else(|| fleet.into()));
            }
            total.open = total.open.saturating_add_signed(open);
            total.uncounted = total.uncounted.saturating_add_signed(uncounted);
            self.all = self.all.saturating_add_signed(open);
            if let Some(fleet) = &total.fleet {
                let sum = self.fleets.entry(fleet.clone()).or_default();
                *sum = sum.saturating_add_signed(open);
                if *sum == 0 {
                    self.fleets.remove(fleet);
                }
            }
            if (total.open, total.uncounted) == (0, 0) {
                self.totals.remove(&cluster);
            }
        }
    }

    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn total(&self, cluster: &str) -> Total {
        self.totals.get(cluster).cloned().unwrap_or_default()
    }

    pub(super) fn knows(&self, cluster: &str) -> bool {
        self.totals.contains_key(cluster)
    }

    /// The fleets with the most sessions, and the sum of the others.
    pub(super) fn fleets(&self, most: usize) -> (Vec<(Arc<str>, u64)>, u64) {
        let named = self.fleets.iter().filter(|(fleet, _)| ***fleet != *NO_FLEET);
        let (top, _) = top(named.map(|(fleet, open)| (fleet.clone(), *open)).collect(), most);
        let rest = self.all - top.iter().map(|(_, open)| open).sum::<u64>();
        (top, rest)
    }

    /// The clusters with the most sessions. Walks those that have any.
    pub(super) fn busiest(&self, most: usize) -> Vec<(Name, u64)> {
        if most == 0 {
            return Vec::new();
        }
        let open = self.totals.iter().filter(|(_, total)| total.open > 0);
        top(open.map(|(name, total)| (name.clone(), total.open)).collect(), most).0
    }

    /// How far the sums go, with these Envoys connected.
    pub(super) fn coverage<'a>(&self, connected: impl Iterator<Item = &'a Node>) -> Coverage {
        let mut reported: BTreeMap<(&str, &str), Vec<Revision>> = BTreeMap::new();
        for reporter in self.reporters.values() {
            reported.entry((&reporter.gateway, &reporter.id)).or_default().push(reporter.covered);
        }
        let mut coverage = Coverage {
            reporting: self.reporters.values().map(|reporter| reporter.id.clone()).collect(),
            ..Coverage::default()
        };
        let mut connections: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for node in connected {
            *connections.entry((&node.gateway.0, &node.id)).or_default() += 1;
        }
        // Envoys may share a name: then it is their number that counts.
        for (key, count) in &connections {
            let reports = reported.get(key).map_or(0, Vec::len);
            reported.entry(*key).or_default().extend((reports..*count).map(|_| 0));
        }
        for ((gateway, id), floors) in reported {
            let floor = floors.into_iter().min().unwrap_or_default();
            let gate = coverage.by_gateway.entry(gateway.into()).or_default();
            gate.floor = if gate.envoys.is_empty() { floor } else { gate.floor.min(floor) };
            gate.envoys.push((id.into(), floor));
        }
        coverage.reporting.sort_unstable();
        coverage.reporting.dedup();
        coverage
    }
}

/// The greatest of these, in their order; equal ones by name.
fn top<N: Ord>(mut all: Vec<(N, u64)>, most: usize) -> (Vec<(N, u64)>, usize) {
    let order = |one: &(N, u64), other: &(N, u64)| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0));
    let rest = all.len().saturating_sub(most);
    if rest > 0 && most > 0 {
        all.select_nth_unstable_by(most, order);
    }
    all.truncate(most);
    all.sort_unstable_by(order);
    (all, rest)
}

/// Which Envoys there are, and what their reports cover. To be asked about many servers.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    by_gateway: BTreeMap<Arc<str>, Gate>,
    /// The Envoys that report to this control plane.
    pub reporting: Vec<Arc<str>>,
}

#[derive(Clone, Debug, Default)]
struct Gate {
    /// Each Envoy, and the newest change that its last report covers; 0 when it has not reported.
    envoys: Vec<(Arc<str>, Revision)>,
    /// The least of these: most servers are asked about with one comparison.
    floor: Revision,
}

impl Coverage {
    /// What is known of a server on these gateways whose cluster changed last at `revision`, and whose sum is `total`.
    /// Without a cluster nobody can be counted.
    pub(super) fn sessions(
        &self,
        gateways: &Gateways,
        revision: Option<Revision>,
        total: &Total,
    ) -> Sessions {
        let concerned = self.by_gateway.iter().filter(|(name, _)| match gateways {
            Gateways::Every => true,
            Gateways::Named(named) => named.iter().any(|gateway| gateway.0 == **name),
        });
        let (mut envoys, mut unreported_by) = (0, Vec::new());
        for (_, gate) in concerned {
            envoys += gate.envoys.len();
            let Some(revision) = revision.filter(|revision| gate.floor < *revision) else { continue };
            let unreported = gate.envoys.iter().filter(|(_, covered)| *covered < revision);
            unreported_by.extend(unreported.map(|(id, _)| id.clone()).take(MAX_NAMED));
        }
        let is_known = envoys > 0 && revision.is_some() && unreported_by.is_empty() && total.uncounted == 0;
        Sessions {
            sessions: is_known.then_some(total.open),
            reported_sessions: total.open,
            unreported_by,
            uncounted_sessions: total.uncounted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Gateway;

    fn node(id: &str, gateway: &str) -> Node {
        Node { id: id.into(), gateway: Gateway(gateway.into()), version: String::new() }
    }

    fn report<'a>(node: &'a Node, head: Revision, open: &[(&str, i64)]) -> Report<'a> {
        let deltas =
            open.iter().map(|(name, open)| Delta { cluster: (*name).into(), open: *open, uncounted: 0 });
        let fleets = open.iter().map(|(name, _)| ((*name).into(), format!("default/{}", &name[..1]).into()));
        Report { node, lists_any: true, head, deltas: deltas.collect(), fleets: fleets.collect() }
    }

    fn known(
        loads: &Loads,
        nodes: &[&Node],
        gateways: &Gateways,
        revision: Revision,
        name: &str,
    ) -> Option<u64> {
        let coverage = loads.coverage(nodes.iter().copied());
        coverage.sessions(gateways, Some(revision), &loads.total(name)).sessions
    }

    #[test]
    fn a_server_is_not_empty_before_each_envoy_has_reported_what_it_had_taken() {
        let (mut loads, one, two) = (Loads::default(), node("one", "eu"), node("two", "eu"));
        let all = [&one, &two];
        let every = &Gateways::Every;
        assert_eq!(known(&loads, &[], every, 5, "a1"), None, "without an Envoy nothing is known");
        for stream in [1, 2] {
            let node = if stream == 1 { &one } else { &two };
            loads.take(stream, report(node, 5, &[]), Some(5));
        }
        assert_eq!(known(&loads, &all, every, 5, "a1"), None, "the first report is of nothing");
        loads.take(1, report(&one, 6, &[("a1", 2)]), Some(5));
        assert_eq!(known(&loads, &all, every, 5, "a1"), None, "the other has not reported");
        loads.take(2, report(&two, 6, &[("a1", 1)]), Some(6));
        assert_eq!(known(&loads, &all, every, 5, "a1"), Some(3));
        assert_eq!(known(&loads, &all, every, 6, "b1"), None, "it came after the period began");
        loads.take(1, report(&one, 6, &[]), Some(6));
        loads.take(2, report(&two, 6, &[]), Some(6));
        assert_eq!(known(&loads, &all, every, 6, "b1"), None, "one of them took it only by then");
        loads.take(1, report(&one, 6, &[]), Some(6));
        assert_eq!(known(&loads, &all, every, 6, "b1"), Some(0));
        assert_eq!(
            known(&loads, &[&one, &two, &two], every, 5, "a1"),
            None,
            "one of this name does not report"
        );
        let coverage = loads.coverage([&one, &node("three", "us")].into_iter());
        let eu = Gateways::Named([Gateway("eu".into())].into());
        assert_eq!(coverage.sessions(&eu, Some(5), &loads.total("a1")).sessions, Some(3));
        let unknown = coverage.sessions(every, Some(5), &loads.total("a1"));
        assert_eq!((unknown.sessions, unknown.reported_sessions), (None, 3));
        assert_eq!(unknown.unreported_by, ["three".into()]);
        assert_eq!(coverage.sessions(every, None, &Total::default()).sessions, None, "it has no cluster");
    }

    #[test]
    fn an_envoy_that_is_served_by_another_replica_is_given_time() {
        let (mut loads, one) = (Loads::default(), node("one", "eu"));
        for (head, known_now) in [(5, None), (5, None), (7, Some(0))] {
            loads.take(1, report(&one, head, &[]), None);
            assert_eq!(known(&loads, &[], &Gateways::Every, 5, "a1"), known_now);
        }
        assert_eq!(known(&loads, &[], &Gateways::Every, 7, "a1"), None);
    }

    #[test]
    fn what_an_envoy_counts_no_more_is_not_known() {
        let (mut loads, one) = (Loads::default(), node("one", "eu"));
        for _ in 0..2 {
            loads.take(1, report(&one, 5, &[]), Some(5));
        }
        let uncounted = |uncounted| vec![Delta { cluster: "a1".into(), open: 0, uncounted }];
        loads.take(1, Report { deltas: uncounted(2), ..report(&one, 5, &[]) }, Some(5));
        assert_eq!(known(&loads, &[&one], &Gateways::Every, 5, "a1"), None);
        loads.remove(1, uncounted(-2));
        assert!(loads.totals.is_empty() && loads.reporters.is_empty());
    }

    #[test]
    fn fleets_are_summed_as_they_change() {
        let (mut loads, one) = (Loads::default(), node("one", "eu"));
        loads.take(1, report(&one, 5, &[("a1", 3), ("a2", 4), ("b1", 5), ("c1", 1)]), None);
        let fleet = |name: &str, open| (Arc::from(name), open);
        assert_eq!(loads.fleets(2), (vec![fleet("default/a", 7), fleet("default/b", 5)], 1));
        assert_eq!(loads.fleets(0), (vec![], 13));
        assert_eq!(loads.busiest(2), [fleet("b1", 5), fleet("a2", 4)]);
        loads.take(1, report(&one, 5, &[("b1", -5), ("a1", 1)]), None);
        assert_eq!(loads.fleets(5), (vec![fleet("default/a", 8), fleet("default/c", 1)], 0));
        assert_eq!(loads.all(), 9);
    }
}
