//! Who writes: the holder of a Lease (`coordination.k8s.io/v1`).

use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tracing::warn;

/// How long a Lease lasts that is not renewed, in seconds: so long, at most, nobody holds it when its holder is gone.
/// Who waits for it asks again when it should be over, so one that was given back is not taken much sooner.
const LASTS: u64 = 15;
/// It is renewed so long before its end, in seconds.
const GRACE: u64 = 5;
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Who this replica is: its pod's name, and what no other run of it is called.
pub(super) fn identity() -> String {
    let host = gethostname();
    format!("{host}_{:x}", std::process::id() ^ nanoseconds())
}

fn gethostname() -> String {
    // In a pod it is the pod's name.
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or("tidegate".into(), |name| name.trim().to_owned())
}

fn nanoseconds() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos())
}

/// A Lease, and who asks for it.
pub(super) struct Lease {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) identity: String,
}

impl Lease {
    /// Holds the Lease whenever it can be had, and says so; gives it back at the shutdown.
    pub(super) async fn hold(self, lead: watch::Sender<bool>, mut shutdown: watch::Receiver<bool>) {
        loop {
            let ended = self.try_hold(&lead, &mut shutdown).await;
            lead.send_if_modified(std::mem::take);
            let Err(why) = ended else { return };
            warn!(
                namespace = self.namespace,
                lease = self.name,
                why,
                "the Lease can't be asked for, trying again"
            );
            tokio::select! {
                () = said(&mut shutdown) => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn try_hold(
        &self,
        lead: &watch::Sender<bool>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), String> {
        let building = LeaseManagerBuilder::new(self.client.clone(), self.name.clone())
            .with_namespace(self.namespace.clone())
            .with_identity(self.identity.clone())
            .with_duration(LASTS)
            .with_grace(GRACE)
            .build();
        let manager = tokio::select! {
            () = said(shutdown) => return Ok(()),
            built = building => built.map_err(|error| error.to_string())?,
        };
        loop {
            tokio::select! {
                () = said(shutdown) => {
                    _ = tokio::time::timeout(RETRY, manager.release()).await;
                    return Ok(());
                }
                changed = manager.changed() => {
                    lead.send_replace(changed.map_err(|error| error.to_string())?);
                }
            }
        }
    }
}

/// Returns when the process ends.
async fn said(shutdown: &mut watch::Receiver<bool>) {
    _ = shutdown.wait_for(|end| *end).await;
}
