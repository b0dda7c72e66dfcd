//! Who holds a route when several servers claim it, and to whom the others lost.
//!
//! The oldest claimant wins, whatever order the claims came in. Claimants of the winner's share hold
//! the route with it. A claim is only seen by the gateways of its server, so the winner may differ
//! from gateway to gateway. Every look-up is by key; nothing here scans the fleet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Gateway, Host, PathPrefix, RouteKey, Server, ServerId};

/// A server at one route key, ordered by age, then by its name.
#[derive(Clone, Debug)]
struct Claim(Arc<Server>);

impl Claim {
    fn rank(&self) -> (crate::model::Age, &ServerId) {
        (self.0.age, &self.0.id)
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Claim {}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[derive(Debug, Default)]
struct HostClaims {
    paths: BTreeMap<PathPrefix, BTreeSet<Claim>>,
    /// The gateways that claims on this host name, with the number of those claims.
    named: BTreeMap<Gateway, usize>,
}

/// All claims on all hosts.
#[derive(Debug, Default)]
pub struct Claims {
    hosts: HashMap<Host, HostClaims>,
    lost: usize,
}

/// How a server fares at one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds the key, alone or with its share.
    Holds,
    /// This older server holds it.
    LostTo(ServerId),
}

impl Claims {
    /// Puts `new` in the place of `old`, the same server as it was held. Returns the keys whose holders
    /// or their content may have changed, with the oldest claimant that each had before.
    pub fn replace(
        &mut self,
        old: Option<&Arc<Server>>,
        new: Option<&Arc<Server>>,
    ) -> BTreeMap<RouteKey, Option<ServerId>> {
        let keys = old.into_iter().chain(new).flat_map(|server| &server.desired.routes);
        let touched =
            keys.map(|key| (key.clone(), self.oldest(key).map(|server| server.id.clone()))).collect();
        if let Some(server) = old {
            for key in &server.desired.routes {
                self.withdraw(server, key);
            }
        }
        if let Some(server) = new {
            for key in &server.desired.routes {
                self.enter(server, key);
            }
        }
        touched
    }

    /// The oldest claimant of a key.
    pub fn oldest(&self, key: &RouteKey) -> Option<&Arc<Server>> {
        self.claimants(&key.host, &key.path).next()
    }

    fn enter(&mut self, server: &Arc<Server>, key: &RouteKey) {
        let host = self.hosts.entry(key.host.clone()).or_default();
        let claims = host.paths.entry(key.path.clone()).or_default();
        self.lost -= losers(claims);
        claims.insert(Claim(server.clone()));
        self.lost += losers(claims);
        for gateway in server.desired.gateways.named() {
            *host.named.entry(gateway.clone()).or_default() += 1;
        }
    }

    fn withdraw(&mut self, server: &Arc<Server>, key: &RouteKey) {
        let Some(host) = self.hosts.get_mut(&key.host) else { return };
        if let Some(claims) = host.paths.get_mut(&key.path) {
            self.lost -= losers(claims);
            claims.remove(&Claim(server.clone()));
            self.lost += losers(claims);
            if claims.is_empty() {
                host.paths.remove(&key.path);
            }
        }
        for gateway in server.desired.gateways.named() {
            if let Some(count) = host.named.get_mut(gateway) {
                *count -= 1;
                if *count == 0 {
                    host.named.remove(gateway);
                }
            }
        }
        if host.paths.is_empty() {
            self.hosts.remove(&key.host);
        }
    }

    /// The servers that hold a path of a host, oldest first; none when no claim is seen by `view`.
    pub fn holders(&self, host: &Host, path: &PathPrefix, view: Option<&Gateway>) -> Vec<Arc<Server>> {
        self.hosts
            .get(host)
            .and_then(|host| host.paths.get(path))
            .map_or_else(Vec::new, |claims| holders(claims, view))
    }

    /// How `server` fares at `key`: a loss on any of its gateways is a loss. `None` when it has no claim there.
    pub fn standing(&self, server: &Server, key: &RouteKey) -> Option<Standing> {
        let claims = self.hosts.get(&key.host)?.paths.get(&key.path)?;
        let claim = claims.iter().find(|claim| claim.0.id == server.id)?;
        Some(match winner_over(claims, claim) {
            Some(winner) => Standing::LostTo(winner.id.clone()),
            None => Standing::Holds,
        })
    }

    /// How many claims lose, over all keys.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// All who claim a path of a host, oldest first.
    pub fn claimants(&self, host: &Host, path: &PathPrefix) -> impl Iterator<Item = &Arc<Server>> {
        let claims = self.hosts.get(host).and_then(|host| host.paths.get(path));
        claims.into_iter().flatten().map(|claim| &claim.0)
    }

    /// Every host with a claim, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.keys()
    }

    /// The gateways that a host's claims name.
    pub fn named(&self, host: &Host) -> impl Iterator<Item = &Gateway> {
        self.hosts.get(host).into_iter().flat_map(|host| host.named.keys())
    }

    /// The paths of a host that have claims, by segment.
    pub fn paths(&self, host: &Host) -> impl Iterator<Item = &PathPrefix> {
        self.hosts.get(host).into_iter().flat_map(|host| host.paths.keys())
    }

