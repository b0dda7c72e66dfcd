//! A fleet directory: the source for games without a cluster, and for a cluster's objects as kubectl prints
//! them. Reads `*.yaml`, `*.yml`, `*.json` and
//! `*.ndjson` directly in it (links are followed, dot-files are not read) and watches for changes.
//! Objects of Kubernetes are read by `kinds`, as those of a watched cluster are.
//!
//! - A file is read again alone when it is closed after writing or renamed into place, and 50 ms after
//!   the last write to one that stays open; what that one lacks is removed when it is closed, or after
//!   five seconds. Only servers that really changed are told.
//! - A part that does not parse is reported with its line; the rest of the file is taken. **While a file
//!   has such parts, is empty, too large or unreadable, nothing it held is removed.**
//! - A file that is deleted or renamed away, and not back a quarter of a second later, takes its
//!   objects with it. A directory that vanishes does not: everything is kept until it is back.
//! - Of objects with one kind, namespace and name, the first by file name and place counts.
//! - Events may be lost (full queues, links into other directories), so that every ten seconds all
//!   stats are compared. A Kubernetes `ConfigMap` swaps its hidden `..data` link: that does it, too.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::kinds::Rules;
use crate::model::{Problem, Source};
use crate::owner::Burst;

mod content;
mod disk;
mod fleet;
mod found;
mod item;
mod ledger;
mod notice;
mod object;
mod parse;
mod raw;
mod strict;
mod watcher;

pub use found::{Checked, Found, read_paths};
pub use raw::{Raw, RawFleet, Read, raw_fleet, raw_values, read_file, read_value, syntax};

/// Servers of our own kind.
pub const SOURCE: Source = Source("files");
/// Servers of OpenKruiseGame's objects: not the same as a watched cluster's, should somebody read both.
pub const OKG: Source = Source("files-okg");
/// Servers of Agones' objects.
pub const AGONES: Source = Source("files-agones");
/// All that a directory reports.
pub const SOURCES: [Source; 3] = [SOURCE, OKG, AGONES];

/// What to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory.
    pub dir: PathBuf,
    /// How objects are read.
    pub rules: Rules,
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
    /// Why objects are kept that no file shows any more.
    pub held: Option<String>,
    /// What to mend, by file and place (`fleet.yaml:12`); a thousand at most.
    pub problems: Vec<Problem>,
    /// What is left out and is no mistake: kinds that nobody reads here, by file.
    pub notes: Vec<Problem>,
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
        for note in self.notes.iter().filter(|note| !before.notes.contains(note)) {
            info!(at = %note.field, what = %note.why, "in the fleet directory");
        }
        match (&before.held, &self.held) {
            (before, Some(why)) if before.as_ref() != Some(why) => warn!(%why, "objects are held"),
            (Some(_), None) => info!("no objects are held any more"),
            _ => {}
        }
    }
}

/// Watches the directory until `events` is closed. The first batch has an `Event::Reset` of each source.
pub async fn run(
    options: Options,
    events: mpsc::Sender<Burst>,
    report: watch::Sender<Report>,
) -> anyhow::Result<()> {
    watcher::run(Arc::new(options), events, report).await
}
