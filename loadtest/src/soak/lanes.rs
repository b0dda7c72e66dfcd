//! The lanes: each sets a front up, lets the players before it, and tells what was seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;

use super::directory::Directory;
use super::gate::{Gate, Listeners, Planes};
use super::nginx::{self, Nginx};
use super::oracle::{Oracle, Seen, Wrong};
use super::running::Running;
use super::stage::{self, Before, Breaking, Stage, Work};
use super::{Options, Which};
use crate::progress::Progress;
use crate::tidegate::printed;
use crate::{envoy, tidegate};

/// A lane that has ended.
pub(super) struct Lived {
    pub(super) seen: Seen,
    pub(super) facts: Vec<(String, String)>,
    /// It did not come to its end.
    pub(super) broke_off: bool,
}

impl Lived {
    /// A lane that broke off is told of with all that was seen until then.
    fn of(oracle: &Oracle, played: anyhow::Result<()>, mut facts: Vec<(String, String)>) -> Self {
        let broke_off = played.is_err();
        if let Err(error) = played {
            let why = format!("{error:#}");
            oracle.wrong(Wrong::Front, 0, "", format!("the lane broke off: {why}"));
            facts.push(("broke off".to_owned(), why));
        }
        Self { seen: oracle.finish(), facts, broke_off }
    }

    /// One that could not even begin.
    pub(super) fn never(error: anyhow::Error) -> Self {
        Self::of(&Oracle::new(), Err(error), Vec::new())
    }
}

/// What the players of a lane will stand before, and the programs that it needs: found before the first lane begins.
pub(super) enum Entrant {
    Tidegate(Programs),
    Nginx { binary: PathBuf, version: String, timeout: Duration },
    Running { url: String, fleet: PathBuf },
}

/// A control plane and an Envoy, and what they say that they are.
pub(super) struct Programs {
    tidegate: PathBuf,
    envoy: PathBuf,
    version: String,
    envoy_version: String,
}

impl Programs {
    async fn find(options: &Options) -> anyhow::Result<Self> {
        let tidegate = tidegate::binary(options.tidegate.as_deref())?;
        let envoy = envoy::binary(options.envoy.as_deref())?;
        let version = printed(&tidegate, &["--version"]).await.context("name another by --tidegate")?;
        let envoy_says = printed(&envoy, &["--version"]).await.context("name another by --envoy")?;
        let (version, envoy_version) = (version.trim().to_owned(), envoy_version(&envoy_says));
        Ok(Self { tidegate, envoy, version, envoy_version })
    }
}

impl Entrant {
    /// All that were asked for, in order.
    pub(super) async fn all(options: &Options) -> anyhow::Result<Vec<Self>> {
        if let (Some(url), Some(fleet)) = (&options.url, &options.fleet) {
            return Ok(vec![Self::Running { url: url.clone(), fleet: fleet.clone() }]);
        }
        let mut all = Vec::new();
        for which in &options.lanes {
            match which {
                Which::Tidegate => all.push(Self::Tidegate(Programs::find(options).await?)),
                Which::Nginx => {
                    let binary = options.nginx.binary()?;
                    let version = nginx::version(&binary).await?;
                    all.extend(options.nginx.worker_shutdown_timeout.iter().map(|timeout| Self::Nginx {
                        binary: binary.clone(),
                        version: version.clone(),
                        timeout: *timeout,
                    }));
                }
            }
        }
        Ok(all)
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Tidegate(_) | Self::Running { .. } => "tidegate".to_owned(),
            Self::Nginx { timeout, .. } => format!("nginx, {} s", timeout.as_secs()),
        }
    }

    /// Whether what should not happen in it fails the run.
    pub(super) fn is_held(&self) -> bool {
        !matches!(self, Self::Nginx { .. })
    }

    /// From its first process to its last. An error is one before anything was seen.
    pub(super) async fn live(&self, options: &Options, work: &Work) -> anyhow::Result<Lived> {
        match self {
            Self::Tidegate(programs) => tidegate(options, programs, work).await,
            Self::Nginx { binary, version, timeout } => {
                let facts = options.nginx.facts(version, *timeout);
                nginx(options, work, binary, *timeout, facts).await
            }
            Self::Running { url, fleet } => running(options, work, url, fleet).await,
        }
    }
}

