//! What the players stand before: Tidegate with its Envoy, or nginx.
//!
//! The schedule says what the fleet should be; a front is told, and brings it about in its own way and time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::world::File;

/// The hosts that should lead somewhere, and where to.
pub(crate) type Routes = BTreeMap<String, Vec<End>>;

/// A game server behind a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct End {
    pub(crate) address: SocketAddr,
    /// Its part of the new players among the servers of its host; 1 where it is alone.
    pub(crate) weight: u32,
}

/// What a front has cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Responses sent to Envoy, or reloads, from the start.
    pub(crate) pushes: u64,
    /// Processes or threads that carry connections now.
    pub(crate) workers: u32,
}

/// What the players stand before.
pub(crate) trait Front {
    /// Where players connect; the `Host` header says to whom.
    fn address(&self) -> SocketAddr;

    /// What it should be from now on. Returns at once: it is brought about behind the caller's back, and what
    /// is asked for meanwhile replaces what was asked before. A front that reads files has no need to know.
    fn apply(&mut self, _: impl FnOnce() -> Routes) {}

    /// The same as files of a fleet directory, those that changed: for a front that reads one.
    fn files(&mut self, _: &[File]) -> anyhow::Result<()> {
        Ok(())
    }

    /// What is cheap to know: for once a second.
    fn cost(&self) -> Cost;

    /// Memory now, proportional (PSS), in MB; none where it is not ours to look at. The kernel walks all of a process's
    /// pages for it, which is a core for milliseconds: what is done once a second stands in the players' round trips.
    fn memory_mb(&self) -> f64 {
        0.0
    }
}
