//! One control plane and many Envoys: how long until the last of them has a change, what each costs in CPU and
//! memory, what it costs when all come back at once, and whom one that reads nothing holds up.

mod change;
mod slow;
mod storm;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;

use crate::fleet::{Fleet, Layout, place};
use crate::report::Report;
use crate::stats::number;
use crate::tidegate::Tidegate;
use crate::{plot, tidegate};

/// One change to many delta ADS streams, reconnects, and a stream that reads nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Servers, several sizes
    #[arg(long, value_delimiter = ',', default_value = "10000,100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sizes: Vec<u32>,
    /// Streams, several numbers
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: Vec<u32>,
    /// Connections that the streams share [default: one each, as Envoys have]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// Changes for each number of streams
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// The control plane [default: `tidegate` beside this program]
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw pictures into this folder
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// A few servers, streams and changes: tries the harness, not the control plane
    #[arg(long)]
    smoke: bool,
}

impl Options {
    fn smoked(mut self) -> Self {
        if self.smoke {
            (self.sizes, self.streams, self.changes) = (vec![20], vec![1, 4], 3);
        }
        self.streams.sort_unstable();
        self
    }
}

/// How long a process is left alone before its CPU and memory are read, so that the last ACKs are in them.
const SETTLE: Duration = Duration::from_millis(100);

/// The real binary on a fleet to which servers are added one by one.
struct Real {
    tidegate: Tidegate,
    fleet: Fleet,
    folder: TempDir,
    /// Servers so far.
    servers: usize,
}

impl Real {
    async fn start(binary: &Path, size: usize) -> anyhow::Result<Self> {
        let fleet = Fleet { layout: Layout::Scoped, port: None };
        let folder = tempfile::tempdir()?;
        let directory = folder.path().join("fleet");
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("fleet.ndjson"), fleet.file(0..size))?;
        let tidegate = Tidegate::start(binary, &directory).await?;
        Ok(Self { tidegate, fleet, folder, servers: size })
    }

    /// Adds a server; when its file came.
    fn add(&mut self) -> anyhow::Result<Instant> {
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, self.fleet.file(self.servers..self.servers + 1))?;
        let name = format!("{}.ndjson", self.servers);
        self.servers += 1;
        let start = Instant::now();
        place(&draft, &self.folder.path().join("fleet"), &name)?;
        Ok(start)
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let options = options.smoked();
    let most = options.connections.or(options.streams.last().copied()).unwrap_or_default();
    check_files(u64::from(most) + 64)?;
    let binary = tidegate::binary(options.tidegate.as_deref())?;
    let mut report = Report::new(options.smoke);
    report.note("all streams are opened by this process, on the same cores as the control plane: their own cost is in every time");
    let measured = measure(&options, &binary, &mut report).await;
    // What was measured before something failed is still true.
    report.finish(options.json.as_deref())?;
    if let Some(folder) = &options.svg {
        draw(folder, &report)?;
    }
    measured
}

async fn measure(options: &Options, binary: &Path, report: &mut Report) -> anyhow::Result<()> {
    for size in options.sizes.iter().map(|size| *size as usize) {
        change::run(options, binary, size, report).await?;
        storm::run(options, binary, size, report).await?;
        slow::run(options, binary, size, report).await?;
    }
    Ok(())
}

/// Each connection is an open file, here and in the control plane.
fn check_files(need: u64) -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(soft) = soft.filter(|soft| *soft < need) {
        anyhow::bail!(
            "{need} open files are needed and {soft} allowed: raise it by `ulimit -n {need}`, or name fewer --connections"
        );
    }
    Ok(())
}

fn draw(folder: &Path, report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut lines: Vec<plot::Series> = Vec::new();
    let mut put = |name: String, point: (f64, f64)| match lines.iter_mut().find(|(line, _)| *line == name) {
        Some((_, points)) => points.push(point),
        None => lines.push((name, vec![point])),
    };
    for figure in report.figures.iter().filter(|figure| figure.name == change::LAST) {
        let streams = number(figure.streams.unwrap_or_default());
        put(format!("{} servers", figure.servers), (streams, figure.value.p50));
        if let Some(floor) = figure.floor {
            put(format!("floor beside {} servers", figure.servers), (streams, floor.p50));
        }
    }
    plot::lines(
        &folder.join("fanout.svg"),
        "From a changed file to the last stream's receipt, median",
        "streams",
        "milliseconds",
        &lines,
    )?;
    Ok(())
}
