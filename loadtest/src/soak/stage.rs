//! One lane: the same players and the same churn before any front.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::ask::Asker;
use super::crowd::{Crowd, Doors};
use super::direct::Direct;
use super::front::{Front, Routes};
use super::games::Games;
use super::oracle::{Oracle, Wrong};
use super::record::{MarkKind, Phase};
use super::schedule::Step;
use super::world::{Addresses, Change, File, World, name, server_of};
use crate::progress::Progress;
use crate::stats::millis;

/// How long the players may take to come in.
const GATHER: Duration = Duration::from_secs(90);
/// A server that came must be there by then: after the longest fault, and Envoy's longest pause behind it.
const NEW: Duration = Duration::from_secs(30);
/// In-place updates, which nobody may hear of.
const TOUCHES: u32 = 60;
/// What was sent by an in-place update would be counted by then.
const SETTLE: Duration = Duration::from_millis(1_500);
/// Behind a round its last players come back, and a directory that was away is believed in what it lacks.
const REST: Duration = Duration::from_secs(15);
/// Faults wait for each other: in a short run the last may break behind the churn.
pub(super) const BROKEN: Duration = Duration::from_mins(1);
/// When nothing changes any more, every host answers as it should within this time.
const IN_THE_END: Duration = Duration::from_secs(30);
/// So many ask for the hosts that were given up, each on one connection: a connection a host would be thousands.
const ASKERS: usize = 8;
/// A host is asked for at least so long: a connection that ended meanwhile is no answer.
const ASKED: Duration = Duration::from_millis(50);
/// Memory is looked at so often. Seconds.
const WEIGHED: u32 = 10;
/// In a log, a line so often. Seconds.
const LINE: u64 = 10;

/// What every lane has to do.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) seed: u64,
    pub(super) servers: u32,
    pub(super) players: u32,
    /// Between two messages of a player.
    pub(super) pause: Duration,
    /// An answer that takes longer never comes.
    pub(super) lost_after: Duration,
    /// Who fell is back within this time.
    pub(super) rejoin: Duration,
    /// Half of the players move on by themselves, now and then.
    pub(super) moving: bool,
    /// Before each round.
    pub(super) quiet: Duration,
    pub(super) rounds: Vec<Round>,
}

/// A part of the churn. Between two it is quiet again: what a machine does to an hour, it does to both.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) length: Duration,
    pub(super) steps: Vec<Step>,
}

/// Between the lane and whoever breaks its front.
#[derive(Debug)]
pub(super) struct Breaking {
    /// So many rounds have begun, and what should break in them may.
    pub(super) begun: watch::Sender<usize>,
    /// So many are over: what broke in them is well again.
    pub(super) over: watch::Sender<usize>,
}

impl Breaking {
    pub(super) fn something() -> Self {
        Self { begun: watch::Sender::new(0), over: watch::Sender::new(0) }
    }

    /// Nothing breaks, in any round.
    pub(super) fn nothing() -> Self {
        Self { begun: watch::Sender::new(0), over: watch::Sender::new(usize::MAX) }
    }
}

/// A lane that runs.
pub(super) struct Stage<'a, F> {
    work: &'a Work,
    front: &'a mut F,
    oracle: Arc<Oracle>,
    pub(super) games: Games,
    world: World,
    doors: Arc<Doors>,
    /// Who waits for a server that came.
    waiting: BTreeMap<u32, (AbortHandle, u64)>,
    waiters: JoinSet<u32>,
    given_up: BTreeSet<String>,
    /// Hosts that the front was made to refuse.
    refused: mpsc::UnboundedReceiver<Vec<String>>,
    beat: Interval,
    /// Seconds so far.
    beats: u32,
    /// When it was looked at last.
    memory_mb: f64,
    progress: Progress,
}

/// The fleet as it is before anybody plays: the game servers run, and a front can be started on it.
pub(super) struct Before {
    games: Games,
    world: World,
}

impl Before {
    pub(super) async fn of(work: &Work) -> anyhow::Result<Self> {
        let mut games = Games::start().await?;
        for server in 0..work.servers {
            games.run(server, 0).await?;
        }
        Ok(Self { games, world: World::of(work.servers) })
    }

    pub(super) fn files(&self) -> Vec<File> {
        self.world.servers.keys().map(|server| self.world.file(*server, &self.games)).collect()
    }

    pub(super) fn routes(&self) -> Routes {
        self.world.routes(&self.games)
    }
}

