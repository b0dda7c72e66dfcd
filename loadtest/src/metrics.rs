//! What the control plane says of itself at `/metrics`.

use std::net::SocketAddr;

use anyhow::Context;

use crate::stats::Samples;
use crate::tidegate::page;

/// A look at all metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) async fn of(admin: SocketAddr) -> anyhow::Result<Self> {
        page(admin, "/metrics").await.map(Self).context("the control plane's metrics")
    }

    /// A family over all its labels; 0 where nothing was counted yet.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let lines = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            // Another family may begin with the same words.
            rest.starts_with(['{', ' ']).then_some(rest)
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// The same of a counter.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.sum(name).max(0.0) as u64
    }

    /// How much a family has grown since.
    pub(crate) fn since(&self, before: &Self, name: &str) -> f64 {
        self.sum(name) - before.sum(name)
    }

    /// The mean of what a histogram of seconds took in since, in milliseconds; nothing where it took none.
    pub(crate) fn mean_millis(&self, before: &Self, name: &str) -> Samples {
        let of = |part: &str| self.since(before, &format!("{name}_{part}"));
        let (sum, count) = (of("sum"), of("count"));
        if count < 1.0 { Samples::default() } else { (1e3 * sum / count).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_summed_over_its_labels_and_no_other_is_taken_for_it() {
        let before = Metrics::default();
        let text = "# TYPE pushes counter\npushes_total{type=\"clusters\"} 2\npushes_total{type=\"scopes\"} 3\n\
                    pushes_total_other 9\nack_seconds_sum 0.5\nack_seconds_count 4\n# EOF\n";
        let after = Metrics(text.into());
        let seen =
            (after.since(&before, "pushes_total"), after.mean_millis(&before, "ack_seconds").summary());
        assert!((seen.0 - 5.0).abs() < 0.1 && (seen.1.unwrap().p50 - 125.0).abs() < 0.1, "{seen:?}");
        assert!(after.mean_millis(&before, "none").summary().is_none());
    }
}
