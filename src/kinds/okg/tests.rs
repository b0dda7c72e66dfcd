use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kinds::{Door, Kind, Network, Readiness, Rules, Target};
use crate::model::{Age, Mode};
use crate::testkit::seed;

mod fuzz;
mod lives;
mod networks;

const SOURCE: Source = Source("okg");

/// What OpenKruiseGame's own example for Higress asks for.
fn postio_conf() -> Value {
    json!([
        { "name": "IngressClassName", "value": "higress" },
        { "name": "Port", "value": "5000" },
        { "name": "Path", "value": "/" },
        { "name": "PathType", "value": "Prefix" },
        { "name": "Host", "value": "game<id>.postio.example.com" },
    ])
}

/// A set as a user writes it.
fn set_json() -> Value {
    json!({
        "apiVersion": "game.kruise.io/v1alpha1",
        "kind": "GameServerSet",
        "metadata": { "name": "postio", "namespace": "default", "uid": "s" },
        "spec": {
            "replicas": 3,
            "network": { "networkType": "Kubernetes-Ingress", "networkConf": postio_conf() },
            "gameServerTemplate": { "spec": { "containers": [{ "name": "postio", "image": "postio:1" }] } },
        },
    })
}

/// A pod as OpenKruiseGame leaves it, with a sidecar beside the game.
fn pod_json(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("postio-{number}"),
            "namespace": "default",
            "uid": format!("p{number}"),
            "creationTimestamp": "2026-04-23T10:00:00Z",
            "labels": {
                "game.kruise.io/owner-gss": "postio",
                "game.kruise.io/gs-state": "Ready",
                "game.kruise.io/gs-opsState": "None",
                "game.kruise.io/network-disabled": "false",
                "lifecycle.apps.kruise.io/state": "Normal",
                "statefulset.kubernetes.io/pod-name": format!("postio-{number}"),
                "apps.kubernetes.io/pod-index": number.to_string(),
                "controller-revision-hash": "postio-5d9f8c7b6d",
            },
            "annotations": {
                "game.kruise.io/network-type": "Kubernetes-Ingress",
                "game.kruise.io/network-conf": postio_conf().to_string(),
                "game.kruise.io/network-status": "{\"currentNetworkState\":\"NotReady\"}",
            },
        },
        "spec": { "containers": [{ "name": "postio" }, { "name": "logs" }] },
        "status": {
            "phase": "Running",
            "podIP": format!("10.1.2.{number}"),
            "conditions": [
                { "type": "ContainersReady", "status": "True" },
                { "type": "InPlaceUpdateReady", "status": "True" },
                { "type": "Ready", "status": "True" },
            ],
            "containerStatuses": [{ "name": "postio", "ready": true }, { "name": "logs", "ready": true }],
        },
    })
}

fn game_server_json(number: u32) -> Value {
    json!({
        "apiVersion": "game.kruise.io/v1alpha1",
        "kind": "GameServer",
        "metadata": { "name": format!("postio-{number}"), "namespace": "default", "uid": format!("g{number}") },
        "spec": { "opsState": "None", "networkDisabled": false },
    })
}

fn rules() -> Rules {
    Rules { classes: BTreeSet::from(["higress".to_owned()]), ..Rules::default() }
}

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = pod_json(3);
    change(&mut pod);
    serde_json::from_value(pod).expect("a pod")
}

fn game_server(change: impl FnOnce(&mut Value)) -> GameServer {
    let mut server = game_server_json(3);
    change(&mut server);
    serde_json::from_value(server).expect("a GameServer")
}

fn set(change: impl FnOnce(&mut Value)) -> GameServerSet {
    let mut set = set_json();
    change(&mut set);
    serde_json::from_value(set).expect("a GameServerSet")
}

fn set_conf(pod: &mut Value, conf: &Value) {
    pod["metadata"]["annotations"]["game.kruise.io/network-conf"] = conf.to_string().into();
}

fn set_type(pod: &mut Value, kind: &str) {
    pod["metadata"]["annotations"]["game.kruise.io/network-type"] = kind.into();
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][key] = value.into();
}

