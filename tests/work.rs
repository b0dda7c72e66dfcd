//! What a change costs is counted, not timed: allocations of the engine, the snapshot and a stream, among a thousand
//! servers and a hundred thousand. They may not grow with the fleet.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tidegate::engine::Engine;
use tidegate::model::{
    Affinity, Age, Desired, Event, GameVersion, Gateways, Host, Mode, PathPrefix, Priority, Protocol,
    RouteKey, Server, ServerId, Source, Weight,
};
use tidegate::session::{Push, Request, Session, World};
use tidegate::snapshot::Snapshot;
use tidegate::translate::{CLUSTER, SCOPE};

const SOURCE: Source = Source("test");

fn server(number: usize, port: u16) -> Arc<Server> {
    let host = Host::parse(&format!("game-{number:06}.example.com")).unwrap();
    Arc::new(Server {
        id: ServerId::new(SOURCE, "default", &format!("game-{number:06}")),
        age: Age::Unknown,
        desired: Desired {
            endpoint: Some(([10, 0, 0, 1], port).into()),
            protocol: Protocol::Http1,
            gateways: Gateways::Every,
            routes: vec![RouteKey { host, path: PathPrefix::root() }],
            strip_prefix: false,
            idle_timeout: Duration::from_hours(1),
            response_timeout: None,
            https_redirect: false,
            share: None,
            weight: Weight::default(),
            priority: Priority::default(),
            affinity: Affinity::default(),
            version: GameVersion::default(),
            max_sessions: None,
            max_connections: None,
            max_pending: None,
            new_sessions_per_second: None,
            drain_cookie: None,
            retry_after: Duration::from_secs(5),
            mode: Mode::Open,
        },
        problems: Vec::new(),
    })
}

fn request(url: &str, nonce: &str, held: &[Push]) -> Request {
    let node = Node { id: "envoy".into(), cluster: "default".into(), ..Default::default() };
    let sent = held.iter().filter(|push| push.type_url == url).flat_map(|push| push.resources.iter());
    let versions = sent.map(|sent| (sent.resource.name().to_owned(), sent.resource.version.to_string()));
    let request = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: url.into(),
        response_nonce: nonce.into(),
        initial_resource_versions: versions.collect(),
        ..Default::default()
    };
    Request::decode(request.encode_to_vec().into()).unwrap()
}

/// All that the stream has to say, each response acknowledged at once.
fn told(session: &mut Session, snapshot: &Snapshot) -> Vec<Push> {
    let mut pushes = Vec::new();
    let world = World { snapshot, table: None, whole: true };
    while let Some(push) = session.next(world).unwrap() {
        session.on_request(request(&push.type_url, &push.nonce.to_string(), &[]), snapshot).unwrap();
        pushes.push(push);
    }
    pushes
}

fn stream(snapshot: &Snapshot, held: &[Push]) -> Session {
    let mut session = Session::new(1);
    for url in [CLUSTER, SCOPE] {
        session.on_request(request(url, "", held), snapshot).unwrap();
    }
    session
}

/// The most that any of some changes cost: in the engine and the snapshot, and for one stream that hears of it.
fn cost(fleet: usize) -> [AllocationInfo; 2] {
    let mut engine = Engine::new([SOURCE]);
    let mut snapshot = Snapshot::default();
    let servers = (0..fleet).map(|number| server(number, 7000)).collect();
    snapshot.apply(engine.apply([Event::Reset { source: SOURCE, servers }]).changes);
    let mut session = stream(&snapshot, &[]);
    told(&mut session, &snapshot);
    let mut least =
        [AllocationInfo { count_total: u64::MAX, bytes_total: u64::MAX, ..Default::default() }; 2];
    for change in 0..20 {
        let events = [Event::Upsert(server(change * 31, 8000))];
        let made = measure(|| _ = snapshot.apply(engine.apply(events).changes));
        let said = measure(|| assert_eq!(told(&mut session, &snapshot).len(), 1, "a cluster, and no scope"));
        // The least of several: a table or a slab that happens to grow is not the change's.
        for (least, info) in least.iter_mut().zip([made, said]) {
            least.count_total = least.count_total.min(info.count_total);
            least.bytes_total = least.bytes_total.min(info.bytes_total);
        }
    }
    least
}

#[test]
fn a_change_allocates_the_same_among_any_number() {
    let (small, large) = (cost(1_000), cost(100_000));
    for (what, small, large) in [("engine", small[0], large[0]), ("stream", small[1], large[1])] {
        assert!(small.count_total < 100, "{what}: {small:?}");
        assert_eq!(small.count_total, large.count_total, "{what}");
        // Revisions and numbers in texts are longer among more.
        assert!(large.bytes_total < small.bytes_total + 512, "{what}: {small:?}, {large:?}");
    }
}

/// An Envoy that holds everything costs a bit a name, not an allocation.
#[test]
fn a_reconnect_with_equal_versions_allocates_next_to_nothing() {
    let mut engine = Engine::new([SOURCE]);
    let mut snapshot = Snapshot::default();
    let servers = (0..20_000).map(|number| server(number, 7000)).collect();
    snapshot.apply(engine.apply([Event::Reset { source: SOURCE, servers }]).changes);
    let held = told(&mut stream(&snapshot, &[]), &snapshot);
    assert_eq!(held.iter().map(|push| push.resources.len()).sum::<usize>(), 40_000);
    let mut session = stream(&snapshot, &held);
    let mut resources = 0;
    let info = measure(|| resources = told(&mut session, &snapshot).iter().map(|p| p.resources.len()).sum());
    assert_eq!(resources, 0);
    assert!(info.count_total < 200 && info.bytes_max < 64 << 10, "{info:?}");
}
