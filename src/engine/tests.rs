//! Oracle, order and work: the engine against a second engine, and against itself at other sizes.

use std::collections::BTreeSet;

use super::*;
use crate::claims::Standing;
use crate::model::{Affinity, Age, GameVersion, Gateways, Priority, Share, Weight};
use crate::snapshot::{Applied, Snapshot};
use crate::testkit::{SOURCE, id, key, seed, server, server_with};

fn synced() -> (Engine, Snapshot) {
    let mut engine = Engine::new([SOURCE]);
    engine.apply([Event::Reset { source: SOURCE, servers: Vec::new() }]);
    (engine, Snapshot::default())
}

fn run(
    engine: &mut Engine,
    snapshot: &mut Snapshot,
    events: impl IntoIterator<Item = Event>,
) -> (Work, Applied) {
    let commit = engine.apply(events);
    (commit.work, snapshot.apply(commit.changes))
}

fn names(snapshot: &Snapshot, kind: Kind, gateway: &str) -> Vec<String> {
    let mut names: Vec<_> = snapshot
        .changed_since(kind, 0)
        .filter(|entry| entry.view(gateway).is_some())
        .map(|entry| entry.name().to_owned())
        .collect();
    names.sort();
    names
}

/// Everything an Envoy of `gateway` would hold, with versions.
fn world(snapshot: &Snapshot, gateway: &str) -> BTreeSet<(Kind, String, String)> {
    let mut world = BTreeSet::new();
    for kind in [Kind::Cluster, Kind::Scope] {
        for entry in snapshot.changed_since(kind, 0) {
            let held = entry.view(gateway);
            world.extend(held.map(|resource| (kind, entry.name().to_owned(), resource.version.to_string())));
        }
    }
    world
}

#[test]
fn a_server_becomes_a_cluster_and_a_scope() {
    let (mut engine, mut snapshot) = synced();
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x"]))]);
    assert_eq!(names(&snapshot, Kind::Cluster, "any"), ["gs/test/default/a"]);
    assert_eq!(names(&snapshot, Kind::Scope, "any"), ["a.x"]);
    run(&mut engine, &mut snapshot, [Event::Remove(id("a"))]);
    assert_eq!(world(&snapshot, "any").len(), 0);
}

#[test]
fn the_first_listing_of_each_source_ends_the_wait() {
    let (one, other) = (Source("one"), Source("other"));
    let mut engine = Engine::new([one, other]);
    engine.apply([Event::Reset { source: one, servers: Vec::new() }]);
    assert!(!engine.is_synced());
    engine.apply([Event::Reset { source: other, servers: Vec::new() }]);
    assert!(engine.is_synced());
}

#[test]
fn a_listing_is_a_set_difference_of_its_own_source() {
    let (mut engine, mut snapshot) = synced();
    let other = Event::Upsert(server_with("b", &["b.x"], |server| {
        server.id = ServerId::new(Source("other"), "default", "b");
    }));
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x"])), other]);
    let listing = Event::Reset { source: SOURCE, servers: vec![server("c", &["c.x"])] };
    run(&mut engine, &mut snapshot, [listing]);
    assert_eq!(names(&snapshot, Kind::Scope, "any"), ["b.x", "c.x"]);
}

#[test]
fn an_equal_upsert_touches_nothing() {
    let (mut engine, mut snapshot) = synced();
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x"]))]);
    let (work, applied) = run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x"]))]);
    assert_eq!(work, Work { events: 1, ..Work::default() });
    assert_eq!(applied, Applied::default());
}

#[test]
fn paths_without_a_root_have_a_scope_each_and_move_when_a_root_comes() {
    let (mut engine, mut snapshot) = synced();
    let paths = ["a", "b"]
        .map(|name| Event::Upsert(server(name, &[&format!("x/{name}"), &format!("x/{name}/deep")])));
    run(&mut engine, &mut snapshot, paths);
    assert_eq!(names(&snapshot, Kind::Scope, "any"), ["x/a", "x/b"]);

    let commit = engine.apply([Event::Upsert(server("root", &["x"]))]);
    let order: Vec<_> =
        commit.changes.iter().filter(|c| c.kind == Kind::Scope).map(|c| c.name.to_string()).collect();
    assert_eq!(order, ["x", "x/a", "x/b"], "the host's scope comes before the others go");
    snapshot.apply(commit.changes);
    assert_eq!(names(&snapshot, Kind::Scope, "any"), ["x"]);

    run(&mut engine, &mut snapshot, [Event::Remove(id("root"))]);
    assert_eq!(names(&snapshot, Kind::Scope, "any"), ["x/a", "x/b"]);
}

