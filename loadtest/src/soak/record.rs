//! What a run saw, as it stands in its JSON file: what the table, the HTML page and the pictures are made of.
//!
//! Times are milliseconds from the start of their lane. Counts of a sample are of its second alone, never sums
//! from the start, so a second can be left out or added up.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::Summary;

/// A whole run: the same players and the same churn through one front after the other.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    /// What the schedule and the players' choices were drawn from; `--seed` replays it.
    pub(crate) seed: u64,
    /// What was asked for, as flag and value, in the order to be read.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) machine: Machine,
    /// In the order in which they ran.
    pub(crate) lanes: Vec<Lane>,
}

/// What one front did with the work.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Lane {
    /// `tidegate`, `nginx`; behind a comma what tells two lanes of one front apart.
    pub(crate) name: String,
    /// What is particular to this lane, as name and value: versions, timeouts, idle servers.
    pub(crate) facts: Vec<(String, String)>,
    /// One a second, in order.
    pub(crate) samples: Vec<Sample>,
    /// What was done to it, in order.
    pub(crate) marks: Vec<Mark>,
    /// Every closed connection, in order.
    pub(crate) drops: Vec<Drop>,
    /// Every server that the churn added, in order.
    pub(crate) new_servers: Vec<NewServer>,
    /// Milliseconds from the write of a new server to its first 200, of those that answered.
    pub(crate) new_server_ms: Option<Summary>,
    /// Microseconds from a message to its answer, while it was quiet.
    pub(crate) rtt_quiet_us: Option<Summary>,
    /// The same while the churn went on.
    pub(crate) rtt_churn_us: Option<Summary>,
    /// The floor: the same of messages that pass no front, in the same seconds.
    pub(crate) direct_quiet_us: Option<Summary>,
    /// The same while the churn went on.
    pub(crate) direct_churn_us: Option<Summary>,
}

/// What a second, or a message, stands for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Players come in, or what was done dies away: no figure is made of it.
    #[default]
    Between,
    /// Players play and move on, and nothing is done to the fleet.
    Quiet,
    /// The fleet changes.
    Churn,
}

/// A second of a lane.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Sample {
    /// The end of the second.
    pub(crate) at_ms: u64,
    /// What all of it stands for: a second in which a phase began is between two.
    pub(crate) phase: Phase,
    /// Players connected at that moment.
    pub(crate) players: u32,
    /// Microseconds; nothing where no message was answered.
    pub(crate) rtt_p50_us: Option<u64>,
    pub(crate) rtt_p99_us: Option<u64>,
    /// Messages answered.
    pub(crate) messages: u64,
    /// Connections closed whose own server was stopped.
    pub(crate) expected_drops: u32,
    /// Connections closed for any other reason.
    pub(crate) unexpected_drops: u32,
    /// Messages lost, repeated, out of order, or answered by another server.
    pub(crate) lost: u32,
    /// Responses the control plane sent to Envoy; for nginx its reloads.
    pub(crate) pushes: u32,
    /// Game servers the front should route at that moment.
    pub(crate) servers: u32,
    /// The front's memory (and its control plane's), proportional (PSS), in MB.
    pub(crate) rss_mb: f64,
    /// Processes or threads that carry connections: those of nginx that shut down are counted too.
    pub(crate) workers: u32,
}

/// Something that was done to a lane.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_ms: u64,
    /// In words: `wave: 20 servers more`, `kill -9 of the control plane`.
    pub(crate) what: String,
    pub(crate) kind: MarkKind,
}

/// What a mark tells of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MarkKind {
    /// A part of the run begins.
    Phase,
    /// The fleet changes.
    Churn,
    /// Something breaks.
    Fault,
}

/// A closed connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Drop {
    pub(crate) at_ms: u64,
    /// The player's number.
    pub(crate) player: u32,
    /// The name of the server he was on.
    pub(crate) server: String,
    /// His server was stopped by the schedule.
    pub(crate) expected: bool,
    /// What he saw, and what was done around it.
    pub(crate) why: String,
}

/// A server that the churn added.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NewServer {
    /// When its file was written.
    pub(crate) at_ms: u64,
    pub(crate) server: String,
    /// The part of the run it came in: `churn`, `control plane gone`.
    pub(crate) phase: String,
    /// Until its first 200; nothing where it went, or the run ended, before.
    pub(crate) took_ms: Option<f64>,
}
