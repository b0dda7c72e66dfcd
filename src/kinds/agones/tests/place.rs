use super::*;
use crate::kinds::pod::Pod;

fn endpoint(rules: &Rules, object: Value) -> Option<String> {
    read_by(rules, object)?.desired.endpoint.map(|endpoint| endpoint.to_string())
}

/// `object`, with one port of this policy.
fn with_policy(policy: &Value, container: u16, host: u16) -> Value {
    let mut object = object("Ready", &[HOST]);
    object["spec"]["ports"][0]["portPolicy"] = policy.clone();
    object["spec"]["ports"][0]["containerPort"] = json!(container);
    object["status"]["ports"][0]["port"] = json!(host);
    object
}

#[test]
fn every_port_policy_has_a_place() {
    for (policy, container, host, pod, node) in [
        (json!("Dynamic"), 8010, 7123, Some("10.0.0.7:8010"), Some("192.0.2.10:7123")),
        (json!(""), 8010, 7123, Some("10.0.0.7:8010"), Some("192.0.2.10:7123")),
        (Value::Null, 8010, 7123, Some("10.0.0.7:8010"), Some("192.0.2.10:7123")),
        (json!("Static"), 8010, 30001, Some("10.0.0.7:8010"), Some("192.0.2.10:30001")),
        (json!("Passthrough"), 7200, 7200, Some("10.0.0.7:7200"), Some("192.0.2.10:7200")),
        (json!("Passthrough"), 0, 7200, Some("10.0.0.7:7200"), Some("192.0.2.10:7200")),
        (json!("None"), 8010, 8010, Some("10.0.0.7:8010"), None),
    ] {
        let object = with_policy(&policy, container, host);
        assert_eq!(endpoint(&Rules::default(), object.clone()).as_deref(), pod, "{policy}");
        assert_eq!(endpoint(&by_node(), object).as_deref(), node, "{policy}");
    }
    let server = read_by(&by_node(), with_policy(&json!("None"), 8010, 8010)).unwrap();
    assert_eq!(server.desired.mode, Mode::Misconfigured);
    let why = problem(&server);
    assert!(
        why.starts_with("spec.ports[0].portPolicy: \"None\" gives the port no number at the node"),
        "{why}"
    );
}

#[test]
fn a_server_without_ports_says_so() {
    for state in ["Scheduled", "Ready"] {
        let mut object = object(state, &[HOST]);
        object["spec"]["ports"] = json!([]);
        object["status"]["ports"] = Value::Null;
        let server = read(object.clone()).unwrap();
        assert_eq!(
            problem(&server),
            "spec.ports: is empty; expected the port that players use, here or as a number in tidegate.dev/port"
        );
        assert_eq!(server.desired.mode, Mode::Misconfigured);
        object["metadata"]["annotations"]["tidegate.dev/port"] = json!("9000");
        assert_eq!(endpoint(&Rules::default(), object).as_deref(), Some("10.0.0.7:9000"));
    }
}

#[test]
fn a_port_is_chosen_by_name_or_number() {
    let with = |port: Option<&str>| {
        let mut object = object("Ready", &[HOST]);
        // As Agones leaves a port `game` with TCPUDP, beside one of a sidecar that has no host port.
        object["spec"]["ports"] = json!([
            { "name": "game-tcp", "containerPort": 8010, "portPolicy": "Dynamic", "protocol": "TCP" },
            { "name": "web", "containerPort": 8080, "portPolicy": "None", "container": "sidecar" },
            { "name": "chat", "containerPort": 8020, "portPolicy": "Dynamic" },
            { "name": "game-udp", "containerPort": 8010, "portPolicy": "Dynamic", "protocol": "UDP" },
        ]);
        object["status"]["ports"] = json!([
            { "name": "game-tcp", "port": 7123 },
            { "name": "web", "port": 8080 },
            { "name": "chat", "port": 7124 },
            { "name": "game-udp", "port": 7123 },
        ]);
        if let Some(port) = port {
            object["metadata"]["annotations"]["tidegate.dev/port"] = json!(port);
        }
        object
    };
    for (port, pod, node) in [
        (None, 8010, 7123),
        (Some("game"), 8010, 7123),
        (Some("game-tcp"), 8010, 7123),
        (Some(" chat "), 8020, 7124),
        (Some("8020"), 8020, 7124),
        (Some("9999"), 9999, 9999),
    ] {
        assert_eq!(endpoint(&Rules::default(), with(port)).unwrap(), format!("10.0.0.7:{pod}"), "{port:?}");
        assert_eq!(endpoint(&by_node(), with(port)).unwrap(), format!("192.0.2.10:{node}"), "{port:?}");
    }
    assert_eq!(endpoint(&Rules::default(), with(Some("web"))).unwrap(), "10.0.0.7:8080");
    let why = problem(&read_by(&by_node(), with(Some("web"))).unwrap());
    assert!(why.starts_with("spec.ports[1].portPolicy: \"None\""), "{why}");
    let server = read(with(Some("voice"))).unwrap();
    assert_eq!(server.desired.mode, Mode::Misconfigured);
    let why = problem(&server);
    assert!(
        why.contains("\"voice\" is neither a port from 1 to 65535 nor the name of a port (game-tcp, web"),
        "{why}"
    );
}

