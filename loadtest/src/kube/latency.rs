//! One server that comes, or gets another host, until its first player gets in through Envoy.

use std::time::Instant;

use anyhow::Context;
use tokio::sync::oneshot;

use super::api::{Happened, Order};
use super::objects::Manager;
use super::{Binaries, Ground, Options, blocking};
use crate::fleet::Door;
use crate::player::{Player, game};
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, micros, millis};

const SCENARIO: &str = "cluster change";
/// Requests on a warm connection, for the floor.
const WARM: usize = 200;
/// Where the control plane's part of the time goes, as its own clocks say.
const STAGES: [(&str, &str); 4] = [
    ("heard to committed, mean", "tidegate_event_seconds"),
    ("of that apply and commit, mean", "tidegate_commit_seconds"),
    ("committed to sent, mean a response", "tidegate_push_seconds"),
    ("sent to acknowledged, mean a response", "tidegate_ack_seconds"),
];

pub(super) async fn run(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let (servers, changes) = (options.among, options.changes);
    let place = Place { scenario: SCENARIO, servers: servers as usize, layout: Some("agones") };
    let progress = Progress::of(&format!("a change among {servers} servers"), 2 * changes as usize + 1);
    let port = game()?;
    let mut ground = Ground::start(binaries, servers as usize, port, None).await?;
    let mut player = ground.player(servers as usize).await?;
    ground.settled(servers as usize).await?;
    progress.step();
    let warm;
    (player, warm) = ask_often(player, Manager::Agones.door(0)).await?;

    for what in ["made", "annotated"] {
        let before = ground.metrics().await?;
        let mut samples = Samples::default();
        for number in 0..changes {
            let (order, door) = if what == "made" {
                let new = servers + number;
                let make = Order::Make { manager: Manager::Agones, from: new, to: new + 1, port };
                (make, Manager::Agones.door(new as usize))
            } else {
                let host = format!("moved-{number}.example.com");
                let door = Door { host: host.clone(), path: "/".to_owned() };
                (Order::Host { number: number % servers, host }, door)
            };
            let took;
            (player, took) = enter(player, door, &mut ground, &order).await?;
            samples.push(took);
            progress.step();
        }
        let figure = place
            .figure(format!("a server {what} to first 200"), "ms", &samples)
            .map(|figure| figure.floor(&warm));
        report.add(figure.map(|figure| {
            figure.target("p50 < 20, p99 < 60", |value, _| value.p50 < 20.0 && value.p99 < 60.0)
        }));
        // The last acknowledgements come behind the first answer.
        let after = ground.settled(servers as usize).await?;
        for (stage, family) in STAGES {
            report.add(place.figure(format!("{what}: {stage}"), "ms", &after.mean_millis(&before, family)));
        }
        let pushes = after.since(&before, "tidegate_pushes_total") / f64::from(changes);
        report.add(place.figure(format!("{what}: responses to Envoy, mean"), "pushes", &pushes.into()));
    }
    ground.end().await
}

/// A player who has seen a closed door gets in when `order` was carried out; how long that took, in ms.
async fn enter(
    mut player: Player,
    door: Door,
    ground: &mut Ground,
    order: &Order,
) -> anyhow::Result<(Player, f64)> {
    let (told, closed) = oneshot::channel();
    let asking = tokio::spawn(blocking(move || {
        let opened = player.until_open(&door, Some(told))?;
        Ok((player, opened))
    }));
    closed.await.context("a server was there before it came")?;
    let start = Instant::now();
    let _: Happened = ground.api.child.ask(order).await?;
    let (player, opened) = asking.await.context("a player panicked")??;
    Ok((player, millis(opened.saturating_duration_since(start))))
}

/// A request alone, in ms.
async fn ask_often(mut player: Player, door: Door) -> anyhow::Result<(Player, Samples)> {
    blocking(move || {
        let mut samples = Samples::default();
        for _ in 0..WARM {
            let start = Instant::now();
            let status = player.ask(&door);
            samples.push(micros(start.elapsed()) / 1e3);
            anyhow::ensure!(status == Some(200), "an open server answered {status:?}");
        }
        Ok((player, samples))
    })
    .await
}
