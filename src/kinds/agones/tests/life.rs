use super::*;
use crate::kinds::{self, Kind, Object, Sources};
use crate::model::{Event, Redirect};

/// What a GameServer comes to in a state: its mode, or that there is no server.
fn mode(rules: &Rules, object: Value) -> Option<&'static str> {
    read_by(rules, object).map(|server| server.desired.mode.word())
}

#[test]
fn every_state_has_a_meaning() {
    let at_ready = Rules { publish_at: PublishAt::Ready, ..Rules::default() };
    for (state, mode_, later) in [
        ("", None, None),
        ("PortAllocation", None, None),
        ("Creating", None, None),
        ("Starting", None, None),
        ("Scheduled", Some("open"), Some("starting")),
        ("RequestReady", Some("open"), Some("starting")),
        ("Ready", Some("open"), Some("open")),
        ("Reserved", Some("open"), Some("open")),
        ("Allocated", Some("open"), Some("open")),
        ("Shutdown", Some("draining"), Some("draining")),
        ("Unhealthy", Some("draining"), Some("draining")),
        ("Error", Some("draining"), Some("draining")),
        ("Frozen", Some("draining"), Some("draining")),
    ] {
        let object = object(state, &[HOST]);
        assert_eq!(mode(&Rules::default(), object.clone()), mode_, "{state}");
        assert_eq!(mode(&at_ready, object.clone()), later, "{state}");
        let mut deleted = object.clone();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-05-01T09:00:00Z");
        let ending = mode_.map(|_| "draining");
        assert_eq!(mode(&Rules::default(), deleted), ending, "{state}, deleted");
        if let Some(server) = read(object.clone()) {
            assert_eq!(
                server.desired.endpoint,
                Some(([10, 0, 0, 7], 8010).into()),
                "{state} keeps its players"
            );
        }
        let mut nowhere = object;
        nowhere["status"]["address"] = json!("");
        nowhere["status"]["addresses"] = Value::Null;
        let never = mode_.filter(|mode| *mode == "open").map(|_| "starting");
        assert_eq!(mode(&Rules::default(), nowhere), never, "{state}, never scheduled");
    }
}

#[test]
fn an_unknown_state_is_named() {
    assert_eq!(
        problem(&read(object("Frozen", &[HOST])).unwrap()),
        "status.state: \"Frozen\" is not a state that is known; the server takes no new players, those inside stay"
    );
}

#[test]
fn a_game_shuts_its_own_door() {
    const DRAIN: &str = "agones.dev/sdk-tidegate-drain";
    const OWN: &str = "tidegate.dev/drain";
    let away = Mode::Draining {
        redirect: Some(Redirect { https: true, host: "lobby.example.gg".into(), port: None, path: None }),
    };
    let draining = Mode::Draining { redirect: None };
    for (annotations, expected) in [
        (&[(DRAIN, "true")][..], draining.clone()),
        (&[(DRAIN, "false")], Mode::Open),
        (&[(DRAIN, "https://lobby.example.gg")], away.clone()),
        (&[(DRAIN, "true"), (OWN, "false")], draining.clone()),
        // What somebody else has shut, it can't open: allocationOverflow writes ours, for one.
        (&[(DRAIN, "false"), (OWN, "true")], draining.clone()),
        (&[(DRAIN, "true"), (OWN, "https://lobby.example.gg")], away),
    ] {
        let server = ready_with(&[&[HOST], annotations].concat());
        assert_eq!((server.desired.mode, server.problems), (expected, vec![]), "{annotations:?}");
    }
    let shut = |text: &str| Mode::Maintenance { text: text.into(), paths: vec![] };
    let said = ("agones.dev/sdk-tidegate-maintenance", "Map change");
    assert_eq!(ready_with(&[HOST, said]).desired.mode, shut("Map change"));
    let own = ("tidegate.dev/maintenance", "Closed for the night");
    assert_eq!(ready_with(&[HOST, said, own]).desired.mode, shut("Closed for the night"));
    let most = [("tidegate.dev/max-sessions", "8"), ("agones.dev/sdk-tidegate-max-sessions", "9")];
    assert_eq!(ready_with(&[&[HOST], &most[..]].concat()).desired.max_sessions, Some(9));
    let why = problem(&ready_with(&[HOST, (DRAIN, "ftp://x")]));
    assert!(why.starts_with("metadata.annotations[\"agones.dev/sdk-tidegate-drain\"]: \"ftp://x\""), "{why}");
}