#[test]
fn a_root_on_one_gateway_flips_that_gateway_alone() {
    let (mut engine, mut snapshot) = synced();
    let eu = |server: &mut Server| server.desired.gateways = Gateways::Named([Gateway("eu".into())].into());
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["x/a"]))]);
    run(&mut engine, &mut snapshot, [Event::Upsert(server_with("root", &["x"], eu))]);
    assert_eq!(names(&snapshot, Kind::Scope, "us"), ["x/a"]);
    assert_eq!(names(&snapshot, Kind::Scope, "eu"), ["x"]);
    assert_eq!(names(&snapshot, Kind::Cluster, "us"), ["gs/test/default/a"]);
    run(&mut engine, &mut snapshot, [Event::Remove(id("root"))]);
    assert_eq!(names(&snapshot, Kind::Scope, "eu"), ["x/a"]);
}

#[test]
fn a_stopped_server_frees_its_host() {
    let (mut engine, mut snapshot) = synced();
    let old = |mode: Mode| {
        Event::Upsert(server_with("old", &["x"], |server| {
            server.age = Age::Since(1);
            server.desired.mode = mode;
        }))
    };
    run(&mut engine, &mut snapshot, [old(Mode::Open), Event::Upsert(server("young", &["x"]))]);
    let young = engine.server(&id("young")).unwrap().clone();
    assert_eq!(engine.claims().standing(&young, &key("x")), Some(Standing::LostTo(id("old"))));
    run(&mut engine, &mut snapshot, [old(Mode::Stopped)]);
    assert_eq!(engine.claims().standing(&young, &key("x")), Some(Standing::Holds));
    assert_eq!(names(&snapshot, Kind::Cluster, "any"), ["gs/test/default/young"]);
    assert!(engine.server(&id("old")).is_some(), "it is known");
}

#[test]
fn a_route_that_moves_and_a_claim_that_loses_are_said() {
    let (mut engine, _) = synced();
    let old = server_with("old", &["x"], |server| server.age = Age::Since(1));
    engine.apply([Event::Upsert(server("young", &["x"]))]);
    let commit = engine.apply([Event::Upsert(old)]);
    assert_eq!(commit.moves, [Move { key: key("x"), from: id("young"), to: id("old") }]);
    let commit = engine.apply([Event::Upsert(server("third", &["x"]))]);
    assert_eq!((commit.moves, commit.losses), (vec![], vec![(id("third"), key("x"), id("old"))]));
    let commit = engine.apply([Event::Remove(id("old"))]);
    assert_eq!(commit.moves, [Move { key: key("x"), from: id("old"), to: id("third") }]);
}

#[test]
fn a_new_problem_reaches_no_envoy() {
    let (mut engine, mut snapshot) = synced();
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x"]))]);
    let worse = server_with("a", &["a.x"], |server| {
        server.problems.push(crate::model::Problem::new(crate::model::ProblemKind::UnknownField, "f", "w"));
    });
    let (work, applied) = run(&mut engine, &mut snapshot, [Event::Upsert(worse)]);
    assert_eq!((work.servers, work.translations, applied), (1, 0, Applied::default()));
    assert_eq!(engine.server(&id("a")).unwrap().problems.len(), 1);
}

#[test]
fn a_drain_changes_one_scope_and_no_cluster() {
    let (mut engine, mut snapshot) = synced();
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x"]))]);
    let drained =
        server_with("a", &["a.x"], |server| server.desired.mode = Mode::Draining { redirect: None });
    let (_, applied) = run(&mut engine, &mut snapshot, [Event::Upsert(drained)]);
    assert_eq!((applied.upserted, applied.removed), (1, 0));
    assert_eq!(snapshot.changed_since(Kind::Scope, 3).count(), 1);
}

#[test]
fn the_table_holds_what_the_scopes_hold() {
    let (mut engine, mut snapshot) = synced();
    let before = engine.table(&Gateway("eu".into()));
    run(&mut engine, &mut snapshot, [Event::Upsert(server("a", &["a.x", "*.x/p"]))]);
    let after = engine.table(&Gateway("eu".into()));
    assert_ne!(before.version, after.version);
    assert_eq!(after, engine.table(&Gateway("eu".into())), "it is kept until a route changes");
}

