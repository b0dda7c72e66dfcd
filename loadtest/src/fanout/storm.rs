//! All Envoys come back at once, each with the versions of the whole fleet, as behind a control plane that was
//! replaced: nothing is to be sent, and it should not take long to find that out.

use std::path::Path;
use std::time::Instant;

use tidegate::translate::{CLUSTER, SCOPE};

use super::{Options, Real, SETTLE};
use crate::bare::Order;
use crate::floor::Floor;
use crate::machine::{cpu, resident_kb};
use crate::messages::nothing;
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, millis, number};
use crate::wire::{Crowd, learn};

const SCENARIO: &str = "reconnect storm";
/// Names that all streams of a storm state together, of 45 bytes each: this process holds them all at once.
const MOST_NAMES: usize = 10_000_000;
const STORMS: usize = 3;

/// What a server's storms came to.
#[derive(Default)]
struct Seen {
    took: Samples,
    cpu: Samples,
    sent: Samples,
    memory: Samples,
}

pub(super) async fn run(
    options: &Options,
    binary: &Path,
    size: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let most = options.streams.last().copied().unwrap_or(1) as usize;
    let count = most.min(MOST_NAMES / size).max(1);
    if count < most {
        report.note(format!("the storm over {size} servers is of {count} streams, not {most}: their requests alone fill memory"));
    }
    let place = Place { scenario: SCENARIO, servers: size, layout: None };
    let storms = if options.smoke { 1 } else { STORMS };
    let progress = Progress::of(&format!("reconnect storm, {size} servers, {count} streams"), 2 * storms);
    let real = Real::start(binary, size).await?;
    let first = learn(real.tidegate.xds, size).await?;
    let mut floor = Floor::start().await?;
    floor.order(Order::First, &[nothing(CLUSTER), nothing(SCOPE)]).await?;
    let servers = [(floor.xds, floor.pid), (real.tidegate.xds, real.tidegate.pid)];
    let mut seen = [Seen::default(), Seen::default()];
    tokio::time::sleep(SETTLE).await;
    for ((xds, pid), seen) in servers.into_iter().zip(&mut seen) {
        let base = resident_kb(pid)?;
        for _ in 0..storms {
            let mut crowd = Crowd::new(xds, options.connections.map(|count| count as usize));
            let before = cpu(pid)?;
            let start = Instant::now();
            seen.sent.push(number(crowd.grow(count, &first, true).await?));
            seen.took.push(millis(start.elapsed()));
            tokio::time::sleep(SETTLE).await;
            seen.cpu.push(millis(cpu(pid)?.saturating_sub(before)) / number(count));
            seen.memory.push(amount(resident_kb(pid)?.saturating_sub(base)) / 1024.0);
            progress.step();
        }
    }
    let [bare, real_seen] = seen;
    let judged = size == 100_000;
    let mut add = |name, unit, of: fn(&Seen) -> &Samples, target: &str, most: f64| {
        let figure = place.figure(name, unit, of(&real_seen)).map(|f| f.floor(of(&bare)).streams(count));
        report.add(figure.map(|figure| {
            if !judged || target.is_empty() {
                return figure;
            }
            figure.target(target, |value, _| value.most <= most)
        }));
    };
    add("resources sent", "count", |seen| &seen.sent, "0", 0.0);
    add("CPU a stream", "ms", |seen| &seen.cpu, "≤ 50", 50.0);
    add("until the last is answered", "ms", |seen| &seen.took, "", 0.0);
    add("memory behind it, more than before", "MB", |seen| &seen.memory, "", 0.0);
    floor.end().await?;
    real.tidegate.end().await
}