#[test]
fn a_port_keeps_its_name_when_the_order_differs() {
    let mut object = object("Ready", &[HOST]);
    object["status"]["ports"] = json!([{ "name": "web", "port": 7999 }, { "name": "game", "port": 7123 }]);
    assert_eq!(endpoint(&by_node(), object).unwrap(), "192.0.2.10:7123");
}

#[test]
fn a_number_that_is_no_port_says_so() {
    for number in [json!(0), json!(-1), json!(65536), json!(i64::MAX)] {
        let mut object = object("Ready", &[HOST]);
        object["spec"]["ports"][0]["containerPort"] = number.clone();
        object["status"]["ports"][0]["port"] = number.clone();
        let server = read(object.clone()).unwrap();
        let expected = "is not a port; expected a number from 1 to 65535";
        assert_eq!(problem(&server), format!("spec.ports[0].containerPort: {number} {expected}"));
        assert_eq!(server.desired.mode, Mode::Misconfigured);
        let server = read_by(&by_node(), object).unwrap();
        assert_eq!(problem(&server), format!("status.ports[0].port: {number} {expected}"));
    }
}

#[test]
fn only_so_many_ports_are_read() {
    let mut object = object("Ready", &[HOST]);
    let ports = |key: &str| {
        Value::Array((0..50_000).map(|at| json!({ "name": format!("p{at}"), (key): 1 + at })).collect())
    };
    object["spec"]["ports"] = ports("containerPort");
    object["status"]["ports"] = ports("port");
    object["metadata"]["annotations"]["tidegate.dev/port"] = json!("p63");
    let server = read(object.clone()).unwrap();
    assert_eq!(problem(&server), "spec.ports: has 50000 ports; the first 64 are read");
    assert_eq!(server.desired.endpoint.unwrap().to_string(), "10.0.0.7:64");
    object["metadata"]["annotations"]["tidegate.dev/port"] = json!("p64");
    assert_eq!(read(object).unwrap().desired.endpoint, None);
}

#[test]
fn of_two_families_it_is_the_first_of_ipv4() {
    for (ips, expected) in [
        (&["10.0.0.7", "fd00::7"][..], "10.0.0.7:8010"),
        (&["fd00::7", "10.0.0.7"], "10.0.0.7:8010"),
        (&["10.0.0.8", "10.0.0.7"], "10.0.0.8:8010"),
        (&["fd00::7", "fd00::8"], "[fd00::7]:8010"),
        (&["", "fd00::7", "nonsense"], "[fd00::7]:8010"),
    ] {
        let mut object = object("Ready", &[HOST]);
        object["status"]["addresses"] =
            ips.iter().map(|ip| json!({ "type": "PodIP", "address": ip })).collect();
        assert_eq!(endpoint(&Rules::default(), object).unwrap(), expected);
    }
    let mut object = object("Ready", &[HOST]);
    object["status"]["addresses"] = json!([{ "type": "PodIP", "address": "10.0.0.300" }]);
    let server = read(object).unwrap();
    assert_eq!(
        problem(&server),
        "status.addresses: \"10.0.0.300\" is not a PodIP; expected an IP address such as 10.0.0.7"
    );
    assert_eq!(server.desired.mode, Mode::Misconfigured);
}

#[test]
fn a_node_needs_an_ip_address() {
    let with = |address: &str, addresses: &[(&str, &str)]| {
        let mut object = object("Ready", &[HOST]);
        object["status"]["address"] = json!(address);
        object["status"]["addresses"] = addresses
            .iter()
            .chain(&[("PodIP", "10.0.0.7")])
            .map(|(kind, address)| json!({ "type": kind, "address": address }))
            .collect();
        read_by(&by_node(), object).unwrap()
    };
    let dns = "node-a.example.com";
    for (address, addresses, expected) in [
        ("198.51.100.4", &[("InternalIP", "192.0.2.10")][..], "198.51.100.4:7123"),
        ("2001:db8::4", &[], "[2001:db8::4]:7123"),
        (dns, &[("ExternalDNS", dns), ("ExternalIP", "198.51.100.4")], "198.51.100.4:7123"),
        (dns, &[("ExternalIP", "198.51.100.4"), ("InternalIP", "192.0.2.10")], "192.0.2.10:7123"),
        (dns, &[("InternalIP", "2001:db8::4"), ("InternalIP", "192.0.2.10")], "192.0.2.10:7123"),
    ] {
        let server = with(address, addresses);
        assert_eq!(server.desired.endpoint.unwrap().to_string(), expected);
        assert_eq!(server.problems, []);
    }
    let server = with(dns, &[("ExternalDNS", dns)]);
    assert_eq!(server.desired.mode, Mode::Misconfigured);
    let why = problem(&server);
    assert!(
        why.starts_with("status.address: \"node-a.example.com\" is a name, and a route needs an IP"),
        "{why}"
    );
}

