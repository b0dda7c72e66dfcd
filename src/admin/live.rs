//! Live sessions as metrics: by fleet, and by server if that was asked for.
//!
//! The series are bounded: fleets beyond [`MAX_FLEETS`] are summed, and a server is a label only with `--metrics-top`. A
//! scrape reads sums that are kept as they change; it asks the engine for nothing.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::envoys::Envoys;
use crate::translate::CLUSTER_PREFIX;

/// Most fleets that have a series.
const MAX_FLEETS: usize = 100;
/// The fleet of all others; no real one is named so, as theirs have a slash.
const OTHERS: &str = "other";

/// What is asked at each scrape.
#[derive(Debug)]
pub struct Live {
    /// Where the sums are.
    pub envoys: Arc<Envoys>,
    /// Servers that have a series: those with the most sessions.
    pub top: usize,
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (fleets, others) = self.envoys.fleets(MAX_FLEETS);
        let others = (others > 0).then_some((OTHERS, others));
        let fleets = fleets.iter().map(|(fleet, sessions)| (&**fleet, *sessions)).chain(others);
        let help = "Live sessions by namespace and fleet, those with the most";
        gauges(&mut encoder, "fleet_sessions", help, "fleet", fleets)?;
        if self.top == 0 {
            return Ok(());
        }
        let busiest = self.envoys.busiest(self.top);
        let servers = busiest
            .iter()
            .map(|(cluster, sessions)| (cluster.strip_prefix(CLUSTER_PREFIX).unwrap_or(cluster), *sessions));
        gauges(
            &mut encoder,
            "server_sessions",
            "Live sessions of the servers with the most",
            "server",
            servers,
        )
    }
}

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, sessions) in values {
        let sessions = i64::try_from(sessions).unwrap_or(i64::MAX);
        ConstGauge::new(sessions).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}
