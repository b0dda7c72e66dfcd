//! A fleet directory: the source for games without a cluster. Reads `*.yaml`, `*.yml`, `*.json` and
//! `*.ndjson` directly in it (links are followed, dot-files are not read) and watches for changes.
//!
//! - A file is read again alone when it is closed after writing or renamed into place, and 50 ms after
//!   the last write to one that stays open; what that one lacks is removed when it is closed, or after
//!   five seconds. Only servers that really changed are told.
//! - A part that does not parse is reported with its line; the rest of the file is taken. **While a file
//!   has such parts, is empty, too large or unreadable, nothing it held is removed.**
//! - A file that is deleted or renamed away, and not back a quarter of a second later, takes its
//!   servers with it. A directory that vanishes does not: everything is kept until it is back.
//! - Of servers with one namespace and name, the first by file name and place counts.
//! - Events may be lost (full queues, links into other directories), so that every ten seconds all
//!   stats are compared. A Kubernetes `ConfigMap` swaps its hidden `..data` link: that does it, too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::cli::MAX_FILE_BYTES;
use crate::model::{Problem, ProblemKind, Server, ServerId, Source};
use crate::owner::Burst;

mod content;
mod disk;
mod fleet;
mod notice;
mod object;
mod parse;
mod watcher;

use disk::Look;
use parse::{Format, Place};

/// This source.
pub const SOURCE: Source = Source("files");

/// What to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory.
    pub dir: PathBuf,
    /// Hosts for servers that name none, in the grammar of `tidegate.dev/host`.
    pub host_template: Option<String>,
    /// Larger files are reported and not read.
    pub max_file_bytes: u64,
}

/// How the directory fares: what belongs to files and not to servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// True once the directory was listed and its servers told.
    pub listed: bool,
    /// How many fleet files there are.
    pub files: usize,
    /// Why servers are kept that no file shows any more.
    pub held: Option<String>,
    /// What to mend, by file and place (`fleet.yaml:12`); a thousand at most.
    pub problems: Vec<Problem>,
    /// How many times a file was read.
    pub reads: u64,
}

impl Report {
    /// Logs what is new since `before` and what is mended, each once.
    fn tell(&self, before: &Self) {
        let old: BTreeSet<_> = before.problems.iter().collect();
        let new: BTreeSet<_> = self.problems.iter().collect();
        for problem in new.difference(&old) {
            warn!(at = %problem.field, why = %problem.why, "problem in the fleet directory");
        }
        for problem in old.difference(&new) {
            info!(at = %problem.field, why = %problem.why, "problem in the fleet directory is mended");
        }
        match (&before.held, &self.held) {
            (before, Some(why)) if before.as_ref() != Some(why) => warn!(%why, "servers are held"),
            (Some(_), None) => info!("no servers are held any more"),
            _ => {}
        }
    }
}

/// Watches the directory until `events` is closed. The first batch is an `Event::Reset`.
pub async fn run(
    options: Options,
    events: mpsc::Sender<Burst>,
    report: watch::Sender<Report>,
) -> anyhow::Result<()> {
    watcher::run(Arc::new(options), events, report).await
}

/// What [`read_paths`] found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The servers in order, each with its file.
    pub servers: Vec<(PathBuf, Arc<Server>)>,
    /// What is wrong with the files; what is wrong with a server is in the server.
    pub problems: Vec<Problem>,
}

/// Reads files, and the fleet files of directories, once. Blocking.
pub fn read_paths(paths: &[PathBuf], host_template: Option<&str>) -> Checked {
    let mut checked = Checked::default();
    let mut files = Vec::new();
    let mut wrong = |path: &Path, why: String| {
        checked.problems.push(Problem::new(ProblemKind::Unreadable, path.display().to_string(), why));
    };
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
    let mut seen = HashSet::new();
    let mut held: HashMap<ServerId, (String, Place)> = HashMap::new();
    for path in files.into_iter().filter(|path| seen.insert(path.clone())) {
        let name = path.display().to_string();
        // A file that is named outright is read whatever its name; JSON is YAML, too.
        let format = Format::of(&path).unwrap_or(Format::Yaml);
        let Look::Found { content, .. } = disk::look(&path, &name, format, MAX_FILE_BYTES, host_template)
        else {
            checked.problems.push(Problem::new(ProblemKind::Unreadable, name, "does not exist"));
            continue;
        };
        let mut problems = content.problems;
        for (place, server) in content.servers {
            if let Some((file, first)) = held.get(&server.id) {
                let why = content::held_already(&server.id, file, *first);
                problems.push(content::problem(&name, place, ProblemKind::Duplicate, why));
            } else {
                held.insert(server.id.clone(), (name.clone(), place));
                checked.servers.push((path.clone(), server));
            }
        }
        problems.sort_by_key(|(place, _)| *place);
        checked.problems.extend(problems.into_iter().map(|(_, problem)| problem));
    }
    checked
}
