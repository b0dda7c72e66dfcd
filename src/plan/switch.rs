//! New players of a host moved from one group of a share's servers to another, by weights.
//!
//! How far a switch has come is read from the weights of those who take players, each time anew. So nothing has to
//! be remembered, and one that was cut off, in the middle of a step too, goes on from where it is.

use std::collections::BTreeMap;

use super::target::{held, listed};
use super::{Change, MAX_VERSION, Member, Selector, VERSION, WEIGHT};
use crate::claims::Claims;
use crate::model::{Host, PathPrefix, Server, ServerId, Share};
use crate::translate::is_open;

/// The weight of a server of the group that each of its servers takes most: the default, where that says it finely enough.
const FULL: usize = 100;
/// The same where a group is so large that some of it would get nobody.
const FINER: usize = 1000;
/// So near to a step, in points, is on it: weights are whole numbers.
const NEAR: f64 = 0.75;

/// The two groups of every share that holds a host.
#[derive(Clone, Debug)]
pub struct Switch {
    /// By the share's name.
    pub rollouts: Vec<Rollout>,
}

/// The two groups of one share.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The share.
    pub share: Share,
    /// Those who do not match, by their places among the members.
    pub from: Vec<usize>,
    /// Those who match.
    pub to: Vec<usize>,
}

/// One step of a switch, over all its shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// How much of new players goes to the matching group behind it, by share.
    pub percents: Vec<u8>,
    /// To be written first: weights that rise, so that at no time nobody is open.
    pub raise: Vec<Change>,
    /// To be written when those are there.
    pub lower: Vec<Change>,
}

impl Step {
    /// True when there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.raise.is_empty() && self.lower.is_empty()
    }
}

impl Switch {
    /// The groups of the shares that hold `host`, `HOST` or `HOST/PATH`; `to` tells them apart. An error says what
    /// is in the way, and what to do.
    pub fn of(
        members: &[Member],
        host: &str,
        to: &Selector,
        namespace: Option<&str>,
    ) -> Result<Self, String> {
        let (host, path) = wanted(host)?;
        let shares = shares(members, &host, path.as_ref())?;
        let mut rollouts = Vec::new();
        for (share, ids) in shares {
            if let Some(other) = namespace.filter(|namespace| *namespace != &*share.namespace) {
                return Err(format!(
                    "{host} is held by share {}, and not in namespace {other:?}; say -n {}",
                    title(&share),
                    share.namespace
                ));
            }
            let mine = |at: &usize| members[*at].servers.iter().any(|server| ids.contains(&server.id));
            let all: Vec<usize> = (0..members.len()).filter(mine).collect();
            let (matching, others): (Vec<usize>, Vec<usize>) =
                all.iter().partition(|at| to.matches(&members[**at].labels));
            if matching.is_empty() {
                let there: Vec<_> = all.iter().map(|at| &members[*at]).collect();
                return Err(format!(
                    "--to {:?} matches none of the {} servers of share {}; {}",
                    to.to_string(),
                    all.len(),
                    title(&share),
                    held(to, &there)
                ));
            }
            if others.is_empty() {
                return Err(format!(
                    "--to {:?} matches every one of the {} servers of share {}, so that there is nobody to come from; the servers of the other version have to name the same host and tidegate.dev/share: {}",
                    to.to_string(),
                    all.len(),
                    title(&share),
                    share.name
                ));
            }
            rollouts.push(Rollout { share, from: others, to: matching });
        }
        Ok(Self { rollouts })
    }

