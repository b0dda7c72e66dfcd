//! What is typed to wait until servers are empty.

use std::time::Duration;

use clap::Args;

use super::Output;
use super::live::between;

/// Longest wait: a week.
const MAX_WAIT: Duration = Duration::from_hours(7 * 24);

/// Waits until nobody is left on these servers: ends with 0 then, and with 1 when the time is over.
///
/// Counts the WebSockets and requests that Envoys report. A server is empty when every Envoy of its gateways has reported
/// that it has none; what is not known yet is waited for. A server that goes meanwhile has nobody left.
#[derive(Debug, Args)]
pub(super) struct TypedWait {
    /// NAMESPACE/NAME, or NAME in any namespace
    #[arg(value_name = "TARGET", required_unless_present = "fleet")]
    targets: Vec<String>,
    /// All servers of this fleet, as NAMESPACE/NAME or NAME; say it again for more
    #[arg(long, value_name = "NAME")]
    fleet: Vec<String>,
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
}

/// Whose players are waited for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// `namespace/name` or `name` of servers.
    pub targets: Vec<String>,
    /// The same of fleets.
    pub fleets: Vec<String>,
    /// For how long at most.
    pub timeout: Option<Duration>,
    /// The admin URLs of all replicas.
    pub admins: Vec<String>,
    /// How to print.
    pub output: Output,
}

impl From<TypedWait> for Wait {
    fn from(typed: TypedWait) -> Self {
        let TypedWait { targets, fleet, timeout, mut admin, output } = typed;
        // The same replica twice would count its players twice.
        admin.sort_unstable();
        admin.dedup();
        Self { targets, fleets: fleet, timeout, admins: admin, output }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), MAX_WAIT)
}
