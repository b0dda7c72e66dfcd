//! The operators' commands: whom they are for, where those stand, and what is wished.
//!
//! `--fleet` is the directory everywhere, as for `serve`; the servers of a fleet are `--of` it. So no word means two
//! things, and who types the wrong one is told of no such fleet, and not served with another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::SignedDuration;

use super::kube::TypedRules;
use super::{MAX_FILE_BYTES, Output, file, kube};
use crate::kinds::{Manager, Rules};
use crate::model::Weight;
use crate::plan::{Name, Selector, Target, Wish};

/// Longest pause between two steps of a switch.
const MAX_EVERY: Duration = Duration::from_hours(24);

/// A change of what stands on game servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operate {
    /// Where they are looked for.
    pub place: Place,
    /// Say what would be written, and write nothing.
    pub dry_run: bool,
    /// How to print.
    pub output: Output,
    /// What to do.
    pub action: Action,
}

/// Where game servers are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where they stand.
    pub ground: Ground,
    /// The namespace of names that say none, and of all others; none: the ground's own.
    pub namespace: Option<String>,
    /// Look in every namespace.
    pub all_namespaces: bool,
    /// How objects are read.
    pub rules: Rules,
    /// The flags that say so, as they were typed: for commands that are printed.
    pub reading: Vec<String>,
}

/// Where game servers stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// In the files of a directory.
    Files {
        /// The directory.
        dir: PathBuf,
        /// Largest file that is read.
        max_file_bytes: u64,
    },
    /// In a cluster.
    Kube {
        /// The fleet managers whose servers are looked for.
        managers: Vec<Manager>,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The same for all targets, once.
    Wish {
        /// Whom it is for.
        target: Target,
        /// What.
        wish: Wish,
    },
    /// New players of a host from one group to another, by steps.
    Switch {
        /// `HOST` or `HOST/PATH`.
        host: String,
        /// The group to switch to.
        to: Selector,
        /// How much of new players it gets in the end.
        percent: u8,
        /// Points a step.
        step: u8,
        /// The pause between steps.
        every: Duration,
    },
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where they stand")]
pub(super) struct TypedPlace {
    /// The fleet directory with their files [default: ./fleet, or none with --kube]
    #[arg(long, value_name = "DIR", env = "TIDEGATE_FLEET")]
    fleet: Option<PathBuf>,
    /// The objects of the cluster that KUBECONFIG names, or that this pod runs in
    #[arg(long, env = "TIDEGATE_KUBE")]
    kube: bool,
    /// The namespace of the servers [default: that of the kubeconfig; `default` for files]
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    pub(super) namespace: Option<String>,
    /// Look in every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// The configuration file of `serve`: where the fleet is, and how its objects are read
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    rules: TypedRules,
}

/// How a change is made.
#[derive(Debug, Args)]
pub(super) struct TypedManner {
    #[command(flatten)]
    place: TypedPlace,
    /// Say exactly what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print: a table, or a JSON object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Whom the command is for.
#[derive(Debug, Args)]
pub(super) struct TypedTarget {
    /// Servers: NAME or NAMESPACE/NAME
    #[arg(value_name = "SERVER", conflicts_with_all = ["selector", "of"])]
    servers: Vec<String>,
    #[command(flatten)]
    those: TypedThose,
}

#[derive(Debug, Args)]
pub(super) struct TypedThose {
    /// All servers with these labels, in Kubernetes' grammar: `version=v1,region in (eu,us),!canary`
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<Selector>,
    /// All servers of this fleet: a GameServerSet, an Agones Fleet, or the label tidegate.dev/fleet
    #[arg(long, value_name = "FLEET")]
    of: Option<String>,
}

/// Closes game servers to new players; those inside stay.
///
/// Writes tidegate.dev/drain on the servers' objects. With --redirect new players are sent to another place.
#[derive(Debug, Args)]
pub(super) struct TypedDrain {
    #[command(flatten)]
    target: TypedTarget,
    /// Where new players are sent: `https://a` keeps their path, `https://a/` does not
    #[arg(long, value_name = "URL")]
    redirect: Option<String>,
    #[command(flatten)]
    manner: TypedManner,
}

/// Opens game servers to new players again.
///
/// Takes tidegate.dev/drain from the servers' objects, and says when something else still drains them.
#[derive(Debug, Args)]
pub(super) struct TypedUndrain {
    #[command(flatten)]
    target: TypedTarget,
    #[command(flatten)]
    manner: TypedManner,
}

/// Tells new requests that game servers are in maintenance; those inside stay.
#[derive(Debug, Args)]
pub(super) struct TypedMaintenance {
    #[command(flatten)]
    target: TypedTarget,
    /// What players are told
    #[arg(long, value_name = "TEXT", required_unless_present = "off")]
    text: Option<String>,
    /// Only on these paths, below the servers' own: `/shop,/rank` [default: all]
    #[arg(long, value_name = "PATHS", value_delimiter = ',', requires = "text")]
    paths: Vec<String>,
    /// The maintenance is over
    #[arg(long, conflicts_with_all = ["text", "paths"])]
    off: bool,
    #[command(flatten)]
    manner: TypedManner,
}

/// Gives game servers a part of their share's new players: from 0, which is nobody, to 1000.
///
/// `tidegate weight game-0 50`, or `tidegate weight -l version=v2 50`
#[derive(Debug, Args)]
pub(super) struct TypedWeight {
    /// Servers, NAME or NAMESPACE/NAME, and behind them the weight
    #[arg(value_name = "SERVER... WEIGHT", required = true, allow_negative_numbers = true)]
    words: Vec<String>,
    #[command(flatten)]
    those: TypedThose,
    #[command(flatten)]
    manner: TypedManner,
}

/// Moves a host's new players, step by step, to those of its servers that have these labels.
///
/// All servers of both groups name one tidegate.dev/share. A step writes tidegate.dev/weight, first where it rises;
/// before the first, tidegate.dev/version lifts the new group over the other, so that a player with affinity who came
/// to it stays. Nothing but the objects remembers how far it is: Ctrl-C stops it between steps, saying the same again goes
/// on, and switching to the other group goes back.
#[derive(Debug, Args)]
pub(super) struct TypedSwitch {
    /// HOST or HOST/PATH, as a player types it
    host: String,
    /// The labels of the servers to switch to, in Kubernetes' grammar; all others are switched from
    #[arg(long, value_name = "LABELS")]
    to: Selector,
    /// How much of new players they get in the end
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: u8,
    /// Points a step
    #[arg(long, value_name = "POINTS", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    step: u8,
    /// The pause between steps
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = pause)]
    every: Duration,
    #[command(flatten)]
    manner: TypedManner,
}

