//! The bare xDS server as a child: what it is told to send, it sends.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::bare::Order;

const LIMIT: Duration = Duration::from_secs(20);

/// A bare server that listens.
pub(crate) struct Floor {
    pub(crate) xds: SocketAddr,
    pub(crate) pid: u32,
    orders: ChildStdin,
    /// What it says.
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Floor {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the bare server")?;
        let orders = child.stdin.take().context("a pipe for its orders")?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe for its address")?).lines();
        let line =
            tokio::time::timeout(LIMIT, lines.next_line()).await.context("the bare server's address")?;
        let xds = line?.unwrap_or_default().parse().context("the bare server's address")?;
        let pid = child.id().context("the bare server ended")?;
        Ok(Self { xds, pid, orders, lines, child })
    }

    /// Hands it messages; returns when it has those that streams begin with.
    pub(crate) async fn order(&mut self, order: Order, messages: &[Bytes]) -> anyhow::Result<()> {
        let mut text = Vec::new();
        for message in messages {
            text.push(order as u8);
            text.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
            text.extend_from_slice(message);
        }
        self.orders.write_all(&text).await.context("the bare server ended")?;
        self.orders.flush().await?;
        let waits = if order == Order::First { messages.len() } else { 0 };
        for _ in 0..waits {
            let taken = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
            taken.context("the bare server takes no orders")??.context("the bare server ended")?;
        }
        Ok(())
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending the bare server")
    }
}
