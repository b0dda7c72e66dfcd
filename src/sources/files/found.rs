//! What files come to when they are read once, for people: every server with its place, samples of what
//! manifests would make, and why an object makes no server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::disk::{self, Look};
use super::fleet::Fleet;
use super::item::Item;
use super::parse::{Format, Place};
use super::{AGONES, OKG};
use crate::cli::MAX_FILE_BYTES;
use crate::kinds::{Key, Kind, Object, Rules, agones, okg};
use crate::model::{Problem, ProblemKind, Server};

/// A server, and where it stands.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// The place in it, such as `12` or `1 items[3]`.
    pub place: String,
    /// The server.
    pub server: Arc<Server>,
    /// It does not exist: the set or fleet at this place would make such a one.
    pub is_sample: bool,
}

/// What [`read_paths`] found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The servers by file and place.
    pub servers: Vec<Found>,
    /// What is wrong with the files; what is wrong with a server is in the server.
    pub problems: Vec<Problem>,
    /// What is no mistake but may surprise: objects that make no server, and why.
    pub notes: Vec<Problem>,
}

/// Reads files, and the fleet files of directories, once. A set or fleet without servers of its own in the
/// files shows up to `samples` of what it would make. Blocking.
pub fn read_paths(paths: &[PathBuf], rules: &Rules, samples: usize) -> Checked {
    let mut fleet = Fleet::new(rules.clone());
    let mut problems = Vec::new();
    let mut wrong = |path: &Path, why: String| {
        problems.push(Problem::new(ProblemKind::Unreadable, path.display().to_string(), why));
    };
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match disk::list(path) {
            Ok(list) if list.is_empty() => {
                wrong(path, "holds no *.yaml, *.yml, *.json or *.ndjson file".into());
            }
            Ok(list) => files.extend(list.into_iter().map(|(name, _)| path.join(name))),
            Err(error) => wrong(path, format!("can't be read: {error}")),
        }
    }
    let mut by_name: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files {
        let name = path.display().to_string();
        if by_name.contains_key(&name) {
            continue;
        }
        // A file that is named outright is read whatever its name; JSON is YAML, too.
        let format = Format::of(&path).unwrap_or(Format::Yaml);
        match disk::look(&path, &name, format, MAX_FILE_BYTES, rules) {
            Look::Found { content, .. } => _ = fleet.replace(&name, content),
            Look::Gone => {
                let content = Content::unreadable(&name, ProblemKind::Unreadable, "does not exist".into());
                fleet.replace(&name, content);
            }
        }
        by_name.insert(name, path);
    }
    problems.extend(fleet.ledger().problems());
    let survey = survey(&fleet, rules, samples);
    let servers = survey.placed.into_iter().map(|Placed { file, place, server, is_sample }| Found {
        file: by_name.get(file).cloned().unwrap_or_default(),
        place: place.to_string(),
        server,
        is_sample,
    });
    let servers = servers.collect();
    let mut notes: Vec<_> =
        survey.unrouted.into_iter().map(|((file, why), some)| some.note(file, &why)).collect();
    notes.extend(fleet.ledger().notes());
    Checked { servers, problems, notes }
}

/// A server at its place.
struct Placed<'a> {
    file: &'a str,
    place: Place,
    server: Arc<Server>,
    is_sample: bool,
}

/// Objects of a file that make no server for one reason.
struct Unrouted {
    /// The first.
    place: Place,
    name: String,
    others: usize,
}

impl Unrouted {
    fn note(self, file: &str, why: &str) -> Problem {
        let some = match self.others {
            0 => format!("{} is", self.name),
            others => format!("{} and {others} more are", self.name),
        };
        let field = format!("{file}:{}", self.place);
        // Notes are not counted by their kind: it has none of its own.
        Problem::new(ProblemKind::Missing, field, format!("{some} not routed: {why}"))
    }
}

#[derive(Default)]
struct Survey<'a> {
    placed: Vec<Placed<'a>>,
    /// By file and reason.
    unrouted: BTreeMap<(&'a str, String), Unrouted>,
}

/// Goes through the files as a reader does, by name and place.
fn survey<'a>(fleet: &'a Fleet, rules: &Rules, samples: usize) -> Survey<'a> {
    let objects = fleet.objects();
    let mut items: Vec<_> = fleet.ledger().all().collect();
    items.sort_by_key(|(file, place, _)| (*file, *place));
    // Sets and fleets whose servers are in the files: of these nobody needs samples.
    let alive: HashSet<Key> = items.iter().filter_map(|(_, _, item)| maker(item)).collect();
    let mut absent: HashMap<Key, Vec<&Arc<Server>>> = HashMap::new();
    for (set, server) in objects.absent() {
        absent.entry(set).or_default().push(server);
    }
    let mut survey = Survey::default();
    for (file, place, item) in items {
        let object = match item {
            Item::Server(server) => {
                survey.placed.push(Placed { file, place, server: server.clone(), is_sample: false });
                continue;
            }
            Item::Object(object) => object,
        };
        let key = object.key();
        let mut found: Vec<Arc<Server>> = objects.told(&key).to_vec();
        let is_sample = !alive.contains(&key);
        match &**object {
            Object::GameServerSet(_) if !is_sample => {
                found.extend(absent.remove(&key).into_iter().flatten().cloned());
                found.sort_by(|one, other| one.id.cmp(&other.id));
            }
            Object::GameServerSet(set) => found = distinct(okg::sample(set, samples, rules, OKG)),
            Object::AgonesFleet(fleet) if is_sample => {
                found = distinct(agones::sample(fleet, samples, rules, AGONES));
            }
            _ => {}
        }
        let is_sample = is_sample && matches!(key.kind, Kind::GameServerSet | Kind::AgonesFleet);
        if found.is_empty()
            && (is_sample || !matches!(key.kind, Kind::GameServerSet | Kind::AgonesFleet))
            && let Some(why) = objects.unrouted(&key)
        {
            let name = format!("{} {}/{}", key.kind.name(), key.namespace, key.name);
            let some = survey.unrouted.entry((file, why));
            some.and_modify(|some| some.others += 1).or_insert(Unrouted { place, name, others: 0 });
        }
        survey.placed.extend(found.into_iter().map(|server| Placed { file, place, server, is_sample }));
    }
    survey
}

/// The set or fleet that made an object.
fn maker(item: &Item) -> Option<Key> {
    let Item::Object(object) = item else { return None };
    let (kind, name) = match &**object {
        Object::Pod(pod) => (Kind::GameServerSet, okg::set_of(pod)?),
        Object::AgonesGameServer(server) => (Kind::AgonesFleet, agones::fleet_of(server)?),
        _ => return None,
    };
    Some(Key { kind, namespace: object.meta().namespace.clone(), name: name.into() })
}

/// Samples have one author: what is wrong with several is said with the first.
fn distinct(samples: Vec<Server>) -> Vec<Arc<Server>> {
    let mut said = HashSet::new();
    let samples = samples.into_iter().map(|mut sample| {
        sample.problems.retain(|problem| said.insert(problem.clone()));
        Arc::new(sample)
    });
    samples.collect()
}