async fn tidegate(options: &Options, programs: &Programs, work: &Work) -> anyhow::Result<Lived> {
    let Programs { tidegate, envoy, version, envoy_version } = programs;
    let folder = tempfile::tempdir()?;
    let before = Before::of(work).await?;
    let mut gate = start(tidegate, envoy, folder.path(), &before, work.seed, Listeners::Static).await?;
    let planes = gate.planes.clone();
    let oracle = Arc::new(Oracle::new());
    // Envoy has its fleet: what is counted from here on is what changes cost.
    planes.look(&oracle).await;
    let (refused, edits) = mpsc::unbounded_channel();
    let breaking = Breaking::something();
    let suffering = async {
        for (number, faults) in (1..).zip(options.faults(work.seed)) {
            breaking.begun.subscribe().wait_for(|begun| *begun >= number).await?;
            planes.suffer(&faults, &oracle, &refused).await?;
            breaking.over.send_replace(number);
        }
        anyhow::Ok(())
    };
    let progress = Progress::of("soak: tidegate", stage::seconds(work));
    let mut stage = Stage::new(work, before, &mut gate, oracle.clone(), edits, progress);
    // All in one task: whatever ends this future ends its processes with it.
    let played = tokio::select! {
        played = stage.play(&breaking) => played,
        Err(error) = suffering => Err(error.context("breaking something")),
        () = planes.watch(&oracle) => Ok(()),
    };
    drop(stage);
    planes.look(&oracle).await;
    let (refusals, spoiled) = planes.refusals();
    let drained = drained(&gate).await;
    let facts = vec![
        ("control plane".to_owned(), format!("{version}, two replicas")),
        ("Envoy".to_owned(), envoy_version.clone()),
        ("responses to Envoy".to_owned(), planes.pushes().to_string()),
        ("resources and removals in them".to_owned(), planes.resources().to_string()),
        ("responses that Envoy was made to refuse".to_owned(), spoiled.to_string()),
        ("responses that it refused".to_owned(), refusals.to_string()),
        (
            "Envoy's listeners that ever drained".to_owned(),
            drained.map_or_else(|error| format!("unknown: {error:#}"), |count| count.to_string()),
        ),
    ];
    let lived = Lived::of(&oracle, played, facts);
    if lived.seen.counts.unexpected + lived.seen.counts.wrong > 0 {
        eprintln!("the last warnings of the control planes:\n{}", planes.warnings().join("\n"));
        eprintln!("the last lines of Envoy's log:\n{}", gate.envoy.log());
    }
    Ok(lived)
}

/// Control planes and an Envoy on a fleet that is there already.
pub(super) async fn start(
    binary: &Path,
    envoy: &Path,
    folder: &Path,
    before: &Before,
    seed: u64,
    listeners: Listeners,
) -> anyhow::Result<Gate> {
    let fleet = folder.join("fleet");
    std::fs::create_dir(&fleet)?;
    let directory = Directory::new(&fleet)?;
    before.files().iter().try_for_each(|file| directory.write(file))?;
    let planes = Arc::new(Planes::start(binary, directory, seed).await?);
    Gate::start(planes, envoy, listeners).await
}

/// `1.40.0` of what `envoy --version` prints.
fn envoy_version(text: &str) -> String {
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

async fn nginx(
    options: &Options,
    work: &Work,
    binary: &Path,
    timeout: Duration,
    facts: Vec<(String, String)>,
) -> anyhow::Result<Lived> {
    let before = Before::of(work).await?;
    let mut front = Nginx::start(binary, &options.nginx, timeout, &before.routes()).await?;
    let oracle = Arc::new(Oracle::new());
    let (_refused, edits) = mpsc::unbounded_channel();
    let progress = Progress::of(&format!("soak: nginx, {} s", timeout.as_secs()), stage::seconds(work));
    let mut stage = Stage::new(work, before, &mut front, oracle.clone(), edits, progress);
    let played = stage.play(&Breaking::nothing()).await;
    drop(stage);
    for line in front.complaints() {
        eprintln!("nginx: {line}");
    }
    Ok(Lived::of(&oracle, played, facts))
}

async fn running(options: &Options, work: &Work, url: &str, fleet: &Path) -> anyhow::Result<Lived> {
    let before = Before::of(work).await?;
    let mut front = Running::new(url, fleet, options.admin, &before.files())?;
    front.begin().await?;
    let looking = front.look();
    let oracle = Arc::new(Oracle::new());
    let (_refused, edits) = mpsc::unbounded_channel();
    let progress = Progress::of("soak: what runs already", stage::seconds(work));
    let mut stage = Stage::new(work, before, &mut front, oracle.clone(), edits, progress);
    let breaking = Breaking::nothing();
    let played = tokio::select! {
        played = stage.play(&breaking) => played,
        () = looking => Ok(()),
    };
    drop(stage);
    Ok(Lived::of(&oracle, played, vec![("players connect to".to_owned(), url.to_owned())]))
}
