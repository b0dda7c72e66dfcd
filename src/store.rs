//! The shared handle on the snapshot: one writer, many readers, a wake-up.
//!
//! A reader holds the lock only while it picks what to send: it takes clones that share the bytes, and
//! encodes and writes them with the lock released. Before every source has listed there is nothing to
//! read: `synced` is awaited first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

use crate::engine::Commit;
use crate::snapshot::{Applied, Revision, Snapshot};

/// Tombstones kept at least. A stream that missed more is ended and compares when it comes back.
const TOMBSTONES: usize = 10_000;

/// The snapshot, and the news of its changes.
#[derive(Debug)]
pub struct Store {
    snapshot: RwLock<Snapshot>,
    revision: watch::Sender<Revision>,
    synced: watch::Sender<bool>,
    whole: AtomicBool,
}

impl Default for Store {
    fn default() -> Self {
        let snapshot = Snapshot::default();
        let revision = watch::Sender::new(snapshot.revision());
        Self {
            snapshot: RwLock::new(snapshot),
            revision,
            synced: watch::Sender::new(false),
            whole: AtomicBool::new(false),
        }
    }
}

impl Store {
    /// Takes a commit and wakes every stream if it changed anything. Only the engine's task calls this.
    pub fn commit(&self, commit: Commit) -> Applied {
        let (applied, revision) = {
            let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            let applied = snapshot.apply(commit.changes);
            // Twice the number that is kept, so that the work of forgetting is paid once a fill.
            if snapshot.tombstones() > 2 * TOMBSTONES {
                let floor = snapshot.floor_keeping(TOMBSTONES / 2);
                snapshot.compact(floor);
            }
            (applied, snapshot.revision())
        };
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
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

    /// Wakes at each commit that changed something.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Turns true once every source has listed.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }
}