    /// The paths of a host with this first segment. O(log paths + those found).
    pub fn paths_of_segment<'a>(
        &'a self,
        host: &Host,
        segment: &'a str,
    ) -> impl Iterator<Item = &'a PathPrefix> {
        let from = PathPrefix::of_segment(segment);
        self.hosts
            .get(host)
            .into_iter()
            .flat_map(move |host| host.paths.range((Bound::Included(from.clone()), Bound::Unbounded)))
            .map(|(path, _)| path)
            .take_while(move |path| path.first_segment() == segment)
    }

    /// The gateways that the claims on one path name.
    pub fn named_at<'a>(&'a self, host: &Host, path: &PathPrefix) -> impl Iterator<Item = &'a Gateway> {
        let claims = self.hosts.get(host).and_then(|host| host.paths.get(path));
        claims.into_iter().flatten().flat_map(|claim| claim.0.desired.gateways.named())
    }
}

/// Who keeps a claim from its key: the oldest claim that meets it on some gateway, unless the two share.
/// (Whoever is older and on that gateway would meet it there, too: the oldest that does has won there.)
fn winner_over<'a>(claims: &'a BTreeSet<Claim>, claim: &Claim) -> Option<&'a Arc<Server>> {
    let first = claims.iter().find(|other| other.0.desired.gateways.meet(&claim.0.desired.gateways))?;
    let shares = claim.0.desired.share.is_some() && claim.0.desired.share == first.0.desired.share;
    (first != claim && !shares).then_some(&first.0)
}

fn losers(claims: &BTreeSet<Claim>) -> usize {
    claims.iter().filter(|claim| winner_over(claims, claim).is_some()).count()
}

fn holders(claims: &BTreeSet<Claim>, view: Option<&Gateway>) -> Vec<Arc<Server>> {
    let mut seen = claims.iter().map(|claim| &claim.0).filter(|server| server.desired.gateways.include(view));
    let Some(winner) = seen.next() else { return Vec::new() };
    let mut holders = vec![winner.clone()];
    if let Some(share) = &winner.desired.share {
        holders.extend(seen.filter(|server| server.desired.share.as_ref() == Some(share)).cloned());
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Age, Gateways, Share};
    use crate::testkit::{server, server_with};

    fn key(text: &str) -> RouteKey {
        crate::testkit::key(text)
    }

    fn held(claims: &Claims, text: &str, view: Option<&str>) -> Vec<String> {
        let key = key(text);
        let view = view.map(|name| Gateway(name.into()));
        claims
            .holders(&key.host, &key.path, view.as_ref())
            .iter()
            .map(|server| server.id.name().to_owned())
            .collect()
    }

    #[test]
    fn the_oldest_holds_and_the_next_takes_over() {
        let mut claims = Claims::default();
        let young = server_with("a", &["x"], |server| server.age = Age::Since(2));
        let old = server_with("b", &["x"], |server| server.age = Age::Since(1));
        claims.replace(None, Some(&young));
        assert_eq!(held(&claims, "x", None), ["a"]);
        assert_eq!(claims.replace(None, Some(&old)), BTreeMap::from([(key("x"), Some(young.id.clone()))]));
        assert_eq!(held(&claims, "x", None), ["b"]);
        assert_eq!(claims.standing(&young, &key("x")), Some(Standing::LostTo(old.id.clone())));
        assert_eq!(claims.lost(), 1);
        claims.replace(Some(&old), None);
        assert_eq!(held(&claims, "x", None), ["a"]);
        assert_eq!(claims.standing(&young, &key("x")), Some(Standing::Holds));
        assert_eq!(claims.lost(), 0);
    }

    #[test]
    fn equal_ages_are_told_apart_by_name() {
        let mut claims = Claims::default();
        for name in ["c", "a", "b"] {
            claims.replace(None, Some(&server(name, &["x"])));
        }
        assert_eq!(held(&claims, "x", None), ["a"]);
    }

    #[test]
    fn a_share_holds_together_and_strangers_lose() {
        let share = |server: &mut Server| {
            server.desired.share = Some(Share { namespace: "default".into(), name: "lobby".into() });
        };
        let mut claims = Claims::default();
        for member in [server_with("a", &["x"], share), server("b", &["x"]), server_with("c", &["x"], share)]
        {
            claims.replace(None, Some(&member));
        }
        assert_eq!(held(&claims, "x", None), ["a", "c"]);
        let stranger = server("b", &["x"]);
        assert!(matches!(claims.standing(&stranger, &key("x")), Some(Standing::LostTo(_))));
    }

    #[test]
    fn each_gateway_has_its_own_winner() {
        let mut claims = Claims::default();
        let eu =
            |server: &mut Server| server.desired.gateways = Gateways::Named([Gateway("eu".into())].into());
        claims.replace(None, Some(&server_with("a", &["x"], eu)));
        let b = server("b", &["x"]);
        claims.replace(None, Some(&b));
        assert!(
            matches!(claims.standing(&b, &key("x")), Some(Standing::LostTo(_))),
            "a loss on one is a loss"
        );
        assert_eq!(held(&claims, "x", Some("eu")), ["a"]);
        assert_eq!(held(&claims, "x", Some("us")), ["b"]);
        assert_eq!(held(&claims, "x", None), ["b"]);
    }

    #[test]
    fn a_host_without_claims_is_forgotten() {
        let mut claims = Claims::default();
        let one = server_with("a", &["x/a", "x/b"], |server| {
            server.desired.gateways = Gateways::Named([Gateway("eu".into())].into());
        });
        claims.replace(None, Some(&one));
        claims.replace(Some(&one), None);
        assert_eq!(claims.hosts().count(), 0);
    }

    #[test]
    fn the_paths_of_a_segment_are_found_without_their_neighbours() {
        let mut claims = Claims::default();
        claims.replace(None, Some(&server("a", &["x/a", "x/a/b", "x/a-b", "x/ab", "x"])));
        let paths: Vec<_> = claims.paths_of_segment(&key("x").host, "a").map(PathPrefix::as_str).collect();
        assert_eq!(paths, ["/a", "/a/b"]);
    }
}
