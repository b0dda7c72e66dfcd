//! Writes that change no route: what hearing them costs, beside watches that throw the same stream away.

use std::time::Duration;

use super::api::{Happened, Order};
use super::hear::Hearer;
use super::{Binaries, Ground, Options};
use crate::machine::{cpu, resident_kb};
use crate::player::game;
use crate::progress::Progress;
use crate::report::{Place, Report};
use crate::stats::{Samples, amount, number};

const SCENARIO: &str = "cluster noise";
/// All families whose growth says that an Envoy was sent something.
const PUSHES: &str = "tidegate_pushes_total";
const NEWS: &str = "tidegate_kube_news_total";

/// What some process spent on the noise.
#[derive(Default)]
struct Spent {
    /// At one write a second a server: what a machine with other work to do was late with is counted too.
    cores: Samples,
    each: Samples,
}

impl Spent {
    fn push(&mut self, cpu: Duration, servers: usize, writes: u64) {
        let each = cpu.as_secs_f64() / amount(writes);
        self.cores.push(each * number(servers));
        self.each.push(1e6 * each);
    }
}

pub(super) async fn run(options: &Options, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let servers = options.servers as usize;
    let place = Place { scenario: SCENARIO, servers, layout: Some("agones") };
    let progress = Progress::of(&format!("noise of {servers} servers"), options.runs as usize + 1);
    let port = game()?;
    let mut ground = Ground::start(binaries, servers, port, None).await?;
    ground.player(servers).await?;
    ground.settled(servers).await?;
    // The same object again is no write, but says how large one is.
    let bytes = ground.api.make(super::Manager::Agones, 0..1, port).await?.bytes;
    let mut floors =
        [Hearer::start(&ground.api.address, "bytes")?, Hearer::start(&ground.api.address, "watcher")?];
    let mut heard = u64::from(options.servers);
    for floor in &mut floors {
        floor.has_heard(heard).await?;
    }
    progress.step();

    let (mut own, mut raw, mut watcher) = (Spent::default(), Spent::default(), Spent::default());
    let [mut rate, mut pushes, mut news, mut told, mut errors, mut memory] =
        [(); 6].map(|()| Samples::default());
    let quiet = resident_kb(ground.tidegate.pid)?;
    for _ in 0..options.runs {
        let pids = [ground.tidegate.pid, floors[0].0.pid, floors[1].0.pid];
        let spent = || pids.into_iter().map(cpu).collect::<anyhow::Result<Vec<_>>>();
        let (before, spent_before) = (ground.metrics().await?, spent()?);
        let order = Order::Noise { servers: options.servers, rounds: options.seconds };
        let long = Duration::from_secs(options.seconds.into());
        let noise: Happened = ground.api.child.ask_for(long, &order).await?;
        heard += noise.writes;
        let wanted = before.sum(NEWS) + amount(noise.writes);
        ground.until("it has heard all of the noise", |metrics| metrics.sum(NEWS) >= wanted).await?;
        for floor in &mut floors {
            floor.has_heard(heard).await?;
        }
        let (after, spent_after) = (ground.metrics().await?, spent()?);
        let used: Vec<_> = spent_after
            .iter()
            .zip(&spent_before)
            .map(|(after, before)| after.saturating_sub(*before))
            .collect();
        for (spent, used) in [&mut own, &mut raw, &mut watcher].into_iter().zip(used) {
            spent.push(used, servers, noise.writes);
        }
        rate.push(amount(noise.writes) / noise.seconds);
        pushes.push(after.since(&before, PUSHES));
        news.push(after.since(&before, NEWS));
        told.push(after.since(&before, "tidegate_events_total"));
        errors.push(after.since(&before, "tidegate_kube_errors_total"));
        memory.push(amount(resident_kb(ground.tidegate.pid)?) / 1024.0);
        progress.step();
    }

    report.add(place.figure("an object on the wire", "bytes", &Samples::from(number(bytes))));
    report.add(place.figure("writes a second, as the machine allowed", "writes", &rate));
    let spent = place.figure("CPU of the control plane; floor: bytes", "cores", &own.cores);
    report.add(spent.map(|figure| figure.floor(&raw.cores)).map(|figure| {
        if options.servers >= 10_000 { figure.target("< 0.5", |value, _| value.p50 < 0.5) } else { figure }
    }));
    let spent = place.figure("the same, a write; floor: bytes", "us", &own.each);
    report.add(spent.map(|figure| figure.floor(&raw.each)));
    let spent = place.figure("the same, a write; floor: kube's watcher", "us", &own.each);
    report.add(spent.map(|figure| figure.floor(&watcher.each)));
    report.add(place.figure("news heard", "news", &news));
    let events = place.figure("events told to the engine", "events", &told);
    report.add(events.map(|figure| figure.target("0", |value, _| value.most < 0.5)));
    let sent = place.figure("pushes to Envoy", "pushes", &pushes);
    report.add(sent.map(|figure| figure.target("0", |value, _| value.most < 0.5)));
    let failed = place.figure("lists and watches that failed", "errors", &errors);
    report.add(failed.map(|figure| figure.target("0", |value, _| value.most < 0.5)));
    report.add(place.figure("control plane's memory before", "MB", &Samples::from(amount(quiet) / 1024.0)));
    report.add(place.figure("control plane's memory behind it", "MB", &memory));
    for floor in floors {
        floor.0.end().await?;
    }
    ground.end().await
}
