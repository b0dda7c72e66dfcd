//! Who of a share takes which player, and the cookie by which one who comes back is known.
//!
//! The order of decision: the member that the cookie names, if it is open; else, of those that are open and of
//! the player's version or a later one, those of the highest priority, by weight. No state: replicas agree.

use std::ops::RangeInclusive;

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::v3::Int64Range;
use xxhash_rust::xxh3::xxh3_64;

use super::{Held, routes::header};
use crate::model::{Affinity, GameVersion, PathPrefix, Server};

/// The header by which a member is found: what the cookie says of it. Players can't set it, servers don't see it.
pub(super) const PLAYER_HEADER: &str = "x-tidegate-player";
/// The version that the cookie says, likewise.
pub(super) const VERSION_HEADER: &str = "x-tidegate-version";
/// Most versions of a share that are told apart; players of an older one go to these.
pub const MAX_VERSIONS: usize = 8;
/// How long a browser keeps the cookie, in seconds; each join renews it.
const MAX_AGE: u32 = 24 * 60 * 60;
/// More than any version that the listener lets through: seven digits.
const NO_VERSION: i64 = 10_000_000;

/// Some players of a share, and who takes them.
#[derive(Debug, PartialEq)]
pub(super) struct Lot<'a> {
    /// The versions in their cookies; none: everybody for whom there is no other lot.
    pub(super) versions: Option<RangeInclusive<u32>>,
    /// Who takes them; empty: nobody is as new as they are.
    pub(super) takers: Vec<&'a Server>,
}

/// Of the open members of a share (oldest first, as the result) those that take a new player who may not go below a
/// version: of those that are new enough the ones with the highest priority.
pub fn takers<'a>(open: &[&'a Server], least: GameVersion) -> Vec<&'a Server> {
    let may = || open.iter().copied().filter(|server| server.desired.version >= least);
    let highest = may().map(|server| server.desired.priority).max();
    may().filter(|server| Some(server.desired.priority) == highest).collect()
}

/// The lots of a share, in the order they are tried; `open` is not empty. O(open members × versions).
pub(super) fn lots<'a>(open: &[&'a Server]) -> Vec<Lot<'a>> {
    let mut versions: Vec<GameVersion> = open.iter().map(|server| server.desired.version).collect();
    versions.sort_unstable();
    versions.dedup();
    // What is too much is cut at the old end and rounded up: whoever comes from there never goes back.
    let versions = &versions[versions.len().saturating_sub(MAX_VERSIONS)..];
    let newest = versions.last().copied().unwrap_or_default();
    let everybody = takers(open, GameVersion::default());
    let mut lots = vec![Lot { versions: Some(newest.0 + 1..=u32::MAX), takers: Vec::new() }];
    let mut from = 0;
    for version in versions {
        let takers = takers(open, *version);
        let is_everybody = takers.len() == everybody.len()
            && takers.iter().zip(&everybody).all(|(one, other)| std::ptr::eq(*one, *other));
        if !is_everybody {
            lots.push(Lot { versions: Some(from..=version.0), takers });
        }
        from = version.0 + 1;
    }
    lots.push(Lot { versions: None, takers: everybody });
    lots
}

/// The condition of a lot on the version header.
pub(super) fn of_versions(versions: &RangeInclusive<u32>) -> HeaderMatcher {
    let range = Int64Range {
        start: i64::from(*versions.start()),
        end: (i64::from(*versions.end()) + 1).min(NO_VERSION),
    };
    HeaderMatcher {
        name: VERSION_HEADER.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::RangeMatch(range)),
        ..Default::default()
    }
}

/// What players of a share at one path have in common.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    /// Of this share at this path; the listener passes no cookie over that is another's.
    pub(super) tag: String,
    path: &'a PathPrefix,
    secure: bool,
    affinity: Affinity,
    versioned: bool,
}

impl<'a> Ticket<'a> {
    /// The ticket of a held path; none where its holder is alone by choice. `first` decides for the share.
    pub(super) fn of(held: &'a Held, first: &Server) -> Option<Self> {
        let share = first.desired.share.as_ref()?;
        // Neither a name nor a path has a blank.
        let tag = xxh3_64(format!("{} {} {}", share.namespace, share.name, held.path).as_bytes()) >> 32;
        Some(Self {
            tag: format!("{tag:08x}"),
            path: &held.path,
            secure: first.desired.https_redirect,
            affinity: first.desired.affinity,
            versioned: held.holders.iter().any(|server| server.desired.version > GameVersion::default()),
        })
    }

    /// True when players find their member again.
    pub(super) fn is_sticky(&self) -> bool {
        self.affinity == Affinity::Cookie
    }

    /// What the listener puts into [`PLAYER_HEADER`] for a player of this member.
    pub(super) fn player(&self, server: &Server) -> String {
        format!("{}.{}", self.tag, self.member(server))
    }

    /// A word for a member that says nothing of it: 48 bits of a hash, for no other share's the same.
    fn member(&self, server: &Server) -> String {
        format!("{:012x}", xxh3_64(format!("{} {}", self.tag, server.id).as_bytes()) >> 16)
    }

