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

use std::future::poll_fn;
use std::task::Poll;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    Soak(Box<soak::Options>),
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
        let mut ends = ends()?;
        tokio::select! {
            result = run(command) => result,
            why = ended(&mut ends) => bail!("{why}"),
        }
    });
    // A player who still asks, on a thread of his own, is not waited for.
    runtime.shutdown_background();
    result
}

/// The signals that end a run, its children with it, and what is said then. A hangup does so but where whoever
/// started it wants it to outlive his terminal.
fn ends() -> std::io::Result<Vec<(Signal, &'static str)>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut all = vec![
        (SignalKind::terminate(), "terminated"),
        (SignalKind::interrupt(), "interrupted"),
        (SignalKind::quit(), "quit"),
    ];
    if !ignores_hangup(&status) {
        all.push((SignalKind::hangup(), "its terminal is gone"));
    }
    all.into_iter().map(|(kind, why)| signal(kind).map(|signal| (signal, why))).collect()
}

/// Whether a process, by its `/proc/PID/status`, was started as by `nohup`.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The first signal is SIGHUP.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Returns when the first of them comes.
async fn ended(ends: &mut [(Signal, &'static str)]) -> &'static str {
    poll_fn(|context| {
        let mut came = ends.iter_mut().filter_map(|(signal, why)| {
            let is_there = signal.poll_recv(context).is_ready();
            is_there.then_some(*why)
        });
        came.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Startup(options) => startup::run(options).await,
        Command::Delta(options) => delta::run(options).await,
        Command::Fanout(options) => fanout::run(options).await,
        Command::Kube(options) => kube::run(options).await,
        Command::Soak(options) => soak::run(*options).await,
        Command::Bare => bare::run().await,
        Command::Api => kube::serve().await,
        Command::Hear(ear) => kube::hear(ear).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_under_nohup_outlives_its_terminal() {
        let status = |mask| format!("Name:\tloadtest\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")) && !ignores_hangup(""));
    }
}
