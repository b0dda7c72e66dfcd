//! What was done and what was seen, and the judgement: a player may fall only with his own server.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::front::Cost;
use super::record::{Drop, Mark, MarkKind, NewServer, Phase, Sample};
use crate::stats::{Samples, Summary, micros};

/// A player on a server that was stopped falls within this time; what falls later falls for another reason.
const GRACE_MS: u64 = 5_000;
/// What was done so long before and behind is told with what should not have happened.
const AROUND_MS: (u64, u64) = (3_000, 1_000);
/// A new server may still wait for what a fault has left so long after it: Envoy asks for a control plane that was gone
/// again after up to 5 s. Milliseconds.
const AFTERMATH_MS: u64 = 6_000;
/// Of each thing that should not happen, no more are kept than a person reads.
const KEPT: usize = 200;

/// What should not happen to a message or a player, but for a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    /// No answer in time, with the connection open.
    Lost,
    Repeated,
    Reordered,
    /// An answer by a server that it was not for.
    Stranger,
    /// Nobody let the player in for long.
    LockedOut,
    /// Envoy or its control plane did what they should not.
    Front,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "message lost",
            Self::Repeated => "message repeated",
            Self::Reordered => "message out of order",
            Self::Stranger => "answered by another server",
            Self::LockedOut => "let in nowhere",
            Self::Front => "the front itself",
        })
    }
}

/// One thing that should not have happened.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) at_ms: u64,
    pub(super) wrong: Wrong,
    pub(super) player: u32,
    pub(super) server: String,
    pub(super) detail: String,
}

/// Everything of one lane.
pub(super) struct Oracle {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stopped: HashMap<Arc<str>, u64>,
    marks: Vec<Mark>,
    drops: Vec<Drop>,
    counts: Counts,
    findings: Vec<Finding>,
    new_servers: Vec<NewServer>,
    players: u32,
    phase: Phase,
    rtts: ByPhase,
    /// The same with no front between.
    direct: ByPhase,
    second: Second,
    samples: Vec<Sample>,
    pushes: u64,
}

/// Microseconds from a message to its answer.
#[derive(Default)]
struct ByPhase {
    quiet: Samples,
    churn: Samples,
}

impl ByPhase {
    fn push(&mut self, phase: Phase, after: Duration) {
        match phase {
            Phase::Between => {}
            Phase::Quiet => self.quiet.push(micros(after)),
            Phase::Churn => self.churn.push(micros(after)),
        }
    }
}

/// What happened in a second that is not over.
#[derive(Default)]
struct Second {
    /// A phase began in it.
    is_mixed: bool,
    rtts: Samples,
    expected: u32,
    unexpected: u32,
    wrong: u32,
}

/// Sums of a lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) expected: u64,
    pub(super) unexpected: u64,
    pub(super) wrong: u64,
    /// Players who were refused, and asked elsewhere.
    pub(super) refused: u64,
    pub(super) joins: u64,
    pub(super) changes: u64,
    pub(super) faults: u64,
}

/// What is left of a lane in the end.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) samples: Vec<Sample>,
    pub(super) marks: Vec<Mark>,
    pub(super) drops: Vec<Drop>,
    pub(super) findings: Vec<Finding>,
    pub(super) new_servers: Vec<NewServer>,
    pub(super) counts: Counts,
    pub(super) quiet: Option<Summary>,
    pub(super) churn: Option<Summary>,
    /// The same with no front between.
    pub(super) direct_quiet: Option<Summary>,
    pub(super) direct_churn: Option<Summary>,
}

impl Oracle {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds from the start of the lane.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn phase(&self, what: &str, phase: Phase) {
        self.mark(MarkKind::Phase, what);
        let mut state = self.state();
        state.phase = phase;
        state.second.is_mixed = true;
    }

    pub(super) fn mark(&self, kind: MarkKind, what: impl Into<String>) {
        let at_ms = self.now_ms();
        let mut state = self.state();
        match kind {
            MarkKind::Phase => {}
            MarkKind::Churn => state.counts.changes += 1,
            MarkKind::Fault => state.counts.faults += 1,
        }
        state.marks.push(Mark { at_ms, what: what.into(), kind });
    }

