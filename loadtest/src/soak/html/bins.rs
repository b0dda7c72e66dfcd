//! A lane in a bounded number of steps, so that the page of an hour is no larger than that of a minute.
//!
//! Counts are added up, times keep the worst second: what is rare must not go in an average.

use crate::soak::record::{Lane, MarkKind};
use crate::stats::amount;

/// Steps of a picture: wide enough to be pointed at.
const STEPS: u64 = 120;

/// A step of some seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Bin {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    pub(super) expected: u64,
    pub(super) unexpected: u64,
    pub(super) pushes: u64,
    /// Changes of the fleet.
    pub(super) churn: u64,
    /// Milliseconds: of the median and of the 99th percentile of a second, the worst second's.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// As they were last.
    pub(super) players: Option<f64>,
    pub(super) servers: Option<f64>,
    /// The most of it.
    pub(super) memory_mb: Option<f64>,
    pub(super) workers: Option<f64>,
    /// Milliseconds until new servers of this step answered, least first.
    pub(super) new_ms: Vec<f64>,
    /// New servers that never did.
    pub(super) unanswered: u64,
    /// What broke, in words, and how often.
    pub(super) faults: Vec<(String, u32)>,
}

impl Bin {
    fn breaks(&mut self, what: &str) {
        match self.faults.iter_mut().find(|(known, _)| known == what) {
            Some((_, count)) => *count += 1,
            None => self.faults.push((what.to_owned(), 1)),
        }
    }
}

/// When the longest of these lanes ends; at least a second, so that there is an axis.
pub(super) fn span_ms(lanes: &[Lane]) -> u64 {
    let ends = lanes.iter().map(|lane| lane.samples.last().map_or(0, |sample| sample.at_ms));
    ends.max().unwrap_or_default().max(1_000)
}

/// Steps of the same width in every lane: whole seconds.
pub(super) fn step_ms(span_ms: u64) -> u64 {
    span_ms.div_ceil(STEPS).div_ceil(1_000) * 1_000
}

/// The lane, in order, from its start to the end of its last sample.
pub(super) fn of(lane: &Lane, step_ms: u64) -> Vec<Bin> {
    let end = lane.samples.last().map_or(0, |sample| sample.at_ms);
    let mut bins: Vec<_> = (0..end.div_ceil(step_ms))
        .map(|number| Bin { from_ms: number * step_ms, to_ms: (number + 1) * step_ms, ..Bin::default() })
        .collect();
    // What happens as the lane ends belongs to its last step.
    let last = bins.len().saturating_sub(1);
    let at = |ms: u64| usize::try_from(ms / step_ms).unwrap_or(last).min(last);
    for sample in &lane.samples {
        // A sample is named by the end of its second.
        let Some(bin) = bins.get_mut(at(sample.at_ms.saturating_sub(1))) else { continue };
        bin.expected += u64::from(sample.expected_drops);
        bin.unexpected += u64::from(sample.unexpected_drops);
        bin.pushes += u64::from(sample.pushes);
        let millis = |micros: Option<u64>| micros.map(|micros| amount(micros) / 1e3);
        bin.p50_ms = most(bin.p50_ms, millis(sample.rtt_p50_us));
        bin.p99_ms = most(bin.p99_ms, millis(sample.rtt_p99_us));
        bin.players = Some(f64::from(sample.players));
        bin.servers = Some(f64::from(sample.servers));
        bin.memory_mb = most(bin.memory_mb, Some(sample.rss_mb));
        bin.workers = most(bin.workers, Some(f64::from(sample.workers)));
    }
    for mark in &lane.marks {
        let Some(bin) = bins.get_mut(at(mark.at_ms)) else { continue };
        match mark.kind {
            MarkKind::Churn => bin.churn += 1,
            MarkKind::Fault => bin.breaks(&mark.what),
            MarkKind::Phase => {}
        }
    }
    for new in &lane.new_servers {
        let Some(bin) = bins.get_mut(at(new.at_ms)) else { continue };
        match new.took_ms {
            Some(took) => bin.new_ms.push(took),
            None => bin.unanswered += 1,
        }
    }
    for bin in &mut bins {
        bin.new_ms.sort_by(f64::total_cmp);
    }
    bins
}

fn most(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::record::{Mark, NewServer, Sample};

    #[test]
    fn nothing_is_lost_between_steps_and_the_worst_second_stays() {
        let seconds = 1_000;
        let sample = |number: u64| Sample {
            at_ms: number * 1_000,
            unexpected_drops: 1,
            pushes: 2,
            rtt_p99_us: (number == 500).then_some(9_000),
            ..Sample::default()
        };
        let mark = |kind| Mark { at_ms: 1_000_000, what: "x".into(), kind };
        let new = |took_ms| NewServer { at_ms: 5, server: "s".into(), phase: "p".into(), took_ms };
        let lane = Lane {
            samples: (1..=seconds).map(sample).collect(),
            marks: [MarkKind::Churn, MarkKind::Fault, MarkKind::Phase, MarkKind::Fault].map(mark).to_vec(),
            new_servers: vec![new(Some(3.0)), new(None), new(Some(1.0))],
            ..Lane::default()
        };
        let step = step_ms(span_ms(std::slice::from_ref(&lane)));
        let bins = of(&lane, step);
        assert_eq!((step, bins.len()), (9_000, 112));
        assert_eq!(bins.iter().map(|bin| bin.unexpected).sum::<u64>(), seconds);
        assert_eq!(bins.iter().map(|bin| bin.pushes).sum::<u64>(), 2 * seconds);
        assert_eq!(bins.iter().filter_map(|bin| bin.p99_ms).collect::<Vec<_>>(), [9.0]);
        assert_eq!((&bins[0].new_ms, bins[0].unanswered), (&vec![1.0, 3.0], 1));
        let last = bins.last().unwrap();
        assert_eq!((last.churn, &last.faults), (1, &vec![("x".to_owned(), 2)]));
    }

    #[test]
    fn a_lane_that_ended_at_once_has_no_steps() {
        let mark = Mark { at_ms: 5, what: "x".into(), kind: MarkKind::Churn };
        let lane = Lane { marks: vec![mark], ..Lane::default() };
        assert!(of(&lane, step_ms(span_ms(std::slice::from_ref(&lane)))).is_empty());
    }
}