/// A fleet small enough that its servers fight over every host, path, gateway and share.
fn random_server(random: &mut fastrand::Rng) -> Arc<Server> {
    let name = format!("s{}", random.u8(0..12));
    let hosts = ["x", "y.x", "*.x", "*"];
    let paths = ["", "/a", "/a/b", "/a-b", "/c"];
    let keys: Vec<String> = (0..random.usize(0..4))
        .map(|_| format!("{}{}", hosts[random.usize(0..4)], paths[random.usize(0..5)]))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    server_with(&name, &keys, |server| {
        server.age = [Age::Unknown, Age::Since(1), Age::Since(2)][random.usize(0..3)];
        let desired = &mut server.desired;
        desired.endpoint = (random.u8(0..8) > 0).then(|| ([10, 0, 0, random.u8(1..4)], 7000).into());
        desired.weight = Weight([0, 100, 300][random.usize(0..3)]);
        desired.priority = Priority(random.u8(0..2));
        desired.affinity = [Affinity::None, Affinity::Cookie][random.usize(0..2)];
        desired.version = GameVersion(random.u32(0..3));
        desired.share =
            (random.u8(0..3) == 0).then(|| Share { namespace: "default".into(), name: "s".into() });
        desired.gateways = match random.u8(0..4) {
            0 => Gateways::Named([Gateway("eu".into())].into()),
            1 => Gateways::Named([Gateway("eu".into()), Gateway("us".into())].into()),
            _ => Gateways::Every,
        };
        desired.mode = match random.u8(0..8) {
            0 => Mode::Draining { redirect: None },
            1 => Mode::Maintenance { text: "t".into(), paths: vec![PathPrefix::parse("/shop").unwrap()] },
            2 => Mode::Stopped,
            3 => Mode::Starting,
            _ => Mode::Open,
        };
    })
}

fn random_event(random: &mut fastrand::Rng) -> Event {
    match random.u8(0..20) {
        0..15 => Event::Upsert(random_server(random)),
        15..19 => Event::Remove(id(&format!("s{}", random.u8(0..12)))),
        _ => {
            let servers: BTreeMap<_, _> =
                (0..random.usize(0..8)).map(|_| random_server(random)).map(|s| (s.id.clone(), s)).collect();
            Event::Reset { source: SOURCE, servers: servers.into_values().collect() }
        }
    }
}

#[test]
fn oracle_any_run_of_events_ends_as_a_new_engine_fed_the_end_state() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        let (mut engine, mut snapshot) = synced();
        for _ in 0..random.usize(1..40) {
            let batch: Vec<_> = (0..random.usize(1..4)).map(|_| random_event(&mut random)).collect();
            run(&mut engine, &mut snapshot, batch);
        }
        let (mut fresh, mut fresh_snapshot) = synced();
        run(
            &mut fresh,
            &mut fresh_snapshot,
            [Event::Reset { source: SOURCE, servers: engine.servers().cloned().collect() }],
        );
        for gateway in ["eu", "us", "else"] {
            assert_eq!(
                world(&snapshot, gateway),
                world(&fresh_snapshot, gateway),
                "{gateway}, round {round}, seed {seed}"
            );
            let gateway = Gateway(gateway.into());
            assert_eq!(engine.table(&gateway), fresh.table(&gateway), "round {round}, seed {seed}");
        }
        assert_eq!(engine.claims.lost(), fresh.claims.lost(), "round {round}, seed {seed}");
        let modes = |engine: &Engine| {
            engine.counts.modes.iter().filter(|(_, n)| **n > 0).map(|(m, n)| (*m, *n)).collect::<Vec<_>>()
        };
        assert_eq!(modes(&engine), modes(&fresh), "round {round}, seed {seed}");
    }
}

#[test]
fn order_any_permutation_gives_the_same_owners() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..200 {
        let fleet: BTreeMap<_, _> =
            (0..12).map(|_| random_server(&mut random)).map(|s| (s.id.clone(), s)).collect();
        let mut events: Vec<_> = fleet.into_values().map(Event::Upsert).collect();
        let mut worlds = Vec::new();
        for _ in 0..3 {
            random.shuffle(&mut events);
            let (mut engine, mut snapshot) = synced();
            for event in &events {
                run(&mut engine, &mut snapshot, [event.clone()]);
            }
            worlds.push(["eu", "us", "else"].map(|gateway| world(&snapshot, gateway)));
        }
        assert!(worlds.iter().all(|world| *world == worlds[0]), "round {round}, seed {seed}");
    }
}

