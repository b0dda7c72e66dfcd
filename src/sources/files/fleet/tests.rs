#![allow(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::parse::Format;
use super::*;
use crate::kinds::{Kind, Object};

fn set() -> Value {
    json!({
        "apiVersion": "game.kruise.io/v1alpha1", "kind": "GameServerSet",
        "metadata": { "name": "lobby", "annotations": { "tidegate.dev/host": "<name>.example.com" } },
        "spec": { "replicas": 3 },
    })
}

fn game_server(name: &str) -> Value {
    json!({
        "apiVersion": "game.kruise.io/v1alpha1", "kind": "GameServer",
        "metadata": { "name": name }, "spec": { "opsState": "None" },
    })
}

fn pod(name: &str, last: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "uid": format!("u-{name}"), "resourceVersion": format!("{last}"),
            "labels": { "game.kruise.io/owner-gss": "lobby" },
        },
        "spec": { "containers": [{ "name": "game", "ports": [{ "containerPort": 7000 }] }] },
        "status": {
            "phase": "Running", "podIP": format!("10.0.0.{last}"),
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [{ "name": "game", "ready": true }],
        },
    })
}

fn agones(name: &str, state: &str) -> Value {
    json!({
        "apiVersion": "agones.dev/v1", "kind": "GameServer",
        "metadata": { "name": name, "annotations": { "tidegate.dev/host": "<name>.agones.example.com" } },
        "spec": { "ports": [{ "name": "game", "containerPort": 7777, "portPolicy": "Dynamic" }] },
        "status": {
            "state": state, "address": "192.0.2.1", "ports": [{ "name": "game", "port": 7012 }],
            "addresses": [{ "type": "PodIP", "address": "10.0.1.1" }],
        },
    })
}

/// As `kubectl get pods,gs,gss -o json` has it: a list, in the order of the kinds that were asked for.
fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

fn dump() -> Vec<Value> {
    vec![
        pod("lobby-0", 1),
        pod("lobby-1", 2),
        game_server("lobby-0"),
        game_server("lobby-1"),
        set(),
        agones("arena-x", "Allocated"),
    ]
}

fn read(format: Format, text: &str) -> Content {
    Content::read("dump", format, text.as_bytes(), &Rules::default())
}

fn shown(events: Vec<Event>) -> Vec<String> {
    let word = |event| match event {
        Event::Upsert(server) => {
            let routes: Vec<_> = server.desired.routes.iter().map(ToString::to_string).collect();
            let endpoint = server.desired.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
            format!("+{} {} {endpoint} {}", server.id, routes.join(","), server.desired.mode.word())
        }
        Event::Remove(id) => format!("-{id}"),
        Event::Reset { .. } | Event::Doubt { .. } => panic!("a file alone says neither"),
    };
    let mut words: Vec<_> = events.into_iter().map(word).collect();
    words.sort();
    words
}

/// A fleet that was told the dump.
fn told() -> Fleet {
    let mut fleet = Fleet::new(Rules::default());
    fleet.replace("dump.json", read(Format::Json, &list(&dump())));
    fleet
}

const LOBBY_0: &str = "+files-okg/default/lobby-0 lobby-0.example.com 10.0.0.1:7000 open";

#[test]
fn a_dump_makes_the_servers_of_its_cluster() {
    let mut fleet = Fleet::new(Rules::default());
    let mut dump = dump();
    // It asks for itself, so that without its set it would be a server with another word on it.
    dump[0]["metadata"]["annotations"] = json!({ "tidegate.dev/weight": "7" });
    let content = read(Format::Json, &list(&dump));
    assert!(content.is_whole && content.problems.is_empty(), "{:?}", content.problems);
    // Each once, though the pods stand before their set.
    assert_eq!(
        shown(fleet.replace("dump.json", content)),
        [
            "+files-agones/default/arena-x arena-x.agones.example.com 10.0.1.1:7777 open",
            LOBBY_0,
            "+files-okg/default/lobby-1 lobby-1.example.com 10.0.0.2:7000 open",
        ]
    );
    // The second definition: the objects one by one, as a watch hears them.
    let mut cluster = kinds::Fleet::new(Rules::default(), Sources { okg: OKG, agones: AGONES });
    for value in dump {
        let text = |field: &str| value[field].as_str().unwrap();
        let kind = Kind::of(text("apiVersion"), text("kind")).unwrap();
        cluster.put(Object::decode(kind, &value).unwrap());
    }
    for source in [OKG, AGONES] {
        let by_id = |servers: Vec<Arc<Server>>| -> BTreeMap<_, _> {
            servers.into_iter().map(|server| (server.id.clone(), server)).collect()
        };
        assert_eq!(by_id(fleet.servers(source)), by_id(cluster.servers(source).cloned().collect()));
    }
}