    /// What a player who is sent to this member is told to bring again; none when there is nothing to remember.
    pub(super) fn cookie(&self, server: &Server) -> Option<HeaderValueOption> {
        if !self.is_sticky() && !self.versioned {
            return None;
        }
        let mut value = format!("tidegate={}.{}", self.tag, server.desired.version.0);
        if self.is_sticky() {
            value = format!("{value}.{}", self.member(server));
        }
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{value}; Path={}; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{secure}", self.path);
        Some(HeaderValueOption {
            // Beside the server's own cookies, never in their place.
            append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
            ..header("set-cookie", &text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Priority, Share};
    use crate::testkit::server_with;
    use std::sync::Arc;

    fn member(name: &str, version: u32, priority: u8) -> Arc<Server> {
        server_with(name, &["x"], |server| {
            server.desired.share = Some(Share { namespace: "default".into(), name: "s".into() });
            server.desired.version = GameVersion(version);
            server.desired.priority = Priority(priority);
        })
    }

    /// What a player with this version in the cookie, or without one, can get: names, or nobody.
    fn got(members: &[Arc<Server>], cookie: Option<u32>) -> Vec<String> {
        let open: Vec<_> = members.iter().map(|server| &**server).collect();
        let lots = lots(&open);
        let fits = |lot: &&Lot<'_>| match (&lot.versions, cookie) {
            (None, _) => true,
            (Some(versions), Some(cookie)) => versions.contains(&cookie),
            (Some(_), None) => false,
        };
        let lot = lots.iter().find(fits).unwrap();
        lot.takers.iter().map(|server| server.id.name().to_owned()).collect()
    }

    #[test]
    fn nobody_goes_below_the_version_of_the_cookie() {
        let members = [member("a", 1, 0), member("b", 3, 0), member("c", 3, 0), member("d", 7, 0)];
        for (cookie, expected) in [
            (None, &["a", "b", "c", "d"][..]),
            (Some(0), &["a", "b", "c", "d"]),
            (Some(1), &["a", "b", "c", "d"]),
            (Some(2), &["b", "c", "d"]),
            (Some(3), &["b", "c", "d"]),
            (Some(4), &["d"]),
            (Some(7), &["d"]),
            (Some(8), &[]),
            (Some(9_999_999), &[]),
        ] {
            assert_eq!(got(&members, cookie), expected, "{cookie:?}");
        }
    }

    #[test]
    fn the_version_comes_before_the_priority_and_the_priority_before_the_weight() {
        let members = [member("a", 1, 9), member("b", 2, 5), member("c", 2, 0)];
        assert_eq!(got(&members, None), ["a"]);
        assert_eq!(got(&members, Some(1)), ["a"]);
        assert_eq!(got(&members, Some(2)), ["b"], "a is preferred, but too old");
    }

    /// Against the rule itself, for any versions and priorities, too many of them as well.
    #[test]
    fn any_share_keeps_the_rule() {
        let seed = crate::testkit::seed();
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..500 {
            let members: Vec<_> = (0..random.usize(1..20))
                .map(|n| member(&n.to_string(), random.u32(0..14), random.u8(0..3)))
                .collect();
            let mut versions: Vec<_> = members.iter().map(|m| m.desired.version.0).collect();
            versions.sort_unstable();
            versions.dedup();
            let kept = &versions[versions.len().saturating_sub(MAX_VERSIONS)..];
            for cookie in [None].into_iter().chain((0..16).map(Some)) {
                let least = match cookie {
                    None => Some(0),
                    Some(cookie) if versions.len() <= MAX_VERSIONS => Some(cookie),
                    Some(cookie) => kept.iter().copied().find(|version| *version >= cookie).or(Some(cookie)),
                };
                let may = || members.iter().filter(|m| Some(m.desired.version.0) >= least);
                let highest = may().map(|m| m.desired.priority).max();
                let expected: Vec<_> = may()
                    .filter(|m| Some(m.desired.priority) == highest)
                    .map(|m| m.id.name().to_owned())
                    .collect();
                assert_eq!(got(&members, cookie), expected, "{cookie:?}, round {round}, seed {seed}");
            }
        }
    }

    #[test]
    fn a_cookie_names_no_server_and_no_address() {
        let one = member("lobby-0", 3, 0);
        let held = Held { path: PathPrefix::parse("/eu").unwrap(), holders: vec![one.clone()] };
        let sticky = server_with("lobby-0", &["x"], |server| {
            server.desired.share.clone_from(&one.desired.share);
            server.desired.affinity = Affinity::Cookie;
            server.desired.https_redirect = true;
        });
        let text = Ticket::of(&held, &sticky).unwrap().cookie(&one).unwrap().header.unwrap().value;
        let (value, attributes) = text.split_once("; ").unwrap();
        let mut parts = value.strip_prefix("tidegate=").unwrap().split('.');
        let (tag, version, member) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(tag.len() == 8 && is_hex(tag) && member.len() == 12 && is_hex(member), "{text}");
        assert_eq!((version, parts.next()), ("3", None));
        assert_eq!(attributes, "Path=/eu; Max-Age=86400; HttpOnly; SameSite=Lax; Secure");
    }
}
