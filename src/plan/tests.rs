#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::model::{Mode, Share, Weight};
use crate::testkit::{seed, server_with};

/// A server of share `lobby` at `play.localhost`, labelled with its version.
fn member(name: &str, version: &str) -> Member {
    let server = server_with(name, &["play.localhost"], |server| {
        server.desired.share = Some(Share { namespace: "default".into(), name: "lobby".into() });
    });
    Member {
        api_version: "tidegate.dev/v1".into(),
        kind: "Server".into(),
        namespace: "default".into(),
        name: name.into(),
        at: Some("fleet.yaml:1".into()),
        labels: [("version".to_owned(), version.to_owned())].into(),
        fleet: Some("lobby".into()),
        annotations: BTreeMap::new(),
        behind: Vec::new(),
        shut_by: None,
        servers: vec![server],
    }
}

fn fleet(from: usize, to: usize) -> Vec<Member> {
    let from = (0..from).map(|at| member(&format!("old-{at}"), "v1"));
    from.chain((0..to).map(|at| member(&format!("new-{at}"), "v2"))).collect()
}

fn edit(member: &mut Member, change: impl FnOnce(&mut Server)) {
    let mut server = (*member.servers[0]).clone();
    change(&mut server);
    member.servers = vec![Arc::new(server)];
}

/// As if they were written, and read again.
fn write(members: &mut Vec<Member>, changes: &[Change]) {
    for Change { member, annotation, old, .. } in changes {
        assert_eq!(members[*member].annotations.get(*annotation), old.as_ref());
    }
    *members = applied(members, changes);
}

fn labels(text: &str) -> Selector {
    text.parse().unwrap()
}

fn switch(members: &[Member], to: &str) -> Switch {
    Switch::of(members, "play.localhost", &labels(to), None).unwrap()
}

fn present(members: &[Member]) -> f64 {
    switch(members, "version=v2").present(members)[0]
}

fn assert_present(members: &[Member], percent: f64) {
    let present = present(members);
    assert!((present - percent).abs() < 1e-9, "{present}");
}

/// Steps until nothing is left to do. Returns the percentages.
fn roll(members: &mut Vec<Member>, to: &str, goal: u8, size: u8) -> Vec<u8> {
    let mut percents = Vec::new();
    loop {
        let step = switch(members, to).step(members, goal, size);
        if step.is_empty() {
            return percents;
        }
        for part in [&step.raise, &step.lower] {
            write(members, part);
            let takes = |member: &Member| member.servers[0].desired.weight.0 > 0;
            assert!(members.iter().any(takes), "somebody is open all the time");
        }
        percents.push(step.percents[0]);
        assert!(percents.len() <= 101, "it ends: {percents:?}");
    }
}

#[test]
fn weights_say_every_percentage_for_any_number_of_servers() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let most = *random.choice(&[3, 20, 1000]).unwrap();
        let (from, to, percent) = (random.usize(1..=most), random.usize(1..=most), random.u8(0..=100));
        let (a, b) = weights(from, to, percent);
        let case = format!("TIDEGATE_SEED={seed}: {from} to {to}, {percent} %");
        assert_eq!((a.len(), b.len()), (from, to), "{case}");
        let sum = |group: &[u16]| group.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        let reached = 100.0 * sum(&b) / (sum(&a) + sum(&b));
        assert!((reached - f64::from(percent)).abs() <= 0.5, "{case}: {reached}");
        for group in [&a, &b] {
            let (least, most) = (*group.iter().min().unwrap(), *group.iter().max().unwrap());
            assert!(most <= Weight::MAX && most - least <= 1, "{case}: {least} to {most}");
        }
        // What one says of the other way round is the same.
        let (back, forth) = weights(to, from, 100 - percent);
        let mirrored = 100.0 * sum(&forth) / (sum(&back) + sum(&forth));
        assert!((100.0 - mirrored - reached).abs() <= 1.0, "{case}");
    }
}

#[test]
fn a_small_part_of_a_large_group_is_spread_over_it() {
    assert_eq!(weights(3, 3, 10), (vec![100; 3], vec![11; 3]));
    assert_eq!(weights(1, 50, 5), (vec![1000], [vec![2; 3], vec![1; 47]].concat()));
    assert_eq!(weights(2, 2, 0), (vec![100; 2], vec![0; 2]));
    assert_eq!(weights(2, 2, 100), (vec![0; 2], vec![100; 2]));
}

