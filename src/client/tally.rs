//! What several replicas know of servers, put together. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Envoys that are named in a line.
const MAX_NAMED: usize = 3;

/// A replica's answer (`/api/sessions`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    /// The servers that it knows.
    pub servers: Vec<Row>,
    /// What it does not know, or no more.
    pub unknown: Vec<String>,
    /// Envoys that report to it.
    pub reporting: BTreeSet<String>,
}

/// A server in it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Row {
    /// `source/namespace/name`
    pub id: String,
    /// Live sessions at the Envoys that are connected there; none while that is not known.
    pub sessions: Option<u64>,
    /// Those that are known of.
    pub reported_sessions: u64,
    /// Envoys that have not reported.
    #[serde(default)]
    pub unreported_by: Vec<String>,
    /// Players whom Envoys count no more.
    #[serde(default)]
    pub uncounted_sessions: u64,
    /// Envoys that have not taken what was asked about.
    #[serde(default)]
    pub not_taken_by: Vec<String>,
}

/// Who is left on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Players; none while that is not known.
    pub players: Option<u64>,
    /// Players that are known of.
    pub at_least: u64,
    /// Envoys that have not reported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreported_by: Vec<String>,
    /// Players whom Envoy counts no more since the server's cluster changed.
    #[serde(skip_serializing_if = "is_zero")]
    pub uncounted: u64,
    /// Envoys that may still let somebody in: they have not taken the last changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_taken_by: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Left {
    /// True when it is known that nobody is left, and nobody comes by an Envoy that is behind.
    pub fn is_empty(&self) -> bool {
        self.players == Some(0) && self.not_taken_by.is_empty()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(players) = self.players {
            write!(f, "{players}")?;
            if !self.not_taken_by.is_empty() {
                write!(f, " (the last changes are not taken by {})", names(&self.not_taken_by))?;
            }
            return Ok(());
        }
        write!(f, "{} or more", self.at_least)?;
        if self.uncounted > 0 {
            let uncounted = self.uncounted;
            return write!(f, " ({uncounted} came before its cluster changed, Envoy counts them no more)");
        }
        if self.unreported_by.is_empty() {
            return write!(f, " (no Envoy reports it)");
        }
        write!(f, " (no report of {})", names(&self.unreported_by))
    }
}

/// The first of these, and how many more there are.
fn names(all: &[String]) -> String {
    match all.split_at_checked(MAX_NAMED) {
        Some((named, more)) if !more.is_empty() => format!("{} and {} more", named.join(", "), more.len()),
        _ => all.join(", "),
    }
}

/// Who is left on each of these servers, by what every replica says; none of one that does not answer.
pub fn merged(ids: &[String], answers: &[Option<Answer>]) -> BTreeMap<String, Left> {
    let mut rows: BTreeMap<&str, Vec<(usize, &Row)>> = BTreeMap::new();
    for (replica, answer) in answers.iter().enumerate() {
        for row in answer.iter().flat_map(|answer| &answer.servers) {
            rows.entry(&row.id).or_default().push((replica, row));
        }
    }
    let are_all_here = answers.iter().all(Option::is_some);
    let none = Vec::new();
    let left = ids.iter().map(|id| {
        let left = of_one(rows.get(id.as_str()).unwrap_or(&none), answers, are_all_here);
        (id.clone(), left)
    });
    left.collect()
}