/// A template without `<id>`: were each claim compared with all others, this would not end.
#[test]
fn work_a_fleet_that_claims_one_host_is_not_compared_pair_by_pair() {
    let eu = |server: &mut Server| server.desired.gateways = Gateways::Named([Gateway("eu".into())].into());
    for gateways in [|_: &mut Server| (), eu] {
        let (mut engine, mut snapshot) = synced();
        let servers = (0..50_000).map(|i| server_with(&format!("s{i:06}"), &["x"], gateways)).collect();
        run(&mut engine, &mut snapshot, [Event::Reset { source: SOURCE, servers }]);
        assert_eq!(engine.claims().lost(), 49_999);
        assert_eq!(names(&snapshot, Kind::Scope, "eu"), ["x"]);
        run(&mut engine, &mut snapshot, [Event::Reset { source: SOURCE, servers: Vec::new() }]);
        assert_eq!((engine.claims().lost(), world(&snapshot, "eu").len()), (0, 0));
    }
}

/// One change among `fleet` servers, laid out by host or by path.
fn one_change(fleet: usize, layout: fn(usize) -> String) -> (Work, Applied) {
    let (mut engine, mut snapshot) = synced();
    let servers = (0..fleet).map(|i| server(&format!("s{i:06}"), &[&layout(i)])).collect();
    run(&mut engine, &mut snapshot, [Event::Reset { source: SOURCE, servers }]);
    let moved = server_with("s000007", &[&layout(7)], |server| {
        server.desired.endpoint = Some(([10, 0, 0, 2], 7000).into());
        server.desired.mode = Mode::Draining { redirect: None };
    });
    run(&mut engine, &mut snapshot, [Event::Upsert(moved)])
}

#[test]
fn work_one_change_costs_the_same_among_any_number() {
    for layout in
        [|i| format!("s{i:06}.example.com"), |i| format!("example.com/s{i:06}")] as [fn(usize) -> String; 2]
    {
        let small = one_change(1_000, layout);
        assert_eq!(small.0.servers, 1);
        assert_eq!(small.0.keys, 1);
        assert_eq!(small.0.translations, 2);
        for fleet in [10_000, 100_000] {
            assert_eq!(one_change(fleet, layout), small, "{fleet} servers");
        }
    }
}

/// What each of some changes of a member costs among `fleet` servers that have nothing to do with it.
fn a_member_changes(fleet: usize, changes: &[fn(&mut Server)]) -> Vec<(Work, Applied)> {
    let (mut engine, mut snapshot) = synced();
    let member = |name: &str, change: &dyn Fn(&mut Server)| {
        server_with(name, &["lobby.x"], |server| {
            server.desired.share = Some(Share { namespace: "default".into(), name: "lobby".into() });
            server.desired.affinity = Affinity::Cookie;
            change(server);
        })
    };
    let others = (0..fleet).map(|i| server(&format!("s{i:06}"), &[&format!("s{i:06}.x")]));
    let servers = others.chain(["a", "b", "c"].map(|name| member(name, &|_| ()))).collect();
    run(&mut engine, &mut snapshot, [Event::Reset { source: SOURCE, servers }]);
    let mut run =
        |change: &fn(&mut Server)| run(&mut engine, &mut snapshot, [Event::Upsert(member("b", change))]);
    changes.iter().map(&mut run).collect()
}

#[test]
fn work_a_member_that_changes_costs_its_own_host_and_not_the_fleet() {
    let changes: [fn(&mut Server); 4] = [
        |server| server.desired.weight = Weight(0),
        |server| server.desired.priority = Priority(1),
        |server| server.desired.version = GameVersion(2),
        |server| server.desired.mode = Mode::Draining { redirect: None },
    ];
    let small = a_member_changes(1_000, &changes);
    for (work, applied) in &small {
        assert_eq!((work.servers, work.keys, work.translations), (1, 1, 2));
        assert_eq!((applied.upserted, applied.removed), (1, 0), "one scope, and the same cluster");
    }
    assert_eq!(a_member_changes(100_000, &changes), small);
}