impl<'a, F: Front> Stage<'a, F> {
    pub(super) fn new(
        work: &'a Work,
        before: Before,
        front: &'a mut F,
        oracle: Arc<Oracle>,
        refused: mpsc::UnboundedReceiver<Vec<String>>,
        progress: Progress,
    ) -> Self {
        let Before { games, world } = before;
        let Work { lost_after, rejoin, moving, .. } = *work;
        let doors = Doors::new(front.address(), world.targets(), lost_after, rejoin, moving, oracle.clone());
        // What it took to know the fleet is nothing that changes cost.
        oracle.begins(front.cost());
        let mut beat = interval(Duration::from_secs(1));
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            work,
            front,
            oracle,
            games,
            world,
            doors,
            waiting: BTreeMap::new(),
            waiters: JoinSet::new(),
            given_up: BTreeSet::new(),
            refused,
            beat,
            beats: 0,
            memory_mb: 0.0,
            progress,
        }
    }

    /// From the first player to the last.
    pub(super) async fn play(&mut self, breaking: &Breaking) -> anyhow::Result<()> {
        let crowd = self.gather().await?;
        let direct = Direct::begin(self.games.rival(), &self.oracle);
        let (work, over) = (self.work, breaking.over.subscribe());
        for (number, round) in (1..).zip(&work.rounds) {
            self.be_quiet().await?;
            if number == 1 {
                self.touch().await?;
            }
            self.oracle.phase("churn", Phase::Churn);
            breaking.begun.send_replace(number);
            self.pass(&round.steps, round.length, |_| false).await?;
            if !self.pass(&[], BROKEN, |_| *over.borrow() >= number).await? {
                bail!("what broke was not well again in {BROKEN:?}");
            }
            if number < work.rounds.len() {
                self.oracle.phase("a rest between two rounds", Phase::Between);
                self.pass(&[], REST.min(round.length), |_| false).await?;
            }
        }
        drop(direct);
        self.tidy().await?;
        crowd.go().await
    }

    /// Players come in.
    pub(super) async fn gather(&mut self) -> anyhow::Result<Crowd> {
        let Work { players, pause, seed, .. } = *self.work;
        let crowd = Crowd::gather(&self.doors, players, pause, seed);
        if !self.pass(&[], GATHER, |oracle| oracle.players() >= players).await? {
            let (inside, refused) = (self.oracle.players(), self.oracle.counts().refused);
            bail!(
                "only {inside} of {players} players were let in within {GATHER:?}; {refused} times they were refused"
            );
        }
        Ok(crowd)
    }

    /// What a message costs while nothing changes.
    pub(super) async fn be_quiet(&mut self) -> anyhow::Result<()> {
        self.oracle.phase("quiet", Phase::Quiet);
        self.pass(&[], self.work.quiet, |_| false).await?;
        Ok(())
    }

    /// Objects change in ways that are no matter to routing: nothing may be sent.
    async fn touch(&mut self) -> anyhow::Result<()> {
        self.oracle.phase("in-place updates: nothing may be pushed", Phase::Between);
        let before = self.front.cost().pushes;
        let touch = |n: u32| Step { at_ms: u64::from(n) * 25, change: Change::Touch(n % self.work.servers) };
        let steps: Vec<_> = (0..TOUCHES).map(touch).collect();
        let length = Duration::from_millis(u64::from(TOUCHES) * 25) + SETTLE;
        self.pass(&steps, length, |_| false).await?;
        let pushed = self.front.cost().pushes - before;
        if pushed > 0 {
            let detail = format!("{TOUCHES} in-place updates were pushed {pushed} times");
            self.oracle.wrong(Wrong::Front, 0, "", detail);
        }
        Ok(())
    }

    /// Does the steps and lets the time pass, until it is over or this is so; whether it was.
    pub(super) async fn pass(
        &mut self,
        steps: &[Step],
        limit: Duration,
        is_done: impl Fn(&Oracle) -> bool,
    ) -> anyhow::Result<bool> {
        let start = tokio::time::Instant::now();
        let end = start + limit;
        let mut steps = steps.iter().peekable();
        // What is waited for is looked at more often than a second: a limit is no pause.
        let mut look = interval(Duration::from_millis(20));
        loop {
            let next = steps.peek().map(|step| start + Duration::from_millis(step.at_ms));
            tokio::select! {
                () = sleep_until(next.unwrap_or(end)), if next.is_some() => {
                    if let Some(step) = steps.next() {
                        self.change(step.change).await?;
                    }
                }
                Some(hosts) = self.refused.recv() => {
                    for server in hosts.iter().filter_map(|host| server_of(host)) {
                        if self.world.servers.get(&server).is_some_and(|server| server.is_listed) {
                            self.change(Change::Edit(server)).await?;
                        }
                    }
                }
                Some(done) = self.waiters.join_next() => {
                    // One that was aborted has been told of.
                    if let Ok(server) = done {
                        self.waiting.remove(&server);
                    }
                }
                _ = self.beat.tick() => self.second(),
                _ = look.tick() => if is_done(&self.oracle) { return Ok(true) },
                () = sleep_until(end) => return Ok(false),
            }
        }
    }

    fn second(&mut self) {
        if self.beats.is_multiple_of(WEIGHED) {
            self.memory_mb = self.front.memory_mb();
        }
        self.beats += 1;
        self.oracle.second(self.front.cost(), self.memory_mb, self.world.listed());
        self.progress.step();
        let counts = self.oracle.counts();
        let seconds = self.oracle.now_ms() / 1000;
        let how = format!(
            "{seconds} s: {} players, {} servers, {} changes, {} faults, {} drops expected, {} not, {} other faults",
            self.oracle.players(),
            self.world.listed(),
            counts.changes,
            counts.faults,
            counts.expected,
            counts.unexpected,
            counts.wrong
        );
        if self.progress.is_seen() || seconds.is_multiple_of(LINE) {
            self.progress.say(&how);
        }
    }

    async fn change(&mut self, change: Change) -> anyhow::Result<()> {
        self.oracle.mark(MarkKind::Churn, told(change));
        if let Change::Leave(n) | Change::Move(n) = change {
            self.given_up.insert(self.world.host(n));
        }
        if let Change::Leave(n) | Change::Move(n) | Change::Close(n, _) | Change::Garble(n) = change
            && let Some((waiter, since)) = self.waiting.remove(&n)
        {
            // Nobody says any more that it should be there.
            waiter.abort();
            self.oracle.new_server(name(n), since, None);
        }
        self.world.apply(change);
        if let Change::Stop(n) | Change::Restart(n) = change {
            if let Some(identity) = self.games.identity(n) {
                self.oracle.stops(identity);
            }
            self.games.end(n);
        }
        if let Change::Come(n) | Change::Restart(n) = change {
            let life = self.world.servers.get(&n).map_or(0, |server| server.life);
            self.games.run(n, life).await?;
        }
        let files = self.world.files(change, &self.games);
        self.front.files(&files)?;
        self.front.apply(|| self.world.routes(&self.games));
        self.doors.lead_to(self.world.targets());
        if let Change::Come(n) = change {
            self.wait_for(n);
        }
        Ok(())
    }

    /// From the write of a file to the first 200.
    fn wait_for(&mut self, server: u32) {
        let (written, since) = (Instant::now(), self.oracle.now_ms());
        let (oracle, host, mut asker) =
            (self.oracle.clone(), self.world.host(server), Asker::new(self.doors.front));
        let waiter = self.waiters.spawn(async move {
            let name = name(server);
            let is_it = |game: &str| game.split('/').next() == Some(&name);
            match asker.until(&host, NEW, |said| said.status == 200 && is_it(&said.game)).await {
                Ok(at) => oracle.new_server(name, since, Some(millis(at.duration_since(written)))),
                Err(said) => {
                    let detail = format!("{host} was not there in {NEW:?}, at last: {said}");
                    oracle.new_server(name.clone(), since, None);
                    oracle.wrong(Wrong::Front, 0, &name, detail);
                }
            }
            server
        });
        self.waiting.insert(server, (waiter, since));
    }

    /// Everything is made well, and then every host must answer as it should.
    async fn tidy(&mut self) -> anyhow::Result<()> {
        self.oracle.phase("the end: nothing changes any more", Phase::Between);
        for change in self.world.tidy() {
            self.change(change).await?;
        }
        let mut asking = JoinSet::new();
        let front = self.doors.front;
        let targets = self.world.targets();
        let held: BTreeSet<_> = targets.iter().map(|target| target.host.clone()).collect();
        for target in targets {
            let oracle = self.oracle.clone();
            asking.spawn(async move {
                let is_right =
                    |game: &str| target.servers.iter().any(|name| game.split('/').next() == Some(name));
                let said = Asker::new(front)
                    .until(&target.host, IN_THE_END, |said| said.status == 200 && is_right(&said.game))
                    .await;
                if let Err(said) = said {
                    let detail =
                        format!("in the end {} should be {:?}, and is: {said}", target.host, target.servers);
                    oracle.wrong(Wrong::Front, 0, &target.servers[0], detail);
                }
            });
        }
        let given_up: Vec<_> = self.given_up.difference(&held).cloned().collect();
        let share = given_up.len().div_ceil(ASKERS).max(1);
        let by = Instant::now() + IN_THE_END;
        for hosts in given_up.chunks(share) {
            asking.spawn(are_gone(front, hosts.to_vec(), by, self.oracle.clone()));
        }
        // Seconds go on meanwhile. Where all are wrong, each takes its time.
        let limit = IN_THE_END * 2 + ASKED * u32::try_from(share).unwrap_or(u32::MAX);
        let end = Instant::now() + limit;
        while !(asking.is_empty() && self.waiting.is_empty()) {
            self.pass(&[], Duration::from_millis(100), |_| false).await?;
            while let Some(asked) = asking.try_join_next() {
                asked.context("a question in the end")?;
            }
            if Instant::now() > end {
                bail!("the end was not over in {limit:?}");
            }
        }
        Ok(())
    }
}

