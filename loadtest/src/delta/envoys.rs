//! From a change to the first 200 through a real Envoy. The control planes, each with an Envoy of its own,
//! take turns, so that what else the machine does meets all of them alike.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::engine::BURST;
use super::plane::Plane;
use super::{Binaries, Options, Source};
use crate::envoy::{Envoy, bootstrap};
use crate::fleet::{Door, Fleet, Layout};
use crate::machine::{free_mb, resident_kb};
use crate::player::{Player, game};
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, micros, millis};

pub(super) const SCENARIO: &str = "envoy";
pub(super) const ONE_BY_FILE: &str = "one change to first 200, by file";

/// Players of a burst or wave ask for about so many of its servers: each first request to one opens a
/// connection, which is not what is measured.
const ASKED: usize = 10;
/// Questions to a server that is open: the floor of the asking itself.
const WARM: usize = 200;

/// A control plane, its Envoy, and a player at it.
struct Arm {
    name: &'static str,
    plane: Plane,
    envoy: Envoy,
    player: Option<Player>,
    /// The number of the next server.
    next: usize,
}

pub(super) async fn run(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    for size in options.sizes() {
        for layout in options.layouts.iter().copied() {
            if layout.is_table() && size > options.table_max as usize {
                report.note(format!(
                    "no real Envoy was told a table of {size} hosts: it builds all of it anew at each change, for seconds (--table-max)"
                ));
                continue;
            }
            one_fleet(options, binaries, report, size, layout).await?;
        }
    }
    Ok(())
}

async fn one_fleet(
    options: &Options,
    binaries: &Binaries,
    report: &mut Report,
    size: usize,
    layout: Layout,
) -> anyhow::Result<()> {
    let arms = 1 + options.sources.len();
    // Measured: 40 KB a server in Envoy, and what the control planes hold of it.
    let need = (arms * (100 + size / 22)) as u64;
    if let Some(free) = free_mb().filter(|free| *free < need) {
        anyhow::bail!(
            "{arms} Envoys with {size} servers need about {need} MB, and {free} are free: name fewer --sizes or --sources"
        );
    }
    let place = Place { scenario: SCENARIO, servers: size, layout: Some(layout.word()) };
    let fleet = Fleet { layout, port: Some(game()?) };
    let (ones, bursts) = if layout.is_table() {
        (options.changes.min(20) as usize, options.bursts.min(2) as usize)
    } else {
        (options.changes as usize, options.bursts as usize)
    };
    let waves = bursts.div_ceil(4);
    let progress = Progress::of(
        &format!("Envoy, {size} servers, {}", layout.word()),
        arms * (1 + ones + bursts + waves),
    );

    let mut all =
        vec![Arm::start("floor", Plane::floor(fleet, size, false).await?, binaries, layout, size).await?];
    for source in &options.sources {
        let (name, plane) = match source {
            Source::File => ("file", Plane::file(&binaries.tidegate, fleet, size).await?),
            Source::Event => ("event", Plane::event(fleet, size).await?),
        };
        all.push(Arm::start(name, plane, binaries, layout, size).await?);
    }
    for arm in &mut all {
        arm.enter(vec![fleet.door(size - 1)]).await?;
        progress.step();
    }
    let warm = all[0].ask_often(fleet.door(size - 1)).await?;
    report.add(place.figure("a request alone, through Envoy", "us", &warm));
    let parts: [(&str, usize, usize); 3] =
        [("one change", 1, ones), ("burst of 100", BURST, bursts), ("wave of 10 %", size / 10, waves)];
    for (what, count, times) in parts {
        let mut samples = vec![Samples::default(); all.len()];
        for _ in 0..times {
            for (arm, samples) in all.iter_mut().zip(&mut samples) {
                samples.push(millis(arm.change(fleet, count).await?));
                progress.step();
            }
        }
        let what = if count == 1 { "one change to first 200" } else { what };
        for (arm, values) in all.iter().zip(&samples).skip(1) {
            let name = match count {
                1 => format!("{what}, by {}", arm.name),
                _ => format!("{what} to last 200, by {}", arm.name),
            };
            let figure = place.figure(name, "ms", values).map(|figure| figure.floor(&samples[0]));
            report.add(figure.map(|figure| {
                if count > 1 || size < 10_000 || layout.is_table() {
                    return figure;
                }
                figure.target("p50 ≤ floor + 1, p99 ≤ floor + 5", |value, floor| {
                    floor.is_some_and(|floor| value.p50 <= floor.p50 + 1.0 && value.p99 <= floor.p99 + 5.0)
                })
            }));
        }
    }
    let resident = |arm: &Arm| anyhow::Ok(Samples::from(amount(resident_kb(arm.envoy.pid)?) / 1024.0));
    let floor = resident(&all[0])?;
    let figure = place.figure("Envoy's memory", "MB", &resident(&all[all.len() - 1])?);
    report.add(figure.map(|figure| figure.floor(&floor)));
    for arm in all {
        arm.envoy.end().await?;
        arm.plane.end().await?;
    }
    Ok(())
}

