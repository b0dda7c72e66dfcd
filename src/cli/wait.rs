//! What is typed to wait until servers are empty.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use super::Output;
use super::live::between;
use super::operate::{self, Place, TypedPlace};
use crate::plan::{Name, Selector};

/// Longest wait: a week.
const MAX_WAIT: Duration = Duration::from_hours(7 * 24);

/// Waits until nobody is left on these servers: ends with 0 then, and with 1 when the time is over.
///
/// Counts the WebSockets and requests that Envoys report. A server is empty when every Envoy of its gateways has reported
/// for two intervals (`serve --report-interval`) that it has none, since a player may have come behind the last report; so
/// it takes that long at least, 10 seconds by default. What is not known yet is waited for. A server that goes meanwhile
/// has nobody left.
#[derive(Debug, Args)]
pub(super) struct TypedWait {
    /// NAMESPACE/NAME, or NAME in the namespace of -n, else in any
    #[arg(
        value_name = "SERVER",
        required_unless_present_any = ["of", "selector"],
        conflicts_with_all = ["of", "selector"]
    )]
    targets: Vec<String>,
    /// All servers of this fleet, as NAMESPACE/NAME or NAME; say it again for more
    #[arg(long, value_name = "FLEET")]
    of: Vec<String>,
    /// All servers with these labels, in Kubernetes' grammar: `version=v1`; with --of those of the fleet alone. Labels are
    /// read where the servers stand, as it is begun; the control plane does not know them
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
    /// Those with some labels, in place of names.
    pub labelled: Option<Labelled>,
    /// For how long at most.
    pub timeout: Option<Duration>,
    /// The admin URLs of all replicas.
    pub admins: Vec<String>,
    /// How to print.
    pub output: Output,
}

/// Servers by their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The labels.
    pub labels: Selector,
    /// Their fleets; none: any.
    pub fleets: Vec<Name>,
    /// Where they stand.
    pub place: Place,
}

pub(super) fn meaning(typed: TypedWait) -> anyhow::Result<Wait> {
    let TypedWait { targets, of, selector, place, timeout, mut admin, output } = typed;
    let (targets, fleets, labelled) = if let Some(labels) = selector {
        let fleets = of.iter().map(|name| fleet(name)).collect::<anyhow::Result<_>>()?;
        (Vec::new(), Vec::new(), Some(Labelled { labels, fleets, place: operate::place(place)? }))
    } else {
        let within = |names: Vec<String>| -> Vec<String> {
            names.into_iter().map(|name| whole(name, place.namespace.as_deref())).collect()
        };
        (within(targets), within(of), None)
    };
    // The same replica twice would count its players twice.
    admin.sort_unstable();
    admin.dedup();
    Ok(Wait { targets, fleets, labelled, timeout, admins: admin, output })
}

fn fleet(text: &str) -> anyhow::Result<Name> {
    Name::parse(text).map_err(|_| {
        anyhow!("--of {text:?} names no fleet; expected NAME or NAMESPACE/NAME, such as lobby or eu/lobby")
    })
}

/// A name with the namespace, if there is one and it does not say its own.
fn whole(name: String, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if !name.contains('/') => format!("{namespace}/{name}"),
        _ => name,
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), MAX_WAIT)
}