/// Asks for one host after the other, each of which should be 404 by then.
async fn are_gone(front: SocketAddr, hosts: Vec<String>, by: Instant, oracle: Arc<Oracle>) {
    let mut asker = Asker::new(front);
    for host in hosts {
        let left = by.saturating_duration_since(Instant::now()).max(ASKED);
        if let Err(said) = asker.until(&host, left, |said| said.status == 404).await {
            let detail = format!("in the end nobody has {host}, and it is: {said}");
            oracle.wrong(Wrong::Front, 0, "", detail);
        }
    }
}

/// In words.
fn told(change: Change) -> String {
    match change {
        Change::Come(n) => format!("{} comes", name(n)),
        Change::Leave(n) => format!("{} has no file any more, and runs on", name(n)),
        Change::Stop(n) => format!("{} stops", name(n)),
        Change::Restart(n) => format!("{} restarts at another address", name(n)),
        Change::Edit(n) => format!("{} has other annotations", name(n)),
        Change::Touch(n) => format!("{} is written in other words", name(n)),
        Change::Move(n) => format!("{} moves to another host", name(n)),
        Change::Close(n, door) => format!("{} takes no new players ({door:?})", name(n)),
        Change::Open(n) => format!("{} takes new players again", name(n)),
        Change::Weigh(n, weight) => format!("{} has weight {weight}", name(n)),
        Change::Rival { rival, of } => format!("rival {rival} claims the host of {}", name(of)),
        Change::Yield(rival) => format!("rival {rival} gives up"),
        Change::Litter(n) => format!("litter {n}: a file that nobody can read"),
        Change::Clear(n) => format!("litter {n} is cleared"),
        Change::Garble(n) => format!("{} has half a file", name(n)),
        Change::Misspell(n) => format!("{} has annotations that mean nothing", name(n)),
        Change::Mend(n) => format!("{} has a good file again", name(n)),
    }
}