/// A server in one line: its name, address, mode, routes.
fn line(server: &Server) -> String {
    let desired = &server.desired;
    let routes: Vec<_> = desired.routes.iter().map(ToString::to_string).collect();
    let endpoint = desired.endpoint.map_or("-".to_owned(), |endpoint| endpoint.to_string());
    let mode = match &desired.mode {
        Mode::Open => "open",
        Mode::Draining { .. } => "draining",
        Mode::Starting => "starting",
        Mode::Misconfigured => "misconfigured",
        Mode::Maintenance { .. } => "maintenance",
        Mode::Stopped => "stopped",
    };
    format!("{} {endpoint} {mode} {}", server.id.name(), routes.join(","))
}

fn lines(servers: &[Server]) -> Vec<String> {
    servers.iter().map(line).collect()
}

fn wrongs(servers: &[Server]) -> Vec<String> {
    servers.iter().flat_map(|server| &server.problems).map(ToString::to_string).collect()
}

/// The one server of a pod, without its problems.
fn one(change: impl FnOnce(&mut Value)) -> String {
    let servers = servers(&pod(change), None, None, &rules(), SOURCE);
    assert_eq!(wrongs(&servers), [""; 0]);
    assert_eq!(servers.len(), 1);
    line(&servers[0])
}

const OPEN: &str = "postio-3 10.1.2.3:5000 open game3.postio.example.com";
const DRAINING: &str = "postio-3 10.1.2.3:5000 draining game3.postio.example.com";
const STARTING: &str = "postio-3 10.1.2.3:5000 starting game3.postio.example.com";

