//! Samples, and what is said of them. Percentiles are samples that were seen, never in between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What was seen, in the unit of its figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

/// The short of it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) least: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) most: f64,
}

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// `None` of nothing.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Summary {
            count: sorted.len(),
            least: *sorted.first()?,
            p50: *sorted.get((sorted.len() - 1) / 2)?,
            // The nearest rank: of fewer than a hundred samples it is the most.
            p99: *sorted.get((sorted.len() * 99).div_ceil(100) - 1)?,
            most: *sorted.last()?,
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

impl From<f64> for Samples {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A count as a number to divide. Counts here stay far below 2^52.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// The same of a count of bytes.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn amount(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_of_the_nearest_rank() {
        let of = |count: u32| {
            let summary = (1..=count).map(f64::from).collect::<Samples>().summary().unwrap();
            (summary.p50, summary.p99, summary.most)
        };
        assert_eq!(of(1), (1.0, 1.0, 1.0));
        assert_eq!(of(100), (50.0, 99.0, 100.0));
        assert_eq!(of(200), (100.0, 198.0, 200.0));
        assert!(Samples::default().summary().is_none());
    }
}
