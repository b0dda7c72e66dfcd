//! The API server in memory, as a child: what it is told to happen in the cluster, happens there, past HTTP.

use std::time::{Duration, Instant};

use anyhow::Context;
use cluster::{Cluster, Verb};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::child::{Child, answer_all};
use super::objects::{Manager, agones_name};

/// Changes of a kind that are remembered: some seconds of the worst noise, so that a watch that falls behind
/// for a moment on a busy machine need not list again.
const HISTORY: usize = 60_000;
/// How finely noise is spread over a second.
const TICK: Duration = Duration::from_millis(5);
const SERVERS: &str = "gameservers.agones.dev";

/// What a parent asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// Where it listens.
    Address,
    /// These servers are there, at this port.
    Make { manager: Manager, from: u32, to: u32, port: u16 },
    /// A server of Agones gets another host.
    Host { number: u32, host: String },
    /// The games write their counters, each once a second and that many times.
    Noise { servers: u32, rounds: u32 },
    /// What was asked of it.
    Asked { manager: Manager },
    /// How many servers are marked as routed.
    Marked { manager: Manager },
}

/// What happened.
#[derive(Debug, Deserialize)]
pub(super) struct Happened {
    /// Objects that were written.
    pub(super) writes: u64,
    /// How long that took here.
    pub(super) seconds: f64,
    /// Bytes of the last of them.
    pub(super) bytes: usize,
}

/// What was asked of the API server so far.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Asked {
    /// All but watches: a watch is asked for anew each minute.
    pub(super) requests: u64,
    /// Lists, over all kinds.
    pub(super) lists: u64,
    /// Patches of the objects that are marked.
    pub(super) patches: u64,
}

/// The parent's side.
pub(super) struct ApiServer {
    pub(super) child: Child,
    pub(super) address: String,
}

impl ApiServer {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let mut child = Child::start(&["api"])?;
        let address = child.ask(&Order::Address).await.context("the API server in memory")?;
        Ok(Self { child, address })
    }

    pub(super) async fn make(
        &mut self,
        manager: Manager,
        numbers: std::ops::Range<usize>,
        port: u16,
    ) -> anyhow::Result<Happened> {
        let (from, to) = (u32::try_from(numbers.start)?, u32::try_from(numbers.end)?);
        self.child.ask(&Order::Make { manager, from, to, port }).await
    }

    pub(super) async fn asked(&mut self, manager: Manager) -> anyhow::Result<Asked> {
        self.child.ask(&Order::Asked { manager }).await
    }

    pub(super) async fn marked(&mut self, manager: Manager) -> anyhow::Result<usize> {
        self.child.ask(&Order::Marked { manager }).await
    }
}

/// The child's side: serves until its input ends.
pub(super) async fn serve() -> anyhow::Result<()> {
    let cluster = Cluster::with(cluster::Options { history: HISTORY, ..cluster::Options::default() }).await?;
    let cluster = &cluster;
    answer_all(async move |order| obey(cluster, order).await).await
}

async fn obey(cluster: &Cluster, order: Order) -> anyhow::Result<Value> {
    let start = Instant::now();
    Ok(match order {
        Order::Address => json!(cluster.address().to_string()),
        Order::Make { manager, from, to, port } => {
            let objects = manager.objects(from..to, port);
            let bytes = objects.last().map_or(0, |object| object.to_string().len());
            let (start, count) = (Instant::now(), objects.len());
            for object in objects {
                cluster.put(object)?;
            }
            json!({ "writes": count, "seconds": start.elapsed().as_secs_f64(), "bytes": bytes })
        }
        Order::Host { number, host } => {
            let patch = json!({ "metadata": { "annotations": { "tidegate.dev/host": host } } });
            cluster.patch(SERVERS, "default", &agones_name(number), &patch)?;
            json!({ "writes": 1, "seconds": start.elapsed().as_secs_f64(), "bytes": 0 })
        }
        Order::Noise { servers, rounds } => {
            let writes = noise(cluster, servers, rounds).await?;
            json!({ "writes": writes, "seconds": start.elapsed().as_secs_f64(), "bytes": 0 })
        }
        Order::Asked { manager } => {
            let counts = cluster.journal().counts();
            let of = |is: &dyn Fn(Verb, &str) -> bool| -> u64 {
                let found = counts.iter().filter(|((verb, resource, _), _)| is(*verb, resource));
                found.map(|(_, count)| count).sum()
            };
            json!({
                "requests": of(&|verb, _| verb != Verb::Watch),
                "lists": of(&|verb, _| verb == Verb::List),
                "patches": of(&|verb, resource| verb == Verb::Patch && resource == manager.marked()),
            })
        }
        Order::Marked { manager } => {
            json!(cluster.list(manager.marked(), "tidegate.dev/routed=true")?.len())
        }
    })
}

/// Writes what is due, spread evenly: each write moves a counter that no router reads. A server that is late
/// writes on until it has written as often as it should.
async fn noise(cluster: &Cluster, servers: u32, rounds: u32) -> anyhow::Result<u64> {
    let start = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut done, all) = (0_u64, u64::from(servers) * u64::from(rounds));
    while done < all {
        tick.tick().await;
        let due = start.elapsed().as_micros() * u128::from(servers) / 1_000_000;
        while done < all && u128::from(done) < due {
            let number = u32::try_from(done % u64::from(servers))?;
            let count = 1 + done / u64::from(servers) % 40;
            let patch = json!({ "status": {
                "counters": { "rooms": { "count": count, "capacity": 40 } },
                "lists": { "players": { "capacity": 64, "values": [format!("player-{done}")] } },
            } });
            cluster.patch(SERVERS, "default", &agones_name(number), &patch)?;
            done += 1;
        }
    }
    Ok(done)
}
