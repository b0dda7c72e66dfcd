//! One stream reads nothing while the others go on: they should not notice, and nothing should pile up for it.
//! When it reads again it should be told the newest state, each name once.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use prost::Message;
use tidegate::translate::SCOPE;

use super::{Options, Real, SETTLE};
use crate::machine::resident_kb;
use crate::messages::Label;
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, millis, number};
use crate::wire::{Crowd, Link, connect, learn};

const SCENARIO: &str = "a stalled stream";
/// Others beside it, at most.
const OTHERS: usize = 100;
const LIMIT: Duration = Duration::from_mins(1);

pub(super) async fn run(
    options: &Options,
    binary: &Path,
    size: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let place = Place { scenario: SCENARIO, servers: size, layout: None };
    let others = (options.streams.last().copied().unwrap_or(1) as usize).min(OTHERS);
    let changes = options.changes as usize;
    let progress = Progress::of(&format!("a stalled stream, {size} servers"), 2 * changes);
    let mut real = Real::start(binary, size).await?;
    let (xds, pid) = (real.tidegate.xds, real.tidegate.pid);
    let first = learn(xds, size).await?;
    let mut crowd = Crowd::new(xds, options.connections.map(|count| count as usize));
    crowd.grow(others, &first, false).await?;

    let before = rounds(&mut real, &mut crowd, changes, &progress).await?;
    let again = learn(xds, real.servers).await?;
    let mut stalled = Link::open(connect(xds).await?, &again).await?;
    // Its first answers, both empty; from here on it is not polled.
    for _ in 0..2 {
        tokio::time::timeout(LIMIT, stalled.next()).await.context("a first answer")??;
    }
    tokio::time::sleep(SETTLE).await;
    let base = resident_kb(pid)?;
    let from = real.servers;
    let during = rounds(&mut real, &mut crowd, changes, &progress).await?;
    tokio::time::sleep(SETTLE).await;
    let grown = amount(resident_kb(pid)?.saturating_sub(base));

    let start = Instant::now();
    let (mut missing, mut messages, mut resources) = ((from..real.servers).collect::<HashSet<_>>(), 0, 0);
    while !missing.is_empty() {
        let told = tokio::time::timeout(LIMIT, stalled.next()).await.context("what it missed")??;
        messages += 1;
        resources += told.resources.len();
        if told.type_url == SCOPE {
            for resource in told.resources {
                let name = Label::decode(resource)?.name;
                missing.retain(|number| real.fleet.door(*number).host != name);
            }
        }
    }
    let caught_up = millis(start.elapsed());
    let mut add = |name, unit, value: Samples| {
        report.add(place.figure(name, unit, &value).map(|figure| figure.streams(others)));
    };
    add("memory that grew meanwhile", "KB", grown.into());
    add("until it has caught up", "ms", caught_up.into());
    add("changes it missed", "count", number(changes).into());
    add("responses until it has caught up", "count", number(messages).into());
    add("resources until it has caught up", "count", number(resources).into());
    let last = place.figure("one change to the last of the others, by file", "ms", &during);
    report.add(last.map(|figure| figure.floor(&before).streams(others)));
    real.tidegate.end().await
}

/// Changes, each when all have the one before; how long each took to the last stream.
async fn rounds(
    real: &mut Real,
    crowd: &mut Crowd,
    changes: usize,
    progress: &Progress,
) -> anyhow::Result<Samples> {
    crowd.forget();
    let mut samples = Samples::default();
    for _ in 0..changes {
        let start = real.add()?;
        let times = crowd.receive().await?;
        let last = times.into_iter().max().context("no stream")?;
        samples.push(millis(last.saturating_duration_since(start)));
        progress.step();
    }
    Ok(samples)
}
