//! Players who stay while the fleet changes and things break: is one of them ever dropped?

mod ask;
mod crowd;
mod front;
mod games;
mod gate;
mod html;
mod limits;
mod nginx;
mod oracle;
mod proxy;
mod record;
mod running;
mod schedule;
mod selftest;
mod stage;
mod table;
mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use self::gate::{Gate, Listeners, Planes};
use self::nginx::Nginx;
use self::oracle::{Oracle, Seen, Wrong};
use self::record::{Lane, Run};
use self::running::Running;
use self::schedule::{Fault, Plan};
use self::stage::{Before, Breaking, Stage, Work};
use crate::machine::Machine;
use crate::progress::Progress;
use crate::tidegate::printed;
use crate::{envoy, tidegate};

/// Players on WebSockets through waves of servers, bad objects and crashes: nobody falls but with his own server.
#[derive(Debug, clap::Args)]
#[group(id = "soak")]
pub(crate) struct Options {
    /// Game servers at the beginning
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000), value_name = "COUNT")]
    servers: u32,
    /// Players, spread over them
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=50_000), value_name = "COUNT")]
    players: u32,
    /// Messages a second of each player
    #[arg(long, default_value_t = 0.5, value_parser = rate, value_name = "RATE")]
    rate: f64,
    /// Changes of the fleet a minute
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000), value_name = "COUNT")]
    changes: u32,
    /// How long the fleet changes and things break
    #[arg(long, default_value = "100s", value_parser = time, value_name = "TIME")]
    churn: Duration,
    /// How long nothing happens before that
    #[arg(long, default_value = "15s", value_parser = time, value_name = "TIME")]
    quiet: Duration,
    /// A control plane is killed so often; what else breaks does so in between
    #[arg(long, default_value = "20s", value_parser = time, value_name = "TIME")]
    kill_every: Duration,
    /// What breaks: `all`, `none`, or a comma list
    #[arg(long, default_value = "all", value_parser = faults, value_name = "FAULTS")]
    faults: Faults,
    /// What the schedule and the players' choices are drawn from [default: another each time, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Players connect here, to what runs already; needs --fleet, and nothing is broken
    #[arg(long, requires = "fleet", value_name = "ADDRESS")]
    url: Option<String>,
    /// The fleet directory of what runs already; files named soak-… are written there, and removed in the end
    #[arg(long, requires = "url", value_name = "DIR")]
    fleet: Option<PathBuf>,
    /// The control plane's admin address, to count what is pushed; with --url
    #[arg(long, requires = "url", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Cuts players and spoils messages: succeeds if all of it was noticed
    #[arg(long, conflicts_with_all = ["url", "json", "html", "svg"])]
    self_test: bool,
    /// Which fronts get this work, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tidegate", conflicts_with_all = ["url", "self_test"])]
    lanes: Vec<Which>,
    #[command(flatten)]
    nginx: nginx::Options,
    /// The control plane [default: `tidegate` beside this program]
    #[arg(long, value_name = "FILE")]
    tidegate: Option<PathBuf>,
    /// The Envoy [default: the one that envoy/get-envoy finds]
    #[arg(long, env = "ENVOY", value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Write the run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the run as a page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Draw pictures of it into this folder
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

/// Envoy holds nothing back for so long, and no machine should.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// What the players stand before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Tidegate with an Envoy
    Tidegate,
    /// nginx, reloaded as ingress-nginx does it: for comparison, nothing is broken, and no drop fails the run
    Nginx,
}

/// What was asked to break.
#[derive(Clone, Debug)]
struct Faults(Vec<Fault>);

fn faults(text: &str) -> Result<Faults, String> {
    use clap::ValueEnum;
    let all = Fault::value_variants();
    match text {
        "all" => return Ok(Faults(all.to_vec())),
        "none" => return Ok(Faults(Vec::new())),
        _ => {}
    }
    let one = |word: &str| {
        Fault::from_str(word, true).map_err(|_| {
            let names = all.iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
            format!("{word:?} can't break: write all, none, or of {}", names.join(","))
        })
    };
    text.split(',').map(one).collect::<Result<_, _>>().map(Faults)
}

/// `90`, `90s`, `15m` or `1h`.
fn time(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time from 1s to 24h: write it like 90s, 15m or 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    let count: u64 = digits.parse().map_err(|_| bad())?;
    let all = count.saturating_mul(seconds);
    (1..=86_400).contains(&all).then(|| Duration::from_secs(all)).ok_or_else(bad)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=50.0).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is no rate from 0.1 to 50 a second: write a number, such as 0.5")),
    }
}

impl Options {
    fn work(&self, seed: u64) -> Work {
        let length_ms = millis(self.churn);
        let plan = Plan { seed, servers: self.servers, per_minute: self.changes, length_ms };
        Work {
            seed,
            servers: self.servers,
            players: self.players,
            pause: Duration::from_secs_f64(1.0 / self.rate),
            lost_after: LOST_AFTER,
            quiet: self.quiet,
            churn: self.churn,
            steps: schedule::changes(plan),
        }
    }

