//! What an operator's command changes: targets and wishes in, annotations of objects out. Nothing is read or written
//! here; `operate` does both.
//!
//! The objects are the only memory there is. A command compares what it wants with what stands on them, so it can
//! be said twice, and a rollout that was cut off goes on from where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{PathPrefix, Server, Weight};
use crate::spec::{self, MAX_ITEMS, MAX_TEXT};

mod selector;
mod switch;
mod target;

pub use selector::{BadSelector, Selector};
pub use switch::{Rollout, Step, Switch, weights};
pub use target::{Name, Target};

/// `tidegate.dev/drain`
pub const DRAIN: &str = "tidegate.dev/drain";
/// `tidegate.dev/maintenance`
pub const MAINTENANCE: &str = "tidegate.dev/maintenance";
/// `tidegate.dev/maintenance-paths`
pub const MAINTENANCE_PATHS: &str = "tidegate.dev/maintenance-paths";
/// `tidegate.dev/weight`
pub const WEIGHT: &str = "tidegate.dev/weight";
/// `tidegate.dev/version`: a player who came to one version is not sent to a lower one.
pub const VERSION: &str = "tidegate.dev/version";
/// The greatest version.
pub const MAX_VERSION: u32 = 1_000_000;

/// An object whose annotations an operator may change, and the servers that it makes.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file and line where it stands; none in a cluster.
    pub at: Option<String>,
    /// Its labels, and those of its pod.
    pub labels: BTreeMap<String, String>,
    /// The fleet that it is of.
    pub fleet: Option<String>,
    /// Its own annotations of ours.
    pub annotations: BTreeMap<String, String>,
    /// Where else its annotations may come from, the nearest first: what is not its own is looked up here.
    pub behind: Vec<Layer>,
    /// Why it takes no new players whatever its annotations say.
    pub shut_by: Option<String>,
    /// What it was read to, one a port.
    pub servers: Vec<Arc<Server>>,
}

/// Annotations of another object that count for a server, too.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Whose: `GameServerSet eu/lobby`.
    pub whose: String,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Member {
    /// As people name it: `Server default/game-0`.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// The annotation that counts, its own or one behind it.
    pub fn effective(&self, annotation: &str) -> Option<&str> {
        let own = self.annotations.get(annotation);
        let behind = || self.behind.iter().find_map(|layer| layer.annotations.get(annotation));
        own.or_else(behind).map(String::as_str)
    }

    /// The change of one annotation of its own; none when it is so already.
    fn change(&self, at: usize, annotation: &'static str, new: Option<&str>) -> Option<Change> {
        let old = self.annotations.get(annotation);
        let differs = old.map(String::as_str) != new;
        differs.then(|| Change { member: at, annotation, old: old.cloned(), new: new.map(str::to_owned) })
    }
}

/// One annotation of one object, as it is and as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object, by its place among the members.
    pub member: usize,
    /// The annotation, with its prefix.
    pub annotation: &'static str,
    /// Its value now.
    pub old: Option<String>,
    /// Its value then; none: it is taken away.
    pub new: Option<String>,
}

/// What is wished for the targets of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No new players, or sent to this URL.
    Drain(Option<String>),
    /// New players again.
    Undrain,
    /// New requests are told a text: on every path, or on these.
    Maintenance {
        /// What players are told.
        text: String,
        /// The paths; none: all.
        paths: Vec<String>,
    },
    /// No maintenance.
    MaintenanceOff,
    /// So much of a share's players.
    Weight(u16),
}

/// What a wish comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is to be written.
    pub changes: Vec<Change>,
    /// What people should know besides.
    pub notes: Vec<String>,
}

