//! Players who stay while the fleet changes and things break: is one of them ever dropped?

mod ask;
mod crowd;
mod direct;
mod directory;
mod front;
mod games;
mod gate;
mod html;
mod lanes;
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
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use self::lanes::{Entrant, Lived};
use self::record::{Lane, Run};
use self::schedule::{Fault, Plan};
use self::stage::{Round, Work};
use crate::machine::Machine;

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
    /// Who falls with his server knocks again within this time, each at a moment of his own; 0s: all at once
    #[arg(long, default_value = "2s", value_parser = wait, value_name = "TIME")]
    rejoin: Duration,
    /// How long the fleet changes and things break
    #[arg(long, default_value = "100s", value_parser = time, value_name = "TIME")]
    churn: Duration,
    /// A longer churn is in rounds of at most this length, each from a quiet phase on: a machine is not the same for an hour
    #[arg(long, default_value = "10m", value_parser = time, value_name = "TIME")]
    round: Duration,
    /// How long nothing happens before that
    #[arg(long, default_value = "15s", value_parser = time, value_name = "TIME")]
    quiet: Duration,
    /// A control plane is killed so often; what else breaks does so in between, and all of it once takes 12 s
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

/// A time, or none.
fn wait(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { time(text) }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=50.0).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is no rate from 0.1 to 50 a second: write a number, such as 0.5")),
    }
}

impl Options {
    fn work(&self, seed: u64) -> Work {
        let plan =
            Plan { seed, servers: self.servers, per_minute: self.changes, length_ms: millis(self.churn) };
        let (rounds, length) = self.rounds();
        let steps = schedule::in_rounds(schedule::changes(plan), rounds, millis(length));
        Work {
            seed,
            servers: self.servers,
            players: self.players,
            pause: Duration::from_secs_f64(1.0 / self.rate),
            lost_after: LOST_AFTER,
            rejoin: self.rejoin,
            moving: true,
            quiet: self.quiet,
            rounds: steps.into_iter().map(|steps| Round { length, steps }).collect(),
        }
    }

    /// How many rounds the churn has, and their length.
    fn rounds(&self) -> (usize, Duration) {
        // A day of seconds at most.
        #[expect(clippy::cast_possible_truncation)]
        let count = self.churn.as_secs().div_ceil(self.round.as_secs()).max(1) as u32;
        (count as usize, self.churn / count)
    }

    /// What breaks in each round, and when.
    fn faults(&self, seed: u64) -> Vec<Vec<(u64, Fault)>> {
        let (count, length) = self.rounds();
        let round = |number| {
            schedule::faults(
                seed.wrapping_add(number),
                &self.faults.0,
                millis(self.kill_every),
                millis(length),
            )
        };
        (0..count as u64).map(round).collect()
    }

    /// Fails where what breaks can't be over in time: each waits for the one before, and they would add up.
    fn check_faults(&self, seed: u64) -> anyhow::Result<()> {
        let breaks = !self.self_test && self.url.is_none() && self.lanes.contains(&Which::Tidegate);
        let end = self.faults(seed).iter().map(|faults| schedule::ends_ms(faults)).max().unwrap_or_default();
        let behind = end.saturating_sub(millis(self.rounds().1));
        if breaks && behind > millis(stage::BROKEN) {
            let once = schedule::once_ms(&self.faults.0).div_ceil(1000);
            bail!(
                "--kill-every {}s: all of these faults once take up to {once} s, each waits for the one before, \
                 and the last would end {} s behind its round: write --kill-every {once}s or more, or fewer --faults",
                self.kill_every.as_secs(),
                behind / 1000
            );
        }
        Ok(())
    }