impl Arm {
    async fn start(
        name: &'static str,
        plane: Plane,
        binaries: &Binaries,
        layout: Layout,
        size: usize,
    ) -> anyhow::Result<Self> {
        let flags: &[&str] = if layout.is_table() { &["--routes", "table"] } else { &[] };
        let text = bootstrap(&binaries.tidegate, plane.xds(), flags).await?;
        let envoy = Envoy::start(&binaries.envoy, &text).await?;
        let player = Some(Player::new(envoy.http));
        Ok(Self { name, plane, envoy, player, next: size })
    }

    /// Waits until all these doors are open.
    async fn enter(&mut self, doors: Vec<Door>) -> anyhow::Result<()> {
        self.enter_after(doors, None).await?;
        Ok(())
    }

    /// The same, when a player has seen the first one closed and `change` has happened then; how long it took.
    async fn enter_after(
        &mut self,
        doors: Vec<Door>,
        change: Option<super::plane::Change>,
    ) -> anyhow::Result<Duration> {
        let mut player = self.player.take().context("a player that failed before")?;
        let (told, closed) = oneshot::channel();
        let asking = spawn_blocking(move || {
            let mut told = Some(told);
            let mut last = Ok(Instant::now());
            for door in &doors {
                last = player.until_open(door, told.take());
                if last.is_err() {
                    break;
                }
            }
            (player, last)
        });
        if change.is_some() {
            closed.await.context("a server was there before it came")?;
        }
        let start = Instant::now();
        if let Some(change) = change {
            self.plane.happen(change).await?;
        }
        let (player, last) = asking.await.context("a player panicked")?;
        self.player = Some(player);
        Ok(last.with_context(|| format!("with {}", self.name))?.saturating_duration_since(start))
    }

    /// So many new servers; until all those that are asked for have answered.
    async fn change(&mut self, fleet: Fleet, count: usize) -> anyhow::Result<Duration> {
        let numbers = self.next..self.next + count;
        self.next += count;
        let change = self.plane.prepare(fleet, numbers.clone())?;
        self.enter_after(doors(fleet, numbers), Some(change)).await
    }

    async fn ask_often(&mut self, door: Door) -> anyhow::Result<Samples> {
        let mut player = self.player.take().context("a player that failed before")?;
        let asking = spawn_blocking(move || {
            let mut samples = Samples::default();
            for _ in 0..WARM {
                let start = Instant::now();
                let status = player.ask(&door);
                samples.push(micros(start.elapsed()));
                anyhow::ensure!(status == Some(200), "an open server answered {status:?}");
            }
            Ok((player, samples))
        });
        let (player, samples) = asking.await.context("a player panicked")??;
        self.player = Some(player);
        Ok(samples)
    }
}

/// The doors of these servers: all, or some from first to last.
fn doors(fleet: Fleet, numbers: Range<usize>) -> Vec<Door> {
    let step = numbers.len().div_ceil(ASKED).max(1);
    let last = numbers.end - 1;
    let mut asked: Vec<_> = numbers.step_by(step).collect();
    if asked.last() != Some(&last) {
        asked.push(last);
    }
    asked.into_iter().map(|number| fleet.door(number)).collect()
}