/// Seconds of a run, for a bar.
pub(super) fn seconds(work: &Work) -> usize {
    let rounds = work.rounds.iter().map(|round| work.quiet + round.length + REST.min(round.length));
    // And some for the players to come in and the end.
    usize::try_from(rounds.sum::<Duration>().as_secs()).unwrap_or_default() + 5
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// Knows one host, and tells of each that it was asked for on its only connection.
    async fn attend(front: TcpListener, known: &str, asked: mpsc::UnboundedSender<String>) {
        let (stream, _) = front.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let Some(host) = line.strip_prefix("host: ") else { continue };
            asked.send(host.to_owned()).unwrap();
            let status = if host == known { "200 OK" } else { "404 Not Found" };
            // The end of the request's head follows, and is no line of a host.
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            lines.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn every_host_that_was_given_up_is_asked_for_on_one_connection() {
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let hosts: Vec<_> = (0..300).map(|n| format!("game-{n}.soak.localhost")).collect();
        let (told, mut asked) = mpsc::unbounded_channel();
        let known = hosts[7].clone();
        let attending = tokio::spawn(async move { attend(front, &known, told).await });
        let oracle = Arc::new(Oracle::new());
        let asking = are_gone(address, hosts.clone(), Instant::now(), oracle.clone());
        tokio::time::timeout(IN_THE_END, asking).await.expect("the end is over in time");
        // It is dropped with the asker's connection, and ends.
        attending.await.unwrap();
        let mut all = BTreeSet::new();
        while let Some(host) = asked.recv().await {
            all.insert(host);
        }
        assert_eq!(all, hosts.iter().cloned().collect::<BTreeSet<_>>());
        let findings = oracle.finish().findings;
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(findings[0].detail.contains(&hosts[7]), "{findings:#?}");
    }
}