#[test]
fn a_switch_goes_by_steps_and_back() {
    let mut members = fleet(3, 2);
    assert_present(&members, 40.0);
    assert_eq!(roll(&mut members, "version=v2", 0, 50), [0], "first nobody comes to the new ones");
    assert_eq!(roll(&mut members, "version=v2", 25, 10), [10, 20, 25]);
    assert!((present(&members) - 25.0).abs() <= 0.5);
    assert_eq!(roll(&mut members, "version=v2", 100, 25), [50, 75, 100]);
    assert_present(&members, 100.0);
    assert_eq!(roll(&mut members, "version=v2", 100, 25), [0; 0], "said twice it does nothing");
    assert_eq!(roll(&mut members, "version=v1", 100, 40), [40, 80, 100], "the other group is the way back");
    assert_present(&members, 0.0);
}

#[test]
fn a_switch_that_was_cut_off_within_a_step_goes_on() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let mut members = fleet(random.usize(1..9), random.usize(1..9));
        let (goal, size) = (random.u8(0..=100), random.u8(1..=60));
        for _ in 0..random.usize(0..6) {
            let step = switch(&members, "version=v2").step(&members, goal, size);
            let mut all = [step.raise, step.lower].concat();
            all.truncate(random.usize(0..=all.len()));
            write(&mut members, &all);
        }
        roll(&mut members, "version=v2", goal, size);
        let reached = present(&members);
        assert!((reached - f64::from(goal)).abs() <= 0.5, "TIDEGATE_SEED={seed}: {goal} became {reached}");
        assert!(switch(&members, "version=v2").uneven(&members).is_empty(), "TIDEGATE_SEED={seed}");
    }
    let mut members = fleet(2, 2);
    roll(&mut members, "version=v2", 50, 50);
    assert!(switch(&members, "version=v2").uneven(&members).is_empty());
    let step = switch(&members, "version=v2").step(&members, 70, 100);
    write(&mut members, &step.lower[..1]);
    assert_eq!(switch(&members, "version=v2").uneven(&members).len(), 1);
}

#[test]
fn only_those_who_take_players_count() {
    let mut members = fleet(4, 2);
    edit(&mut members[0], |server| server.desired.mode = Mode::Draining { redirect: None });
    edit(&mut members[5], |server| server.desired.mode = Mode::Starting);
    assert_present(&members, 25.0);
    roll(&mut members, "version=v2", 50, 100);
    let weights: Vec<_> = members.iter().map(|member| member.servers[0].desired.weight.0).collect();
    assert_eq!(weights, [34, 34, 33, 33, 100, 100], "who is not open has the weight of its fellows");
}

#[test]
fn nobody_to_switch_to_is_said() {
    let mut members = fleet(2, 1);
    edit(&mut members[2], |server| server.desired.mode = Mode::Starting);
    let why = switch(&members, "version=v2").check(&members, 100).unwrap_err();
    assert_eq!(
        why,
        "none of the 1 servers of share default/lobby to switch to takes players: new-0 (starting); make one ready first"
    );
    switch(&members, "version=v2").check(&members, 0).unwrap();
    members[0].annotations.insert("tidegate.dev/priority".into(), "1".into());
    assert!(
        switch(&members, "version=v1").check(&members, 100).unwrap_err().contains("tidegate.dev/priority")
    );
}