fn of_one(rows: &[(usize, &Row)], answers: &[Option<Answer>], are_all_here: bool) -> Left {
    if rows.is_empty() && are_all_here {
        // It is gone, and its process with it.
        return Left { players: Some(0), ..Left::default() };
    }
    // An Envoy may be told what to do by one replica and report to another.
    let reports_elsewhere = |replica: usize, envoy: &String| {
        answers.iter().enumerate().any(|(other, answer)| {
            let reports = answer.as_ref().is_some_and(|answer| answer.reporting.contains(envoy));
            let is_late = rows.iter().any(|(at, row)| *at == other && row.unreported_by.contains(envoy));
            other != replica && reports && !is_late
        })
    };
    let unreported = rows.iter().flat_map(|(replica, row)| {
        row.unreported_by.iter().filter(|envoy| !reports_elsewhere(*replica, envoy)).cloned()
    });
    let unreported_by: BTreeSet<String> = unreported.collect();
    let at_least = rows.iter().map(|(_, row)| row.reported_sessions).sum();
    let uncounted = rows.iter().map(|(_, row)| row.uncounted_sessions).sum();
    let not_taken_by: BTreeSet<String> = rows.iter().flat_map(|(_, row)| row.not_taken_by.clone()).collect();
    // A replica without any Envoy knows nothing of it, and adds nothing.
    let is_known = are_all_here
        && unreported_by.is_empty()
        && uncounted == 0
        && rows.iter().any(|(_, row)| row.sessions.is_some());
    Left {
        players: is_known.then_some(at_least),
        at_least,
        unreported_by: unreported_by.into_iter().collect(),
        uncounted,
        not_taken_by: not_taken_by.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sessions: Option<u64>, reported: u64, unreported: &[&str]) -> Row {
        Row {
            id: "a".into(),
            sessions,
            reported_sessions: reported,
            unreported_by: unreported.iter().map(|name| (*name).to_owned()).collect(),
            ..Row::default()
        }
    }

    fn answer(row: Option<Row>, reporting: &[&str]) -> Answer {
        let reporting = reporting.iter().map(|name| (*name).to_owned()).collect();
        Answer { servers: row.into_iter().collect(), unknown: Vec::new(), reporting }
    }

    fn left(answers: &[Option<Answer>]) -> Left {
        merged(&["a".to_owned()], answers).remove("a").unwrap()
    }

    #[test]
    fn replicas_are_summed() {
        let one = answer(Some(row(Some(2), 2, &[])), &["x"]);
        let other = answer(Some(row(Some(1), 1, &[])), &["y"]);
        assert_eq!(left(&[Some(one.clone()), Some(other)]).players, Some(3));
        assert_eq!(left(&[Some(one.clone()), Some(answer(Some(row(None, 0, &[])), &[]))]).players, Some(2));
        let silent = left(&[Some(one), None]);
        assert_eq!((silent.players, silent.at_least), (None, 2), "one does not answer");
        assert_eq!(left(&[Some(answer(Some(row(None, 0, &[])), &[]))]).players, None, "nobody counts");
    }

    #[test]
    fn an_envoy_that_reports_to_another_replica_is_not_missed() {
        let one = answer(Some(row(None, 0, &["x"])), &[]);
        assert_eq!(left(&[Some(one.clone())]).unreported_by, ["x"]);
        let other = answer(Some(row(Some(2), 2, &[])), &["x"]);
        assert_eq!(left(&[Some(one.clone()), Some(other)]).players, Some(2));
        let late = answer(Some(row(None, 0, &["x"])), &["x"]);
        assert_eq!(left(&[Some(one), Some(late)]).players, None, "and is missed while it is late there");
    }

    #[test]
    fn who_may_still_let_somebody_in_is_waited_for() {
        let mut behind = row(None, 0, &["x"]);
        behind.not_taken_by = vec!["x".to_owned()];
        // Its reports go to one replica, what it is told comes from the other.
        let left = left(&[Some(answer(Some(row(Some(0), 0, &[])), &["x"])), Some(answer(Some(behind), &[]))]);
        assert_eq!((left.players, left.is_empty()), (Some(0), false));
        assert_eq!(left.to_string(), "0 (the last changes are not taken by x)");
    }

    #[test]
    fn one_that_is_gone_everywhere_is_empty() {
        assert!(left(&[Some(answer(None, &[]))]).is_empty());
        assert!(
            !left(&[Some(answer(None, &[])), None]).is_empty(),
            "a replica that does not answer may know it"
        );
        let gone_here = [answer(None, &[]), answer(Some(row(Some(1), 1, &[])), &["x"])].map(Some);
        assert_eq!(left(&gone_here).players, Some(1));
    }

    #[test]
    fn what_is_not_known_is_said_why() {
        let mut hidden = row(None, 0, &[]);
        hidden.uncounted_sessions = 2;
        let left = left(&[Some(answer(Some(hidden), &["x"]))]);
        assert_eq!((left.players, left.uncounted), (None, 2));
        assert!(left.to_string().contains("2 came before"), "{left}");
        let unreported_by = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let left = Left { at_least: 1, unreported_by, ..Left::default() };
        assert_eq!(left.to_string(), "1 or more (no report of a, b, c and 2 more)");
    }
}