    #[cfg(test)]
    pub(super) fn direct(&self, phase: Phase) -> Option<Summary> {
        let direct = &self.state().direct;
        if phase == Phase::Churn { direct.churn.summary() } else { direct.quiet.summary() }
    }

    /// A server is about to be stopped: to be called before it is.
    pub(super) fn stops(&self, identity: Arc<str>) {
        let now = self.now_ms();
        self.state().stopped.insert(identity, now);
    }

    pub(super) fn joined(&self) {
        let mut state = self.state();
        state.counts.joins += 1;
        state.players += 1;
    }

    /// By his own will.
    pub(super) fn left(&self) {
        self.state().players -= 1;
    }

    pub(super) fn refused(&self) {
        self.state().counts.refused += 1;
    }

    pub(super) fn answered(&self, after: Duration) {
        let mut state = self.state();
        state.counts.messages += 1;
        state.second.rtts.push(micros(after));
        let phase = state.phase;
        state.rtts.push(phase, after);
    }

    /// The same of a message that passed no front.
    pub(super) fn answered_directly(&self, after: Duration) {
        let mut state = self.state();
        let phase = state.phase;
        state.direct.push(phase, after);
    }

    /// A connection was closed by the other side; whether it had to be.
    pub(super) fn dropped(&self, player: u32, identity: &str, unanswered: usize, saw: &str) -> bool {
        let now = self.now_ms();
        let mut state = self.state();
        state.players -= 1;
        let stopped = state.stopped.get(identity).copied();
        let expected = stopped.is_some_and(|at| now <= at + GRACE_MS);
        let why = match stopped {
            Some(at) => format!("its server was stopped {} ms before", now - at.min(now)),
            None => format!("{saw}; its server runs; {unanswered} messages without an answer"),
        };
        if expected {
            state.counts.expected += 1;
            state.second.expected += 1;
        } else {
            state.counts.unexpected += 1;
            state.second.unexpected += 1;
        }
        state.drops.push(Drop { at_ms: now, player, server: identity.to_owned(), expected, why });
        expected
    }

    /// Something else that should not happen.
    pub(super) fn wrong(&self, wrong: Wrong, player: u32, server: &str, detail: impl Into<String>) {
        let at_ms = self.now_ms();
        let mut state = self.state();
        state.counts.wrong += 1;
        state.second.wrong += 1;
        if state.findings.iter().filter(|found| found.wrong == wrong).count() < KEPT {
            let (server, detail) = (server.to_owned(), detail.into());
            state.findings.push(Finding { at_ms, wrong, player, server, detail });
        }
    }

    /// A server that came, from the write of its file to its first 200; nothing where it went before.
    pub(super) fn new_server(&self, server: String, at_ms: u64, took_ms: Option<f64>) {
        let end = self.now_ms();
        let mut state = self.state();
        // What broke since, or shortly before the file was written, may be why it took its time.
        let mut faults: Vec<&str> = Vec::new();
        // Marks are in order, and after an hour there are 65,000.
        let recent = state.marks.partition_point(|mark| mark.at_ms + AFTERMATH_MS <= at_ms);
        for mark in
            state.marks[recent..].iter().filter(|mark| mark.kind == MarkKind::Fault && mark.at_ms <= end)
        {
            let word = mark.what.split(':').next().unwrap_or_default();
            if !faults.contains(&word) {
                faults.push(word);
            }
        }
        // The same faults are one phase, whichever broke first.
        faults.sort_unstable();
        let phase = if faults.is_empty() { "churn".to_owned() } else { faults.join(" + ") };
        state.new_servers.push(NewServer { at_ms, server, phase, took_ms });
    }

    /// What a front has cost before anybody plays is none of the first second's.
    pub(super) fn begins(&self, cost: Cost) {
        self.state().pushes = cost.pushes;
    }