    /// What is in the way of bringing `goal` percent of new players to the matching groups.
    pub fn check(&self, members: &[Member], goal: u8) -> Result<(), String> {
        for rollout in &self.rollouts {
            let share = title(&rollout.share);
            let open = |group: &[usize]| group.iter().any(|at| rollout.is_open(&members[*at]));
            if goal > 0 && !open(&rollout.to) {
                let why = rollout.to.iter().map(|at| {
                    let mode =
                        members[*at].servers.first().map_or("gone", |server| server.desired.mode.word());
                    format!("{} ({mode})", members[*at].name)
                });
                return Err(format!(
                    "none of the {} servers of share {share} to switch to takes players: {}; make one ready first",
                    rollout.to.len(),
                    listed(why)
                ));
            }
            let mut priorities = BTreeMap::new();
            for at in rollout.from.iter().chain(&rollout.to) {
                let priority = members[*at].effective("tidegate.dev/priority").unwrap_or("the default");
                priorities.entry(priority.to_owned()).or_insert(&members[*at].name);
            }
            if priorities.len() > 1 {
                let held = priorities.iter().map(|(priority, name)| format!("{name}: {priority}"));
                return Err(format!(
                    "the servers of share {share} have several values of tidegate.dev/priority ({}), and weights only count among equals; give both groups the same",
                    listed(held)
                ));
            }
        }
        Ok(())
    }

    /// The versions by which a player who came to the matching group stays there: one above all of the other, unless
    /// it is above already. To be written before any weight.
    pub fn versions(&self, members: &[Member]) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        for rollout in &self.rollouts {
            let version = |at: &usize| version(&members[*at]);
            let from = rollout.from.iter().map(version).max().unwrap_or_default();
            if rollout.to.iter().all(|at| version(at) > from) {
                continue;
            }
            if from >= MAX_VERSION {
                return Err(format!(
                    "share {} has {VERSION}: {from} on a server to come from, and {MAX_VERSION} is the greatest; number its versions anew, lower",
                    title(&rollout.share)
                ));
            }
            let new = (from + 1).to_string();
            let late = rollout.to.iter().filter(|at| version(at) <= from);
            changes.extend(late.filter_map(|at| members[*at].change(*at, VERSION, Some(&new))));
        }
        Ok(changes)
    }

    /// How much of new players goes to the matching group, in percent, by share.
    pub fn present(&self, members: &[Member]) -> Vec<f64> {
        self.rollouts.iter().map(|rollout| rollout.present(members)).collect()
    }

    /// The shares whose weights are those of no whole percent: a switch was cut off within a step, or somebody wrote
    /// weights by hand.
    pub fn uneven(&self, members: &[Member]) -> Vec<&Rollout> {
        let is_uneven = |rollout: &&Rollout| {
            let all = || rollout.from.iter().chain(&rollout.to);
            let is_touched = all().any(|at| members[*at].effective(WEIGHT).is_some());
            let wanted = rollout.wanted(members, nearest(rollout.present(members)));
            is_touched && all().zip(wanted).any(|(at, weight)| rollout.weight(&members[*at]) != weight)
        };
        self.rollouts.iter().filter(is_uneven).collect()
    }

    /// The next step to `goal`, `size` points long at most; it is empty when all is as it should be.
    pub fn step(&self, members: &[Member], goal: u8, size: u8) -> Step {
        let mut step = Step::default();
        for rollout in &self.rollouts {
            let percent = next(rollout.present(members), goal, size);
            step.percents.push(percent);
            let all = rollout.from.iter().chain(&rollout.to);
            for (at, weight) in all.zip(rollout.wanted(members, percent)) {
                let held = rollout.weight(&members[*at]);
                if held == weight {
                    continue;
                }
                let change = members[*at].change(*at, WEIGHT, Some(&weight.to_string()));
                if weight > held { &mut step.raise } else { &mut step.lower }.extend(change);
            }
        }
        step
    }
}

