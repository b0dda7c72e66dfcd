//! One change to M streams: the last receipt, CPU a stream, memory a stream; beside a bare server that writes
//! the same bytes to as many.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::model::Event;
use tidegate::translate::{CLUSTER, SCOPE};

use super::{Options, Real, SETTLE};
use crate::bare::Order;
use crate::core::{Core, Stream, weight};
use crate::fleet::{Fleet, Layout};
use crate::floor::Floor;
use crate::machine::{cpu, resident_kb};
use crate::messages::nothing;
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, micros, millis, number};
use crate::wire::{Crowd, First, learn};

const SCENARIO: &str = "fan-out";
pub(super) const LAST: &str = "one change to the last stream, by file";

/// A server, a crowd before it, and what the crowd cost it.
struct Side {
    pid: u32,
    crowd: Crowd,
    first: First,
    /// Memory before the first stream.
    base_kb: u64,
    last: Samples,
    any: Samples,
    cpu: Duration,
}

impl Side {
    fn new(pid: u32, crowd: Crowd, first: First) -> anyhow::Result<Self> {
        let base_kb = resident_kb(pid)?;
        Ok(Self {
            pid,
            crowd,
            first,
            base_kb,
            last: Samples::default(),
            any: Samples::default(),
            cpu: Duration::ZERO,
        })
    }

    /// Opens streams until there are `count`; memory a stream, in KB.
    async fn grow(&mut self, count: usize) -> anyhow::Result<f64> {
        self.crowd.grow(count, &self.first, false).await?;
        tokio::time::sleep(SETTLE).await;
        self.crowd.forget();
        (self.last, self.any, self.cpu) = (Samples::default(), Samples::default(), Duration::ZERO);
        Ok(amount(resident_kb(self.pid)?.saturating_sub(self.base_kb)) / number(count))
    }

    /// Takes the receipts of a change that happened at `start`.
    async fn take(&mut self, start: Instant) -> anyhow::Result<()> {
        let times = self.crowd.receive().await?;
        let took = times.iter().map(|at| millis(at.saturating_duration_since(start)));
        let mut last = 0.0;
        for took in took {
            self.any.push(took);
            last = f64::max(last, took);
        }
        self.last.push(last);
        Ok(())
    }

    /// CPU of the server a change and stream.
    fn cpu_each(&self, changes: usize) -> Samples {
        (micros(self.cpu) / number(changes * self.crowd.len())).into()
    }
}

pub(super) async fn run(
    options: &Options,
    binary: &Path,
    size: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let place = Place { scenario: SCENARIO, servers: size, layout: None };
    let changes = options.changes as usize;
    let connections = options.connections.map(|count| count as usize);
    let progress = Progress::of(&format!("fan-out, {size} servers"), options.streams.len() * (1 + changes));

    let mut floor = Floor::start().await?;
    floor.order(Order::First, &[nothing(CLUSTER), nothing(SCOPE)]).await?;
    // The first stream of a process costs what all later ones share: on both sides it comes before the count.
    Crowd::new(floor.xds, connections).grow(1, &First::fresh(), false).await?;
    tokio::time::sleep(SETTLE).await;
    let bare_crowd = Crowd::new(floor.xds, connections);
    let mut copies = Copies::new()?;

    let mut tidegate = Real::start(binary, size).await?;
    tidegate.tidegate.ready().await?;
    let each = |tidegate: &Real| {
        anyhow::Ok(Samples::from(amount(resident_kb(tidegate.tidegate.pid)?) * 1024.0 / number(size)))
    };
    let figure = place.figure("control plane's whole memory, a server", "bytes", &each(&tidegate)?);
    report.add(figure.map(|figure| {
        if size == 100_000 { figure.target("≤ 1536", |value, _| value.p50 <= 1536.0) } else { figure }
    }));
    let first = learn(tidegate.tidegate.xds, size).await?;
    tokio::time::sleep(SETTLE).await;
    report.add(place.figure("the same, behind a first stream", "bytes", &each(&tidegate)?));
    let crowd = Crowd::new(tidegate.tidegate.xds, connections);
    // The same requests on both sides: gRPC keeps what a large one was read into for as long as its stream lives.
    let mut bare = Side::new(floor.pid, bare_crowd, first.clone())?;
    let mut real = Side::new(tidegate.tidegate.pid, crowd, first)?;

    for count in options.streams.iter().map(|count| *count as usize) {
        let floor_memory = bare.grow(count).await?;
        let memory = real.grow(count).await?;
        progress.step();
        let mut bytes = Samples::default();
        let before = (cpu(bare.pid)?, cpu(real.pid)?);
        for _ in 0..changes {
            let messages = copies.next()?;
            bytes.push(number(weight(&messages)));
            let start = Instant::now();
            floor.order(Order::Now, &messages).await?;
            bare.take(start).await?;
            let start = tidegate.add()?;
            real.take(start).await?;
            progress.step();
        }
        tokio::time::sleep(SETTLE).await;
        (bare.cpu, real.cpu) =
            (cpu(bare.pid)?.saturating_sub(before.0), cpu(real.pid)?.saturating_sub(before.1));

        let at_target = size == 100_000 && count == 1_000;
        let last = place.figure(LAST, "ms", &real.last).map(|figure| figure.floor(&bare.last).streams(count));
        report.add(last.map(|figure| {
            if at_target { figure.target("p50 ≤ 60", |value, _| value.p50 <= 60.0) } else { figure }
        }));
        let any = place.figure("one change to any stream, by file", "ms", &real.any);
        report.add(any.map(|figure| figure.floor(&bare.any).streams(count)));
        let spent = place.figure("CPU a change and stream", "us", &real.cpu_each(changes));
        report.add(spent.map(|figure| figure.floor(&bare.cpu_each(changes)).streams(count)).map(|figure| {
            if at_target { figure.target("≤ 20", |value, _| value.p50 <= 20.0) } else { figure }
        }));
        let sent = place.figure("a change on the wire, a stream", "bytes", &bytes);
        report.add(sent.map(|figure| figure.streams(count)));
        let held = place.figure("memory a converged stream", "KB", &memory.into());
        report.add(held.map(|figure| figure.floor(&floor_memory.into()).streams(count)).map(|figure| {
            if count < 100 || size < 100_000 {
                return figure;
            }
            figure.target("≤ floor + 64", |value, floor| {
                floor.is_some_and(|floor| value.p50 <= floor.p50 + 64.0)
            })
        }));
    }
    tidegate.tidegate.end().await?;
    floor.end().await
}

/// What a control plane sends for a server more: the messages themselves, from a core in this process.
struct Copies {
    fleet: Fleet,
    core: Core,
    stream: Stream,
    servers: usize,
}

impl Copies {
    fn new() -> anyhow::Result<Self> {
        let fleet = Fleet { layout: Layout::Scoped, port: None };
        let mut core = Core::of(fleet.servers(0..1)?);
        let mut stream = Stream::open(&core, false)?;
        stream.drain(&mut core)?;
        // Names as long as those of a large fleet.
        Ok(Self { fleet, core, stream, servers: 100_000 })
    }

    fn next(&mut self) -> anyhow::Result<Vec<Bytes>> {
        self.servers += 1;
        let servers = self.fleet.servers(self.servers..self.servers + 1)?;
        self.core.apply(servers.into_iter().map(Event::Upsert));
        self.stream.drain(&mut self.core)
    }
}
