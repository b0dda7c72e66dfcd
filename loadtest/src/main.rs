//! Measures Tidegate: the real binary, a real Envoy, real sockets, all on loopback.
//!
//! Each measurement runs several times and prints medians beside its floor: what the same work costs
//! with nothing else around it, in the same run. It ends by itself and leaves no process behind.

mod startup;
mod tidegate;

use clap::{Parser, Subcommand};

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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Typed::parse().command {
        Command::Startup(options) => startup::run(options).await,
    }
}