impl Rollout {
    fn server<'a>(&self, member: &'a Member) -> Option<&'a Server> {
        let mut servers = member.servers.iter().map(|server| &**server);
        servers.find(|server| server.desired.share.as_ref() == Some(&self.share))
    }

    /// True when it takes new players, if it has any weight.
    fn is_open(&self, member: &Member) -> bool {
        self.server(member).is_some_and(is_open)
    }

    fn weight(&self, member: &Member) -> u16 {
        self.server(member).map_or(0, |server| server.desired.weight.0)
    }

    fn present(&self, members: &[Member]) -> f64 {
        let sum = |group: &[usize]| -> u32 {
            let open = group.iter().map(|at| &members[*at]).filter(|member| self.is_open(member));
            open.map(|member| u32::from(self.weight(member))).sum()
        };
        let (from, to) = (sum(&self.from), sum(&self.to));
        if from + to == 0 { 0.0 } else { 100.0 * f64::from(to) / f64::from(from + to) }
    }

    /// The weights at this percentage: of those who do not match, then of those who do. Players are shared among those
    /// who are open; one that is not has the weight of its fellows, for when it opens.
    fn wanted(&self, members: &[Member], percent: u8) -> Vec<u16> {
        let open = |group: &[usize]| -> Vec<bool> {
            let open: Vec<_> = group.iter().map(|at| self.is_open(&members[*at])).collect();
            // In a group without any they are all alike.
            if open.contains(&true) { open } else { vec![true; open.len()] }
        };
        let groups = [open(&self.from), open(&self.to)];
        let count = |group: &[bool]| group.iter().filter(|open| **open).count();
        let (from, to) = weights(count(&groups[0]), count(&groups[1]), percent);
        let mut wanted = Vec::with_capacity(self.from.len() + self.to.len());
        for (open, weights) in groups.iter().zip([from, to]) {
            let usual = weights.first().copied().unwrap_or_default();
            let mut weights = weights.into_iter();
            wanted.extend(open.iter().map(|open| if *open { weights.next() } else { None }.unwrap_or(usual)));
        }
        wanted
    }
}

/// Weights for `from` and `to` servers by which `percent` of new players go to the latter: within half a point, for
/// any number of servers. Servers of one group differ by one at most.
pub fn weights(from: usize, to: usize, percent: u8) -> (Vec<u16>, Vec<u16>) {
    let percent = usize::from(percent.min(100));
    let parts = [100 - percent, percent];
    let counts = [from, to];
    if parts.contains(&0) || counts.contains(&0) {
        let all = |group: usize| vec![if parts[group] == 0 { 0 } else { 100 }; counts[group]];
        return (all(0), all(1));
    }
    // The group whose servers take most each sets the measure, and the other's weights are parts of that.
    let most = usize::from(parts[1] * counts[0] > parts[0] * counts[1]);
    let least = 1 - most;
    let sum = |full: usize| {
        let (dividend, divisor) = (full * counts[most] * parts[least], parts[most]);
        (dividend + divisor / 2) / divisor
    };
    let full = if sum(FULL) >= counts[least] { FULL } else { FINER };
    let of = |group: usize| -> Vec<u16> {
        if group == most {
            return vec![u16::try_from(full).unwrap_or(u16::MAX); counts[group]];
        }
        let (each, more) = (sum(full) / counts[group], sum(full) % counts[group]);
        let weight = |at: usize| u16::try_from(each + usize::from(at < more)).unwrap_or(u16::MAX);
        (0..counts[group]).map(weight).collect()
    };
    (of(0), of(1))
}

/// The percentage of the next step: on a multiple of the step's size, or at the goal.
fn next(present: f64, goal: u8, size: u8) -> u8 {
    let (end, size) = (f64::from(goal), f64::from(size.max(1)));
    if (present - end).abs() < NEAR {
        goal
    } else if present < end {
        nearest((((present + NEAR) / size).floor() * size + size).min(end))
    } else {
        nearest((((present - NEAR) / size).ceil() * size - size).max(end))
    }
}

/// A percentage as a whole number.
fn nearest(percent: f64) -> u8 {
    (0..=100)
        .min_by(|one, other| {
            let far = |number: &u8| (f64::from(*number) - percent).abs();
            far(one).total_cmp(&far(other))
        })
        .unwrap_or_default()
}

