//! The real binary as a child, on ports of its own choosing, killed when dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

const LIMIT: Duration = Duration::from_mins(1);
/// How soon a page that is not there yet is asked for again.
const PACE: Duration = Duration::from_millis(10);

/// The binary that was named, or the one beside this program.
pub(crate) fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("tidegate"),
    };
    if !path.is_file() {
        bail!(
            "there is no {}: build it by `cargo build --release`, or name one by --tidegate",
            path.display()
        );
    }
    Ok(path)
}

/// A page of an admin address, head and body.
pub(crate) async fn page(admin: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// What the binary prints when it is run to its end.
pub(crate) async fn printed(binary: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let run = Command::new(binary).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, run).await;
    let named = || format!("{} {}", binary.display(), arguments.join(" "));
    let output = output.with_context(|| format!("{} did not end", named()))?.with_context(named)?;
    if !output.status.success() {
        bail!("{}: {}", named(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A control plane that listens.
pub(crate) struct Tidegate {
    pub(crate) xds: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) pid: u32,
    child: Child,
}

impl Tidegate {
    /// Starts it on a fleet directory; returns as soon as it listens, which is before it has read it.
    pub(crate) async fn start(binary: &Path, fleet: &Path) -> anyhow::Result<Self> {
        Self::run(binary, |command| command.arg("--fleet").arg(fleet)).await
    }

    /// Starts it with what `with` adds: at least where its fleet is. Returns as soon as it listens.
    pub(crate) async fn run(
        binary: &Path,
        with: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<Self> {
        // It may be why a figure is odd.
        Self::heard(
            binary,
            |command| _ = with(command),
            |line| {
                if is_warning(&line) {
                    eprintln!("tidegate: {line}");
                }
            },
        )
        .await
    }

    /// The same, and every line that it logs goes to `hear`.
    pub(crate) async fn heard(
        binary: &Path,
        with: impl FnOnce(&mut Command),
        hear: impl FnMut(String) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["serve", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]);
        with(&mut command);
        let mut child = command
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: build it by `cargo build --release`", binary.display()))?;
        let mut log = BufReader::new(child.stderr.take().context("a pipe for its log")?).lines();
        let addresses = tokio::time::timeout(LIMIT, async {
            while let Some(line) = log.next_line().await? {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"] == "listening" {
                    let address = |name: &str| line[name].as_str().unwrap_or_default().parse();
                    return Ok((address("xds").context("its address")?, address("admin")?));
                }
            }
            bail!("it ended before it listened")
        });
        let (xds, admin) = addresses.await.context("it did not listen in time")??;
        let pid = child.id().context("it ended")?;
        tokio::spawn(read_on(log, hear));
        Ok(Self { xds, admin, pid, child })
    }

    /// Returns when it has read its fleet.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let asking = async {
            while !page(self.admin, "/readyz").await.is_ok_and(|page| page.starts_with("HTTP/1.1 200 ")) {
                tokio::time::sleep(PACE).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.context("it did not read its fleet in time")
    }

    /// How it ended, where it has by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // Where that can't be asked, whoever ends it hears why.
        self.child.try_wait().ok().flatten()
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending the control plane")
    }
}

/// Whether a line of what it prints is a warning or worse.
pub(crate) fn is_warning(line: &str) -> bool {
    line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#) || is_panic(line)
}

/// Whether a line says that it panicked, which is not written as its log is.
pub(crate) fn is_panic(line: &str) -> bool {
    line.contains("panicked at")
}

/// A log that nobody reads fills its pipe, and the child stands still at its next line.
async fn read_on(mut log: Lines<BufReader<ChildStderr>>, mut hear: impl FnMut(String)) {
    while let Ok(Some(line)) = log.next_line().await {
        hear(line);
    }
}