#[test]
fn a_development_server_is_at_its_own_address() {
    for rules in [Rules::default(), by_node()] {
        let mut object = with_policy(&json!("Static"), 8010, 7777);
        object["metadata"]["annotations"]["agones.dev/dev-address"] = json!("192.168.1.20");
        object["status"]["address"] = json!("192.168.1.20");
        object["status"]["addresses"] = json!([{ "type": "InternalIP", "address": "192.168.1.20" }]);
        assert_eq!(endpoint(&rules, object).unwrap(), "192.168.1.20:7777");
    }
}

#[test]
fn what_is_not_written_yet_is_awaited() {
    let blank = |field: &str, rules: Rules| {
        let mut object = object("RequestReady", &[HOST]);
        object["status"][field] = Value::Null;
        read_by(&rules, object).unwrap()
    };
    for (field, rules) in [("addresses", Rules::default()), ("address", by_node()), ("ports", by_node())] {
        let server = blank(field, rules);
        assert_eq!((&server.desired.mode, server.desired.endpoint), (&Mode::Starting, None), "{field}");
        assert_eq!(server.problems, [], "{field}");
    }
    // Not needed, not awaited.
    for (field, rules) in
        [("ports", Rules::default()), ("address", Rules::default()), ("addresses", by_node())]
    {
        assert_eq!(blank(field, rules).desired.mode, Mode::Open, "{field}");
    }
}

#[test]
fn the_pods_are_asked_for_when_nothing_else_tells() {
    let old = |state: &str| {
        let mut old = object(state, &[HOST]);
        old["status"]["addresses"] = json!([{ "type": "InternalIP", "address": "192.0.2.10" }]);
        old
    };
    let wants = |rules: &Rules, object: Value| wants_pod(&decode(object), rules);
    let rules = Rules::default();
    for (state, expected) in
        [("Starting", false), ("Scheduled", true), ("Allocated", true), ("Unhealthy", true)]
    {
        assert_eq!(wants(&rules, old(state)), expected, "{state}");
        assert!(!wants(&rules, object(state, &[HOST])), "{state}: Agones 1.40 tells");
        assert!(!wants(&by_node(), old(state)), "{state}: nobody goes there");
    }
    let mut oldest = old("Ready");
    oldest["status"]["addresses"] = Value::Null;
    assert!(wants(&rules, oldest), "and one that knew no addresses");
    // The SDK was faster than the controller: not yet told is not an older Agones.
    let mut early = old("RequestReady");
    early["status"]["addresses"] = Value::Null;
    early["status"]["address"] = json!("");
    assert!(!wants(&rules, early));
    for (key, value) in
        [("agones.dev/dev-address", "192.168.1.20"), ("octops.io/ingress-class-name", "contour")]
    {
        let mut other = old("Ready");
        other["metadata"]["annotations"][key] = json!(value);
        assert!(!wants(&rules, other), "{key}");
    }
    let mut nobodys = old("Ready");
    nobodys["metadata"]["annotations"] = json!({});
    assert!(!wants(&rules, nobodys));
}

/// Agones 1.39 and older: the address of the pod stands on the pod alone.
#[test]
fn an_older_agones_is_asked_by_its_pod() {
    let mut old = object("Ready", &[HOST]);
    old["status"]["addresses"] = json!([{ "type": "InternalIP", "address": "192.0.2.10" }]);
    let server = decode(old);
    let rules = Rules::default();
    let pod = |name: &str| -> Pod {
        serde_json::from_value(json!({
            "metadata": { "namespace": "eu", "name": "lobby-xk2p4-7vq9z",
                "labels": { "agones.dev/role": "gameserver", "agones.dev/gameserver": name } },
            "status": { "podIP": "10.0.0.9" },
        }))
        .unwrap()
    };
    let endpoint = |pod: Option<&Pod>| servers(&server, pod, &rules, SOURCE)[0].desired.endpoint;
    assert_eq!(endpoint(None), None);
    let its_own = pod("lobby-xk2p4-7vq9z");
    assert_eq!(endpoint(Some(&its_own)), its_own.ip().map(|ip| (ip, 8010).into()));
    assert_eq!(endpoint(Some(&pod("another"))), None, "a pod of nobody has the name");
    let by_pod =
        super::super::read(&server, Some([10, 0, 0, 9].into()), &rules, SOURCE, GAME_SERVER).unwrap();
    assert_eq!(by_pod.desired.endpoint, Some(([10, 0, 0, 9], 8010).into()));
    let own = decode(object("Ready", &[HOST]));
    let told = servers(&own, Some(&its_own), &rules, SOURCE);
    assert_eq!(told[0].desired.endpoint, Some(([10, 0, 0, 7], 8010).into()), "the GameServer's word counts");
    assert_eq!(told, servers(&own, None, &rules, SOURCE), "and the pod changes nothing");
}
