//! What a cluster costs the control plane: writes that change nothing, a server until its first player gets in,
//! and a whole fleet at once. The API server is one in memory, a process of its own.

mod api;
mod burst;
mod child;
mod hear;
mod latency;
mod noise;
mod objects;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;
use tempfile::TempDir;

use self::api::ApiServer;
pub(crate) use self::hear::{Ear, hear};
use self::objects::Manager;
use crate::envoy::{self, Envoy, bootstrap};
use crate::machine::free_mb;
use crate::metrics::Metrics;
use crate::player::Player;
use crate::report::Report;
use crate::stats::number;
use crate::tidegate::{self, Tidegate};

/// A cluster's noise, its changes and its bursts, with an API server in memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "noise,latency,burst")]
    parts: Vec<Part>,
    /// Servers that make noise: each writes its counters once a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    servers: u32,
    /// How long they do
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// How often noise and bursts are measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Servers among which one comes or is moved
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    among: u32,
    /// How many come, and how many are moved
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Servers that come at once, several sizes
    #[arg(long, value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bursts: Vec<u32>,
    /// Whose servers come at once
    #[arg(long, value_enum, value_delimiter = ',', default_value = "agones,okg")]
    managers: Vec<Manager>,
    /// Measure bursts with --write-back too, until all servers are marked
    #[arg(long)]
    write_back: bool,
    /// How fast the control plane may mark them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    writes_per_second: u32,
    /// The control plane [default: `tidegate` beside this program]
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// The Envoy [default: the one that envoy/get-envoy finds]
    #[arg(long, env = "ENVOY")]
    envoy: Option<PathBuf>,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// A few servers and changes: tries the harness, not the control plane
    #[arg(long)]
    smoke: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Writes that change no route
    Noise,
    /// From a server's change to the first answer through Envoy
    Latency,
    /// From no server to all of them
    Burst,
}

impl Options {
    fn smoked(mut self) -> Self {
        if self.smoke {
            (self.servers, self.seconds, self.runs) = (20, 2, 1);
            (self.among, self.changes, self.bursts) = (20, 4, vec![20]);
            (self.write_back, self.writes_per_second) = (true, 1_000);
        }
        self
    }
}

/// The programs that are measured.
#[derive(Clone, Debug)]
struct Binaries {
    tidegate: PathBuf,
    envoy: PathBuf,
}

/// How long the control plane may take to say what it should.
const LIMIT: Duration = Duration::from_mins(2);
const PACE: Duration = Duration::from_millis(10);

/// The child that `kube` starts as its API server.
pub(crate) async fn serve() -> anyhow::Result<()> {
    api::serve().await
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let options = options.smoked();
    let tidegate = tidegate::binary(options.tidegate.as_deref())?;
    let binaries = Binaries { tidegate, envoy: envoy::binary(options.envoy.as_deref())? };
    let mut report = Report::new(options.smoke);
    report.note(
        "the API server is one in memory, on the same cores; a real one takes longer to answer and to tell",
    );
    let measured = measure(&options, &binaries, &mut report).await;
    // What was measured before something failed is still true.
    report.finish(options.json.as_deref())?;
    measured
}

async fn measure(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    for part in &options.parts {
        match part {
            Part::Noise => noise::run(options, binaries, report).await?,
            Part::Latency => latency::run(options, binaries, report).await?,
            Part::Burst => burst::run(options, binaries, report).await?,
        }
    }
    Ok(())
}

/// An API server, a control plane that watches it, and an Envoy.
struct Ground {
    api: ApiServer,
    tidegate: Tidegate,
    envoy: Envoy,
    _folder: TempDir,
}

impl Ground {
    /// Starts all three on a cluster with these servers; returns when the control plane has listed them.
    /// `writes_per_second` lets it mark them.
    async fn start(
        binaries: &Binaries,
        servers: usize,
        port: u16,
        writes_per_second: Option<u32>,
    ) -> anyhow::Result<Self> {
        // 40 KB a server in Envoy, as `delta` measures; reckoned: as much again in both others, and what the API
        // server remembers of noise.
        let need = (500 + servers / 12) as u64;
        if let Some(free) = free_mb().filter(|free| *free < need) {
            bail!("{servers} servers need about {need} MB, and {free} are free: name fewer");
        }
        let mut api = ApiServer::start().await?;
        if servers > 0 {
            api.make(Manager::Agones, 0..servers, port).await?;
        }
        let folder = tempfile::tempdir()?;
        let (kubeconfig, config) = (folder.path().join("kubeconfig"), folder.path().join("config.yaml"));
        std::fs::write(&kubeconfig, cluster::kubeconfig(api.address.parse()?, "default"))?;
        let mut kube = json!({});
        if let Some(rate) = writes_per_second {
            kube = json!({ "writeBack": true, "writesPerSecond": rate });
        }
        // JSON is YAML.
        std::fs::write(&config, json!({ "kube": kube }).to_string())?;
        let tidegate = Tidegate::run(&binaries.tidegate, |command| {
            command.arg("--kube").arg("--config").arg(&config).env("KUBECONFIG", &kubeconfig)
        });
        let tidegate = tidegate.await?;
        tidegate.ready().await?;
        let text = bootstrap(&binaries.tidegate, tidegate.xds, &[]).await?;
        let envoy = Envoy::start(&binaries.envoy, &text).await?;
        Ok(Self { api, tidegate, envoy, _folder: folder })
    }

    async fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::of(self.tidegate.admin).await
    }

    /// Waits until the control plane's metrics are right; returns them.
    async fn until(&self, what: &str, is_right: impl Fn(&Metrics) -> bool) -> anyhow::Result<Metrics> {
        let start = Instant::now();
        loop {
            let metrics = self.metrics().await?;
            if is_right(&metrics) {
                return Ok(metrics);
            }
            if start.elapsed() > LIMIT {
                bail!("the control plane does not say that {what}");
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Waits until Envoy has acknowledged a cluster and a scope of each of so many servers at least, and all else
    /// that it was sent.
    async fn settled(&self, servers: usize) -> anyhow::Result<Metrics> {
        let least = 2.0 * number(servers);
        let is_settled = move |now: &Metrics| {
            now.sum("tidegate_pushed_resources_total") >= least
                && now.sum("tidegate_acks_total") >= now.sum("tidegate_pushes_total")
        };
        self.until("Envoy has acknowledged all", is_settled).await
    }

    /// A player at this Envoy, who was let in by the last of these servers, or told that there are none.
    async fn player(&self, servers: usize) -> anyhow::Result<Player> {
        let mut player = Player::new(self.envoy.http);
        let door = Manager::Agones.door(servers.saturating_sub(1));
        let wanted = if servers > 0 { 200 } else { 404 };
        blocking(move || {
            let start = Instant::now();
            while player.ask(&door) != Some(wanted) {
                if start.elapsed() > LIMIT {
                    bail!("Envoy does not answer {wanted} to {}", door.host);
                }
                std::thread::sleep(PACE);
            }
            Ok(player)
        })
        .await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.envoy.end().await?;
        self.tidegate.end().await?;
        self.api.child.end().await
    }
}

/// Runs what waits for a player's answers on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a player panicked")?
}
