//! Names that are kept without a pod, samples of a set, and what is written back.
use super::*;

fn fixed(change: impl FnOnce(&mut Value)) -> GameServerSet {
    set(|set| {
        let conf = set["spec"]["network"]["networkConf"].as_array_mut().expect("a list");
        conf.push(json!({ "name": "Fixed", "value": "true" }));
        change(set);
    })
}

#[test]
fn a_fixed_set_awaits_its_servers() {
    assert_eq!(awaited(&set(|_| ())).count(), 0);
    assert_eq!(awaited(&fixed(|_| ())).collect::<Vec<_>>(), ["postio-0", "postio-1", "postio-2"]);
    let reserved = fixed(|set| set["spec"]["reserveGameServerIds"] = json!([0, "2-3"]));
    assert_eq!(awaited(&reserved).collect::<Vec<_>>(), ["postio-1", "postio-4", "postio-5"]);
    for number in 0..8 {
        let name = format!("postio-{number}");
        let there = !absent(&name, None, &reserved, &rules(), SOURCE).is_empty();
        assert_eq!(there, awaited(&reserved).any(|awaited| awaited == name), "{name}");
    }
    assert_eq!(absent("other-1", None, &reserved, &rules(), SOURCE), []);
    let huge = fixed(|set| set["spec"]["replicas"] = i64::MAX.into());
    assert_eq!(awaited(&huge).count() as u64, MAX_AWAITED);
    assert_eq!(absent("postio-100000", None, &huge, &rules(), SOURCE), []);
    for none in [json!(-1), json!(0), Value::Null] {
        assert_eq!(awaited(&fixed(|set| set["spec"]["replicas"] = none)).count(), 0);
    }
}

#[test]
fn an_awaited_server_is_starting_at_its_host() {
    let servers = absent("postio-1", None, &fixed(|_| ()), &rules(), SOURCE);
    assert_eq!(lines(&servers), ["postio-1 - starting game1.postio.example.com"]);
    assert_eq!(wrongs(&servers), [""; 0], "that it has no address is no mistake");
    assert_eq!(servers[0].id.to_string(), "okg/default/postio-1");
    let server = game_server(|server| annotate(server, "tidegate.dev/host", "mine.example.com"));
    let named = absent("postio-1", Some(&server), &fixed(|_| ()), &rules(), SOURCE);
    assert_eq!(lines(&named), ["postio-1 - starting mine.example.com"]);
    let shut = game_server(|server| server["spec"]["opsState"] = "Maintaining".into());
    let shut = absent("postio-1", Some(&shut), &fixed(|_| ()), &rules(), SOURCE);
    assert_eq!(lines(&shut), ["postio-1 - draining game1.postio.example.com"]);
    assert_eq!(absent("postio-1", None, &fixed(|_| ()), &Rules::default(), SOURCE), [], "nobody claims it");
}

#[test]
fn a_network_may_stand_in_the_template() {
    let in_template = set(|set| {
        set["spec"]["network"] = Value::Null;
        set["spec"]["gameServerTemplate"]["metadata"] = json!({ "annotations": {
            "game.kruise.io/network-type": "Tidegate",
            "game.kruise.io/network-conf": json!([
                { "name": "Host", "value": "<id>.example.com" },
                { "name": "PortProtocols", "value": "7000" },
                { "name": "Fixed", "value": "1" },
            ]).to_string(),
        } });
    });
    let servers = absent("postio-2", None, &in_template, &Rules::default(), SOURCE);
    assert_eq!(lines(&servers), ["postio-2 - starting 2.example.com"]);
}

#[test]
fn a_sample_shows_what_a_set_would_make_and_every_mistake() {
    let servers = sample(&set(|_| ()), 2, &rules(), SOURCE);
    assert_eq!(
        lines(&servers),
        ["postio-0 - starting game0.postio.example.com", "postio-1 - starting game1.postio.example.com"]
    );
    assert_eq!(wrongs(&servers), [""; 0]);
    let reserved = set(|set| set["spec"]["reserveGameServerIds"] = json!([0]));
    assert_eq!(sample(&reserved, 9, &rules(), SOURCE).len(), 3, "no more than it has");
    assert_eq!(sample(&reserved, 1, &rules(), SOURCE)[0].id.name(), "postio-1");
    let asleep = set(|set| set["spec"]["replicas"] = 0.into());
    assert_eq!(sample(&asleep, 2, &rules(), SOURCE).len(), 1, "a set that sleeps is read too");
    assert_eq!(sample(&set(|_| ()), 2, &Rules::default(), SOURCE), []);

    let wrong = set(|set| {
        annotate(set, "tidegate.dev/hots", "x");
        set["spec"]["network"]["networkConf"][1]["value"] = "0".into();
        set["spec"]["network"]["networkConf"][4]["value"] = "a b".into();
    });
    let servers = sample(&wrong, 1, &rules(), SOURCE);
    let wrongs = wrongs(&servers);
    assert_eq!(wrongs.len(), 3, "{wrongs:?}");
    for (wrong, expected) in wrongs.iter().zip([
        "GameServerSet spec.network.networkConf[1] Port: \"0\" is not a port",
        "GameServerSet spec.network.networkConf[4] Host: \"a b\" has a bad label",
        "GameServerSet metadata.annotations[\"tidegate.dev/hots\"]: is not an annotation of Tidegate",
    ]) {
        assert!(wrong.starts_with(expected), "{wrong}");
    }
}