#[test]
fn the_example_needs_no_word_of_ours() {
    assert_eq!(one(|_| ()), OPEN);
    let server = &servers(&pod(|_| ()), None, Some(&set(|_| ())), &rules(), SOURCE)[0];
    assert_eq!(server.id.to_string(), "okg/default/postio-3");
    assert!(matches!(server.age, Age::Since(_)), "a set without a date leaves the pod's: {:?}", server.age);
    let older = set(|set| set["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into());
    let aged = &servers(&pod(|_| ()), None, Some(&older), &rules(), SOURCE)[0];
    assert!(aged.age < server.age, "a server is as old as its set");
}

#[test]
fn who_is_routed_has_asked_for_it() {
    let count =
        |change: &dyn Fn(&mut Value), rules: &Rules| servers(&pod(change), None, None, rules, SOURCE).len();
    assert_eq!(count(&|_| (), &rules()), 1);
    assert_eq!(count(&|_| (), &Rules::default()), 0, "the class is another's");
    assert_eq!(count(&|pod| annotate(pod, "tidegate.dev/idle-timeout", "30m"), &Rules::default()), 1);
    assert_eq!(
        count(&|pod| annotate(pod, "tidegate.dev/url", "http://a"), &Rules::default()),
        0,
        "we wrote that"
    );
    assert_eq!(count(&|pod| set_type(pod, "Tidegate"), &Rules::default()), 1);
    assert_eq!(count(&|pod| set_type(pod, "Kubernetes-HostPort"), &rules()), 0);
    let classless = |pod: &mut Value| {
        let conf: Vec<Value> = postio_conf().as_array().expect("a list")[1..].to_vec();
        set_conf(pod, &json!(conf));
    };
    assert_eq!(count(&classless, &rules()), 0);
    let any = Rules { classes: BTreeSet::from([String::new()]), ..Rules::default() };
    assert_eq!(count(&classless, &any), 1, "the empty class claims those that name none");

    let annotated_set = set(|set| annotate(set, "tidegate.dev/weight", "1"));
    let annotated_server = game_server(|server| annotate(server, "tidegate.dev/weight", "1"));
    let none = Rules::default();
    assert_eq!(servers(&pod(|_| ()), None, Some(&annotated_set), &none, SOURCE).len(), 1);
    assert_eq!(servers(&pod(|_| ()), Some(&annotated_server), None, &none, SOURCE).len(), 1);
    assert_eq!(servers(&pod(|_| ()), Some(&game_server(|_| ())), Some(&set(|_| ())), &none, SOURCE).len(), 0);
}

#[test]
fn the_nearest_object_has_the_word() {
    let said = |at: usize, rules: &Rules| {
        let host = |object: &mut Value, level: usize, text: &str| {
            if at >= level {
                annotate(object, "tidegate.dev/host", text);
            }
        };
        let pod = pod(|pod| host(pod, 1, "<id>.pod.example.com"));
        let set = set(|set| host(set, 2, "<id>.set.example.com"));
        let server = game_server(|server| host(server, 3, "<id>.server.example.com,second.example.com"));
        line(&servers(&pod, Some(&server), Some(&set), rules, SOURCE)[0])
    };
    let template = Rules { host_template: Some("<name>.template.example.com".into()), ..rules() };
    assert!(said(0, &template).ends_with(" game3.postio.example.com"), "the conf stands over the template");
    assert!(said(1, &template).ends_with(" 3.pod.example.com"));
    assert!(said(2, &template).ends_with(" 3.set.example.com"));
    assert!(said(3, &template).ends_with(" 3.server.example.com,second.example.com"));
}

#[test]
fn a_conf_without_a_host_is_on_all_hosts_or_the_templates() {
    let conf = json!([
        { "name": "IngressClassName", "value": "higress" },
        { "name": "Port", "value": "5000" },
        { "name": "Path", "value": "/game<id>" },
        { "name": "PathType", "value": "Prefix" },
    ]);
    assert_eq!(one(|pod| set_conf(pod, &conf)), "postio-3 10.1.2.3:5000 open */game3");
    let template = Rules { host_template: Some("<fleet>.example.com".into()), ..rules() };
    let named = servers(&pod(|pod| set_conf(pod, &conf)), None, None, &template, SOURCE);
    assert_eq!(lines(&named), ["postio-3 10.1.2.3:5000 open postio.example.com/game3"]);
}

#[test]
fn what_cannot_be_read_is_not_another_servers_route() {
    for (at, value) in [(2, "game"), (2, "/(a|b)"), (4, "<id>.<id>.example.com"), (4, "bad_.example.com")] {
        let mut conf = postio_conf();
        conf[at]["value"] = value.into();
        let bad = pod(|pod| set_conf(pod, &conf));
        for host_template in [None, Some("<name>.example.com".to_owned())] {
            let servers = servers(&bad, None, None, &Rules { host_template, ..rules() }, SOURCE);
            assert_eq!(lines(&servers), ["postio-3 10.1.2.3:5000 open "], "{value}");
            assert_eq!(wrongs(&servers).len(), 1, "{:?}", wrongs(&servers));
        }
        let word = if at == 2 { "tidegate.dev/path" } else { "tidegate.dev/host" };
        let mended = set(|set| annotate(set, word, if at == 2 { "/mended" } else { "mended.example.com" }));
        let servers = servers(&bad, None, Some(&mended), &rules(), SOURCE);
        assert!(line(&servers[0]).contains("mended"), "who says it nearer is heard: {}", line(&servers[0]));
    }
    let mut conf = postio_conf();
    conf[1]["value"] = "many".into();
    let bad = pod(|pod| {
        set_conf(pod, &conf);
        pod["spec"]["containers"][0]["ports"] = json!([{ "name": "ws", "containerPort": 6000 }]);
    });
    let servers_of = |set: Option<&GameServerSet>| servers(&bad, None, set, &rules(), SOURCE);
    assert_eq!(lines(&servers_of(None)), ["postio-3 - misconfigured game3.postio.example.com"]);
    assert_eq!(
        wrongs(&servers_of(None)),
        [
            "Pod metadata.annotations[\"game.kruise.io/network-conf\"][1] Port: \"many\" is not a port; expected a number from 1 to 65535"
        ]
    );
    let mended = set(|set| annotate(set, "tidegate.dev/port", "ws"));
    assert_eq!(lines(&servers_of(Some(&mended))), ["postio-3 10.1.2.3:6000 open game3.postio.example.com"]);
}

#[test]
fn each_port_is_a_server() {
    let conf = json!([
        { "name": "IngressClassName", "value": "higress" },
        { "name": "Host", "value": "<id>.example.com" },
        { "name": "Path", "value": "/game(/|$)(.*)" },
        { "name": "Path", "value": "/chat" },
        { "name": "Path", "value": "/more(/|$)(.*)" },
        { "name": "PathType", "value": "ImplementationSpecific" },
        { "name": "Port", "value": "5000" },
        { "name": "Port", "value": "5001" },
        { "name": "Annotation", "value": "nginx.ingress.kubernetes.io/rewrite-target: /$2" },
        { "name": "Annotation", "value": "nginx.ingress.kubernetes.io/proxy-read-timeout: 7200" },
        { "name": "Annotation", "value": "nginx.ingress.kubernetes.io/force-ssl-redirect: true" },
    ]);
    let pod = pod(|pod| set_conf(pod, &conf));
    let all = servers(&pod, None, None, &rules(), SOURCE);
    assert_eq!(wrongs(&all), [""; 0]);
    assert_eq!(
        lines(&all),
        [
            "postio-3 10.1.2.3:5000 open 3.example.com/game,3.example.com/more",
            "postio-3:5001 10.1.2.3:5001 open 3.example.com/chat",
        ]
    );
    assert_eq!(all.iter().map(|server| server.desired.strip_prefix).collect::<Vec<_>>(), [true, false]);
    assert!(all.iter().all(|server| server.desired.https_redirect));
    assert!(all.iter().all(|server| server.desired.idle_timeout.as_secs() == 7200));

    let one_port = set(|set| annotate(set, "tidegate.dev/port", "6000"));
    assert_eq!(
        lines(&servers(&pod, None, Some(&one_port), &rules(), SOURCE)),
        ["postio-3 10.1.2.3:6000 open 3.example.com/chat,3.example.com/game,3.example.com/more"]
    );
    let one_path = set(|set| annotate(set, "tidegate.dev/path", "/all"));
    let servers = servers(&pod, None, Some(&one_path), &rules(), SOURCE);
    assert_eq!(lines(&servers), ["postio-3 10.1.2.3:5000 open 3.example.com/all"]);
    assert!(!servers[0].desired.strip_prefix, "the rewrite was for the conf's paths");
}

#[test]
fn problems_name_what_its_author_wrote() {
    let mut conf = postio_conf();
    conf.as_array_mut().expect("a list").push(
        json!({ "name": "Annotation", "value": "nginx.ingress.kubernetes.io/proxy-read-timeout: 99999999" }),
    );
    let servers = servers(&pod(|pod| set_conf(pod, &conf)), None, None, &rules(), SOURCE);
    assert_eq!(
        wrongs(&servers),
        [
            "Pod metadata.annotations[\"game.kruise.io/network-conf\"][5] Annotation: \"99999999s\" is not a duration from 1s to 720h such as 90s, 30m or 1h30m; 0s for never; the default is used"
        ]
    );
    let odd = super::servers(
        &pod(|pod| pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = "4".into()),
        None,
        None,
        &rules(),
        SOURCE,
    );
    assert_eq!(
        wrongs(&odd),
        [
            "Pod metadata.labels[\"apps.kubernetes.io/pod-index\"]: \"4\" is not the number at the end of the name \"postio-3\", which <id> stands for"
        ]
    );
}

#[test]
fn an_annotation_alone_is_enough() {
    let plain = |pod: &mut Value| {
        let annotations = pod["metadata"]["annotations"].as_object_mut().expect("annotations");
        annotations.clear();
        pod["spec"]["containers"][0]["ports"] = json!([
            { "name": "voice", "containerPort": 4000, "protocol": "UDP" },
            { "name": "ws", "containerPort": 5000 },
            { "name": "http", "containerPort": 6000 },
        ]);
    };
    let set_with = |entries: &[(&str, &str)]| {
        set(|set| {
            set["spec"]["network"] = Value::Null;
            for (key, value) in entries {
                annotate(set, &format!("tidegate.dev/{key}"), value);
            }
        })
    };
    let read = |set: &GameServerSet| lines(&servers(&pod(plain), None, Some(set), &rules(), SOURCE));
    assert_eq!(
        read(&set_with(&[("host", "<name>.example.com")])),
        ["postio-3 10.1.2.3:5000 open postio-3.example.com"]
    );
    assert_eq!(
        read(&set_with(&[("host", "<name>.example.com"), ("port", "http"), ("path", "/x")])),
        ["postio-3 10.1.2.3:6000 open postio-3.example.com/x"]
    );
    assert_eq!(read(&set_with(&[])), [""; 0]);
    let host_port = |pod: &mut Value| {
        plain(pod);
        set_type(pod, "Kubernetes-HostPort");
        set_conf(pod, &json!([{ "name": "ContainerPorts", "value": "postio:5000/TCP" }]));
    };
    let set = set_with(&[("host", "<id>.example.com")]);
    assert_eq!(
        lines(&servers(&pod(host_port), None, Some(&set), &rules(), SOURCE)),
        ["postio-3 10.1.2.3:5000 open 3.example.com"]
    );
}

#[test]
fn traffic_follows_the_pod() {
    const LIFE: &str = "lifecycle.apps.kruise.io/state";
    const OPS: &str = "game.kruise.io/gs-opsState";
    let label = |key: &'static str, value: &'static str| {
        move |pod: &mut Value| pod["metadata"]["labels"][key] = value.into()
    };
    assert_eq!(one(label(LIFE, "PreparingDelete")), DRAINING);
    assert_eq!(one(label(LIFE, "PreparingUpdate")), DRAINING);
    for state in ["Updating", "Updated", "PreparingNormal"] {
        assert_eq!(one(label(LIFE, state)), OPEN, "{state}");
    }
    assert_eq!(one(label(OPS, "Maintaining")), DRAINING);
    assert_eq!(one(label(OPS, "Kill")), DRAINING);
    for state in ["None", "Allocated", "WaitToBeDeleted", "GateMaintaining", ""] {
        assert_eq!(one(label(OPS, state)), OPEN, "{state}");
    }
    assert_eq!(one(label("game.kruise.io/network-disabled", "true")), DRAINING);
    assert_eq!(one(|pod| pod["metadata"]["deletionTimestamp"] = "2026-04-23T10:00:00Z".into()), DRAINING);
    assert_eq!(
        one(|pod| pod["status"]["podIP"] = Value::Null),
        "postio-3 - starting game3.postio.example.com"
    );
    for phase in ["Failed", "Succeeded"] {
        let line = one(|pod| pod["status"]["phase"] = phase.into());
        assert_eq!(line, "postio-3 - starting game3.postio.example.com", "{phase}");
    }
    for phase in ["Pending", "Unknown"] {
        assert_eq!(one(|pod| pod["status"]["phase"] = phase.into()), STARTING, "{phase}");
    }
}

#[test]
fn readiness_is_the_containers_that_has_the_port() {
    let ready = |game: bool, logs: bool, pod: &mut Value| {
        pod["status"]["containerStatuses"] =
            json!([{ "name": "logs", "ready": logs }, { "name": "postio", "ready": game }]);
        let all = if game && logs { "True" } else { "False" };
        pod["status"]["conditions"] =
            json!([{ "type": "ContainersReady", "status": all }, { "type": "Ready", "status": all }]);
    };
    assert_eq!(one(|pod| ready(true, false, pod)), OPEN, "the first is the game");
    assert_eq!(one(|pod| ready(false, true, pod)), STARTING);
    let second = |pod: &mut Value| pod["spec"]["containers"][1]["ports"] = json!([{ "containerPort": 5000 }]);
    assert_eq!(
        one(|pod| {
            second(pod);
            ready(false, true, pod);
        }),
        OPEN,
        "the second has the port"
    );
    assert_eq!(
        one(|pod| {
            second(pod);
            ready(true, false, pod);
        }),
        STARTING
    );
    assert_eq!(one(|pod| pod["status"]["containerStatuses"] = Value::Null), OPEN, "by ContainersReady");
    assert_eq!(one(|pod| pod["status"] = json!({ "podIP": "10.1.2.3" })), STARTING);
    assert_eq!(one(|pod| pod["spec"]["containers"] = Value::Null), OPEN, "by ContainersReady");

    let strict = Rules { readiness: Readiness::Pod, ..rules() };
    let strictly = |change: &dyn Fn(&mut Value)| line(&servers(&pod(change), None, None, &strict, SOURCE)[0]);
    assert_eq!(strictly(&|_| ()), OPEN);
    assert_eq!(strictly(&|pod| ready(true, false, pod)), STARTING);
    let allow = |name: &str, pod: &mut Value| {
        let mut conf = postio_conf();
        conf.as_array_mut()
            .expect("a list")
            .push(json!({ "name": "AllowNotReadyContainers", "value": name }));
        set_conf(pod, &conf);
    };
    let both = |game, logs| {
        move |pod: &mut Value| {
            allow("logs", pod);
            ready(game, logs, pod);
        }
    };
    assert_eq!(strictly(&both(true, false)), OPEN, "that container may be down");
    assert_eq!(strictly(&both(false, true)), STARTING);
    let game = |pod: &mut Value| {
        allow("postio", pod);
        ready(false, true, pod);
    };
    assert_eq!(one(game), OPEN, "players go to a game that may say it is not ready");
    assert_eq!(strictly(&game), OPEN);
}

#[test]
fn the_game_server_has_a_nearer_word_than_the_label() {
    let read = |label: &str, server: &GameServer| {
        let pod = pod(|pod| pod["metadata"]["labels"]["game.kruise.io/gs-opsState"] = label.into());
        line(&servers(&pod, Some(server), None, &rules(), SOURCE)[0])
    };
    let ops = |state: Value| game_server(|server| server["spec"]["opsState"] = state);
    assert_eq!(read("None", &ops("Maintaining".into())), DRAINING);
    assert_eq!(read("Maintaining", &ops("None".into())), OPEN);
    assert_eq!(read("Maintaining", &ops(Value::Null)), DRAINING);
    assert_eq!(read("Maintaining", &ops("".into())), DRAINING);
    let deleting =
        game_server(|server| server["metadata"]["labels"] = json!({ "game.kruise.io/gs-deleting": "true" }));
    assert_eq!(read("None", &deleting), DRAINING);
    let going = game_server(|server| server["metadata"]["deletionTimestamp"] = "2026-04-23T10:00:00Z".into());
    assert_eq!(read("None", &going), OPEN, "the pod lives");

    let disabled = |server: Value, label: &str| {
        let pod = pod(|pod| pod["metadata"]["labels"]["game.kruise.io/network-disabled"] = label.into());
        is_network_disabled(&pod, Some(&game_server(|object| object["spec"]["networkDisabled"] = server)))
    };
    assert!(disabled(true.into(), "false"));
    assert!(!disabled(false.into(), "true"));
    assert!(disabled(Value::Null, "true"));

    let mut open_all = rules();
    open_all.ops_states.clear();
    open_all.ops_states.insert("Allocated".into(), Door::Drain);
    for (state, expected) in [("Kill", OPEN), ("Allocated", DRAINING)] {
        let servers = servers(&pod(|_| ()), Some(&ops(state.into())), None, &open_all, SOURCE);
        assert_eq!(line(&servers[0]), expected, "the config says what a state means");
    }
}

#[test]
fn a_cookie_passes_an_ops_state_and_no_network_that_is_off() {
    let pod = pod(|pod| annotate(pod, "tidegate.dev/drain-allow-cookie", "seat"));
    let cookie = |change: fn(&mut Value)| {
        let servers = servers(&pod, Some(&game_server(change)), None, &rules(), SOURCE);
        assert_eq!(line(&servers[0]), DRAINING);
        servers[0].desired.drain_cookie.clone()
    };
    assert_eq!(cookie(|server| server["spec"]["opsState"] = "Maintaining".into()).as_deref(), Some("seat"));
    assert_eq!(cookie(|server| server["spec"]["networkDisabled"] = true.into()), None);
}

#[test]
fn a_conf_that_is_too_long_is_said_so() {
    let conf = format!("[{}]", " ".repeat(100 << 10));
    let long = pod(|pod| {
        set_type(pod, "Tidegate");
        annotate(pod, "game.kruise.io/network-conf", &conf);
    });
    let wrongs = wrongs(&servers(&long, None, None, &rules(), SOURCE));
    assert_eq!(
        wrongs[0],
        "Pod metadata.annotations[\"game.kruise.io/network-conf\"]: has more than 32768 bytes; none of it is read"
    );
}
