//! A real Envoy as a child, on ports of its own choosing, killed when dropped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::tidegate::{page, printed};

const LIMIT: Duration = Duration::from_secs(30);
/// How soon what is not there yet is looked for again.
const PACE: Duration = Duration::from_millis(2);

/// The Envoy that was named, or the one that `envoy/get-envoy` finds.
pub(crate) fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/get-envoy");
    let found = std::process::Command::new(&script).stderr(Stdio::inherit()).output();
    let found = found.with_context(|| format!("{}; name an Envoy by --envoy", script.display()))?;
    if !found.status.success() {
        bail!("there is no Envoy: {} says how to get one", script.display());
    }
    Ok(String::from_utf8(found.stdout)?.trim_end().into())
}

/// The bootstrap that Tidegate prints for a control plane, on free ports, with these flags more.
pub(crate) async fn bootstrap(tidegate: &Path, xds: SocketAddr, flags: &[&str]) -> anyhow::Result<String> {
    let (xds, any) = (xds.to_string(), "127.0.0.1:0");
    // Load reports are left out on both sides: the floor has none.
    let fixed = ["bootstrap", "--xds", &xds, "--http", any, "--envoy-admin", any, "--no-load-reports"];
    printed(tidegate, &[&fixed, flags].concat()).await
}

/// A running Envoy.
pub(crate) struct Envoy {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) pid: u32,
    /// When its process was started.
    pub(crate) started: Instant,
    child: Child,
    folder: TempDir,
}

impl Envoy {
    /// Starts it with one worker; returns when its ports are known, which is before it serves.
    pub(crate) async fn start(binary: &Path, bootstrap: &str) -> anyhow::Result<Self> {
        Self::start_with(binary, bootstrap, &[]).await
    }

    /// The same with these flags more.
    pub(crate) async fn start_with(binary: &Path, bootstrap: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config, address) = (folder.path().join("bootstrap.yaml"), folder.path().join("admin"));
        fs::write(&config, bootstrap)?;
        let log_file = folder.path().join("log");
        let log = File::create(&log_file)?;
        let started = Instant::now();
        let mut child = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&address)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let pid = child.id().context("Envoy ended at once")?;
        let ports = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(status) = child.try_wait()? {
                    bail!("Envoy ended ({status}): {}", fs::read_to_string(&log_file)?);
                }
                let admin = fs::read_to_string(&address).ok().and_then(|text| text.trim().parse().ok());
                if let Some(admin) = admin
                    && let Ok(text) = page(admin, "/listeners").await
                    && let Some(http) = http_address(&text)
                {
                    return Ok((http, admin));
                }
                tokio::time::sleep(PACE).await;
            }
        });
        let (http, admin) = ports.await.context("Envoy did not open its ports in time")??;
        Ok(Self { http, admin, pid, started, child, folder })
    }

    /// The end of what it logged: warnings and worse.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending Envoy")
    }
}

/// `http::127.0.0.1:10000`, a line a listener, in the body of an answer.
fn http_address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr =
        text.lines().find_map(|line| line.strip_prefix("http::"))?.trim().parse().ok()?;
    (address.port() != 0).then_some(address)
}
