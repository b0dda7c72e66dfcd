use serde_json::{Value, json};

use super::*;
use crate::kinds::{PublishAt, Upstream};
use crate::model::{Mode, Protocol};
use crate::testkit::SOURCE;

mod fleet;
mod life;
mod octops;
mod place;
mod random;

fn decode(object: Value) -> GameServer {
    serde_json::from_value(object).expect("a GameServer")
}

/// A GameServer as Agones 1.50 leaves it in `state`, one port `game`, with these annotations.
fn object(state: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    json!({
        "apiVersion": "agones.dev/v1",
        "kind": "GameServer",
        "metadata": {
            "name": "lobby-xk2p4-7vq9z",
            "namespace": "eu",
            "uid": "0d4f1f9e-0001",
            "resourceVersion": "812",
            "creationTimestamp": "2026-05-01T08:00:00Z",
            "finalizers": ["agones.dev/controller"],
            "labels": { "agones.dev/fleet": "lobby", "agones.dev/gameserverset": "lobby-xk2p4" },
            "annotations": annotations,
        },
        "spec": {
            "container": "server",
            "health": { "periodSeconds": 5 },
            "ports": [{
                "name": "game", "portPolicy": "Dynamic", "range": "default", "container": "server",
                "containerPort": 8010, "hostPort": 7123, "protocol": "UDP",
            }],
            "template": { "spec": { "containers": [{ "name": "server", "image": "lobby:1" }] } },
        },
        "status": {
            "state": state,
            "ports": [{ "name": "game", "port": 7123 }],
            "address": "192.0.2.10",
            "addresses": [
                { "type": "InternalIP", "address": "192.0.2.10" },
                { "type": "Hostname", "address": "node-a" },
                { "type": "PodIP", "address": "10.0.0.7" },
            ],
            "nodeName": "node-a",
            "reservedUntil": null,
            "players": null,
            "counters": { "rooms": { "count": 1, "capacity": 100 } },
            "lists": null,
            "eviction": { "safe": "Never" },
        },
    })
}

const HOST: (&str, &str) = ("tidegate.dev/host", "lobby.example.com");

fn read_by(rules: &Rules, object: Value) -> Option<Server> {
    let mut servers = servers(&decode(object), None, rules, SOURCE);
    assert!(servers.len() <= 1);
    servers.pop()
}

fn read(object: Value) -> Option<Server> {
    read_by(&Rules::default(), object)
}

/// The server of these annotations on a GameServer that is Ready.
#[track_caller]
fn ready_with(annotations: &[(&str, &str)]) -> Server {
    read(object("Ready", annotations)).expect("a server")
}

fn routes(server: &Server) -> Vec<String> {
    server.desired.routes.iter().map(ToString::to_string).collect()
}