#[test]
fn a_dump_may_be_written_in_any_way() {
    let objects: Vec<_> = dump().iter().map(ToString::to_string).collect();
    let (lines, documents) = (objects.join("\n"), objects.join("\n---\n"));
    let pods = json!({ "apiVersion": "v1", "kind": "PodList", "items": dump() }).to_string();
    for (format, text) in [
        (Format::Ndjson, lines),
        (Format::Yaml, documents),
        (Format::Yaml, list(&dump())),
        (Format::Json, pods),
    ] {
        let mut fleet = told();
        assert_eq!(shown(fleet.replace("dump.json", read(format, &text))), [""; 0], "{format:?}");
        assert_eq!(fleet.ledger().len(), dump().len());
    }
}

#[test]
fn one_pod_of_a_dump_is_one_upsert() {
    let mut fleet = told();
    let mut other = dump();
    other[0] = pod("lobby-0", 9);
    let changed = LOBBY_0.replace("10.0.0.1", "10.0.0.9");
    assert_eq!(shown(fleet.replace("dump.json", read(Format::Json, &list(&other)))), [changed]);
    // What nobody reads is no change: a resource version, a restart.
    other[1]["metadata"]["resourceVersion"] = "77".into();
    other[1]["status"]["containerStatuses"][0]["restartCount"] = 3.into();
    assert_eq!(shown(fleet.replace("dump.json", read(Format::Json, &list(&other)))), [""; 0]);
}

#[test]
fn a_set_that_goes_takes_its_word_with_it() {
    let mut fleet = told();
    let mut other = dump();
    other.remove(4);
    let gone = ["-files-okg/default/lobby-0", "-files-okg/default/lobby-1"];
    assert_eq!(shown(fleet.replace("dump.json", read(Format::Json, &list(&other)))), gone);
    let mut named = set();
    named["metadata"]["annotations"]["tidegate.dev/host"] = "lobby<id>.example.com".into();
    let told = shown(fleet.replace("set.yaml", read(Format::Json, &named.to_string())));
    assert_eq!(
        told[0],
        LOBBY_0.replace("lobby-0.example", "lobby0.example"),
        "a set may stand in another file"
    );
    assert_eq!(shown(fleet.remove("set.yaml")), gone);
}

#[test]
fn a_bad_object_costs_itself_alone_and_keeps_its_last_version() {
    let mut fleet = told();
    let mut other = dump();
    other[0]["metadata"]["labels"] = "none".into();
    other[1] = pod("lobby-1", 9);
    let content = read(Format::Json, &list(&other));
    assert!(!content.is_whole);
    let changed = "+files-okg/default/lobby-1 lobby-1.example.com 10.0.0.9:7000 open";
    assert_eq!(shown(fleet.replace("dump.json", content)), [changed]);
    let [problem] = &fleet.ledger().problems()[..] else { panic!() };
    assert!(
        problem
            .to_string()
            .starts_with("dump:1 items[0]: v1 Pod \"lobby-0\" can't be read: metadata.labels:"),
        "{problem}"
    );
    assert_eq!(
        fleet.ledger().held().unwrap(),
        "dump.json is not whole: 1 objects of it are kept as they were"
    );
}

#[test]
fn the_first_file_counts_for_objects_too() {
    let mut fleet = told();
    assert_eq!(
        shown(fleet.replace("later.json", read(Format::Json, &pod("lobby-0", 9).to_string()))),
        [""; 0]
    );
    let problem = fleet.ledger().problems()[0].to_string();
    assert!(problem.contains("Pod default/lobby-0 stands in dump.json:1 items[0] already"), "{problem}");
    let changed = shown(fleet.remove("dump.json"));
    assert!(changed.contains(&"-files-okg/default/lobby-0".to_owned()), "its set is gone: {changed:?}");
}

#[test]
fn every_source_is_listed_and_doubts_alike() {
    let mut fleet = told();
    fleet.replace("bad.json", read(Format::Json, "{"));
    let (mut resets, mut doubts) = (Vec::new(), Vec::new());
    for event in fleet.listing() {
        match event {
            Event::Reset { source, servers } => resets.push((source, servers.len())),
            Event::Doubt { source, doubts: true } => doubts.push(source),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resets, [(SOURCE, 0), (OKG, 2), (AGONES, 1)]);
    assert_eq!(doubts, SOURCES);
}
