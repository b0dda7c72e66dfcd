//! A front that runs already: files go into its fleet directory, and nothing of it is broken.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::directory::Directory;
use super::front::{Cost, Front};
use super::world::File;
use crate::metrics::Metrics;

/// What is counted is asked for so often.
const LOOK: Duration = Duration::from_millis(500);

/// An address and a fleet directory.
pub(super) struct Running {
    address: SocketAddr,
    directory: Directory,
    /// The names of our files that are there.
    ours: std::collections::BTreeSet<String>,
    admin: Option<SocketAddr>,
    pushes: Arc<AtomicU64>,
}

impl Running {
    pub(super) fn new(
        url: &str,
        fleet: &Path,
        admin: Option<SocketAddr>,
        files: &[File],
    ) -> anyhow::Result<Self> {
        let plain = url.trim_start_matches("http://").trim_start_matches("ws://").trim_end_matches('/');
        let address = plain.to_socket_addrs().ok().and_then(|mut all| all.next());
        let address =
            address.with_context(|| format!("--url {url:?} is no address: write it like 127.0.0.1:10000"))?;
        let directory = Directory::new(fleet).context("--fleet")?;
        let ours = std::collections::BTreeSet::new();
        let mut running = Self { address, directory, ours, admin, pushes: Arc::default() };
        running.files(files)?;
        Ok(running)
    }

    /// Counts what is pushed, for ever.
    pub(super) fn look(&self) -> impl Future<Output = ()> + use<> {
        let (admin, pushes) = (self.admin, self.pushes.clone());
        async move {
            let Some(admin) = admin else { return std::future::pending().await };
            loop {
                if let Ok(metrics) = Metrics::of(admin).await {
                    pushes.store(metrics.count("tidegate_pushes_total"), Ordering::Relaxed);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.ours) {
            // There is nobody left to tell.
            _ = self.directory.write(&File { name, text: None });
        }
    }
}

impl Front for Running {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn files(&mut self, files: &[File]) -> anyhow::Result<()> {
        for file in files {
            self.directory.write(file)?;
            if file.text.is_some() {
                self.ours.insert(file.name.clone());
            } else {
                self.ours.remove(&file.name);
            }
        }
        Ok(())
    }

    fn cost(&self) -> Cost {
        Cost { pushes: self.pushes.load(Ordering::Relaxed), ..Cost::default() }
    }
}