pub(super) fn drain(typed: TypedDrain) -> anyhow::Result<Operate> {
    wish(typed.manner, target(typed.target)?, Wish::Drain(typed.redirect))
}

pub(super) fn undrain(typed: TypedUndrain) -> anyhow::Result<Operate> {
    wish(typed.manner, target(typed.target)?, Wish::Undrain)
}

pub(super) fn maintenance(typed: TypedMaintenance) -> anyhow::Result<Operate> {
    let paths = typed.paths.iter().map(|path| path.trim().to_owned()).collect();
    let meant = typed.text.map_or(Wish::MaintenanceOff, |text| Wish::Maintenance { text, paths });
    wish(typed.manner, target(typed.target)?, meant)
}

pub(super) fn weight(typed: TypedWeight) -> anyhow::Result<Operate> {
    let TypedWeight { mut words, those, manner } = typed;
    let text = words.pop().context("no weight was said")?;
    let expected = format!("a whole number from 0 to {}", Weight::MAX);
    let weight: u16 = text.parse().map_err(|_| {
        anyhow!(
            "{text:?}, the last word, is no weight; expected {expected}, such as `tidegate weight game-0 50`"
        )
    })?;
    let has_both = !words.is_empty() && (those.selector.is_some() || those.of.is_some());
    if has_both {
        bail!("{:?} names a server beside -l or --of; say one or the other", words[0]);
    }
    wish(manner, target(TypedTarget { servers: words, those })?, Wish::Weight(weight))
}

pub(super) fn switch(typed: TypedSwitch) -> anyhow::Result<Operate> {
    let TypedSwitch { host, to, percent, step, every, manner } = typed;
    meaning(manner, Action::Switch { host, to, percent, step, every })
}

fn target(typed: TypedTarget) -> anyhow::Result<Target> {
    let TypedTarget { servers, those: TypedThose { selector, of } } = typed;
    if !servers.is_empty() {
        let names = servers.iter().map(|name| Name::parse(name)).collect::<Result<_, _>>();
        return names.map(Target::Names).map_err(anyhow::Error::msg);
    }
    if selector.is_none() && of.is_none() {
        bail!(
            "nobody is named; expected servers such as game-0, labels (-l version=v1), or a fleet (--of lobby)"
        );
    }
    Ok(Target::Those { of, labels: selector })
}

fn wish(manner: TypedManner, target: Target, wish: Wish) -> anyhow::Result<Operate> {
    wish.check().map_err(anyhow::Error::msg)?;
    meaning(manner, Action::Wish { target, wish })
}

fn meaning(manner: TypedManner, action: Action) -> anyhow::Result<Operate> {
    let TypedManner { place, dry_run, output } = manner;
    Ok(Operate { place: self::place(place)?, dry_run, output, action })
}

pub(super) fn place(place: TypedPlace) -> anyhow::Result<Place> {
    let TypedPlace { fleet, kube, namespace, all_namespaces, config, rules } = place;
    let reading = reading(config.as_deref(), &rules);
    let file = config.as_deref().map(file).transpose()?.unwrap_or_default();
    let rules = kube::rules(rules, file.host_template, file.kube.as_ref());
    if kube && fleet.is_some() {
        bail!("--fleet and --kube name two places; say the one where the servers stand");
    }
    // As `serve` has it: a configuration with a cluster and no directory has no files.
    let is_watched = file.kube.as_ref().is_some_and(kube::KubeFile::is_watched) && file.fleet.is_none();
    let ground = if kube || (fleet.is_none() && is_watched) {
        let managers = file.kube.as_ref().and_then(kube::KubeFile::managers);
        Ground::Kube {
            managers: managers.map_or_else(|| Manager::ALL.into(), |some| some.into_iter().collect()),
        }
    } else {
        let dir = fleet.or(file.fleet).unwrap_or_else(|| "fleet".into());
        Ground::Files { dir, max_file_bytes: file.max_file_bytes.unwrap_or(MAX_FILE_BYTES) }
    };
    Ok(Place { ground, namespace, all_namespaces, rules, reading })
}

/// The flags that say how objects are read.
fn reading(config: Option<&Path>, rules: &TypedRules) -> Vec<String> {
    let config = config.map(|file| ("--config", file.display().to_string()));
    let template = rules.host_template.clone().map(|hosts| ("--host-template", hosts));
    let classes = rules.ingress_class.iter().map(|class| ("--ingress-class", class.clone()));
    let flags = config.into_iter().chain(template).chain(classes);
    flags.flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn pause(text: &str) -> Result<Duration, String> {
    let read = text.parse::<SignedDuration>().ok().and_then(|signed| Duration::try_from(signed).ok());
    read.filter(|pause| *pause <= MAX_EVERY)
        .ok_or_else(|| "expected a duration up to 24h, such as 30s, 5m or 0s".to_owned())
}
