//! Which managers the cluster knows. Without its CRDs a manager has no servers, which is no failure; but an
//! API server that has just started does not know its CRDs yet, and that must not look the same.

use std::time::Duration;

use ::kube::Client;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::kinds::Manager;

/// How often a cluster is asked for a manager that it does not know.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// So many answers in a row without it, and it is believed.
const CONFIRMATIONS: u32 = 3;

/// What is known of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The API server knows its group.
    Installed,
    /// It does not, or not yet.
    Missing {
        /// It said so often enough.
        confirmed: bool,
    },
}

/// Asks until the manager is there; says each time that the finding is another.
pub(super) async fn run(client: Client, manager: Manager, findings: mpsc::Sender<(Manager, Finding)>) {
    let (mut misses, mut said) = (0, None);
    loop {
        match client.list_api_groups().await {
            Ok(groups) if groups.groups.iter().any(|group| group.name == manager.group()) => {
                info!(?manager, "installed");
                _ = findings.send((manager, Finding::Installed)).await;
                return;
            }
            Ok(_) => {
                misses += 1;
                let finding = Finding::Missing { confirmed: misses >= CONFIRMATIONS };
                if said != Some(finding) {
                    debug!(?manager, ?finding, "not installed");
                    said = Some(finding);
                    if findings.send((manager, finding)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => warn!(?manager, %error, "the API server does not say what it knows; asking again"),
        }
        tokio::select! {
            () = findings.closed() => return,
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}
