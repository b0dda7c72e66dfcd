//! Objects of any shape: nothing that a user can write may end the program.
use std::collections::BTreeMap;

use super::*;
use crate::kinds::{Fleet, Key, Object, Sources};
use crate::model::{Event, ServerId};

const TEXTS: [&str; 24] = [
    "",
    "/",
    "<id>",
    "<",
    ">",
    "a<id>b<id>",
    "/game<id>(/|$)(.*)",
    "(/|$)(.*)",
    ",",
    ": ",
    "tidegate.dev/host: x",
    "*",
    "*.",
    "0",
    "5000",
    "65536",
    "-1",
    "true",
    "Exact",
    "ä\u{0}",
    "null",
    "[{\"name\":\"Port\"}]",
    "nginx.ingress.kubernetes.io/rewrite-target: /$2",
    "9-3",
];
const NAMES: [&str; 12] = [
    "Path",
    "PathType",
    "Port",
    "Host",
    "IngressClassName",
    "TlsHosts",
    "Annotation",
    "Fixed",
    "AllowNotReadyContainers",
    "PortProtocols",
    "",
    "x",
];
const TYPES: [&str; 5] = ["Kubernetes-Ingress", "Tidegate", "Kubernetes-HostPort", "", "x"];

fn text(rng: &mut fastrand::Rng) -> String {
    (0..rng.usize(1..4)).map(|_| TEXTS[rng.usize(..TEXTS.len())]).collect()
}

fn value(rng: &mut fastrand::Rng, depth: usize) -> Value {
    match rng.u8(if depth == 0 { 0..5 } else { 0..7 }) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(..).into(),
        3 | 4 => text(rng).into(),
        5 => (0..rng.usize(..3)).map(|_| value(rng, depth - 1)).collect(),
        _ => (0..rng.usize(..3)).map(|_| (text(rng), value(rng, depth - 1))).collect(),
    }
}

fn conf(rng: &mut fastrand::Rng) -> Value {
    if rng.u8(..10) == 0 {
        return value(rng, 2);
    }
    let entry = |rng: &mut fastrand::Rng| match rng.u8(..20) {
        0 => value(rng, 1),
        1 => json!({ "name": value(rng, 1), "value": value(rng, 1) }),
        _ => json!({ "name": NAMES[rng.usize(..NAMES.len())], "value": text(rng) }),
    };
    (0..rng.usize(..12)).map(|_| entry(rng)).collect()
}