    /// What is written in the end has a place from the beginning.
    fn make_folders(&self) -> anyhow::Result<()> {
        let parents = [&self.json, &self.html].into_iter().flatten().filter_map(|file| file.parent());
        for folder in parents.chain(self.svg.as_deref()) {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(())
    }

    fn settings(&self) -> Vec<(String, String)> {
        let names: Vec<_> = self.faults.0.iter().map(|fault| format!("{fault:?}").to_lowercase()).collect();
        let faults = if names.is_empty() || self.url.is_some() { "none".to_owned() } else { names.join(",") };
        [
            ("--servers", self.servers.to_string()),
            ("--players", self.players.to_string()),
            ("--rate", self.rate.to_string()),
            ("--changes", self.changes.to_string()),
            ("--rejoin", format!("{}s", self.rejoin.as_secs())),
            ("--quiet", format!("{}s", self.quiet.as_secs())),
            ("--churn", format!("{}s", self.churn.as_secs())),
            ("--round", format!("{}s", self.round.as_secs())),
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
    options.check_faults(seed)?;
    let work = options.work(seed);
    if options.self_test {
        return selftest::run(&options, &work).await;
    }
    options.make_folders()?;
    let entrants = Entrant::all(&options).await?;
    let mut run = Run { seed, settings: options.settings(), machine: Machine::this(), lanes: Vec::new() };
    let mut judged = Vec::new();
    for entrant in &entrants {
        let lived = match entrant.live(&options, &work).await {
            // What the lanes before it saw is not lost with it.
            Err(error) if !run.lanes.is_empty() => Lived::never(error),
            lived => lived?,
        };
        let (lane, counts) = lane(&entrant.name(), lived, entrant.is_held());
        run.lanes.push(lane);
        judged.push(counts);
    }
    finish(&options, &run, &judged)
}

/// What is not in a lane's record, and what a run ends with.
#[derive(Debug)]
struct Judged {
    /// What should not happen here fails the run.
    is_held: bool,
    /// It did not come to its end, which fails every run.
    broke_off: bool,
    findings: Vec<oracle::Finding>,
    counts: oracle::Counts,
}

fn lane(name: &str, lived: Lived, is_held: bool) -> (Lane, Judged) {
    let Lived { seen, facts, broke_off } = lived;
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
        direct_quiet_us: seen.direct_quiet,
        direct_churn_us: seen.direct_churn,
    };
    (lane, Judged { is_held, broke_off, findings: seen.findings, counts: seen.counts })
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
    verdict(run.seed, judged)
}

fn verdict(seed: u64, judged: &[Judged]) -> anyhow::Result<()> {
    let bad = |judged: &Judged| {
        let Judged { is_held, broke_off, counts, .. } = judged;
        if *is_held { counts.unexpected + counts.wrong } else { u64::from(*broke_off) }
    };
    let bad: u64 = judged.iter().map(bad).sum();
    if bad > 0 {
        bail!(
            "{bad} things happened that should not have: they stand above; `--seed {seed}` plays the same again"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &str) -> Options {
        Typed::try_parse_from(["soak"].into_iter().chain(words.split_whitespace())).unwrap().options
    }

    #[test]
    fn faults_that_would_add_up_are_refused_before_the_run() {
        for good in [
            "",
            "--churn 1h",
            "--churn 1h --kill-every 12s",
            // They are over soon behind it.
            "--churn 10s --kill-every 4s",
            "--churn 1h --kill-every 4s --faults kill",
            "--churn 1h --kill-every 1s --faults none",
            "--churn 1h --kill-every 4s --lanes nginx",
        ] {
            assert!(options(good).check_faults(1).is_ok(), "{good}");
        }
        let error = options("--churn 1h --kill-every 4s").check_faults(1).unwrap_err().to_string();
        assert!(error.contains("--kill-every 12s or more") && error.contains("--faults"), "{error}");
    }

    #[test]
    fn a_lane_that_breaks_off_is_told_of_and_fails_the_run_though_it_is_only_compared_with() {
        let judged = |broke_off| {
            let mut lived = Lived::never(anyhow::anyhow!("no port"));
            lived.broke_off = broke_off;
            lane("nginx, 1 s", lived, false)
        };
        let (lane, bad) = judged(true);
        assert!(lane.facts.contains(&("broke off".to_owned(), "no port".to_owned())), "{lane:?}");
        assert!(bad.findings[0].detail.contains("no port"), "{bad:?}");
        assert!(verdict(1, &[bad]).is_err() && verdict(1, &[judged(false).1]).is_ok());
    }

    #[test]
    fn a_long_churn_is_in_equal_rounds_and_each_has_its_faults() {
        let rounds = |words| options(words).rounds();
        assert_eq!(rounds(""), (1, Duration::from_secs(100)));
        assert_eq!(rounds("--churn 1h"), (6, Duration::from_mins(10)));
        assert_eq!(rounds("--churn 13m"), (2, Duration::from_secs(390)));
        assert_eq!(rounds("--churn 5s --round 2s").0, 3);
        let options = options("--churn 2m --round 1m --kill-every 12s");
        let (work, faults) = (options.work(1), options.faults(1));
        assert_eq!((work.rounds.len(), faults.len()), (2, 2));
        for (round, faults) in work.rounds.iter().zip(&faults) {
            assert!(round.steps.len() > 900 && faults.len() > 8, "{faults:?}");
        }
        assert_ne!(faults[0], faults[1]);
    }

    #[test]
    fn nobody_of_a_self_test_moves_on_by_himself() {
        let work = options("").work(1);
        assert!(work.moving && !selftest::small(&work).moving);
    }

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
        assert_eq!((wait("0s"), wait("2s")), (Ok(Duration::ZERO), Ok(Duration::from_secs(2))));
        assert!(rate("0").is_err() && rate("nan").is_err() && rate("2").is_ok());
    }
}