#[test]
fn who_came_to_a_version_stays_there() {
    let mut members = fleet(2, 2);
    let versions = |members: &[Member], to: &str| {
        let changes = switch(members, to).versions(members).unwrap();
        changes.into_iter().map(|change| (change.member, change.new.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(versions(&members, "version=v2"), [(2, "1".to_owned()), (3, "1".to_owned())]);
    let changes = switch(&members, "version=v2").versions(&members).unwrap();
    write(&mut members, &changes[..1]);
    assert_eq!(versions(&members, "version=v2"), [(3, "1".to_owned())], "what was cut off is made whole");
    write(&mut members, &changes[1..]);
    assert_eq!(versions(&members, "version=v2"), []);
    assert_eq!(
        versions(&members, "version=v1"),
        [(0, "2".to_owned()), (1, "2".to_owned())],
        "the way back is up"
    );
    members[2].annotations.insert(VERSION.into(), MAX_VERSION.to_string());
    let why = switch(&members, "version=v1").versions(&members).unwrap_err();
    assert!(why.contains("1000000 is the greatest"), "{why}");
    // A version of the whole fleet's object counts where there is none of its own.
    let mut members = fleet(1, 1);
    let whose = "GameServerSet default/new".to_owned();
    members[1].behind = vec![Layer { whose, annotations: [(VERSION.to_owned(), "7".to_owned())].into() }];
    assert_eq!(versions(&members, "version=v2"), []);
}

#[test]
fn a_host_that_can_not_be_switched_says_what_to_write() {
    let members = fleet(2, 2);
    let why = |host: &str, to: &str, members: &[Member]| {
        Switch::of(members, host, &labels(to), Some("default")).unwrap_err()
    };
    for (host, to, part) in [
        (
            "other.localhost",
            "version=v2",
            "nobody holds other.localhost; the nearest of 1 hosts: play.localhost",
        ),
        ("play.localhost/x", "version=v2", "nobody holds play.localhost/x; its paths are /"),
        ("play<id>.localhost", "version=v2", "is a template"),
        ("play_.localhost", "version=v2", "is no host"),
        (
            "play.localhost",
            "version=v3",
            "matches none of the 4 servers of share default/lobby; they have version=v1 (2), version=v2 (2)",
        ),
        ("play.localhost", "vrsion=v2", "none has a label vrsion; their labels are version"),
        (
            "play.localhost",
            "version",
            "matches every one of the 4 servers of share default/lobby, so that there is nobody to come from",
        ),
    ] {
        let said = why(host, to, &members);
        assert!(said.contains(part), "{host} {to}: {said}");
    }
    let said = Switch::of(&members, "play.localhost", &labels("version=v2"), Some("eu")).unwrap_err();
    assert!(said.contains("say -n default"), "{said}");
    let mut alone = fleet(1, 1);
    for member in &mut alone {
        edit(member, |server| server.desired.share = None);
    }
    let said = why("play.localhost", "version=v2", &alone);
    assert!(said.contains("write tidegate.dev/share: NAME"), "{said}");
    assert!(why("play.localhost", "version=v2", &[]).contains("nor any other host"));
}

#[test]
fn targets_are_found_or_the_nearest_are_named() {
    let mut members = fleet(3, 2);
    members[4].namespace = "eu".into();
    let names = |names: &[&str]| Target::Names(names.iter().map(|name| Name::parse(name).unwrap()).collect());
    let default = Some("default");
    assert_eq!(names(&["old-1", "default/old-0", "old-1"]).of(&members, default).unwrap(), [0, 1]);
    assert_eq!(names(&["eu/new-1"]).of(&members, default).unwrap(), [4]);
    let those = |of: Option<&str>, text: Option<&str>| Target::Those {
        of: of.map(str::to_owned),
        labels: text.map(labels),
    };
    assert_eq!(those(None, Some("version=v2")).of(&members, default).unwrap(), [3]);
    assert_eq!(those(None, Some("version=v2")).of(&members, None).unwrap(), [3, 4]);
    assert_eq!(those(Some("lobby"), Some("version!=v2")).of(&members, None).unwrap(), [0, 1, 2]);
    for (target, part) in [
        (names(&["odl-1"]), "no server \"odl-1\" is in namespace \"default\"; the nearest of 4 there: old-1"),
        (names(&["new-1"]), "there is eu/new-1"),
        (names(&["us/old-1"]), "no server \"old-1\" is in namespace \"us\"; there is default/old-1"),
        (names(&["us/x"]), "and no other either; there are servers in default, eu"),
        (
            those(Some("loby"), None),
            "--of loby matches none of the 4 servers in namespace \"default\"; its fleets are lobby",
        ),
        (
            those(None, Some("version=v9")),
            "-l \"version=v9\" matches none of the 4 servers in namespace \"default\"; they have version=v1 (3), version=v2 (1)",
        ),
    ] {
        let said = target.of(&members, default).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
    for bad in ["", "/", "a/", "/a", "a/b/c"] {
        assert!(Name::parse(bad).unwrap_err().contains("names no server"), "{bad}");
    }
}

#[test]
fn a_wish_changes_what_differs_and_no_more() {
    let mut members = fleet(1, 1);
    let changes = |members: &[Member], wish: &Wish| {
        wish.check().unwrap();
        let plan = wish.plan(members, &[0]).unwrap();
        plan.changes.into_iter().map(|change| (change.annotation, change.old, change.new)).collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let drain = Wish::Drain(None);
    assert_eq!(changes(&members, &drain), [(DRAIN, None, text("true"))]);
    members[0].annotations.insert(DRAIN.into(), "true".into());
    assert_eq!(changes(&members, &drain), []);
    let url = Wish::Drain(text("https://lobby.example.com/"));
    assert_eq!(changes(&members, &url), [(DRAIN, text("true"), text("https://lobby.example.com/"))]);
    assert_eq!(changes(&members, &Wish::Undrain), [(DRAIN, text("true"), None)]);
    let shop = Wish::Maintenance { text: "soon".into(), paths: vec!["/shop".into(), "/rank".into()] };
    assert_eq!(
        changes(&members, &shop),
        [(MAINTENANCE, None, text("soon")), (MAINTENANCE_PATHS, None, text("/shop,/rank"))]
    );
    members[0].annotations.insert(MAINTENANCE.into(), "soon".into());
    members[0].annotations.insert(MAINTENANCE_PATHS.into(), "/shop".into());
    let all = Wish::Maintenance { text: "soon".into(), paths: Vec::new() };
    assert_eq!(changes(&members, &all), [(MAINTENANCE_PATHS, text("/shop"), None)]);
    assert_eq!(changes(&members, &Wish::MaintenanceOff).len(), 2);
    assert_eq!(changes(&members, &Wish::Weight(0)), [(WEIGHT, None, text("0"))]);
}

#[test]
fn a_bad_wish_names_its_flag_and_what_was_expected() {
    for (wish, part) in [
        (Wish::Drain(Some("lobby".into())), "--redirect \"lobby\" is no URL"),
        (Wish::Drain(Some("true".into())), "--redirect \"true\" is no URL"),
        (Wish::Drain(Some("https://me@lobby.example.com/".into())), "no user"),
        (Wish::Maintenance { text: "x".repeat(513), paths: Vec::new() }, "--text has 513 bytes"),
        (
            Wish::Maintenance { text: String::new(), paths: vec!["shop".into()] },
            "--paths \"shop\" does not begin with /",
        ),
        (Wish::Maintenance { text: String::new(), paths: vec!["/a".into(), "/a".into()] }, "named twice"),
        (Wish::Maintenance { text: String::new(), paths: vec!["/a".into(); 65] }, "at most 64"),
        (Wish::Weight(1001), "weight 1001 is too much; expected a whole number from 0 to 1000"),
    ] {
        let said = wish.check().unwrap_err();
        assert!(said.contains(part), "{said}");
    }
    let own = Wish::Drain(Some("https://play.localhost".into()));
    let said = own.plan(&fleet(1, 0), &[0]).unwrap_err();
    assert!(said.contains("leads to play.localhost, which is Server default/old-0 itself"), "{said}");
}

#[test]
fn who_else_has_a_say_is_named() {
    let mut members = fleet(1, 0);
    let whose = "GameServerSet eu/lobby".to_owned();
    members[0].behind = vec![Layer {
        whose,
        annotations: [(DRAIN, "true"), (MAINTENANCE, "x"), (MAINTENANCE_PATHS, "/shop")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }];
    members[0].shut_by = Some("spec.opsState is Maintaining".into());
    let notes = |wish: Wish| wish.plan(&members, &[0]).unwrap().notes.join("\n");
    let said = notes(Wish::Undrain);
    assert!(said.contains("still drained by GameServerSet eu/lobby: tidegate.dev/drain: \"true\""), "{said}");
    assert!(said.contains("still takes no new players: spec.opsState is Maintaining"), "{said}");
    let text = Wish::Maintenance { text: "y".into(), paths: Vec::new() };
    assert!(notes(text).contains("in maintenance on /shop alone, as GameServerSet eu/lobby says"));
    assert!(notes(Wish::MaintenanceOff).contains("still in maintenance, as GameServerSet eu/lobby says"));
    assert_eq!(notes(Wish::Weight(5)), "");
    edit(&mut members[0], |server| server.desired.share = None);
    let plan = Wish::Weight(5).plan(&members, &[0]).unwrap();
    assert!(plan.notes[0].contains("is of no share"));
    assert_eq!(Wish::Weight(0).plan(&members, &[0]).unwrap().notes, [""; 0]);
}
