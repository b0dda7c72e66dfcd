//! What one Envoy's reports say of its live sessions, from one report to the next. Pure.
//!
//! Envoy (1.40, `load_stats_reporter_impl.cc`) counts by the endpoint objects of a cluster: it reports the requests in
//! progress of those that the cluster has now. Seen with a real one:
//!
//! - Each cluster that it had **when the period began** is in the report, one without any request too, as an entry
//!   without `upstream_locality_stats`. One that came meanwhile is left out until the next report; so is all at first.
//! - **A cluster that is replaced counts from zero**, and so does one that goes and comes back, whoever is inside. So
//!   players who were there when a cluster changed at the same address are remembered here as *uncounted*: how many of
//!   them are left is known to nobody. At another address it is another server, and the count is right.

use std::collections::HashMap;

use crate::snapshot::{Name, Resource};
use crate::translate;

/// Most sessions of one cluster at one Envoy that are believed: no sum of these, over any fleet, overflows.
const MAX_SESSIONS: u64 = u32::MAX as u64;

/// What a report adds to what was known of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The cluster.
    pub cluster: Name,
    /// Sessions more, or less.
    pub open: i64,
    /// Uncounted sessions more, or less.
    pub uncounted: i64,
}

#[derive(Debug, Default)]
struct Seen {
    open: u64,
    uncounted: u64,
    /// The last report that had it.
    round: u64,
    /// What its cluster was by then.
    content: Option<Resource>,
}

/// The last report of one Envoy. It keeps the clusters with players alone.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: HashMap<Name, Seen>,
    round: u64,
}

impl Ledger {
    /// Takes a report: clusters with their sessions, each at most once, those without any may be left out. `content`
    /// is asked what a cluster is now. Returns what changed.
    pub fn take<'a>(
        &mut self,
        report: impl Iterator<Item = (&'a str, u64)>,
        content: impl Fn(&str) -> Option<Resource>,
    ) -> Vec<Delta> {
        self.round += 1;
        let round = self.round;
        let mut deltas = Vec::new();
        for (cluster, open) in report.filter(|(_, open)| *open > 0) {
            let open = open.min(MAX_SESSIONS);
            let content = content(cluster);
            if let Some((name, seen)) = self.seen.get_key_value(cluster) {
                let (name, uncounted) = (name.clone(), uncounted(seen, content.as_ref()));
                deltas.extend(delta(&name, seen, open, uncounted));
                self.seen.insert(name, Seen { open, uncounted, round, content });
            } else {
                let (name, seen) = (Name::from(cluster), Seen { open, round, content, ..Seen::default() });
                deltas.extend(delta(&name, &Seen::default(), open, 0));
                self.seen.insert(name, seen);
            }
        }
        self.seen.retain(|name, seen| {
            if seen.round == round {
                return true;
            }
            let content = content(name);
            let uncounted = uncounted(seen, content.as_ref());
            deltas.extend(delta(name, seen, 0, uncounted));
            (seen.open, seen.uncounted, seen.round) = (0, uncounted, round);
            seen.content = content;
            uncounted > 0
        });
        deltas
    }

    /// Forgets all, as when the Envoy is gone. Returns what changed.
    pub fn clear(&mut self) -> Vec<Delta> {
        self.seen.drain().filter_map(|(name, seen)| delta(&name, &seen, 0, 0)).collect()
    }
}

/// Sessions of the time before a cluster was replaced, when it is this by now.
fn uncounted(seen: &Seen, now: Option<&Resource>) -> u64 {
    let (Some(before), Some(now)) = (&seen.content, now) else { return 0 };
    if before.version == now.version {
        return seen.uncounted;
    }
    // Envoy may still report those before it takes the new one: they are not added up each time, as content is
    // compared with that of the last report.
    if translate::is_same_place(before, now) { (seen.uncounted + seen.open).min(MAX_SESSIONS) } else { 0 }
}

fn delta(cluster: &Name, before: &Seen, open: u64, uncounted: u64) -> Option<Delta> {
    let differ = |now: u64, before: u64| now.cast_signed() - before.cast_signed();
    let delta = Delta {
        cluster: cluster.clone(),
        open: differ(open, before.open),
        uncounted: differ(uncounted, before.uncounted),
    };
    (delta.open != 0 || delta.uncounted != 0).then_some(delta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::server_with;

    fn content(port: u16, cap: Option<u32>) -> Option<Resource> {
        translate::cluster(&server_with("a", &["a.x"], |server| {
            server.desired.endpoint = Some(([10, 0, 0, 1], port).into());
            server.desired.max_sessions = cap;
        }))
    }

    fn said(deltas: &[Delta]) -> Vec<(&str, i64, i64)> {
        deltas.iter().map(|delta| (&*delta.cluster, delta.open, delta.uncounted)).collect()
    }

    #[test]
    fn a_report_stands_in_place_of_the_last_one() {
        let mut ledger = Ledger::default();
        let none = |_: &str| None;
        assert_eq!(said(&ledger.take([("a", 3), ("b", 0)].into_iter(), none)), [("a", 3, 0)]);
        assert!(ledger.take([("a", 3)].into_iter(), none).is_empty());
        assert_eq!(said(&ledger.take([("a", 1), ("b", 2)].into_iter(), none)), [("a", -2, 0), ("b", 2, 0)]);
        assert_eq!(said(&ledger.take([("a", 1)].into_iter(), none)), [("b", -2, 0)]);
        assert_eq!(said(&ledger.clear()), [("a", -1, 0)]);
        assert!(ledger.seen.is_empty());
    }

    #[test]
    fn players_of_a_cluster_that_changed_at_the_same_address_are_uncounted() {
        let mut ledger = Ledger::default();
        ledger.take([("a", 2)].into_iter(), |_| content(7000, None));
        // A report of the time between the commit and its arrival there has them still.
        let deltas = ledger.take([("a", 2)].into_iter(), |_| content(7000, Some(50)));
        assert_eq!(said(&deltas), [("a", 0, 2)]);
        assert_eq!(said(&ledger.take([("a", 0)].into_iter(), |_| content(7000, Some(50)))), [("a", -2, 0)]);
        assert_eq!(said(&ledger.take([("a", 1)].into_iter(), |_| content(7000, Some(50)))), [("a", 1, 0)]);
        // Its next life listens elsewhere.
        assert_eq!(said(&ledger.take([].into_iter(), |_| content(7001, Some(50)))), [("a", -1, -2)]);
        assert!(ledger.seen.is_empty());
    }

    #[test]
    fn a_cluster_that_goes_takes_its_count_along() {
        let mut ledger = Ledger::default();
        ledger.take([("a", 2)].into_iter(), |_| content(7000, None));
        ledger.take([("a", 1)].into_iter(), |_| content(7000, Some(9)));
        assert_eq!(said(&ledger.take([].into_iter(), |_| None)), [("a", -1, -2)]);
        assert!(ledger.seen.is_empty());
    }

    #[test]
    fn a_number_that_can_not_be_true_harms_nobody() {
        let mut ledger = Ledger::default();
        let deltas = ledger.take([("a", u64::MAX)].into_iter(), |_| None);
        assert_eq!(said(&deltas), [("a", i64::from(u32::MAX), 0)]);
    }
}