/// Puts anything in some place of an object.
fn spoil(rng: &mut fastrand::Rng, object: &mut Value) {
    let mut place = object;
    loop {
        let len = match &*place {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        if len == 0 || rng.u8(..4) == 0 {
            *place = value(rng, 2);
            return;
        }
        let at = rng.usize(..len);
        place = match place {
            Value::Array(list) => &mut list[at],
            Value::Object(map) => map.values_mut().nth(at).expect("it has as many"),
            _ => return,
        };
    }
}

#[test]
fn no_object_ends_the_program() {
    let seed = seed();
    println!("TIDEGATE_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let every =
        Rules { classes: TEXTS.into_iter().chain(["higress"]).map(str::to_owned).collect(), ..rules() };
    let mut read = 0;
    for _ in 0..1000 {
        let (mut pod, mut set, mut server) = (pod_json(rng.u32(..)), set_json(), game_server_json(3));
        set_type(&mut pod, TYPES[rng.usize(..TYPES.len())]);
        set_conf(&mut pod, &conf(&mut rng));
        set["spec"]["network"]["networkConf"] = conf(&mut rng);
        set["spec"]["network"]["networkType"] = TYPES[rng.usize(..TYPES.len())].into();
        set["spec"]["reserveGameServerIds"] = value(&mut rng, 2);
        for key in ["host", "path", "port"] {
            if rng.u8(..4) == 0 {
                annotate(&mut set, &format!("tidegate.dev/{key}"), &text(&mut rng));
            }
        }
        for object in [&mut pod, &mut set, &mut server] {
            if rng.bool() {
                spoil(&mut rng, object);
            }
        }
        // An object without the shape of its kind is refused where it is decoded.
        let pod = serde_json::from_value::<Pod>(pod).ok();
        let server = serde_json::from_value::<GameServer>(server).ok();
        let set = serde_json::from_value::<GameServerSet>(set).ok();
        let mut all = Vec::new();
        if let Some(pod) = &pod {
            all.extend(servers(pod, server.as_ref(), set.as_ref(), &every, SOURCE));
        }
        if let Some(set) = &set {
            all.extend(absent("postio-1", server.as_ref(), set, &every, SOURCE));
            all.extend(sample(set, 2, &every, SOURCE));
        }
        read += all.len();
        for server in all {
            assert!(server.problems.len() <= crate::spec::MAX_PROBLEMS);
            assert!(server.problems.iter().all(|problem| problem.why.len() < 2000), "{:?}", server.problems);
        }
        let status = value(&mut rng, 3).to_string();
        let key = crate::kinds::Key { kind: Kind::Pod, namespace: "default".into(), name: "a".into() };
        let network = Network {
            target: Target { key, uid: "".into() },
            ip: None,
            status: Some(status.into()),
            disabled: rng.bool(),
        };
        wanted_status(&network, &[], rng.bool(), &Front { ip: None, port: 80 });
    }
    assert!(read > 300, "{read} servers were read: the test looks at nothing");
}

/// Some version of some object of the set.
fn version(rng: &mut fastrand::Rng) -> (Kind, Value) {
    let number = rng.u32(..5);
    match rng.u8(..6) {
        0 | 1 => {
            let mut set = set_json();
            set["spec"]["replicas"] = rng.u32(..6).into();
            if rng.bool() {
                set["spec"]["reserveGameServerIds"] = json!([rng.u32(..5)]);
            }
            if rng.u8(..4) > 0 {
                let conf = set["spec"]["network"]["networkConf"].as_array_mut().expect("a list");
                conf.push(json!({ "name": "Fixed", "value": "true" }));
            }
            if rng.u8(..4) == 0 {
                annotate(&mut set, "tidegate.dev/host", "<id>.example.com");
            }
            (Kind::GameServerSet, set)
        }
        2 => {
            let mut server = game_server_json(number);
            server["spec"]["opsState"] = ["None", "Kill", "Maintaining"][rng.usize(..3)].into();
            (Kind::OkgGameServer, server)
        }
        _ => {
            let mut pod = pod_json(number);
            if rng.bool() {
                pod["status"]["podIP"] = format!("10.1.3.{}", rng.u8(..)).into();
            }
            if rng.u8(..4) == 0 {
                pod["metadata"]["deletionTimestamp"] = "2026-04-23T11:00:00Z".into();
            }
            (Kind::Pod, pod)
        }
    }
}

#[test]
fn any_run_of_objects_comes_to_what_they_are_at_its_end() {
    let seed = seed();
    println!("TIDEGATE_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let sources = Sources { okg: SOURCE, agones: Source("agones") };
    let mut kept = 0;
    for _ in 0..50 {
        let mut fleet = Fleet::new(rules(), sources);
        let mut objects: BTreeMap<Key, Value> = BTreeMap::new();
        let mut told: BTreeMap<ServerId, Arc<Server>> = BTreeMap::new();
        for _ in 0..40 {
            let (kind, json) = version(&mut rng);
            let object = Object::decode(kind, json.clone()).expect("an object");
            let key = object.key();
            let events = if rng.u8(..4) == 0 {
                objects.remove(&key);
                fleet.remove(&key)
            } else {
                objects.insert(key, json);
                fleet.put(object)
            };
            for event in events {
                match event {
                    Event::Upsert(server) => {
                        let before = told.insert(server.id.clone(), server.clone());
                        assert_ne!(before.as_ref(), Some(&server), "nothing changed");
                    }
                    Event::Remove(id) => assert!(told.remove(&id).is_some(), "{id} was not told"),
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut order: Vec<_> = objects.into_iter().collect();
        rng.shuffle(&mut order);
        let mut fresh = Fleet::new(rules(), sources);
        for (key, json) in order {
            fresh.put(Object::decode(key.kind, json).expect("an object"));
        }
        let expected: BTreeMap<_, _> =
            fresh.servers(SOURCE).map(|server| (server.id.clone(), server.clone())).collect();
        assert_eq!(told, expected);
        kept += expected.len();
    }
    assert!(kept > 50, "{kept} servers were left: the test looks at nothing");
}
