//! What is typed to wait until servers are empty.

use std::time::Duration;

use clap::Args;

use super::Output;
use super::live::between;
use super::operate::{self, Place, TypedPlace};
use crate::plan::Selector;

/// Longest wait: a week.
const MAX_WAIT: Duration = Duration::from_hours(7 * 24);

/// Waits until nobody is left on these servers: ends with 0 then, and with 1 when the time is over.
///
/// Counts the WebSockets and requests that Envoys report. A server is empty when every Envoy of its gateways has reported
/// that it has none; what is not known yet is waited for. A server that goes meanwhile has nobody left.
#[derive(Debug, Args)]
pub(super) struct TypedWait {
    /// NAMESPACE/NAME, or NAME in any namespace
    #[arg(value_name = "SERVER", required_unless_present_any = ["of", "selector"])]
    targets: Vec<String>,
    /// All servers of this fleet, as NAMESPACE/NAME or NAME; say it again for more
    #[arg(long, value_name = "FLEET")]
    of: Vec<String>,
    /// All servers with these labels, in Kubernetes' grammar: `version=v1`. Labels are read where the servers stand, as it is
    /// begun; the control plane does not know them
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<Selector>,
    /// Wait no longer than this, such as 90s or 30m [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    timeout: Option<Duration>,
    /// The control plane's admin address. Each replica counts the Envoys that are connected to it: say it again for each,
    /// and they are summed
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:18080",
        env = "TIDEGATE_ADMIN_URL",
        value_delimiter = ','
    )]
    admin: Vec<String>,
    /// A line for people each time something changes, or an object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    place: TypedPlace,
}

/// Whose players are waited for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// `namespace/name` or `name` of servers.
    pub targets: Vec<String>,
    /// The same of fleets.
    pub fleets: Vec<String>,
    /// Labels of servers, and where those stand.
    pub labelled: Option<(Selector, Place)>,
    /// For how long at most.
    pub timeout: Option<Duration>,
    /// The admin URLs of all replicas.
    pub admins: Vec<String>,
    /// How to print.
    pub output: Output,
}

pub(super) fn meaning(typed: TypedWait) -> anyhow::Result<Wait> {
    let TypedWait { targets, of, selector, place, timeout, mut admin, output } = typed;
    let labelled = selector.map(|labels| operate::place(place).map(|place| (labels, place))).transpose()?;
    // The same replica twice would count its players twice.
    admin.sort_unstable();
    admin.dedup();
    Ok(Wait { targets, fleets: of, labelled, timeout, admins: admin, output })
}

fn timeout(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), MAX_WAIT)
}
