//! From the start of Envoy's process to the first 200 through it, with the control plane up before.

use anyhow::Context;
use tokio::task::spawn_blocking;

use super::plane::Plane;
use super::{Binaries, Options};
use crate::envoy::{Envoy, bootstrap};
use crate::fleet::{Fleet, Layout};
use crate::player::{Player, game};
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, millis};

const SCENARIO: &str = "cold start";
/// Where the target stands; a smaller run starts with its largest fleet.
const SIZE: usize = 10_000;

pub(super) async fn run(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let size = options.sizes().filter(|size| *size <= SIZE).max().unwrap_or(SIZE);
    let place = Place { scenario: SCENARIO, servers: size, layout: Some(Layout::Scoped.word()) };
    let fleet = Fleet { layout: Layout::Scoped, port: Some(game()?) };
    let planes =
        [Plane::floor(fleet, size, false).await?, Plane::file(&binaries.tidegate, fleet, size).await?];
    let progress = Progress::of(&format!("cold start, {size} servers"), 2 * (1 + options.starts as usize));
    let mut samples = [Samples::default(), Samples::default()];
    // One more than asked for: the first start of each reads files that the others find in memory.
    for round in 0..=options.starts {
        for (plane, samples) in planes.iter().zip(&mut samples) {
            let text = bootstrap(&binaries.tidegate, plane.xds(), &[]).await?;
            let envoy = Envoy::start(&binaries.envoy, &text).await?;
            let (mut player, door) = (Player::new(envoy.http), fleet.door(size - 1));
            let open = spawn_blocking(move || player.until_open(&door, None)).await;
            let open = open.context("a player panicked")??;
            if round > 0 {
                samples.push(millis(open - envoy.started));
            }
            envoy.end().await?;
            progress.step();
        }
    }
    let [floor, real] = &samples;
    let figure = place.figure("start of Envoy to first 200", "ms", real).map(|figure| figure.floor(floor));
    report.add(figure.map(|figure| {
        if size < SIZE {
            return figure;
        }
        figure.target("p50 ≤ 1.15 x floor", |value, floor| {
            floor.is_some_and(|floor| value.p50 <= 1.15 * floor.p50)
        })
    }));
    for plane in planes {
        plane.end().await?;
    }
    Ok(())
}
