//! The shared handle on the snapshot: one writer, many readers, a wake-up.
//!
//! A reader holds the lock only while it picks what to send: it takes clones that share the bytes, and
//! encodes and writes them with the lock released. Before every source has listed there is nothing to
//! read: `synced` is awaited first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::watch;

use crate::engine::Commit;
use crate::snapshot::{Applied, Revision, Snapshot};

/// About how many tombstones are kept, of some 200 bytes each: the removal of a large fleet, which every stream is
/// to hear of in its order. A stream that missed more is ended, and compares when it comes back.
const TOMBSTONES: usize = 100_000;

/// So many commits are remembered with their time: those of a slow stream's last seconds.
const COMMITS: usize = 1024;

/// The snapshot, and the news of its changes.
#[derive(Debug)]
pub struct Store {
    snapshot: RwLock<Snapshot>,
    revision: watch::Sender<Revision>,
    /// The last commits, oldest first.
    commits: Mutex<VecDeque<(Revision, Instant)>>,
    synced: watch::Sender<bool>,
    whole: AtomicBool,
    tombstones: usize,
}

impl Default for Store {
    fn default() -> Self {
        let snapshot = Snapshot::default();
        let revision = watch::Sender::new(snapshot.revision());
        Self {
            snapshot: RwLock::new(snapshot),
            revision,
            commits: Mutex::default(),
            synced: watch::Sender::new(false),
            whole: AtomicBool::new(false),
            tombstones: TOMBSTONES,
        }
    }
}

impl Store {
    /// Takes a commit and wakes every stream if it changed anything. Only the engine's task calls this.
    pub fn commit(&self, commit: Commit) -> Applied {
        let (applied, revision) = {
            let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            // Before the commit: nobody can have heard yet of what this one removes. And only at twice the
            // number that is kept, so that the work of forgetting is paid once a fill.
            if snapshot.tombstones() > 2 * self.tombstones {
                let floor = snapshot.floor_keeping(self.tombstones / 2);
                snapshot.compact(floor);
            }
            let applied = snapshot.apply(commit.changes);
            (applied, snapshot.revision())
        };
        self.revision.send_if_modified(|seen| {
            let is_news = std::mem::replace(seen, revision) != revision;
            if is_news {
                let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
                if commits.len() >= COMMITS {
                    commits.pop_front();
                }
                commits.push_back((revision, Instant::now()));
            }
            is_news
        });
        applied
    }

    /// Says that every source has listed: streams may be answered from now on.
    pub fn set_synced(&self) {
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// Says whether what nobody knows can be taken for gone, and wakes every stream when it now can.
    pub fn set_whole(&self, whole: bool) {
        if self.whole.swap(whole, Ordering::Relaxed) != whole {
            self.revision.send_modify(|_| {});
        }
    }

    /// True when what nobody knows can be taken for gone.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Reads the snapshot; `read` should be short, as it holds the writer up.
    pub fn read<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The revision of the last commit.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// When the first commit was behind this revision, of those that are remembered; `None` when there is none.
    pub fn committed_behind(&self, revision: Revision) -> Option<Instant> {
        let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let first = commits.partition_point(|(committed, _)| *committed <= revision);
        commits.get(first).map(|(_, at)| *at)
    }

    /// Wakes at each commit that changed something.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// True once every source has listed.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Turns true once every source has listed.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::model::Event;
    use crate::testkit::{SOURCE, server};

    #[test]
    fn the_first_commit_behind_a_revision_is_known_by_its_time() {
        let store = Store::default();
        let mut engine = Engine::new([SOURCE]);
        let mut heard = vec![(store.revision(), Instant::now())];
        for name in ["a", "b", "c"] {
            let servers = vec![server(name, &["x.test"])];
            store.commit(engine.apply([Event::Reset { source: SOURCE, servers }]));
            heard.push((store.revision(), Instant::now()));
        }
        for pair in heard.windows(2) {
            let at = store.committed_behind(pair[0].0).unwrap();
            assert!(pair[0].1 <= at && at <= pair[1].1);
        }
        assert_eq!(store.committed_behind(store.revision()), None);
    }

    #[test]
    fn a_removal_of_any_size_is_heard_by_those_who_were_up_to_date() {
        let store = Store { tombstones: 10, ..Store::default() };
        let mut engine = Engine::new([SOURCE]);
        for round in 0..3 {
            let servers = (0..100).map(|i| server(&format!("s{i}"), &[&format!("s{i}.x")])).collect();
            store.commit(engine.apply([Event::Reset { source: SOURCE, servers }]));
            let heard = store.revision();
            store.commit(engine.apply([Event::Reset { source: SOURCE, servers: Vec::new() }]));
            assert!(store.read(Snapshot::floor) <= heard, "round {round}");
            assert!(store.read(Snapshot::tombstones) <= 200 + 10, "round {round}: what is old is forgotten");
        }
    }
}