    fn settings(&self) -> Vec<(String, String)> {
        let names: Vec<_> = self.faults.0.iter().map(|fault| format!("{fault:?}").to_lowercase()).collect();
        let faults = if names.is_empty() || self.url.is_some() { "none".to_owned() } else { names.join(",") };
        [
            ("--servers", self.servers.to_string()),
            ("--players", self.players.to_string()),
            ("--rate", self.rate.to_string()),
            ("--changes", self.changes.to_string()),
            ("--quiet", format!("{}s", self.quiet.as_secs())),
            ("--churn", format!("{}s", self.churn.as_secs())),
            ("--kill-every", format!("{}s", self.kill_every.as_secs())),
            ("--faults", faults),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    eprintln!("seed {seed}: `--seed {seed}` plays the same again");
    limits::descriptors(options.players, options.servers)?;
    let work = options.work(seed);
    if options.self_test {
        return selftest::run(&options, &work).await;
    }
    let mut run = Run { seed, settings: options.settings(), machine: Machine::this(), lanes: Vec::new() };
    let mut judged = Vec::new();
    let mut add = |name: &str, lived: Lived, is_held: bool| {
        let (lane, counts) = lane(name, lived, is_held);
        run.lanes.push(lane);
        judged.push(counts);
    };
    if let (Some(url), Some(fleet)) = (&options.url, &options.fleet) {
        add("tidegate", running(&options, &work, url, fleet).await?, true);
    } else {
        for which in &options.lanes {
            match which {
                Which::Tidegate => add("tidegate", tidegate_lane(&options, &work).await?, true),
                Which::Nginx => {
                    for timeout in &options.nginx.worker_shutdown_timeout {
                        let name = format!("nginx, {} s", timeout.as_secs());
                        add(&name, nginx_lane(&options, &work, *timeout).await?, false);
                    }
                }
            }
        }
    }
    finish(&options, &run, &judged)
}

/// What is not in a lane's record, and what a run ends with.
#[derive(Debug)]
struct Judged {
    /// What should not happen here fails the run.
    is_held: bool,
    findings: Vec<oracle::Finding>,
    counts: oracle::Counts,
}

fn lane(name: &str, lived: Lived, is_held: bool) -> (Lane, Judged) {
    let Lived { seen, facts } = lived;
    let took = seen.new_servers.iter().filter_map(|new| new.took_ms);
    let lane = Lane {
        name: name.to_owned(),
        facts,
        new_server_ms: took.collect::<crate::stats::Samples>().summary(),
        samples: seen.samples,
        marks: seen.marks,
        drops: seen.drops,
        new_servers: seen.new_servers,
        rtt_quiet_us: seen.quiet,
        rtt_churn_us: seen.churn,
    };
    (lane, Judged { is_held, findings: seen.findings, counts: seen.counts })
}

/// A lane that has ended.
struct Lived {
    seen: Seen,
    facts: Vec<(String, String)>,
}

async fn tidegate_lane(options: &Options, work: &Work) -> anyhow::Result<Lived> {
    let binary = tidegate::binary(options.tidegate.as_deref())?;
    let envoy = envoy::binary(options.envoy.as_deref())?;
    let folder = tempfile::tempdir()?;
    let before = Before::of(work).await?;
    let mut gate = start(&binary, &envoy, folder.path(), &before, work.seed, Listeners::Static).await?;
    let planes = gate.planes.clone();
    let oracle = Arc::new(Oracle::new());
    let (refused, edits) = mpsc::unbounded_channel();
    let plan = schedule::faults(work.seed, &options.faults.0, millis(options.kill_every), millis(work.churn));
    let breaking = Breaking::of(&plan);
    let suffering = async {
        breaking.begins.subscribe().wait_for(|begins| *begins).await?;
        planes.suffer(&plan, &oracle, &refused).await?;
        breaking.is_over.send_replace(true);
        anyhow::Ok(())
    };
    let progress = Progress::of("soak: tidegate", stage::seconds(work));
    let mut stage = Stage::new(work, before, &mut gate, oracle.clone(), edits, progress);
    // All in one task: whatever ends this future ends its processes with it.
    tokio::select! {
        played = stage.play(&breaking) => played?,
        Err(error) = suffering => return Err(error.context("breaking something")),
        () = planes.watch() => {}
    }
    drop(stage);
    planes.look().await;
    let (refusals, spoiled) = planes.refusals();
    if refusals > 0 && spoiled == 0 {
        let detail = format!("Envoy refused {refusals} responses, and none was spoiled");
        oracle.wrong(Wrong::Front, 0, "", detail);
    }
    let seen = oracle.finish();
    if seen.counts.unexpected + seen.counts.wrong > 0 {
        eprintln!("the last warnings of the control planes:\n{}", planes.warnings().join("\n"));
        eprintln!("the last lines of Envoy's log:\n{}", gate.envoy.log());
    }
    let version = printed(&binary, &["--version"]).await?.trim().to_owned();
    let facts = vec![
        ("control plane".to_owned(), format!("{version}, two replicas")),
        ("Envoy".to_owned(), envoy_version(&envoy).await),
        ("responses to Envoy".to_owned(), planes.pushes().to_string()),
        ("resources and removals in them".to_owned(), planes.resources().to_string()),
        ("responses that Envoy was made to refuse".to_owned(), spoiled.to_string()),
        ("responses that it refused".to_owned(), refusals.to_string()),
        ("Envoy's listeners that ever drained".to_owned(), drained(&gate).await?.to_string()),
    ];
    Ok(Lived { seen, facts })
}

/// Control planes and an Envoy on a fleet that is there already.
async fn start(
    binary: &Path,
    envoy: &Path,
    folder: &Path,
    before: &Before,
    seed: u64,
    listeners: Listeners,
) -> anyhow::Result<Gate> {
    let fleet = folder.join("fleet");
    std::fs::create_dir(&fleet)?;
    let directory = gate::Directory::new(&fleet)?;
    before.files().iter().try_for_each(|file| directory.write(file))?;
    let planes = Arc::new(Planes::start(binary, directory, seed).await?);
    Gate::start(planes, envoy, listeners).await
}

/// `1.40.0` of what `envoy --version` prints.
async fn envoy_version(envoy: &Path) -> String {
    let text = printed(envoy, &["--version"]).await.unwrap_or_default();
    // `…/envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
    let version = text.split("version: ").nth(1).and_then(|rest| rest.split('/').nth(1));
    version.unwrap_or("unknown").to_owned()
}

/// How many listeners Envoy has drained, or drains.
async fn drained(gate: &Gate) -> anyhow::Result<u64> {
    let page = tidegate::page(gate.envoy.admin, "/stats?filter=listener_manager").await?;
    let count = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    Ok(count("listener_manager.listener_modified")
        + count("listener_manager.listener_removed")
        + count("listener_manager.total_listeners_draining"))
}

async fn nginx_lane(options: &Options, work: &Work, timeout: Duration) -> anyhow::Result<Lived> {
    let binary = options.nginx.binary()?;
    let before = Before::of(work).await?;
    let mut front = Nginx::start(&binary, &options.nginx, timeout, &before.routes()).await?;
    let oracle = Arc::new(Oracle::new());
    let (_refused, edits) = mpsc::unbounded_channel();
    let progress = Progress::of(&format!("soak: nginx, {} s", timeout.as_secs()), stage::seconds(work));
    let mut stage = Stage::new(work, before, &mut front, oracle.clone(), edits, progress);
    stage.play(&Breaking::of(&[])).await?;
    drop(stage);
    for line in front.complaints() {
        eprintln!("nginx: {line}");
    }
    Ok(Lived { seen: oracle.finish(), facts: options.nginx.facts(&binary, timeout) })
}

async fn running(options: &Options, work: &Work, url: &str, fleet: &Path) -> anyhow::Result<Lived> {
    let before = Before::of(work).await?;
    let mut front = Running::new(url, fleet, options.admin, &before.files())?;
    let looking = front.look();
    let oracle = Arc::new(Oracle::new());
    let (_refused, edits) = mpsc::unbounded_channel();
    let progress = Progress::of("soak: what runs already", stage::seconds(work));
    let mut stage = Stage::new(work, before, &mut front, oracle.clone(), edits, progress);
    let breaking = Breaking::of(&[]);
    tokio::select! {
        played = stage.play(&breaking) => played?,
        () = looking => {}
    }
    drop(stage);
    Ok(Lived { seen: oracle.finish(), facts: vec![("players connect to".to_owned(), url.to_owned())] })
}

fn finish(options: &Options, run: &Run, judged: &[Judged]) -> anyhow::Result<()> {
    println!("{}", table::text(run, judged));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(run)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.html {
        std::fs::write(path, html::page(run)).with_context(|| path.display().to_string())?;
    }
    if let Some(folder) = &options.svg {
        html::pictures(run, folder)?;
    }
    let held = judged.iter().filter(|judged| judged.is_held);
    let bad: u64 = held.map(|judged| judged.counts.unexpected + judged.counts.wrong).sum();
    if bad > 0 {
        bail!(
            "{bad} things happened that should not have: they stand above; `--seed {}` plays the same again",
            run.seed
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_read_or_refused_with_a_remedy() {
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("15m"), Ok(Duration::from_mins(15)));
        for bad in ["", "s", "0s", "25h", "1d", "-1s", "99999999999999999999h"] {
            assert!(time(bad).unwrap_err().contains("write it like"), "{bad}");
        }
        assert_eq!(faults("all").unwrap().0.len(), 6);
        assert!(faults("none").unwrap().0.is_empty());
        assert_eq!(faults("kill,nack").unwrap().0, [Fault::Kill, Fault::Nack]);
        assert!(faults("kill,rain").unwrap_err().contains("takeover"));
        assert!(rate("0").is_err() && rate("nan").is_err() && rate("2").is_ok());
    }
}
