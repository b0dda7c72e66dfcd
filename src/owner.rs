//! The task that owns the engine: it alone changes it, and answers questions about it in between.
//!
//! Everything that is waiting is taken as one batch, so a lone event is committed at once and a storm
//! costs one commit for as many events as came while the last one was made.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::engine::{Commit, Engine, Move};
use crate::metrics::{Metrics, ModeLabel, TypeLabel};
use crate::model::Event;
use crate::session::Type;
use crate::snapshot::Kind;
use crate::store::Store;
use std::sync::Arc;

/// Bursts that may wait: a source that reads faster than the engine applies waits here, in its own file.
pub const EVENTS: usize = 1024;
/// Questions that may wait; they come from people and from Envoys that want a table.
const QUESTIONS: usize = 64;

/// Most lines of a kind that one commit logs.
const MAX_TOLD: usize = 20;

/// What a source tells at once.
#[derive(Debug)]
pub struct Burst {
    /// When the source heard of it.
    pub heard: Instant,
    /// What changed.
    pub events: Vec<Event>,
}

impl Burst {
    /// Events that were heard of just now.
    pub fn now(events: Vec<Event>) -> Self {
        Self { heard: Instant::now(), events }
    }
}

type Question = Box<dyn FnOnce(&mut Engine) + Send>;

/// A way to ask the engine.
#[derive(Clone, Debug)]
pub struct Desk {
    questions: mpsc::Sender<Question>,
}

impl Desk {
    /// Runs `read` on the engine, between two commits. `None` when the engine's task has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |engine| _ = reply.send(read(engine)));
        self.questions.send(question).await.ok()?;
        answer.await.ok()
    }
}

/// The engine's task, before it runs.
pub struct Owner {
    engine: Engine,
    store: Arc<Store>,
    metrics: Metrics,
    questions: mpsc::Receiver<Question>,
}

impl Owner {
    /// An owner of `engine`, and the desk at which it is asked.
    pub fn new(engine: Engine, store: Arc<Store>, metrics: Metrics) -> (Self, Desk) {
        let (questions, receiver) = mpsc::channel(QUESTIONS);
        (Self { engine, store, metrics, questions: receiver }, Desk { questions })
    }

    /// Runs until every source is gone.
    pub async fn run(mut self, mut events: mpsc::Receiver<Burst>) {
        let mut bursts = Vec::new();
        loop {
            tokio::select! {
                count = events.recv_many(&mut bursts, EVENTS) => {
                    if count == 0 {
                        return;
                    }
                    let heard = bursts.iter().map(|burst| burst.heard).min();
                    self.commit(bursts.drain(..).flat_map(|burst| burst.events));
                    if let Some(heard) = heard {
                        self.metrics.event_seconds.observe(heard.elapsed().as_secs_f64());
                    }
                }
                Some(question) = self.questions.recv() => question(&mut self.engine),
            }
        }
    }

    fn commit(&mut self, events: impl Iterator<Item = Event>) {
        let start = Instant::now();
        let commit = self.engine.apply(events);
        let work = commit.work;
        tell(&commit);
        let applied = self.store.commit(commit);
        let metrics = &self.metrics;
        metrics.commit_seconds.observe(start.elapsed().as_secs_f64());
        metrics.events.inc_by(work.events as u64);
        metrics.changes.inc_by(work.servers as u64);
        metrics.translations.inc_by(work.translations as u64);
        for (kind, of) in [(Type::Clusters, Kind::Cluster), (Type::Scopes, Kind::Scope)] {
            let live = self.store.read(|snapshot| snapshot.len(of));
            metrics
                .resources
                .get_or_create(&TypeLabel::from(Some(kind)))
                .set(live.try_into().unwrap_or(i64::MAX));
        }
        for (mode, count) in &self.engine.counts().modes {
            metrics.servers.get_or_create(&ModeLabel { mode }).set((*count).try_into().unwrap_or(i64::MAX));
        }
        metrics.lost_claims.set(self.engine.claims().lost().try_into().unwrap_or(i64::MAX));
        debug!(
            servers = work.servers,
            keys = work.keys,
            upserted = applied.upserted,
            removed = applied.removed,
            micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            "committed"
        );
        self.store.set_whole(self.engine.is_whole());
        if self.engine.is_synced() && metrics.synced.get() == 0 {
            metrics.synced.set(1);
            info!(servers = self.engine.servers().count(), "every source has listed, envoys are answered");
            if !self.engine.is_whole() {
                warn!(
                    "the fleet is empty or could not be read whole: envoys keep what nobody knows until it is"
                );
            }
            self.store.set_synced();
        }
    }
}

/// Says what operators should know. A fleet that is wrong throughout is said in short.
fn tell(commit: &Commit) {
    for (server, problem) in commit.problems.iter().take(MAX_TOLD) {
        warn!(%server, field = problem.field, why = problem.why, "problem");
    }
    for Move { key, from, to } in commit.moves.iter().take(MAX_TOLD) {
        info!(route = %key, %from, %to, "owner changed");
    }
    for (server, key, winner) in commit.losses.iter().take(MAX_TOLD) {
        warn!(%server, route = %key, %winner, "claim lost to an older server");
    }
    let all = [commit.problems.len(), commit.moves.len(), commit.losses.len()];
    let more: usize = all.iter().map(|count| count.saturating_sub(MAX_TOLD)).sum();
    if more > 0 {
        warn!(more, "more of these, see /api/servers");
    }
}
