//! The engine alone: time and allocations of a change, and its bytes on the wire.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tidegate::model::{Event, Mode, Server, ServerId};

use super::Options;
use crate::core::{Core, Stream, weight};
use crate::fleet::{Fleet, Layout};
use crate::machine::own_thread_cpu;
use crate::progress::Progress;
use crate::report::{Figure, Place, Report};
use crate::stats::{Samples, amount, micros, millis, number};

pub(super) const SCENARIO: &str = "engine";
pub(super) const ONE: &str = "one change, apply + commit";
const BUILDS: usize = 3;
/// Servers in a burst.
pub(super) const BURST: usize = 100;

pub(super) async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for size in options.sizes() {
        for layout in options.layouts.clone() {
            let (changes, bursts) = (options.changes as usize, options.bursts as usize);
            // On a thread where nothing else runs: allocations are counted by thread.
            let figures = tokio::task::spawn_blocking(move || one_fleet(size, layout, changes, bursts));
            for figure in figures.await.context("the engine panicked")?? {
                report.add(Some(figure));
            }
        }
    }
    report.note("the engine's floor is a plain hash map of the servers that takes the same changes");
    growth(report);
    Ok(())
}

/// What a change costs among all sizes, as a multiple of the least.
fn growth(report: &mut Report) {
    let ones: Vec<_> =
        report.figures.iter().filter(|f| f.scenario == SCENARIO && f.name == ONE).cloned().collect();
    for least in ones.iter().filter(|figure| figure.servers == 1_000) {
        let same = ones.iter().filter(|figure| figure.layout == least.layout);
        let Some(most) = same.max_by_key(|figure| figure.servers).filter(|most| most.servers > 1_000) else {
            continue;
        };
        let place = Place { scenario: SCENARIO, servers: most.servers, layout: most.layout };
        let times = Samples::from(most.value.p50 / least.value.p50);
        let figure = place.figure("one change, times that of 1,000", "x", &times);
        report.add(figure.map(|figure| {
            if most.layout == Some(Layout::Table.word()) {
                return figure;
            }
            figure.target("≤ 1.5", |value, _| value.p50 <= 1.5)
        }));
    }
}

