//! The core by its parts, with 1,000 and 100,000 servers: what a change costs should not depend on how many
//! there are. `cargo bench` measures; `cargo bench -- --quick` does so roughly; with the tests each runs once,
//! on few servers.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::Criterion;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tidegate::claims::Claims;
use tidegate::engine::{Commit, Engine};
use tidegate::model::{Event, Mode, Server};
use tidegate::session::{DEFAULT_GATEWAY, Request, Session, Type, World};
use tidegate::snapshot::{Kind, Snapshot};
use tidegate::sources::files;
use tidegate::translate::{self, Held};

#[path = "../loadtest/src/fleet.rs"]
#[allow(dead_code)] // the harness needs more of it
mod fleet;

use fleet::{Fleet, Layout};

/// A fleet that was listed once, and what a change of it begins from.
struct Ground {
    size: usize,
    servers: Vec<Arc<Server>>,
    engine: Engine,
    snapshot: Snapshot,
}

impl Ground {
    fn of(size: usize) -> Self {
        let fleet = Fleet { layout: Layout::Scoped, port: None };
        let servers = fleet.servers(0..size).expect("a fleet of our own making");
        let (mut engine, mut snapshot) = (Engine::new([files::SOURCE]), Snapshot::default());
        let listed = Event::Reset { source: files::SOURCE, servers: servers.clone() };
        snapshot.apply(engine.apply([listed]).changes);
        Self { size, servers, engine, snapshot }
    }

    /// Some server, another at each call, moved and drained or opened: a cluster and a scope change.
    fn change(&mut self, number: usize) -> Event {
        let at = number * 7919 % self.servers.len();
        let mut server = Server::clone(&self.servers[at]);
        if let Some(endpoint) = &mut server.desired.endpoint {
            endpoint.set_port(endpoint.port() ^ 1);
        }
        server.desired.mode = match server.desired.mode {
            Mode::Open => Mode::Draining { redirect: None },
            _ => Mode::Open,
        };
        self.servers[at] = Arc::new(server);
        Event::Upsert(self.servers[at].clone())
    }
}

/// Sizes of fleets: small ones where only the benchmark itself is tried.
fn sizes() -> [usize; 2] {
    if std::env::args().any(|word| word == "--bench") { [1_000, 100_000] } else { [10, 100] }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for size in sizes() {
        let mut held = Ground::of(size);
        let mut number = 0;
        apply(&mut criterion, &mut held, &mut number);
        claims(&mut criterion, &held);
        translate_one(&mut criterion, &held);
        changed_since(&mut criterion, &mut held, &mut number);
        push(&mut criterion, &mut held, &mut number);
    }
    criterion.final_summary();
}

/// The name of a benchmark, with its size.
fn id(name: &str, held: &Ground) -> String {
    format!("{name}/{}", held.size)
}

/// Engine and snapshot, for one change.
fn apply(criterion: &mut Criterion, held: &mut Ground, number: &mut usize) {
    criterion.bench_function(&id("apply", held), |bench| {
        bench.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let event = held.change(*number);
                *number += 1;
                let start = Instant::now();
                let Commit { changes, .. } = held.engine.apply([event]);
                black_box(held.snapshot.apply(changes));
                time += start.elapsed();
            }
            time
        });
    });
}

/// A server that leaves its route and comes back.
fn claims(criterion: &mut Criterion, held: &Ground) {
    let mut claims = Claims::default();
    for server in &held.servers {
        claims.replace(None, Some(server));
    }
    let mut number = 0;
    criterion.bench_function(&id("claims", held), |bench| {
        bench.iter(|| {
            let server = &held.servers[number * 7919 % held.servers.len()];
            number += 1;
            claims.replace(Some(server), None);
            claims.replace(None, Some(server));
        });
    });
}

/// A cluster and a scope to their bytes.
fn translate_one(criterion: &mut Criterion, held: &Ground) {
    let server = &held.servers[held.size / 2];
    let key = &server.desired.routes[0];
    criterion.bench_function(&id("translate", held), |bench| {
        bench.iter(|| {
            black_box(translate::cluster(server));
            let name = translate::scope_name(&key.host, None);
            let held = [Held { path: key.path.clone(), holders: vec![server.clone()] }];
            black_box(translate::scope(&name, &held));
        });
    });
}

/// What the last hundred changes were, of clusters and of scopes.
fn changed_since(criterion: &mut Criterion, held: &mut Ground, number: &mut usize) {
    let seen = held.snapshot.revision();
    for _ in 0..100 {
        let event = held.change(*number);
        *number += 1;
        held.snapshot.apply(held.engine.apply([event]).changes);
    }
    criterion.bench_function(&id("changed_since", held), |bench| {
        bench.iter(|| {
            for kind in [Kind::Cluster, Kind::Scope] {
                black_box(held.snapshot.changed_since(kind, seen).count());
            }
        });
    });
}

/// A converged session hears of one change: its two pushes, encoded, and their ACKs.
fn push(criterion: &mut Criterion, held: &mut Ground, number: &mut usize) {
    let mut session = Session::new(1);
    for kind in [Type::Clusters, Type::Scopes] {
        let node = Node { id: "bench".into(), cluster: DEFAULT_GATEWAY.into(), ..Default::default() };
        let request =
            DeltaDiscoveryRequest { node: Some(node), type_url: kind.url().into(), ..Default::default() };
        hear(&mut session, &request, &held.snapshot);
    }
    drain(&mut session, &held.snapshot);
    criterion.bench_function(&id("push", held), |bench| {
        // Each change is made outside of what is measured.
        bench.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                let event = held.change(*number);
                *number += 1;
                held.snapshot.apply(held.engine.apply([event]).changes);
                let start = Instant::now();
                black_box(drain(&mut session, &held.snapshot));
                time += start.elapsed();
            }
            time
        });
    });
}

fn drain(session: &mut Session, snapshot: &Snapshot) -> usize {
    let mut bytes = 0;
    while let Some(push) =
        session.next(World { snapshot, table: None, whole: true }).expect("a stream that is up to date")
    {
        let mut message = BytesMut::with_capacity(push.size());
        push.encode(&mut message);
        bytes += message.len();
        let ack = DeltaDiscoveryRequest {
            type_url: push.type_url.into_owned(),
            response_nonce: push.nonce.to_string(),
            ..Default::default()
        };
        hear(session, &ack, snapshot);
    }
    bytes
}

fn hear(session: &mut Session, request: &DeltaDiscoveryRequest, snapshot: &Snapshot) {
    let request = Request::decode(request.encode_to_vec().into()).expect("a request");
    session.on_request(request, snapshot).expect("a request that is right");
}