impl Wish {
    /// Checks what was typed, before anything is read. An error names the flag, its value and what was expected.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Drain(Some(url)) if spec::redirect(url).is_none() => Err(format!(
                "--redirect {url:?} is no URL that players can be sent to; expected one such as https://lobby.example.com/ (http or https, a host, no user, no #)"
            )),
            Self::Maintenance { text, .. } if text.len() > MAX_TEXT => Err(format!(
                "--text has {} bytes; players are told {MAX_TEXT} at most: say it shorter",
                text.len()
            )),
            Self::Maintenance { paths, .. } => check_paths(paths),
            Self::Weight(weight) if *weight > Weight::MAX => {
                Err(format!("weight {weight} is too much; expected a whole number from 0 to {}", Weight::MAX))
            }
            _ => Ok(()),
        }
    }

    /// What it changes at these members.
    pub fn plan(&self, members: &[Member], targets: &[usize]) -> Result<Plan, String> {
        let mut plan = Plan::default();
        for at in targets.iter().copied() {
            let member = &members[at];
            let mut set =
                |annotation, new: Option<&str>| plan.changes.extend(member.change(at, annotation, new));
            match self {
                Self::Drain(url) => {
                    if let Some(url) = url {
                        check_loop(member, url)?;
                    }
                    set(DRAIN, Some(url.as_deref().unwrap_or("true")));
                }
                Self::Undrain => set(DRAIN, None),
                Self::Maintenance { text, paths } => {
                    set(MAINTENANCE, Some(text));
                    set(MAINTENANCE_PATHS, (!paths.is_empty()).then(|| paths.join(",")).as_deref());
                }
                Self::MaintenanceOff => {
                    set(MAINTENANCE, None);
                    set(MAINTENANCE_PATHS, None);
                }
                Self::Weight(weight) => set(WEIGHT, Some(&weight.to_string())),
            }
            plan.notes.extend(self.notes(member));
        }
        Ok(plan)
    }

    /// What else has a say in what was wished.
    fn notes(&self, member: &Member) -> Vec<String> {
        let title = member.title();
        let behind = |annotation: &str| {
            let layer = member.behind.iter().find(|layer| layer.annotations.contains_key(annotation))?;
            Some((layer.whose.clone(), layer.annotations[annotation].clone()))
        };
        let mut notes = Vec::new();
        match self {
            Self::Undrain => {
                if let Some((whose, value)) = behind(DRAIN).filter(|(_, value)| value.trim() != "false") {
                    notes.push(format!("{title} is still drained by {whose}: {DRAIN}: {value:?}"));
                }
                notes.extend(
                    member.shut_by.iter().map(|why| format!("{title} still takes no new players: {why}")),
                );
            }
            Self::Maintenance { paths, .. } if paths.is_empty() => {
                if let Some((whose, value)) = behind(MAINTENANCE_PATHS) {
                    notes.push(format!(
                        "{title} is in maintenance on {value} alone, as {whose} says; name --paths for others"
                    ));
                }
            }
            Self::MaintenanceOff => {
                if let Some((whose, _)) = behind(MAINTENANCE) {
                    notes.push(format!("{title} is still in maintenance, as {whose} says"));
                }
            }
            Self::Weight(weight) => {
                let is_alone = member.servers.iter().all(|server| server.desired.share.is_none());
                if *weight > 0 && is_alone {
                    notes.push(format!("{title} is of no share, where only a weight of 0 means anything: write tidegate.dev/share on all who hold its host together"));
                }
            }
            _ => {}
        }
        notes
    }
}

/// The members as they are when the changes are made: for what is shown and not written.
pub fn applied(members: &[Member], changes: &[Change]) -> Vec<Member> {
    let mut members = members.to_vec();
    for Change { member, annotation, new, .. } in changes {
        let member = &mut members[*member];
        match new {
            Some(new) => _ = member.annotations.insert((*annotation).to_owned(), new.clone()),
            None => _ = member.annotations.remove(*annotation),
        }
        let weight = member.effective(WEIGHT).and_then(|text| text.trim().parse().ok()).map(Weight);
        for server in &mut member.servers {
            Arc::make_mut(server).desired.weight = weight.unwrap_or_default();
        }
    }
    members
}

fn check_paths(paths: &[String]) -> Result<(), String> {
    if paths.len() > MAX_ITEMS {
        return Err(format!("--paths names {} paths; at most {MAX_ITEMS} are read", paths.len()));
    }
    let mut seen = BTreeSet::new();
    for path in paths {
        PathPrefix::parse(path)
            .map_err(|why| format!("--paths {path:?} {why}; expected paths such as /shop,/rank"))?;
        if !seen.insert(path) {
            return Err(format!("--paths {path:?} is named twice"));
        }
    }
    Ok(())
}

/// A redirect to a server's own host and path would send its players round and round.
fn check_loop(member: &Member, url: &str) -> Result<(), String> {
    let Some(redirect) = spec::redirect(url) else { return Ok(()) };
    let mut routes = member.servers.iter().flat_map(|server| &server.desired.routes);
    match routes.find(|key| spec::leads_to(&redirect, key)) {
        None => Ok(()),
        Some(key) => Err(format!(
            "--redirect {url:?} leads to {key}, which is {} itself; expected the URL of another server",
            member.title()
        )),
    }
}

#[cfg(test)]
mod tests;
