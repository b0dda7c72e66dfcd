//! From no server to all of them at once: until each is routed, and until each is marked.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use super::api::{Happened, Order};
use super::objects::Manager;
use super::{Binaries, Ground, Options, blocking};
use crate::machine::{cpu, resident_kb};
use crate::player::game;
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, millis, number};

const SCENARIO: &str = "cluster burst";
/// Between two looks at how many are marked.
const PACE: Duration = Duration::from_millis(20);
/// How much longer than their pace asks for marks may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// What bursts of a size came to.
#[derive(Default)]
struct Seen {
    written: Samples,
    routed: Samples,
    asked: Samples,
    marked: Samples,
    pace: Samples,
    requests: Samples,
    patches: Samples,
    pushes: Samples,
    cpu: Samples,
    memory: Samples,
}

pub(super) async fn run(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let port = game()?;
    for servers in options.bursts.iter().map(|servers| *servers as usize) {
        for manager in options.managers.iter().copied() {
            let progress = Progress::of(
                &format!("{servers} servers at once, {}", manager.word()),
                options.runs as usize,
            );
            let mut seen = Seen::default();
            for _ in 0..options.runs {
                once(binaries, manager, servers, port, None, &mut seen).await?;
                progress.step();
            }
            add(report, Place { scenario: SCENARIO, servers, layout: Some(manager.word()) }, &seen);
            if !options.write_back {
                continue;
            }
            let mut seen = Seen::default();
            // It takes as long as its pace says.
            once(binaries, manager, servers, port, Some(options.writes_per_second), &mut seen).await?;
            let layout = match manager {
                Manager::Agones => "agones, write-back",
                Manager::Okg => "okg, write-back",
            };
            add(report, Place { scenario: SCENARIO, servers, layout: Some(layout) }, &seen);
        }
    }
    Ok(())
}

async fn once(
    binaries: &Binaries,
    manager: Manager,
    servers: usize,
    port: u16,
    writes_per_second: Option<u32>,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut ground = Ground::start(binaries, 0, port, writes_per_second).await?;
    let mut player = ground.player(0).await?;
    if writes_per_second.is_some() {
        ground.until("it writes", |metrics| metrics.sum("tidegate_writer") > 0.0).await?;
    }
    let (before, asked) = (ground.metrics().await?, ground.api.asked(manager).await?);
    let spent = cpu(ground.tidegate.pid)?;
    let doors: Vec<_> = (0..servers).map(|server| manager.door(server)).collect();
    let (told, closed) = oneshot::channel();
    let asking = tokio::spawn(blocking(move || {
        let mut told = Some(told);
        for door in &doors {
            player.until_open(door, told.take())?;
        }
        let opened = Instant::now();
        // The floor: the same questions, when all doors are open.
        for door in &doors {
            anyhow::ensure!(player.ask(door) == Some(200), "{} is shut again", door.host);
        }
        Ok((opened, opened.elapsed()))
    }));
    closed.await.context("a server was there before it came")?;
    let start = Instant::now();
    let (from, to) = (0, u32::try_from(servers)?);
    let made: Happened = ground.api.child.ask(&Order::Make { manager, from, to, port }).await?;
    let (opened, floor) = asking.await.context("a player panicked")??;
    seen.written.push(1e3 * made.seconds);
    seen.routed.push(millis(opened.saturating_duration_since(start)));
    seen.asked.push(millis(floor));

    if let Some(rate) = writes_per_second {
        let pace = Duration::from_secs(1) * to / rate;
        seen.pace.push(millis(pace));
        while ground.api.asked(manager).await?.patches < asked.patches + u64::from(to) {
            if start.elapsed() > pace + PATIENCE {
                bail!("not all servers are marked in time");
            }
            tokio::time::sleep(PACE).await;
        }
        seen.marked.push(millis(start.elapsed()));
        // A second patch of a server would come behind the first.
        ground.until("nothing is left to write", |metrics| metrics.sum("tidegate_unwritten") < 0.5).await?;
        let marked = ground.api.marked(manager).await?;
        anyhow::ensure!(marked == servers, "{marked} of {servers} servers are marked");
    }
    let (after, asked_after) = (ground.metrics().await?, ground.api.asked(manager).await?);
    let patches = asked_after.patches - asked.patches;
    anyhow::ensure!(asked_after.lists == asked.lists, "it listed again: it lost its watch");
    seen.requests.push(amount(asked_after.requests - asked.requests - patches));
    if writes_per_second.is_some() {
        seen.patches.push(amount(patches) / number(servers));
    }
    seen.pushes.push(after.since(&before, "tidegate_pushes_total"));
    seen.cpu.push(millis(cpu(ground.tidegate.pid)?.saturating_sub(spent)));
    seen.memory.push(amount(resident_kb(ground.tidegate.pid)?) / 1024.0);
    ground.end().await
}

fn add(report: &mut Report, place: Place, seen: &Seen) {
    report.add(place.figure("all written to the API server", "ms", &seen.written));
    let routed = place.figure("first write to last 200; floor: asking all", "ms", &seen.routed);
    report.add(routed.map(|figure| figure.floor(&seen.asked)));
    let marked = place.figure("first write to last mark; floor: their pace", "ms", &seen.marked);
    report.add(marked.map(|figure| figure.floor(&seen.pace)));
    let patches = place.figure("patches a server", "patches", &seen.patches);
    report.add(patches.map(|figure| figure.target("1", |value, _| (value.p50 - 1.0).abs() < 1e-9)));
    report.add(place.figure("other requests to the API server", "requests", &seen.requests));
    report.add(place.figure("responses to Envoy", "pushes", &seen.pushes));
    report.add(place.figure("CPU of the control plane", "ms", &seen.cpu));
    report.add(place.figure("control plane's memory behind it", "MB", &seen.memory));
}
