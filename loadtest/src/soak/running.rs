//! A front that runs already: files go into its fleet directory, and nothing of it is broken.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{sleep, timeout};

use super::directory::Directory;
use super::front::{Cost, Front};
use super::world::File;
use crate::metrics::Metrics;

/// What is counted is asked for so often.
const LOOK: Duration = Duration::from_millis(500);
/// The first answer is there by then.
const LIMIT: Duration = Duration::from_secs(10);
const PUSHES: &str = "tidegate_pushes_total";

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

    /// The first look: what was pushed until now is not this run's.
    pub(super) async fn begin(&self) -> anyhow::Result<()> {
        let Some(admin) = self.admin else { return Ok(()) };
        let metrics = timeout(LIMIT, Metrics::of(admin)).await.context("no answer in time").flatten();
        let metrics =
            metrics.with_context(|| format!("--admin {admin}: name the one of its control plane"))?;
        self.pushes.store(metrics.count(PUSHES), Ordering::Relaxed);
        Ok(())
    }

    /// Counts what is pushed, for ever.
    pub(super) fn look(&self) -> impl Future<Output = ()> + use<> {
        let (admin, pushes) = (self.admin, self.pushes.clone());
        async move {
            let Some(admin) = admin else { return std::future::pending().await };
            loop {
                if let Ok(metrics) = Metrics::of(admin).await {
                    pushes.store(metrics.count(PUSHES), Ordering::Relaxed);
                }
                sleep(LOOK).await;
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_first_look_knows_what_was_pushed_before() {
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = admin.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = admin.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\ntidegate_pushes_total 7\n").await.unwrap();
            stream.shutdown().await.unwrap();
            // Whoever closes with the question unread takes his answer back.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let running = |admin| Running::new("127.0.0.1:1", folder.path(), Some(admin), &[]).unwrap();
        let there = running(address);
        there.begin().await.unwrap();
        assert_eq!(there.cost().pushes, 7);
        serving.await.unwrap();
        let nobody = running(SocketAddr::from(([127, 0, 0, 1], 1)));
        let error = format!("{:#}", nobody.begin().await.unwrap_err());
        assert!(error.contains("--admin 127.0.0.1:1"), "{error}");
    }
}
