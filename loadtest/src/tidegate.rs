//! The real binary as a child, on ports of its own choosing, killed when dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

const LIMIT: Duration = Duration::from_mins(1);

/// A control plane that listens.
pub(crate) struct Tidegate {
    pub(crate) xds: SocketAddr,
    child: Child,
    // Held open: a closed pipe would end the child's logging with an error.
    _log: Lines<BufReader<ChildStderr>>,
}

impl Tidegate {
    /// Starts it on a fleet directory; returns as soon as it listens, which is before it has read it.
    pub(crate) async fn start(binary: &Path, fleet: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(binary)
            .args([
                "serve",
                "--xds",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--fleet",
            ])
            .arg(fleet)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: build it by `cargo build --release`", binary.display()))?;
        let mut log = BufReader::new(child.stderr.take().context("a pipe for its log")?).lines();
        let xds = tokio::time::timeout(LIMIT, async {
            while let Some(line) = log.next_line().await? {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"] == "listening" {
                    return line["xds"].as_str().unwrap_or_default().parse().context("its address");
                }
            }
            bail!("it ended before it listened")
        });
        let xds = xds.await.context("it did not listen in time")??;
        Ok(Self { xds, child, _log: log })
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending the control plane")
    }
}
