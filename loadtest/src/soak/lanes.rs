//! The lanes: each sets a front up, lets the players before it, and tells what was seen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::directory::Directory;
use super::gate::{Gate, Listeners, Planes};
use super::nginx::Nginx;
use super::oracle::{Oracle, Seen, Wrong};
use super::running::Running;
use super::stage::{self, Before, Breaking, Stage, Work};
use super::{Options, millis, schedule};
use crate::progress::Progress;
use crate::tidegate::printed;
use crate::{envoy, tidegate};

/// A lane that has ended.
pub(super) struct Lived {
    pub(super) seen: Seen,
    pub(super) facts: Vec<(String, String)>,
}

pub(super) async fn tidegate(options: &Options, work: &Work) -> anyhow::Result<Lived> {
    let binary = tidegate::binary(options.tidegate.as_deref())?;
    let envoy = envoy::binary(options.envoy.as_deref())?;
    let folder = tempfile::tempdir()?;
    let before = Before::of(work).await?;
    let mut gate = start(&binary, &envoy, folder.path(), &before, work.seed, Listeners::Static).await?;
    let planes = gate.planes.clone();
    // Envoy has its fleet: what is counted from here on is what changes cost.
    planes.look().await;
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

pub(super) async fn nginx(options: &Options, work: &Work, timeout: Duration) -> anyhow::Result<Lived> {
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

pub(super) async fn running(
    options: &Options,
    work: &Work,
    url: &str,
    fleet: &Path,
) -> anyhow::Result<Lived> {
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