fn network(status: Option<&str>, ip: Option<IpAddr>, disabled: bool) -> Network {
    let key = crate::kinds::Key { kind: Kind::Pod, namespace: "default".into(), name: "postio-3".into() };
    Network { target: Target { key, uid: "p3".into() }, ip, status: status.map(Box::from), disabled }
}

#[test]
fn the_status_says_ready_when_envoys_have_it() {
    let pod = pod(|pod| set_type(pod, "Tidegate"));
    assert_eq!(network_status(&pod), Some(Some("{\"currentNetworkState\":\"NotReady\"}")));
    let ip = pod.ip();
    let all: Vec<Arc<Server>> =
        servers(&pod, None, None, &rules(), SOURCE).into_iter().map(Arc::new).collect();
    let front = Front { ip: Some([203, 0, 113, 10].into()), port: 443 };
    let wanted = |status: Option<&str>, ip, disabled, acked, servers: &[Arc<Server>]| {
        wanted_status(&network(status, ip, disabled), servers, acked, &front)
    };
    let addresses = concat!(
        r#""internalAddresses":[{"ip":"10.1.2.3","ports":[{"name":"5000","protocol":"TCP","port":5000}]}],"#,
        r#""externalAddresses":[{"ip":"203.0.113.10","ports":[{"name":"/","protocol":"TCP","port":443}],"endPoint":"game3.postio.example.com"}],"#,
    );
    let with = |state: &str| format!("{{{addresses}\"currentNetworkState\":\"{state}\"}}");

    assert_eq!(wanted(None, None, false, false, &[]), r#"{"currentNetworkState":"Waiting"}"#, "at once");
    assert_eq!(wanted(None, ip, false, false, &all), with("Waiting"));
    assert_eq!(wanted(None, ip, false, true, &all), with("Ready"));
    let ready = with("Ready");
    assert_eq!(wanted(Some(&ready), ip, false, true, &all), ready, "nothing to write");
    assert_eq!(wanted(Some(&ready), ip, false, false, &all), ready, "an Envoy that comes is no loss");
    assert_eq!(
        wanted(Some(&ready), ip, true, true, &all),
        with("NotReady"),
        "switched off, the addresses stay"
    );
    assert_eq!(wanted(Some(&with("NotReady")), ip, false, true, &all), ready);
    assert_eq!(
        wanted(Some(&ready), None, false, true, &[]),
        with("Waiting"),
        "addresses are never taken back"
    );
    let moved = [10, 1, 2, 9].into();
    assert_ne!(wanted(Some(&ready), Some(moved), false, false, &all), ready);
    assert!(wanted(Some(&ready), Some(moved), false, false, &all).contains("Waiting"));
    for odd in [
        "",
        "null",
        "[]",
        "{\"internalAddresses\":null,\"externalAddresses\":[null]}",
        "{\"internalAddresses\":7}",
    ] {
        assert_eq!(wanted(Some(odd), ip, false, true, &all), ready, "{odd}");
    }
}

#[test]
fn the_status_names_what_players_can_type() {
    let conf = json!([
        { "name": "Path", "value": "/a" },
        { "name": "Path", "value": "/b" },
        { "name": "Port", "value": "5000" },
        { "name": "Port", "value": "5001" },
    ]);
    let pod = pod(|pod| {
        set_type(pod, "Tidegate");
        set_conf(pod, &conf);
    });
    let all: Vec<Arc<Server>> =
        servers(&pod, None, None, &rules(), SOURCE).into_iter().map(Arc::new).collect();
    let front = Front { ip: None, port: 80 };
    assert_eq!(
        wanted_status(&network(None, pod.ip(), false), &all, true, &front),
        concat!(
            r#"{"internalAddresses":[{"ip":"10.1.2.3","ports":[{"name":"5000","protocol":"TCP","port":5000},{"name":"5001","protocol":"TCP","port":5001}]}],"#,
            r#""externalAddresses":[{"ip":"","ports":[{"name":"/a","protocol":"TCP","port":80},{"name":"/b","protocol":"TCP","port":80}]}],"#,
            r#""currentNetworkState":"Ready"}"#
        ),
        "every host is no end point, and an ip is always there"
    );
    let empty = |pod: &mut Value| {
        set_type(pod, "Tidegate");
        annotate(pod, "game.kruise.io/network-status", "");
    };
    assert_eq!(network_status(&super::pod(empty)), Some(None));
    assert_eq!(network_status(&super::pod(|_| ())), None, "OpenKruiseGame writes that one");
}

#[test]
fn versions_of_a_set_that_differ_in_size_are_alike() {
    let one = set(|_| ());
    assert!(differ_in_size_alone(
        &one,
        &set(|set| {
            set["spec"]["replicas"] = 9.into();
            set["spec"]["reserveGameServerIds"] = json!([1]);
            annotate(set, "game.kruise.io/reserve-ids", "1");
        })
    ));
    assert!(!differ_in_size_alone(&one, &set(|set| annotate(set, "tidegate.dev/host", "x"))));
    assert!(!differ_in_size_alone(&one, &set(|set| set["spec"]["network"] = Value::Null)));
}
