//! What each member of a share has of its players, and what of the members does not fit together.

use std::sync::Arc;

use serde::Serialize;

use super::closed_word;
use crate::model::{GameVersion, Priority, Server, Weight};
use crate::translate::{self, MAX_VERSIONS};

/// A member of a share, as a new player finds it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// The server.
    pub server: String,
    /// `open`, `standby` (it is open, and one of a higher priority is too), or why it is closed.
    pub state: &'static str,
    /// Its part of the new players, in per cent of all that have no cookie yet, to a tenth.
    pub percent: f64,
    /// Its weight among those of its priority.
    pub weight: Weight,
    /// Its priority.
    pub priority: Priority,
    /// The version of the game that it runs.
    pub version: GameVersion,
}

/// The members of a share, oldest first; none where a route has one holder and no share.
pub(super) fn members(holders: &[Arc<Server>]) -> Vec<Member> {
    if !is_shared(holders) {
        return Vec::new();
    }
    let open = translate::open(holders);
    let takers = translate::takers(&open, GameVersion::default());
    let sum: f64 = takers.iter().map(|server| f64::from(server.desired.weight.0)).sum();
    // Both are in the order of the holders: one walk, however many there are.
    let (mut open, mut takers) = (open.into_iter().peekable(), takers.into_iter().peekable());
    let row = |server: &Arc<Server>| {
        let is_it = |other: &&Server| std::ptr::eq(*other, server.as_ref());
        let is_open = open.next_if(is_it).is_some();
        let takes = takers.next_if(is_it).is_some();
        let percent = if takes { f64::from(server.desired.weight.0) / sum * 100.0 } else { 0.0 };
        Member {
            server: server.id.to_string(),
            state: match (takes, is_open) {
                (true, _) => "open",
                (false, true) => "standby",
                (false, false) => closed_word(server),
            },
            percent: (percent * 10.0).round() / 10.0,
            weight: server.desired.weight,
            priority: server.desired.priority,
            version: server.desired.version,
        }
    };
    holders.iter().map(row).collect()
}

fn is_shared(holders: &[Arc<Server>]) -> bool {
    holders.first().is_some_and(|server| server.desired.share.is_some())
}

/// Names a setting where another server has it otherwise.
type Differs = (&'static str, fn(&Server, &Server) -> bool);

/// What all members have from one of them.
const COMMON: [Differs; 5] = [
    ("affinity", |one, other| one.desired.affinity != other.desired.affinity),
    ("strip-prefix", |one, other| one.desired.strip_prefix != other.desired.strip_prefix),
    ("idle-timeout", |one, other| one.desired.idle_timeout != other.desired.idle_timeout),
    ("response-timeout", |one, other| one.desired.response_timeout != other.desired.response_timeout),
    ("https-redirect", |one, other| one.desired.https_redirect != other.desired.https_redirect),
];

/// What somebody should mend in a share: no member's own mistake, so that it stands at the route.
pub(super) fn problems(holders: &[Arc<Server>]) -> Vec<String> {
    if !is_shared(holders) {
        return Vec::new();
    }
    let open = translate::open(holders);
    let Some(first) = open.first() else { return Vec::new() };
    let mut problems: Vec<String> = COMMON
        .iter()
        .filter_map(|(name, differs)| {
            let other = open.iter().find(|other| differs(first, other))?;
            Some(format!(
                "tidegate.dev/{name} of {} and {} differ; that of {}, the oldest open member, counts for all",
                first.id, other.id, first.id
            ))
        })
        .collect();
    let mut versions: Vec<_> = open.iter().map(|server| server.desired.version).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > MAX_VERSIONS {
        problems.push(format!(
            "its open members have {} values of tidegate.dev/version; at most {MAX_VERSIONS} are told apart, so players of an older one come back to {} or later",
            versions.len(),
            versions[versions.len() - MAX_VERSIONS].0
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Affinity, Mode, Share};
    use crate::testkit::server_with;

    fn member(name: &str, change: impl FnOnce(&mut Server)) -> Arc<Server> {
        server_with(name, &["x"], |server| {
            server.desired.share = Some(Share { namespace: "default".into(), name: "s".into() });
            change(server);
        })
    }

    #[test]
    fn each_member_says_what_it_has_of_the_new_players() {
        let holders = [
            member("a", |server| server.desired.priority = Priority(1)),
            member("b", |server| {
                server.desired.priority = Priority(1);
                server.desired.weight = Weight(200);
            }),
            member("c", |_| ()),
            member("d", |server| server.desired.mode = Mode::Draining { redirect: None }),
        ];
        let rows: Vec<_> = members(&holders).into_iter().map(|row| (row.state, row.percent)).collect();
        assert_eq!(rows, [("open", 33.3), ("open", 66.7), ("standby", 0.0), ("draining", 0.0)]);
        assert_eq!(members(&[server_with("a", &["x"], |_| ())]), [], "one that is alone has no share");
        assert_eq!(problems(&holders), [""; 0]);
    }

    #[test]
    fn members_that_differ_are_named_and_closed_ones_are_not_asked() {
        let sticky = |server: &mut Server| server.desired.affinity = Affinity::Cookie;
        let shut = member("0", |server| {
            server.desired.https_redirect = true;
            server.desired.weight = Weight(0);
        });
        let [problem] = &problems(&[shut, member("a", sticky), member("b", |_| ())])[..] else { panic!() };
        assert_eq!(
            problem,
            "tidegate.dev/affinity of test/default/a and test/default/b differ; that of test/default/a, the oldest open member, counts for all"
        );
    }

    #[test]
    fn too_many_versions_are_said_with_what_is_done() {
        let version = |n: u32| member(&n.to_string(), move |server| server.desired.version = GameVersion(n));
        let holders: Vec<_> = (1..=10).map(version).collect();
        assert_eq!(problems(&holders[..8]), [""; 0]);
        let [problem] = &problems(&holders)[..] else { panic!() };
        assert!(
            problem.contains("have 10 values") && problem.ends_with("come back to 3 or later"),
            "{problem}"
        );
    }
}