    /// Closes a second.
    pub(super) fn second(&self, cost: Cost, memory_mb: f64, servers: usize) {
        let at_ms = self.now_ms();
        let mut state = self.state();
        let second = std::mem::take(&mut state.second);
        let summary = second.rtts.summary();
        let pushes = cost.pushes.saturating_sub(std::mem::replace(&mut state.pushes, cost.pushes));
        let phase = if second.is_mixed { Phase::Between } else { state.phase };
        let sample = Sample {
            at_ms,
            phase,
            players: state.players,
            rtt_p50_us: summary.map(|summary| whole(summary.p50)),
            rtt_p99_us: summary.map(|summary| whole(summary.p99)),
            messages: summary.map_or(0, |summary| summary.count as u64),
            expected_drops: second.expected,
            unexpected_drops: second.unexpected,
            lost: second.wrong,
            pushes: u32::try_from(pushes).unwrap_or(u32::MAX),
            servers: u32::try_from(servers).unwrap_or(u32::MAX),
            rss_mb: memory_mb,
            workers: cost.workers,
        };
        state.samples.push(sample);
    }

    /// Players who are inside.
    pub(super) fn players(&self) -> u32 {
        self.state().players
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// Whether this was seen so far.
    pub(super) fn has(&self, wrong: Wrong) -> bool {
        self.state().findings.iter().any(|found| found.wrong == wrong)
    }

    /// All that was seen; what comes later is not.
    pub(super) fn finish(&self) -> Seen {
        let mut state = std::mem::take(&mut *self.state());
        // What came behind the last whole second is told with it: the sums of the samples are those of the lane.
        if let Some(last) = state.samples.last_mut() {
            let rest = std::mem::take(&mut state.second);
            last.messages += rest.rtts.summary().map_or(0, |summary| summary.count as u64);
            last.expected_drops += rest.expected;
            last.unexpected_drops += rest.unexpected;
            last.lost += rest.wrong;
        }
        let marks = std::mem::take(&mut state.marks);
        for drop in state.drops.iter_mut().filter(|drop| !drop.expected).take(KEPT) {
            drop.why += &around(&marks, drop.at_ms, &drop.server);
        }
        for found in &mut state.findings {
            found.detail += &around(&marks, found.at_ms, &found.server);
        }
        state.new_servers.sort_by_key(|new| new.at_ms);
        Seen {
            samples: state.samples,
            marks,
            drops: state.drops,
            findings: state.findings,
            new_servers: state.new_servers,
            counts: state.counts,
            quiet: state.rtts.quiet.summary(),
            churn: state.rtts.churn.summary(),
            direct_quiet: state.direct.quiet.summary(),
            direct_churn: state.direct.churn.summary(),
        }
    }
}

/// What broke, and what was done to this server, around a time.
fn around(marks: &[Mark], at_ms: u64, server: &str) -> String {
    let name = server.split('/').next().unwrap_or(server);
    let is_near =
        |mark: &&Mark| (at_ms.saturating_sub(AROUND_MS.0)..=at_ms + AROUND_MS.1).contains(&mark.at_ms);
    let is_told = |mark: &&Mark| {
        mark.kind != MarkKind::Churn || (!name.is_empty() && mark.what.split(' ').any(|word| word == name))
    };
    let mut text = String::new();
    for mark in marks.iter().filter(is_near).filter(is_told).take(12) {
        let apart = Duration::from_millis(at_ms.abs_diff(mark.at_ms));
        let side = if mark.at_ms <= at_ms { "before" } else { "after" };
        // Writing to a String does not fail.
        _ = write!(text, "; {:.1} s {side}: {}", apart.as_secs_f64(), mark.what);
    }
    text
}

/// Microseconds without a fraction.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(micros: f64) -> u64 {
    micros.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_falls_with_his_server_is_expected_and_nobody_else() {
        let oracle = Oracle::new();
        for _ in 0..3 {
            oracle.joined();
        }
        oracle.mark(MarkKind::Fault, "kill -9 of the control plane");
        oracle.mark(MarkKind::Churn, "soak-2 moves");
        oracle.mark(MarkKind::Churn, "soak-3 moves");
        oracle.stops("soak-1/0".into());
        assert!(oracle.dropped(1, "soak-1/0", 0, "end of stream"));
        assert!(!oracle.dropped(2, "soak-2/0", 1, "end of stream"));
        assert!(!oracle.dropped(3, "soak-1/1", 0, "end of stream"), "the next life was not stopped");
        let seen = oracle.finish();
        assert_eq!((seen.counts.expected, seen.counts.unexpected), (1, 2));
        let why = &seen.drops[1].why;
        assert!(why.contains("kill -9") && why.contains("soak-2 moves") && !why.contains("soak-3"), "{why}");
    }

