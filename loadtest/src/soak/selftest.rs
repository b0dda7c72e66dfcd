//! Would a drop be seen? Players are cut by what Tidegate never does, a change of the listener, and messages are
//! spoiled by the game servers. All of it must be noticed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::mpsc;

use super::Options;
use super::gate::Listeners;
use super::lanes::start;
use super::oracle::{Oracle, Wrong};
use super::record::MarkKind;
use super::stage::{Before, Stage, Work};
use crate::progress::Progress;
use crate::{envoy, tidegate};

/// Enough to see each kind of cheat, and to be over soon.
const PLAYERS: u32 = 40;
const SERVERS: u32 = 20;
/// Each of the spoiled messages is noticed by then: a lost one when its time is over.
const LIMIT: Duration = Duration::from_secs(40);

/// The same on a small stage, where nobody leaves by himself: who does so in the second in which the listener drains is
/// never cut.
pub(super) fn small(work: &Work) -> Work {
    Work {
        players: work.players.min(PLAYERS),
        servers: work.servers.min(SERVERS),
        // Messages are spoiled in their turn: nobody needs to wait for them.
        pause: Duration::from_millis(200),
        lost_after: Duration::from_secs(4),
        moving: false,
        quiet: Duration::from_secs(1),
        rounds: Vec::new(),
        ..*work
    }
}

pub(super) async fn run(options: &Options, work: &Work) -> anyhow::Result<()> {
    let work = small(work);
    let binary = tidegate::binary(options.tidegate.as_deref())?;
    let envoy = envoy::binary(options.envoy.as_deref())?;
    let folder = tempfile::tempdir()?;
    let before = Before::of(&work).await?;
    let mut gate = start(&binary, &envoy, folder.path(), &before, work.seed, Listeners::File).await?;
    let oracle = Arc::new(Oracle::new());
    let planes = gate.planes.clone();
    let listener = gate.listener()?;
    let (_refused, edits) = mpsc::unbounded_channel();
    let progress = Progress::of("soak: the self-test", super::stage::seconds(&work));
    let mut stage = Stage::new(&work, before, &mut gate, oracle.clone(), edits, progress);
    let test = async {
        // To hold the crowd is to let it play.
        let _crowd = stage.gather().await?;
        stage.be_quiet().await?;
        let innocent = oracle.counts();
        if innocent.unexpected + innocent.wrong > 0 {
            bail!("something was wrong before anything was done: {:#?}", oracle.finish().findings);
        }
        let cheats = stage.games.cheats.clone();
        let mut caught = Vec::new();
        for (cheat, wrong) in [
            (&cheats.swallow, Wrong::Lost),
            (&cheats.repeat, Wrong::Repeated),
            (&cheats.swap, Wrong::Reordered),
            (&cheats.pretend, Wrong::Stranger),
        ] {
            oracle.mark(MarkKind::Fault, format!("self-test: {wrong}"));
            cheat.store(1, Ordering::Relaxed);
            caught.push((wrong.to_string(), stage.pass(&[], LIMIT, |oracle| oracle.has(wrong)).await?));
        }
        oracle.mark(MarkKind::Fault, "self-test: the listener changes");
        listener.change()?;
        let all = u64::from(work.players);
        let is_cut = stage.pass(&[], LIMIT, |oracle| oracle.counts().unexpected >= all).await?;
        caught.push((format!("all {all} players cut by a change of the listener"), is_cut));
        anyhow::Ok(caught)
    };
    let caught = tokio::select! {
        caught = test => caught?,
        () = planes.watch(&oracle) => Vec::new(),
    };
    let seen = oracle.finish();
    for found in &seen.findings {
        println!("  {:>6} ms  {}: {} (player {})", found.at_ms, found.wrong, found.detail, found.player);
    }
    if let Some(drop) = seen.drops.iter().find(|drop| !drop.expected) {
        println!("  {:>6} ms  drop: {} (player {}, {})", drop.at_ms, drop.why, drop.player, drop.server);
    }
    let mut missed = Vec::new();
    for (what, is_caught) in &caught {
        println!("{}: {what}", if *is_caught { "caught" } else { "NOT CAUGHT" });
        missed.extend((!is_caught).then_some(what.as_str()));
    }
    if caught.is_empty() || !missed.is_empty() {
        bail!("the soak would not have seen this: {}", missed.join(", "));
    }
    println!("self-test: caught");
    Ok(())
}
