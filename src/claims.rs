//! Who holds a route when several servers claim it, and to whom the others lost.
//!
//! The oldest claimant wins, whatever order the claims came in. Claimants of the winner's share hold
//! the route with it. A claim is only seen by the gateways of its server, so the winner may differ
//! from gateway to gateway. Every look-up is by key; nothing here scans the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::model::{Gateway, Host, PathPrefix, RouteKey, Server, ServerId};

/// A server at one route key, ordered by age, then by its name.
#[derive(Clone, Debug)]
struct Claim(Arc<Server>);

impl Claim {
    fn rank(&self) -> (crate::model::Age, &ServerId) {
        (self.0.age, &self.0.id)
    }

    /// True when each is seen wherever the other is, and both are seen.
    fn has_gateways_of(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.0.desired.gateways, &other.0.desired.gateways);
        ours == theirs && ours.meet(theirs)
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.0.desired.share.is_some() && self.0.desired.share == other.0.desired.share
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

/// Who claims one key. Nearly all keys have one claimant.
#[derive(Debug)]
enum Claimants {
    One(Claim),
    Many(Box<Crowd>),
}

/// Several claims on one key, and what is counted of them, so that a claim more does not look at all.
#[derive(Debug, Default)]
struct Crowd {
    claims: BTreeSet<Claim>,
    /// Those that lose.
    lost: usize,
    /// Those whose gateways are not those of the first.
    odd: usize,
    /// Those that name a share.
    sharing: usize,
}

/// The paths of one host. Nearly all hosts have one.
#[derive(Debug)]
enum Paths {
    One(PathPrefix, Claimants),
    Many(BTreeMap<PathPrefix, Claimants>),
}

#[derive(Debug)]
struct HostClaims {
    host: Host,
    paths: Paths,
    /// The gateways that claims on this host name, with the number of those claims; none if none does.
    #[allow(clippy::box_collection)] // mostly none, which is to cost a pointer a host and not a map
    named: Option<Box<BTreeMap<Gateway, usize>>>,
}

/// All claims on all hosts.
#[derive(Debug, Default)]
pub struct Claims {
    hosts: HashTable<HostClaims>,
    hasher: DefaultHashBuilder,
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

impl Claimants {
    fn iter(&self) -> impl Iterator<Item = &Claim> {
        let (one, many) = match self {
            Self::One(claim) => (Some(claim), None),
            Self::Many(crowd) => (None, Some(&crowd.claims)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Those that are seen by `view`, oldest first. Where all name the same gateways the first decides: a
    /// crowd of strangers is not looked through.
    fn seen_by(&self, view: Option<&Gateway>) -> impl Iterator<Item = &Arc<Server>> {
        let is_uniform = matches!(self, Self::Many(crowd) if crowd.odd == 0);
        let is_seen = move |claim: &&Claim| claim.0.desired.gateways.include(view);
        let none = is_uniform && !self.iter().next().is_some_and(|first| is_seen(&first));
        self.iter().take_while(move |_| !none).filter(is_seen).map(|claim| &claim.0)
    }

    fn lost(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(crowd) => crowd.lost,
        }
    }

    fn holds(&self, claim: &Claim) -> bool {
        match self {
            Self::One(one) => one == claim,
            Self::Many(crowd) => crowd.claims.contains(claim),
        }
    }

    fn insert(&mut self, claim: Claim) {
        let crowd = match self {
            Self::Many(crowd) => crowd,
            Self::One(one) if *one == claim => return *one = claim,
            Self::One(one) => {
                let mut crowd = Box::<Crowd>::default();
                crowd.insert(one.clone());
                *self = Self::Many(crowd);
                return self.insert(claim);
            }
        };
        crowd.insert(claim);
    }

    /// Takes a claim out; true when none is left.
    fn remove(&mut self, claim: &Claim) -> bool {
        match self {
            Self::One(one) => one == claim,
            Self::Many(crowd) => {
                crowd.remove(claim);
                if crowd.claims.len() == 1
                    && let Some(last) = crowd.claims.pop_first()
                {
                    *self = Self::One(last);
                }
                false
            }
        }
    }
}

impl Crowd {
    fn insert(&mut self, claim: Claim) {
        self.sharing += usize::from(claim.0.desired.share.is_some());
        let first = self.claims.first().filter(|first| **first < claim);
        let is_plain = self.odd == 0 && first.is_some_and(|first| first.has_gateways_of(&claim));
        let loses = first.is_some_and(|first| !first.shares_with(&claim));
        self.claims.insert(claim);
        if is_plain {
            self.lost += usize::from(loses);
        } else {
            self.recount();
        }
    }

    fn remove(&mut self, claim: &Claim) {
        let was_first = self.claims.first() == Some(claim);
        let Some(claim) = self.claims.take(claim) else { return };
        self.sharing -= usize::from(claim.0.desired.share.is_some());
        match self.claims.first() {
            Some(first) if self.odd == 0 && !was_first => {
                self.lost -= usize::from(!first.shares_with(&claim));
            }
            // The next is first of all in the place of the one that went.
            Some(_) if self.odd == 0 && self.sharing == 0 => self.lost = self.claims.len() - 1,
            _ => self.recount(),
        }
    }

    /// Looks at every claim: where they name other gateways than the first, or it is another that is.
    fn recount(&mut self) {
        let Some(first) = self.claims.first() else { return (self.lost, self.odd) = (0, 0) };
        self.odd = self.claims.iter().filter(|claim| !first.has_gateways_of(claim)).count();
        self.lost =
            self.claims.iter().filter(|claim| winner_over(self.claims.iter(), claim).is_some()).count();
    }
}

impl Paths {
    fn iter(&self) -> impl Iterator<Item = (&PathPrefix, &Claimants)> {
        let (one, many) = match self {
            Self::One(path, claimants) => (Some((path, claimants)), None),
            Self::Many(paths) => (None, Some(paths)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn get(&self, path: &PathPrefix) -> Option<&Claimants> {
        match self {
            Self::One(one, claimants) => (one == path).then_some(claimants),
            Self::Many(paths) => paths.get(path),
        }
    }

    fn get_mut(&mut self, path: &PathPrefix) -> Option<&mut Claimants> {
        match self {
            Self::One(one, claimants) => (one == path).then_some(claimants),
            Self::Many(paths) => paths.get_mut(path),
        }
    }

    fn insert(&mut self, path: PathPrefix, claim: Claim) {
        if let Self::One(one, claimants) = self {
            // What stands in its place until the map does is thrown away with it.
            let first = std::mem::replace(claimants, Claimants::One(claim.clone()));
            *self = Self::Many([(one.clone(), first)].into());
        }
        if let Self::Many(paths) = self {
            paths.insert(path, Claimants::One(claim));
        }
    }

    /// Takes a path out; true when none is left.
    fn remove(&mut self, path: &PathPrefix) -> bool {
        match self {
            Self::One(one, _) => one == path,
            Self::Many(paths) => {
                paths.remove(path);
                if paths.len() == 1
                    && let Some((path, claimants)) = paths.pop_first()
                {
                    *self = Self::One(path, claimants);
                }
                false
            }
        }
    }
}

impl Claims {
    /// Puts `new` in the place of `old`, the same server as it was held.
    pub fn replace(&mut self, old: Option<&Arc<Server>>, new: Option<&Arc<Server>>) {
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
    }

    /// The oldest claimant of a key.
    pub fn oldest(&self, key: &RouteKey) -> Option<&Arc<Server>> {
        self.claimants(&key.host, &key.path).next()
    }

    fn hash(&self, host: &Host) -> u64 {
        self.hasher.hash_one(host.as_str())
    }

    fn enter(&mut self, server: &Arc<Server>, key: &RouteKey) {
        let hash = self.hash(&key.host);
        let claim = Claim(server.clone());
        let named: Vec<_> = server.desired.gateways.named().cloned().collect();
        let Some(host) = self.hosts.find_mut(hash, |held| held.host == key.host) else {
            let paths = Paths::One(key.path.clone(), Claimants::One(claim));
            let named =
                (!named.is_empty()).then(|| Box::new(named.into_iter().map(|name| (name, 1)).collect()));
            let hasher = &self.hasher;
            let host = HostClaims { host: key.host.clone(), paths, named };
            self.hosts.insert_unique(hash, host, |held| hasher.hash_one(held.host.as_str()));
            return;
        };
        if let Some(claimants) = host.paths.get_mut(&key.path) {
            self.lost -= claimants.lost();
            claimants.insert(claim);
            self.lost += claimants.lost();
        } else {
            host.paths.insert(key.path.clone(), claim);
        }
        for gateway in named {
            *host.named.get_or_insert_default().entry(gateway).or_default() += 1;
        }
    }

    fn withdraw(&mut self, server: &Arc<Server>, key: &RouteKey) {
        let hash = self.hash(&key.host);
        let Ok(mut found) = self.hosts.find_entry(hash, |held| held.host == key.host) else { return };
        let host = found.get_mut();
        let claim = Claim(server.clone());
        let Some(claimants) = host.paths.get_mut(&key.path).filter(|claimants| claimants.holds(&claim))
        else {
            return;
        };
        self.lost -= claimants.lost();
        let is_empty = claimants.remove(&claim);
        self.lost += if is_empty { 0 } else { claimants.lost() };
        if is_empty && host.paths.remove(&key.path) {
            found.remove();
            return;
        }
        if let Some(named) = &mut host.named {
            for gateway in server.desired.gateways.named() {
                if let Some(count) = named.get_mut(gateway) {
                    *count -= 1;
                    if *count == 0 {
                        named.remove(gateway);
                    }
                }
            }
            if named.is_empty() {
                host.named = None;
            }
        }
    }

    fn host(&self, host: &Host) -> Option<&HostClaims> {
        self.hosts.find(self.hash(host), |held| held.host == *host)
    }

    fn at(&self, host: &Host, path: &PathPrefix) -> Option<&Claimants> {
        self.host(host)?.paths.get(path)
    }

    /// The servers that hold a path of a host, oldest first; none when no claim is seen by `view`.
    pub fn holders(&self, host: &Host, path: &PathPrefix, view: Option<&Gateway>) -> Vec<Arc<Server>> {
        self.at(host, path).map_or_else(Vec::new, |claimants| holders(claimants, view))
    }

    /// True when a claim on a path of a host is seen by `view`.
    pub fn is_held(&self, host: &Host, path: &PathPrefix, view: Option<&Gateway>) -> bool {
        self.at(host, path).is_some_and(|claimants| claimants.seen_by(view).next().is_some())
    }

    /// How `server` fares at `key`: a loss on any of its gateways is a loss. `None` when it has no claim there.
    pub fn standing(&self, server: &Arc<Server>, key: &RouteKey) -> Option<Standing> {
        let claimants = self.at(&key.host, &key.path)?;
        let claim = Claim(server.clone());
        claimants.holds(&claim).then(|| match winner_over(claimants.iter(), &claim) {
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
        self.at(host, path).into_iter().flat_map(Claimants::iter).map(|claim| &claim.0)
    }

    /// Every host with a claim, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|held| &held.host)
    }

    /// The gateways that a host's claims name.
    pub fn named(&self, host: &Host) -> impl Iterator<Item = &Gateway> {
        self.host(host).and_then(|host| host.named.as_deref()).into_iter().flat_map(BTreeMap::keys)
    }

    /// The paths of a host that have claims, by segment.
    pub fn paths(&self, host: &Host) -> impl Iterator<Item = &PathPrefix> {
        self.host(host).into_iter().flat_map(|host| host.paths.iter()).map(|(path, _)| path)
    }

    /// The paths of a host with this first segment. O(log paths + those found).
    pub fn paths_of_segment<'a>(
        &'a self,
        host: &Host,
        segment: &'a str,
    ) -> impl Iterator<Item = &'a PathPrefix> {
        let from = PathPrefix::of_segment(segment);
        let (one, many) = match self.host(host).map(|host| &host.paths) {
            Some(Paths::One(path, _)) => (Some(path), None),
            Some(Paths::Many(paths)) => (None, Some(paths)),
            None => (None, None),
        };
        let behind = many
            .into_iter()
            .flat_map(move |paths| paths.range((Bound::Included(from.clone()), Bound::Unbounded)));
        let paths = one.into_iter().chain(behind.map(|(path, _)| path));
        paths.take_while(move |path| path.first_segment() == segment)
    }

    /// The gateways that the claims on one path name.
    pub fn named_at<'a>(&'a self, host: &Host, path: &PathPrefix) -> impl Iterator<Item = &'a Gateway> {
        self.claimants(host, path).flat_map(|server| server.desired.gateways.named())
    }
}

/// Who keeps a claim from its key: the oldest claim that meets it on some gateway, unless the two share.
/// (Whoever is older and on that gateway would meet it there, too: the oldest that does has won there.)
fn winner_over<'a>(mut claims: impl Iterator<Item = &'a Claim>, claim: &Claim) -> Option<&'a Arc<Server>> {
    let first = claims.find(|other| other.0.desired.gateways.meet(&claim.0.desired.gateways))?;
    (first != claim && !first.shares_with(claim)).then_some(&first.0)
}

fn holders(claims: &Claimants, view: Option<&Gateway>) -> Vec<Arc<Server>> {
    let mut seen = claims.seen_by(view);
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
        claims.replace(None, Some(&old));
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