fn version(member: &Member) -> u32 {
    let read = |text: &str| text.trim().parse().ok().filter(|version| *version <= MAX_VERSION);
    member.effective(VERSION).and_then(read).unwrap_or_default()
}

fn title(share: &Share) -> String {
    format!("{}/{}", share.namespace, share.name)
}

/// `HOST` or `HOST/PATH`, as a player types it.
fn wanted(text: &str) -> Result<(Host, Option<PathPrefix>), String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    if bare.contains('<') {
        return Err(format!(
            "{text:?} is a template; name a host that players type, such as the one it makes for a server: `tidegate check` or `tidegate routes` lists them"
        ));
    }
    let at = bare.find('/').unwrap_or(bare.len());
    let host = Host::parse(&bare[..at]).map_err(|why| format!("{text:?} is no host: it {why}"))?;
    let path = match &bare[at..] {
        "" => None,
        path => Some(PathPrefix::parse(path).map_err(|why| format!("{text:?}: the path {path:?} {why}"))?),
    };
    Ok((host, path))
}

/// The shares that hold a host, each with those of its servers who do.
fn shares(
    members: &[Member],
    host: &Host,
    path: Option<&PathPrefix>,
) -> Result<Vec<(Share, Vec<ServerId>)>, String> {
    let mut claims = Claims::default();
    for server in members.iter().flat_map(|member| &member.servers) {
        claims.replace(None, Some(server));
    }
    let paths: Vec<_> =
        claims.paths(host).filter(|held| path.is_none_or(|path| path == *held)).cloned().collect();
    if paths.is_empty() {
        return Err(unheld(&claims, host, path));
    }
    let views: Vec<_> = std::iter::once(None).chain(claims.named(host).map(Some)).collect();
    let mut shares: BTreeMap<(String, String), (Share, Vec<ServerId>)> = BTreeMap::new();
    for (path, view) in paths.iter().flat_map(|path| views.iter().map(move |view| (path, *view))) {
        let holders = claims.holders(host, path, view);
        for server in &holders {
            let Some(share) = &server.desired.share else {
                return Err(alone(&claims, host, path, server));
            };
            let key = (share.namespace.to_string(), share.name.to_string());
            let (_, ids) = shares.entry(key).or_insert_with(|| (share.clone(), Vec::new()));
            if !ids.contains(&server.id) {
                ids.push(server.id.clone());
            }
        }
    }
    if shares.is_empty() {
        return Err(unheld(&claims, host, path));
    }
    Ok(shares.into_values().collect())
}

fn alone(claims: &Claims, host: &Host, path: &PathPrefix, holder: &Server) -> String {
    let others = claims.claimants(host, path).filter(|server| server.id != holder.id);
    let others = others.map(|server| server.id.name().to_owned());
    format!(
        "{host} is held by {} alone, which names no share (others who claim it: {}); to switch, write tidegate.dev/share: NAME, one name, on every server of both versions, and tidegate.dev/host: {host} on all of them",
        holder.id.name(),
        listed(others)
    )
}

fn unheld(claims: &Claims, host: &Host, path: Option<&PathPrefix>) -> String {
    let paths: Vec<_> = claims.paths(host).map(ToString::to_string).collect();
    if let (Some(path), false) = (path, paths.is_empty()) {
        return format!("nobody holds {host}{path}; its paths are {}", listed(paths.into_iter()));
    }
    let mut hosts: Vec<_> = claims.hosts().map(ToString::to_string).collect();
    if hosts.is_empty() {
        return format!(
            "nobody holds {host}, nor any other host: was the right fleet, namespace and ingress class named?"
        );
    }
    hosts.sort();
    hosts.sort_by_key(|known| strsim::damerau_levenshtein(known, host.as_str()));
    format!(
        "nobody holds {host}; the nearest of {} hosts: {}",
        hosts.len(),
        listed(hosts.into_iter().take(3))
    )
}
