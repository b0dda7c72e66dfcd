//! Clusters on demand: what Envoy holds when nobody plays, and what the first player of a server waits.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use tokio::task::spawn_blocking;

use super::plane::Plane;
use super::{Binaries, Options};
use crate::envoy::{Envoy, bootstrap};
use crate::fleet::{Fleet, Layout};
use crate::machine::resident_kb;
use crate::player::{Player, game};
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, millis};
use crate::tidegate::printed;

const SCENARIO: &str = "on demand";
const FLAGS: [&str; 2] = ["--clusters", "on-demand"];
/// Where the targets stand.
const SIZE: usize = 100_000;

/// Fails where the binary has no such bootstrap.
pub(super) async fn check(tidegate: &Path) -> anyhow::Result<()> {
    let help = printed(tidegate, &["bootstrap", "--help"]).await?;
    if !help.contains(FLAGS[0]) {
        bail!(
            "{} has no `bootstrap {}`: leave `demand` out of --parts, or build one that has",
            tidegate.display(),
            FLAGS.join(" ")
        );
    }
    Ok(())
}

/// What one Envoy came to.
struct Seen {
    memory: f64,
    first: Samples,
    warm: Samples,
}

pub(super) async fn run(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let size = options.sizes().max().unwrap_or(SIZE);
    let place = Place { scenario: SCENARIO, servers: size, layout: Some(Layout::Scoped.word()) };
    let fleet = Fleet { layout: Layout::Scoped, port: Some(game()?) };
    let progress = Progress::of(&format!("clusters on demand, {size} servers"), 2);
    let floor = Plane::floor(fleet, size, true).await?;
    let bare = one_envoy(options, binaries, fleet, size, &floor).await?;
    floor.end().await?;
    progress.step();
    let plane = Plane::file(&binaries.tidegate, fleet, size).await?;
    let real = one_envoy(options, binaries, fleet, size, &plane).await?;
    plane.end().await?;
    progress.step();

    let judged = size >= SIZE;
    let memory = place.figure("Envoy's memory", "MB", &real.memory.into());
    report.add(
        memory.map(|figure| figure.floor(&bare.memory.into())).map(|figure| {
            if judged { figure.target("≤ 650", |value, _| value.p50 <= 650.0) } else { figure }
        }),
    );
    let first = place.figure("first request to a server", "ms", &real.first);
    report.add(
        first.map(|figure| figure.floor(&bare.first)).map(|figure| {
            if judged { figure.target("p50 ≤ 5", |value, _| value.p50 <= 5.0) } else { figure }
        }),
    );
    let warm = place.figure("second request to it", "ms", &real.warm);
    report.add(warm.map(|figure| figure.floor(&bare.warm)));
    Ok(())
}

async fn one_envoy(
    options: &Options,
    binaries: &Binaries,
    fleet: Fleet,
    size: usize,
    plane: &Plane,
) -> anyhow::Result<Seen> {
    let text = bootstrap(&binaries.tidegate, plane.xds(), &FLAGS).await?;
    let envoy = Envoy::start(&binaries.envoy, &text).await?;
    let mut player = Player::new(envoy.http);
    let (count, pid) = ((options.changes as usize).min(size - 1), envoy.pid);
    let seen = spawn_blocking(move || {
        player.until_open(&fleet.door(0), None)?;
        let memory = amount(resident_kb(pid)?) / 1024.0;
        let (mut first, mut warm) = (Samples::default(), Samples::default());
        for number in 0..count {
            let door = fleet.door(1 + number * (size - 1) / count);
            for samples in [&mut first, &mut warm] {
                let start = Instant::now();
                let status = player.ask(&door);
                samples.push(millis(start.elapsed()));
                anyhow::ensure!(status == Some(200), "{} answered {status:?}", door.host);
            }
        }
        Ok(Seen { memory, first, warm })
    });
    let seen = seen.await.context("a player panicked")??;
    envoy.end().await?;
    Ok(seen)
}