#[test]
fn a_game_has_no_say_in_hosts() {
    for key in ["host", "path", "port", "gateway", "share", "weight", "protocol", "dran"] {
        let server = ready_with(&[HOST, (&format!("agones.dev/sdk-tidegate-{key}"), "evil.example.com")]);
        assert_eq!(routes(&server), ["lobby.example.com"]);
        assert_eq!(
            problem(&server),
            format!(
                "metadata.annotations[\"agones.dev/sdk-tidegate-{key}\"]: can't be said by the game, which may say drain, maintenance, max-sessions; write tidegate.dev/{key} on the GameServer"
            )
        );
    }
}

/// A cluster's objects, and what each change of one tells.
struct Cluster(kinds::Fleet);

impl Cluster {
    fn new(rules: Rules) -> Self {
        Self(kinds::Fleet::new(rules, Sources { okg: crate::model::Source("okg"), agones: SOURCE }))
    }

    fn put(&mut self, object: &Value) -> Vec<String> {
        let object = Object::decode(Kind::AgonesGameServer, object).expect("a GameServer");
        told(self.0.put(object))
    }

    fn put_state(&mut self, object: &mut Value, state: &str) -> Vec<String> {
        object["status"]["state"] = json!(state);
        self.put(object)
    }

    fn remove(&mut self, object: &Value) -> Vec<String> {
        let object = Object::decode(Kind::AgonesGameServer, object).expect("a GameServer");
        told(self.0.remove(&object.key()))
    }
}

fn told(events: Vec<Event>) -> Vec<String> {
    let told = |event| match event {
        Event::Upsert(server) => {
            let endpoint = server.desired.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default();
            format!("{} {} {}", server.desired.mode.word(), routes(&server).join(","), endpoint)
        }
        Event::Remove(id) => format!("remove {}", id.name()),
        other => format!("{other:?}"),
    };
    events.into_iter().map(told).collect()
}

const NOTHING: [&str; 0] = [];
const OPEN: [&str; 1] = ["open lobby.example.com 10.0.0.7:8010"];
const DRAINING: [&str; 1] = ["draining lobby.example.com 10.0.0.7:8010"];
const REMOVED: [&str; 1] = ["remove lobby-xk2p4-7vq9z"];

#[test]
fn a_life_from_birth_to_shutdown() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object("PortAllocation", &[HOST]);
    let (address, addresses) = (server["status"]["address"].take(), server["status"]["addresses"].take());
    for state in ["PortAllocation", "Creating", "Starting"] {
        assert_eq!(cluster.put_state(&mut server, state), NOTHING, "{state}");
    }
    server["status"]["address"] = address;
    server["status"]["addresses"] = addresses;
    assert_eq!(cluster.put_state(&mut server, "Scheduled"), OPEN);
    for state in ["RequestReady", "Ready", "Reserved", "RequestReady", "Ready", "Allocated", "Allocated"] {
        assert_eq!(cluster.put_state(&mut server, state), NOTHING, "{state}");
    }
    assert_eq!(cluster.put_state(&mut server, "Shutdown"), DRAINING);
    server["metadata"]["deletionTimestamp"] = json!("2026-05-01T09:00:00Z");
    assert_eq!(cluster.put(&server), NOTHING);
    assert_eq!(cluster.remove(&server), REMOVED);
    assert_eq!(cluster.remove(&server), NOTHING);
}