fn problems(server: &Server) -> Vec<String> {
    server.problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn problem(server: &Server) -> String {
    let [problem] = &server.problems[..] else { panic!("{:#?}", server.problems) };
    problem.to_string()
}

fn by_node() -> Rules {
    Rules { upstream: Upstream::Node, ..Rules::default() }
}

#[test]
fn a_route_is_asked_for() {
    assert_eq!(read(object("Ready", &[])), None);
    // What we write, what the game says, and Octops' other keys ask for nothing.
    for other in [
        ("tidegate.dev/url", "https://a.example.com/"),
        ("agones.dev/sdk-tidegate-drain", "true"),
        ("octops.io/gameserver-ingress-domain", "example.com"),
        ("octops-projectcontour.io/websocket-routes", "/"),
    ] {
        assert_eq!(read(object("Ready", &[other])), None, "{other:?}");
    }
    assert_eq!(routes(&ready_with(&[HOST])), ["lobby.example.com"]);
    let rules = Rules { host_template: Some("<name>.games.example.com".into()), ..Rules::default() };
    assert_eq!(read_by(&rules, object("Ready", &[])), None, "the host template is no opt-in");
    let server = read_by(&rules, object("Ready", &[("tidegate.dev/max-sessions", "8")])).unwrap();
    assert_eq!(routes(&server), ["lobby-xk2p4-7vq9z.games.example.com"]);
}

#[test]
fn a_class_chooses_between_controllers() {
    const CLASS: &str = "octops.io/ingress-class-name";
    const LEGACY: &str = "octops-kubernetes.io/ingress.class";
    let mode = ("octops.io/gameserver-ingress-mode", "path");
    let fqdn = ("octops.io/gameserver-ingress-fqdn", "servers.example.com");
    for (classes, is_ours) in [
        (&[][..], true),
        (&[(CLASS, "tidegate")], true),
        (&[(CLASS, "contour")], false),
        (&[(LEGACY, "tidegate")], true),
        (&[(LEGACY, "contour")], false),
        (&[(CLASS, "tidegate"), (LEGACY, "contour")], true),
        (&[(CLASS, "contour"), (LEGACY, "tidegate")], false),
        (&[(CLASS, "")], true),
    ] {
        let octops = [&[mode, fqdn], classes].concat();
        let server = read(object("Ready", &octops));
        assert_eq!(server.is_some(), is_ours, "{classes:?}");
        assert!(server.is_none_or(|server| server.problems.is_empty()), "{classes:?}");
        let both = [&[mode, fqdn, HOST], classes].concat();
        assert_eq!(read(object("Ready", &both)).is_some(), is_ours, "{classes:?}");
    }
    let rules = Rules { classes: ["contour".to_owned()].into(), ..Rules::default() };
    assert!(read_by(&rules, object("Ready", &[mode, fqdn, (CLASS, "contour")])).is_some());
    assert!(read_by(&rules, object("Ready", &[mode, fqdn, (CLASS, "tidegate")])).is_none());
}

#[test]
fn a_server_has_the_words_of_its_object() {
    let server = ready_with(&[("tidegate.dev/host", "<name>.<fleet>.<namespace>.example.com")]);
    assert_eq!(server.id, ServerId::new(SOURCE, "eu", "lobby-xk2p4-7vq9z"));
    assert_eq!(server.age, crate::model::Age::Since(1_777_622_400_000));
    assert_eq!(routes(&server), ["lobby-xk2p4-7vq9z.lobby.eu.example.com"]);
    assert_eq!(server.desired.endpoint.unwrap().to_string(), "10.0.0.7:8010");
    assert_eq!((server.desired.mode, server.desired.protocol), (Mode::Open, Protocol::Http1));
    assert_eq!(server.problems, []);
    // Without a Fleet, the fleet is the name without its number, as everywhere.
    let mut alone = object("Ready", &[("tidegate.dev/host", "<fleet>.example.com")]);
    alone["metadata"]["name"] = json!("arena-3");
    alone["metadata"]["labels"] = Value::Null;
    assert_eq!(routes(&read(alone).unwrap()), ["arena.example.com"]);
}

#[test]
fn what_is_not_read_makes_no_two_versions_differ() {
    let one = object("Allocated", &[HOST, ("tidegate.dev/drain", "false")]);
    let mut other = one.clone();
    other["metadata"]["annotations"]["agones.dev/sdk-version"] = json!("1.51.0");
    other["metadata"]["annotations"]["example.com/mood"] = json!("good");
    other["metadata"]["labels"]["agones.dev/sdk-players"] = json!("7");
    other["metadata"]["managedFields"] = json!([{ "manager": "sdk-server" }]);
    other["status"]["counters"]["rooms"]["count"] = json!(2);
    other["status"]["lists"] = json!({ "players": { "capacity": 10, "values": ["ann"] } });
    other["status"]["players"] = json!({ "count": 1, "capacity": 10, "ids": ["ann"] });
    other["status"]["reservedUntil"] = json!("2026-05-01T09:00:00Z");
    other["status"]["nodeName"] = json!("node-b");
    other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("lobby:2");
    other["spec"]["health"]["disabled"] = json!(true);
    assert_eq!(decode(one.clone()), decode(other));
    let mut differs = one.clone();
    differs["status"]["state"] = json!("Shutdown");
    assert_ne!(decode(one), decode(differs));
}

#[test]
fn null_is_nothing() {
    for null in [
        json!({}),
        json!({ "metadata": null, "spec": null, "status": null }),
        json!({ "metadata": { "labels": null, "annotations": null }, "spec": { "ports": null } }),
        json!({ "status": { "state": null, "ports": null, "address": null, "addresses": null } }),
    ] {
        assert_eq!(decode(null), GameServer::default());
    }
    let ports = json!({ "spec": { "ports": [{ "name": null, "containerPort": null, "portPolicy": null }] },
        "status": { "ports": [{ "name": null, "port": null }], "addresses": [{ "type": null, "address": null }] } });
    let server = decode(ports);
    assert_eq!(server.spec.ports, [Port::default()]);
    assert_eq!((server.status.ports.len(), server.status.addresses.len()), (1, 1));
    let fleet = json!({ "metadata": null, "spec": { "replicas": null, "template": { "metadata": null, "spec": null } } });
    assert_eq!(serde_json::from_value::<Fleet>(fleet).unwrap(), Fleet::default());
}

#[test]
fn what_we_write_back_changes_no_server() {
    let mode = ("octops.io/gameserver-ingress-mode", "domain");
    let domain = ("octops.io/gameserver-ingress-domain", "example.com");
    let before = object("Ready", &[mode, domain, HOST]);
    let mut after = before.clone();
    after["metadata"]["annotations"]["tidegate.dev/url"] = json!("https://lobby.example.com/");
    after["metadata"]["annotations"]["octops.io/ingress-ready"] = json!("true");
    after["metadata"]["labels"]["tidegate.dev/routed"] = json!("true");
    assert_ne!(decode(before.clone()), decode(after.clone()));
    assert_eq!(read(before), read(after));
}
