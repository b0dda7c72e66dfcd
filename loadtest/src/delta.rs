//! What a change costs in fleets of several sizes and layouts: in the engine, on the wire, and until a player
//! gets in through a real Envoy, beside an Envoy that is told the same by a server with nothing in it.

mod cold;
mod demand;
mod engine;
mod envoys;
mod plane;

use std::path::{Path, PathBuf};

use crate::fleet::Layout;
use crate::report::Report;
use crate::{envoy, plot, tidegate};

/// One change, a burst of 100 and a wave of 10 %, from the engine to the first answer through Envoy.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Servers, several sizes
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    sizes: Vec<u32>,
    /// How they are laid out
    #[arg(long, value_enum, value_delimiter = ',', default_value = "scoped,table,path")]
    layouts: Vec<Layout>,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "engine,envoy,cold")]
    parts: Vec<Part>,
    /// Where changes come from
    #[arg(long, value_enum, value_delimiter = ',', default_value = "file,event")]
    sources: Vec<Source>,
    /// Lone changes through Envoy; the engine alone takes 20 times as many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Bursts of 100, and a quarter as many waves
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    bursts: u32,
    /// Starts of Envoy
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    starts: u32,
    /// The largest fleet whose table a real Envoy is told: it builds all of it anew at each change
    #[arg(long, default_value_t = 10_000)]
    table_max: u32,
    /// The control plane [default: `tidegate` beside this program]
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// The Envoy [default: the one that envoy/get-envoy finds]
    #[arg(long, env = "ENVOY")]
    envoy: Option<PathBuf>,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw pictures into this folder
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// A few servers and changes: tries the harness, not the control plane
    #[arg(long)]
    smoke: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The engine and the wire, in this process
    Engine,
    /// From the change to the first answer through Envoy
    Envoy,
    /// From the start of Envoy to the first answer through it
    Cold,
    /// Clusters on demand: Envoy's memory, and the first request to each of many servers
    Demand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Source {
    /// A file renamed into the fleet directory of the real binary
    File,
    /// An event to the control plane's own tasks, in this process
    Event,
}

impl Options {
    fn smoked(mut self) -> Self {
        if self.smoke {
            (self.sizes, self.changes, self.bursts, self.starts) = (vec![20], 3, 1, 1);
        }
        self
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.sizes.iter().map(|size| *size as usize)
    }

    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// The programs that are measured.
#[derive(Clone, Debug)]
struct Binaries {
    tidegate: PathBuf,
    envoy: PathBuf,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let options = options.smoked();
    let mut report = Report::new(options.smoke);
    let binaries = if options.parts.iter().any(|part| *part != Part::Engine) {
        let tidegate = tidegate::binary(options.tidegate.as_deref())?;
        Some(Binaries { tidegate, envoy: envoy::binary(options.envoy.as_deref())? })
    } else {
        None
    };
    if let Some(binaries) = binaries.as_ref().filter(|_| options.has(Part::Demand)) {
        // Before all that takes long.
        demand::check(&binaries.tidegate).await?;
    }
    let measured = measure(&options, binaries.as_ref(), &mut report).await;
    // What was measured before something failed is still true.
    report.finish(options.json.as_deref())?;
    if let Some(folder) = &options.svg {
        draw(folder, &report)?;
    }
    measured
}

async fn measure(options: &Options, binaries: Option<&Binaries>, report: &mut Report) -> anyhow::Result<()> {
    if options.has(Part::Engine) {
        engine::run(options, report).await?;
    }
    if let Some(binaries) = binaries {
        if options.has(Part::Envoy) {
            envoys::run(options, binaries, report).await?;
        }
        if options.has(Part::Cold) {
            cold::run(options, binaries, report).await?;
        }
        if options.has(Part::Demand) {
            demand::run(options, binaries, report).await?;
        }
    }
    Ok(())
}

/// The lines of a scenario over the size of the fleet, a layout each.
fn series(report: &Report, scenario: &str, name: &str, label: &str, floor: bool) -> Vec<plot::Series> {
    let mut lines: Vec<plot::Series> = Vec::new();
    for figure in report.figures.iter().filter(|f| f.scenario == scenario && f.name == name) {
        let Some(value) = (if floor { figure.floor } else { Some(figure.value) }) else { continue };
        let line = format!("{}{label}", figure.layout.unwrap_or_default());
        let point = (crate::stats::number(figure.servers), value.p50);
        match lines.iter_mut().find(|(name, _)| *name == line) {
            Some((_, points)) => points.push(point),
            None => lines.push((line, vec![point])),
        }
    }
    lines
}

fn draw(folder: &Path, report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let engine = series(report, engine::SCENARIO, engine::ONE, "", false);
    plot::lines(
        &folder.join("engine.svg"),
        "One change in the engine, apply and commit, median",
        "servers",
        "microseconds",
        &engine,
    )?;
    let mut envoys = series(report, envoys::SCENARIO, envoys::ONE_BY_FILE, "", false);
    envoys.extend(series(report, envoys::SCENARIO, envoys::ONE_BY_FILE, ", floor", true));
    plot::lines(
        &folder.join("envoy.svg"),
        "From a changed file to the first 200 through Envoy, median",
        "servers",
        "milliseconds",
        &envoys,
    )?;
    Ok(())
}