#[test]
fn the_sdk_may_be_faster_than_the_controller() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object("RequestReady", &[HOST]);
    let addresses = server["status"]["addresses"].take();
    assert_eq!(cluster.put(&server), ["starting lobby.example.com "]);
    server["status"]["addresses"] = addresses;
    assert_eq!(cluster.put(&server), OPEN);
}

#[test]
fn counters_are_no_event() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object("Allocated", &[HOST]);
    // Whoever watches takes the version out.
    server["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(cluster.put(&server), OPEN, "a server that was allocated before we came has its route");
    _ = cluster.0.touched();
    for second in 0..60 {
        server["status"]["counters"]["rooms"]["count"] = json!(second);
        server["metadata"]["annotations"]["agones.dev/sdk-score"] = json!(second.to_string());
        assert_eq!(cluster.put(&server), NOTHING);
    }
    assert!(cluster.0.touched().is_empty());
}

#[test]
fn the_loop_of_a_server_that_is_used_again_touches_nothing() {
    for publish_at in [PublishAt::Scheduled, PublishAt::Ready] {
        let mut cluster = Cluster::new(Rules { publish_at, ..Rules::default() });
        let mut server = object("Scheduled", &[HOST]);
        _ = cluster.put(&server);
        _ = cluster.put_state(&mut server, "RequestReady");
        server["metadata"]["annotations"]["agones.dev/ready-container-id"] = json!("containerd://0a");
        let opened = cluster.put_state(&mut server, "Ready");
        assert_eq!(opened == OPEN, publish_at == PublishAt::Ready);
        for round in 0..3 {
            server["metadata"]["annotations"]["agones.dev/last-allocated"] =
                json!(format!("2026-05-01T09:0{round}:00Z"));
            for state in ["Allocated", "RequestReady", "Ready", "Reserved", "RequestReady", "Ready"] {
                assert_eq!(cluster.put_state(&mut server, state), NOTHING, "{state}");
            }
        }
    }
    // Without the container's id, as when sidecars are on, an allocation tells as well.
    let rules = Rules { publish_at: PublishAt::Ready, ..Rules::default() };
    let mut server = object("RequestReady", &[HOST]);
    assert_eq!(mode(&rules, server.clone()), Some("starting"));
    server["metadata"]["annotations"]["agones.dev/last-allocated"] = json!("2026-05-01T09:00:00Z");
    assert_eq!(mode(&rules, server), Some("open"));
}

#[test]
fn a_deletion_drains_whatever_the_state_says() {
    for state in ["Ready", "Allocated", "Reserved"] {
        let mut cluster = Cluster::new(Rules::default());
        let mut server = object(state, &[HOST]);
        assert_eq!(cluster.put(&server), OPEN);
        server["metadata"]["deletionTimestamp"] = json!("2026-05-01T09:00:00Z");
        assert_eq!(cluster.put(&server), DRAINING, "{state}");
        assert_eq!(cluster.put(&server), NOTHING);
        assert_eq!(cluster.remove(&server), REMOVED);
    }
}

#[test]
fn an_unhealthy_server_alone_stays_and_drains() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object("Ready", &[HOST]);
    _ = cluster.put(&server);
    assert_eq!(cluster.put_state(&mut server, "Unhealthy"), DRAINING);
    // What failed before it had a node never had players.
    let mut failed = object("Starting", &[HOST]);
    failed["metadata"]["name"] = json!("failed");
    failed["status"]["address"] = json!("");
    failed["status"]["addresses"] = json!([]);
    for state in ["Starting", "Error", "Unhealthy", "Shutdown"] {
        assert_eq!(cluster.put_state(&mut failed, state), NOTHING, "{state}");
    }
}