fn one_fleet(size: usize, layout: Layout, changes: usize, bursts: usize) -> anyhow::Result<Vec<Figure>> {
    let progress = Progress::of(&format!("engine, {size} servers, {}", layout.word()), 4);
    let place = Place { scenario: SCENARIO, servers: size, layout: Some(layout.word()) };
    let fleet = Fleet { layout, port: None };
    let mut figures = Vec::new();
    let start = Instant::now();
    let servers = fleet.servers(0..size)?;
    figures.extend(place.figure("reading the fleet file", "ms", &millis(start.elapsed()).into()));
    progress.step();

    let (mut wall, mut cpu) = (Samples::default(), Samples::default());
    for _ in 0..BUILDS {
        let listed = servers.clone();
        let (start, spent) = (Instant::now(), own_thread_cpu());
        let core = Core::of(listed);
        wall.push(millis(start.elapsed()));
        cpu.push(millis(own_thread_cpu().saturating_sub(spent)));
        drop(core);
    }
    let start = Instant::now();
    let mut map: HashMap<_, _> = servers.iter().map(|server| (server.id.clone(), server.clone())).collect();
    let map_built = start.elapsed();
    let mut built = None;
    // Once more, from its own copy of the servers, so that all that the engine holds is counted.
    drop(servers);
    let counted = allocation_counter::measure(|| {
        built = fleet.servers(0..size).ok().map(|servers| (Core::of(servers.clone()), servers));
    });
    let (mut core, servers) = built.context("a fleet that was read before")?;
    let build = place.figure("build from nothing", "ms", &wall);
    let build = build.map(|figure| figure.floor(&millis(map_built).into()));
    figures.extend(
        build.map(
            |figure| {
                if size == 100_000 { figure.target("≤ 1 s", |v, _| v.p50 <= 1e3) } else { figure }
            },
        ),
    );
    figures.extend(place.figure("build from nothing, CPU", "ms", &cpu));
    let held = amount(counted.bytes_current.try_into().unwrap_or(0)) / number(size);
    let heap = place.figure("heap a server, without the allocator's own", "bytes", &held.into());
    figures.extend(heap.map(|figure| {
        if size == 100_000 { figure.target("≤ 1536", |v, _| v.p50 <= 1536.0) } else { figure }
    }));
    progress.step();

    let mut stream = Stream::open(&core, layout.is_table())?;
    let first = stream.drain(&mut core)?;
    figures.extend(place.figure("a whole fleet on the wire", "bytes", &number(weight(&first)).into()));
    drop(first);
    let mut script = Script { fleet, servers, next: 0, size };

    // A table is made anew for each change: fewer of them say as much.
    let (ones, bursts) =
        if layout.is_table() { (changes.min(20), bursts.min(2)) } else { (20 * changes, bursts) };
    let parts: [(&str, usize, usize); 3] = [
        ("one change", 1, ones),
        ("burst of 100", BURST, bursts),
        ("wave of 10 %", size / 10, bursts.div_ceil(4)),
    ];
    for (what, count, times) in parts {
        let [mut time, mut floor, mut bytes, mut allocations, mut allocated]: [Samples; 5] =
            Default::default();
        for round in 0..times + 5.min(times) {
            let events = script.events(count)?;
            let same = events.clone();
            let run = |core: &mut Core| {
                core.apply(events);
                if layout.is_table() {
                    core.make_table();
                }
            };
            // The last rounds are counted, not timed: the counter itself takes time.
            if round >= times {
                let counted = allocation_counter::measure(|| run(&mut core));
                allocations.push(amount(counted.count_total));
                allocated.push(amount(counted.bytes_total));
            } else {
                let start = Instant::now();
                run(&mut core);
                time.push(micros(start.elapsed()));
                let start = Instant::now();
                put(&mut map, same);
                floor.push(micros(start.elapsed()));
            }
            bytes.push(number(weight(&black_box(stream.drain(&mut core)?))));
        }
        let timed = place.figure(format!("{what}, apply + commit"), "us", &time);
        figures.extend(timed.map(|figure| figure.floor(&floor)).map(|figure| {
            if count == 1 && size == 100_000 && !layout.is_table() {
                figure.target("p50 ≤ 10, p99 ≤ 50", |value, _| value.p50 <= 10.0 && value.p99 <= 50.0)
            } else {
                figure
            }
        }));
        figures.extend(place.figure(format!("{what}, allocations"), "count", &allocations));
        figures.extend(place.figure(format!("{what}, allocated"), "bytes", &allocated));
        figures.extend(place.figure(format!("{what}, on the wire"), "bytes", &bytes));
        progress.step();
    }
    Ok(figures)
}

/// The floor: a plain map that takes the same changes.
fn put(map: &mut HashMap<ServerId, Arc<Server>>, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Upsert(server) => _ = map.insert(server.id.clone(), server),
            Event::Remove(id) => _ = map.remove(&id),
            _ => {}
        }
    }
}

/// Changes of every kind in turn: a server moves, one drains, one comes, one goes.
struct Script {
    fleet: Fleet,
    servers: Vec<Arc<Server>>,
    next: usize,
    size: usize,
}

impl Script {
    fn events(&mut self, count: usize) -> anyhow::Result<Vec<Event>> {
        (0..count).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> anyhow::Result<Event> {
        let number = self.next;
        self.next += 1;
        // Far apart, so that neighbours in any order do not help; 7919 is prime.
        let at = number * 7919 % self.servers.len();
        let changed = match number % 4 {
            0 => self.change(at, |server| {
                let port = 7000 + u16::try_from(number % 1000).unwrap_or_default();
                if let Some(endpoint) = &mut server.desired.endpoint {
                    // Never the port it has.
                    endpoint.set_port(if endpoint.port() == port { 6999 } else { port });
                }
            }),
            1 => self.change(at, |server| {
                server.desired.mode = match server.desired.mode {
                    Mode::Open => Mode::Draining { redirect: None },
                    _ => Mode::Open,
                };
            }),
            2 => {
                let newcomer = self.size + number;
                let server = self.fleet.servers(newcomer..newcomer + 1)?.remove(0);
                self.servers.push(server.clone());
                return Ok(Event::Upsert(server));
            }
            _ => {
                let Some(server) = self.servers.pop() else { anyhow::bail!("no server is left") };
                return Ok(Event::Remove(server.id.clone()));
            }
        };
        Ok(Event::Upsert(changed))
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Server)) -> Arc<Server> {
        let mut server = Server::clone(&self.servers[at]);
        change(&mut server);
        self.servers[at] = Arc::new(server);
        self.servers[at].clone()
    }
}