    #[test]
    fn a_stop_is_no_excuse_for_ever() {
        let oracle = Oracle::new();
        oracle.joined();
        oracle.state().stopped.insert("soak-1/0".into(), 0);
        let old = Oracle { start: Instant::now().checked_sub(Duration::from_mins(1)).unwrap(), ..oracle };
        assert!(!old.dropped(1, "soak-1/0", 0, "end of stream"));
    }

    #[test]
    fn a_second_counts_for_itself_and_pushes_by_their_difference() {
        let oracle = Oracle::new();
        oracle.joined();
        oracle.answered(Duration::from_millis(2));
        oracle.second(Cost { pushes: 10, workers: 1 }, 1.0, 5);
        oracle.wrong(Wrong::Lost, 1, "soak-1/0", "");
        oracle.second(Cost { pushes: 12, workers: 1 }, 1.0, 6);
        // Behind the last whole second, and counted all the same.
        oracle.answered(Duration::from_millis(2));
        oracle.dropped(1, "soak-1/0", 0, "end of stream");
        let seen = oracle.finish();
        let [first, second] = &seen.samples[..] else { panic!("two") };
        assert_eq!((first.rtt_p50_us, first.pushes, first.lost), (Some(2000), 10, 0));
        assert_eq!((second.rtt_p50_us, second.pushes, second.lost), (None, 2, 1));
        assert_eq!((second.messages, second.unexpected_drops), (1, 1));
    }

    #[test]
    fn a_message_counts_for_its_phase_and_a_second_for_the_phase_of_all_of_it() {
        let oracle = Oracle::new();
        for (phase, millis) in
            [(Phase::Between, 9), (Phase::Quiet, 1), (Phase::Churn, 3), (Phase::Between, 9)]
        {
            oracle.phase("a phase", phase);
            for _ in 0..2 {
                oracle.answered(Duration::from_millis(millis));
                oracle.second(Cost::default(), 1.0, 5);
            }
        }
        let seen = oracle.finish();
        let most = |summary: Option<Summary>| summary.map(|summary| (summary.count, summary.most));
        assert_eq!((most(seen.quiet), most(seen.churn)), (Some((2, 1_000.0)), Some((2, 3_000.0))));
        let phases = seen.samples.chunks(2).map(|pair| [pair[0].phase, pair[1].phase]);
        let second = [Phase::Between, Phase::Quiet, Phase::Churn, Phase::Between];
        assert_eq!(phases.collect::<Vec<_>>(), second.map(|phase| [Phase::Between, phase]));
    }

    #[test]
    fn what_was_pushed_before_anybody_plays_is_in_no_second() {
        let oracle = Oracle::new();
        oracle.begins(Cost { pushes: 1_000, ..Cost::default() });
        oracle.second(Cost { pushes: 1_002, ..Cost::default() }, 1.0, 5);
        assert_eq!(oracle.finish().samples[0].pushes, 2);
    }

    #[test]
    fn the_same_faults_are_one_phase_whichever_broke_first() {
        let oracle = Oracle::new();
        for faults in [["pause: nothing passes", "nack: bad scopes"], ["nack: over", "pause: over"]] {
            oracle.state().marks.clear();
            for what in faults {
                oracle.mark(MarkKind::Fault, what);
            }
            oracle.new_server("soak-1".to_owned(), 0, Some(1.0));
        }
        let phases = oracle.finish().new_servers.into_iter().map(|new| new.phase);
        assert_eq!(phases.collect::<Vec<_>>(), ["nack + pause", "nack + pause"]);
    }
}