#[test]
fn an_annotation_of_a_live_server_is_applied() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object(
        "Allocated",
        &[
            ("octops.io/gameserver-ingress-mode", "domain"),
            ("octops.io/gameserver-ingress-domain", "example.com"),
        ],
    );
    assert_eq!(cluster.put(&server), ["open lobby-xk2p4-7vq9z.example.com 10.0.0.7:8010"]);
    server["metadata"]["annotations"]["octops.io/gameserver-ingress-domain"] = json!("example.gg");
    assert_eq!(cluster.put(&server), ["open lobby-xk2p4-7vq9z.example.gg 10.0.0.7:8010"]);
    server["metadata"]["annotations"]["tidegate.dev/drain"] = json!("true");
    assert_eq!(cluster.put(&server), ["draining lobby-xk2p4-7vq9z.example.gg 10.0.0.7:8010"]);
    server["metadata"]["annotations"] = json!({});
    assert_eq!(cluster.put(&server), REMOVED);
}

#[test]
fn a_new_uid_of_the_same_name_is_one_change() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object("Allocated", &[HOST]);
    assert_eq!(cluster.put(&server), OPEN);
    // Its deletion fell into a gap of the watch.
    server["metadata"]["uid"] = json!("0d4f1f9e-0002");
    server["metadata"]["creationTimestamp"] = json!("2026-05-01T10:00:00Z");
    server["status"]["addresses"] = json!([{ "type": "PodIP", "address": "10.0.0.8" }]);
    assert_eq!(cluster.put(&server), ["open lobby.example.com 10.0.0.8:8010"]);
    server["metadata"]["uid"] = json!("0d4f1f9e-0003");
    assert_eq!(cluster.put_state(&mut server, "Creating"), REMOVED, "one that has no pod yet");
}

#[test]
fn a_subject_says_what_stands_on_the_object() {
    let mut cluster = Cluster::new(Rules::default());
    let mut server = object(
        "Ready",
        &[
            ("octops.io/gameserver-ingress-mode", "path"),
            ("octops.io/gameserver-ingress-fqdn", "servers.example.com"),
        ],
    );
    let mut subject = |server: &Value| {
        _ = cluster.put(server);
        let mut touched = cluster.0.touched();
        touched.remove(0).1.expect("a subject")
    };
    let first = subject(&server);
    assert_eq!((first.noted.ready, first.noted.url, first.noted.routed), (Some(false), None, false));
    assert_eq!(&*first.target.unwrap().uid, "0d4f1f9e-0001");
    server["metadata"]["annotations"]["octops.io/ingress-ready"] = json!("true");
    server["metadata"]["annotations"]["tidegate.dev/url"] = json!("http://servers.example.com/lobby");
    server["metadata"]["labels"]["tidegate.dev/routed"] = json!("true");
    let second = subject(&server);
    assert_eq!((second.noted.ready, second.noted.routed), (Some(true), true));
    assert_eq!(second.noted.url.as_deref(), Some("http://servers.example.com/lobby"));
}

#[test]
fn one_that_is_routed_no_more_is_a_subject_until_its_marks_are_gone() {
    let mut cluster = Cluster::new(Rules::default());
    let url = ("tidegate.dev/url", "https://lobby.example.com/");
    let marked = |annotations: &[(&str, &str)]| {
        let mut server = object("Ready", annotations);
        server["metadata"]["labels"]["tidegate.dev/routed"] = json!("true");
        server
    };
    assert_eq!(cluster.put(&marked(&[HOST, url])), OPEN);
    _ = cluster.0.touched();
    let unasked = marked(&[url]);
    assert_eq!(cluster.put(&unasked), REMOVED);
    let touched = cluster.0.touched();
    let [(_, Some(subject))] = &touched[..] else { panic!("{touched:?}") };
    assert!(subject.servers.is_empty() && subject.noted.routed && subject.target.is_some());
    assert_eq!(cluster.put(&object("Ready", &[])), NOTHING);
    let touched = cluster.0.touched();
    assert!(matches!(&touched[..], [(_, None)]), "{touched:?}");
    assert_eq!(cluster.put(&object("Allocated", &[])), NOTHING);
    assert!(cluster.0.touched().is_empty(), "it is nobody's");
    // What was never routed here may be marked by another control plane.
    let mut other = Cluster::new(Rules::default());
    assert_eq!(other.put(&unasked), NOTHING);
    assert!(other.0.touched().is_empty());
}
