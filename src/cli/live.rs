//! What is said of live sessions: how often they are reported, and which metrics they become.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use jiff::SignedDuration;

/// How often Envoys report their sessions.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Most servers that may have a series of their own.
const MAX_TOP: u16 = 1000;

/// The flags.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Live sessions")]
pub(super) struct TypedLive {
    /// How often each Envoy reports its live sessions, 1s to 60s; an Envoy that is silent for two of these counts no
    /// more [default: 5s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_REPORT_INTERVAL", value_parser = interval)]
    report_interval: Option<Duration>,
    /// Give so many servers a metric of their own, those with the most sessions
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_TOP)))]
    metrics_top: u16,
}

/// How live sessions are counted and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// How often an Envoy reports.
    pub report_interval: Duration,
    /// Servers that have a metric of their own.
    pub metrics_top: usize,
}

impl Default for Live {
    fn default() -> Self {
        Self { report_interval: REPORT_INTERVAL, metrics_top: 0 }
    }
}

/// By flags, and what the file says of the interval.
pub(super) fn meaning(typed: &TypedLive, interval_in_file: Option<&str>) -> anyhow::Result<Live> {
    let in_file = match interval_in_file.map(interval) {
        Some(Err(why)) => bail!("reportInterval: {:?}: {why}", interval_in_file.unwrap_or_default()),
        Some(Ok(interval)) => Some(interval),
        None => None,
    };
    let report_interval = typed.report_interval.or(in_file).unwrap_or(REPORT_INTERVAL);
    Ok(Live { report_interval, metrics_top: typed.metrics_top.into() })
}

fn interval(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), Duration::from_mins(1))
}

/// Reads a time such as `90s`, `30m` or `1h30m`.
pub(super) fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| (least..=most).contains(time))
        .ok_or_else(|| format!("expected a time from {least:?} to {most:?}, such as 90s, 30m or 1h30m"))
}
