//! Measures Tidegate: the real binary, a real Envoy, real sockets, all on loopback.
//!
//! Each figure is printed beside its floor: what the same work costs with nothing else around it, in the
//! same run. It ends by itself, and leaves no process behind however it ends: children are killed when their
//! owner is dropped, and the bare server ends with its input.

mod bare;
mod core;
mod delta;
mod envoy;
mod fanout;
mod fleet;
mod floor;
mod kube;
mod machine;
mod messages;
mod metrics;
mod player;
mod plot;
mod progress;
mod report;
mod soak;
mod startup;
mod stats;
mod tidegate;
mod wire;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures Tidegate on this machine's loopback.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Typed {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Startup(startup::Options),
    Delta(delta::Options),
    Fanout(fanout::Options),
    Kube(kube::Options),
    Soak(soak::Options),
    /// A delta xDS server with nothing in it: the floor, as a child of the others.
    #[command(hide = true)]
    Bare,
    /// A Kubernetes API server in memory, as a child of `kube`.
    #[command(hide = true)]
    Api,
    /// A watch whose news nobody reads, as a child of `kube`.
    #[command(hide = true)]
    Hear(kube::Ear),
}

fn main() -> anyhow::Result<()> {
    let command = Typed::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let (mut terminated, mut interrupted) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            result = run(command) => result,
            _ = terminated.recv() => bail!("terminated"),
            _ = interrupted.recv() => bail!("interrupted"),
        }
    });
    // A player who still asks, on a thread of his own, is not waited for.
    runtime.shutdown_background();
    result
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Startup(options) => startup::run(options).await,
        Command::Delta(options) => delta::run(options).await,
        Command::Fanout(options) => fanout::run(options).await,
        Command::Kube(options) => kube::run(options).await,
        Command::Soak(options) => soak::run(options).await,
        Command::Bare => bare::run().await,
        Command::Api => kube::serve().await,
        Command::Hear(ear) => kube::hear(ear).await,
    }
}
