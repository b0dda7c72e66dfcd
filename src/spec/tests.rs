use super::*;
use crate::model::{Affinity, GameVersion, Mode, Priority, Protocol, Source, Weight};

fn read_with(annotations: &[(&str, &str)], change: impl FnOnce(&mut Facts<'_>)) -> Server {
    let values: BTreeMap<_, _> =
        annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
    let ports = [Port { name: Some("game".into()), number: 7000 }, Port { name: None, number: 7001 }];
    let layers = [Layer::new("metadata.annotations", &values)];
    let mut facts = Facts {
        id: ServerId::new(Source("test"), "eu", "lobby-7"),
        age: Age::Unknown,
        fleet: None,
        address: Some([10, 0, 0, 7].into()),
        ports: &ports,
        state: State::Ready,
        layers: &layers,
        name: None,
        host_template: None,
        problems: Vec::new(),
    };
    change(&mut facts);
    read(facts)
}

fn good(annotations: &[(&str, &str)]) -> Desired {
    let server = read_with(annotations, |_| ());
    assert_eq!(server.problems, []);
    server.desired
}

/// The one problem, as a user sees it.
#[track_caller]
fn problem(annotations: &[(&str, &str)]) -> (String, Desired) {
    let server = read_with(annotations, |_| ());
    let [problem] = &server.problems[..] else { panic!("{:?}", server.problems) };
    (problem.to_string(), server.desired)
}

fn keys(desired: &Desired) -> Vec<String> {
    desired.routes.iter().map(ToString::to_string).collect()
}

#[test]
fn tokens_are_the_servers_own_words() {
    let desired = good(&[
        ("host", "game<id>.example.com, <name>.<namespace>.example.com,*.x"),
        ("path", "/<fleet>/<id>"),
    ]);
    assert_eq!(
        keys(&desired),
        ["*.x/lobby/7", "game7.example.com/lobby/7", "lobby-7.eu.example.com/lobby/7"]
    );
}

#[test]
fn a_server_without_a_host_has_no_route_unless_there_is_a_template() {
    assert_eq!(keys(&good(&[])), [""; 0]);
    let server = read_with(&[], |facts| facts.host_template = Some("<name>.games.example.com"));
    assert_eq!(keys(&server.desired), ["lobby-7.games.example.com"]);
    let server = read_with(&[("host", "")], |facts| facts.host_template = Some("<name>.games.example.com"));
    assert_eq!(keys(&server.desired), [""; 0], "an empty host is a choice");
}

#[test]
fn a_bad_host_loses_that_host_alone() {
    let (why, desired) = problem(&[("host", "good.example.com,bad_.example.com")]);
    assert!(
        why.starts_with(
            "metadata.annotations[\"tidegate.dev/host\"]: \"bad_.example.com\" has a bad label at position 0"
        ),
        "{why}"
    );
    assert_eq!(keys(&desired), ["good.example.com"]);
    let (why, _) = problem(&[("host", "game<nr>.example.com")]);
    assert!(why.contains("the tokens are <id>, <name>, <namespace> and <fleet>"), "{why}");
    let (why, _) = problem(&[("host", "game<id.example.com")]);
    assert!(why.contains("a < without a >"), "{why}");
}

#[test]
fn a_bad_path_is_not_the_root() {
    let (why, desired) = problem(&[("host", "a.example.com"), ("path", "game")]);
    assert!(why.contains("\"game\" does not begin with /"), "{why}");
    assert_eq!(keys(&desired), [""; 0]);
}

#[test]
fn a_port_is_a_number_or_a_name() {
    assert_eq!(good(&[]).endpoint.unwrap().port(), 7000);
    assert_eq!(good(&[("port", "7001")]).endpoint.unwrap().port(), 7001);
    assert_eq!(good(&[("port", "game")]).endpoint.unwrap().port(), 7000);
    for bad in ["0", "65536", "query", ""] {
        let (why, desired) = problem(&[("port", bad)]);
        assert!(why.contains("nor the name of a port (game)"), "{why}");
        assert_eq!(desired.mode, Mode::Misconfigured);
    }
    let server = read_with(&[], |facts| facts.ports = &[]);
    assert_eq!(
        server.problems[0].to_string(),
        "port: is missing; expected a port from 1 to 65535, in the object or in tidegate.dev/port"
    );
    assert_eq!(server.desired.mode, Mode::Misconfigured);
}

#[test]
fn an_unknown_annotation_is_named_with_its_neighbour() {
    let (why, _) = problem(&[("hots", "a.example.com")]);
    assert!(why.ends_with("did you mean tidegate.dev/host?"), "{why}");
    let (why, _) = problem(&[("idleTimeout", "1h")]);
    assert!(why.ends_with("did you mean tidegate.dev/idle-timeout?"), "{why}");
}

#[test]
fn a_long_key_is_shown_in_part_and_compared_with_nothing() {
    let long = "x".repeat(10_000);
    let (why, _) = problem(&[(&long, "y")]);
    let shown = "x".repeat(80 - PREFIX.len());
    assert_eq!(why, format!("metadata.annotations[\"{PREFIX}{shown}\"]: is not an annotation of Tidegate"));
    assert_eq!(nearest(&"é".repeat(80), &["host"]), Some("host"));
    assert_eq!(nearest(&"é".repeat(81), &["host"]), None);
}

#[test]
fn bad_values_leave_the_default() {
    for (key, bad) in [
        ("weight", "-1"),
        ("weight", "1001"),
        ("strip-prefix", "yes"),
        ("protocol", "http2"),
        ("idle-timeout", "5"),
        ("idle-timeout", "-1h"),
        ("idle-timeout", "31d"),
        ("max-sessions", "0"),
        ("share", "a b"),
        ("retry-after", "0s"),
        ("retry-after", "1500ms"),
        ("retry-after", "25h"),
        ("retry-after", "30"),
        ("new-sessions-per-second", "0"),
        ("new-sessions-per-second", "100001"),
        ("new-sessions-per-second", "1.5"),
        ("drain-allow-cookie", ""),
        ("drain-allow-cookie", "a b"),
        ("drain-allow-cookie", "a=b"),
        ("drain-allow-cookie", "seat;"),
        ("drain-allow-cookie", "(.*)"),
        ("drain-allow-cookie", "é"),
        ("drain-allow-cookie", &"x".repeat(65)),
    ] {
        let (why, desired) = problem(&[(key, bad)]);
        assert!(why.contains(&format!("{bad:?} is not ")), "{why}");
        assert_eq!(desired, good(&[]), "{key}={bad}");
    }
}

#[test]
fn good_values_are_read() {
    let desired = good(&[
        ("weight", "0"),
        ("strip-prefix", "true"),
        ("protocol", "h2c"),
        ("idle-timeout", "1h30m"),
        ("max-sessions", "50"),
        ("share", "lobby"),
        ("gateway", "eu, us"),
        ("retry-after", "1m30s"),
        ("new-sessions-per-second", "20"),
        ("drain-allow-cookie", "seat-1._x"),
    ]);
    assert_eq!((desired.retry_after.as_secs(), desired.new_sessions_per_second), (90, Some(20)));
    assert_eq!(desired.drain_cookie.as_deref(), Some("seat-1._x"));
    assert_eq!((desired.weight, desired.strip_prefix, desired.protocol), (Weight(0), true, Protocol::H2c));
    assert_eq!((desired.idle_timeout.as_secs(), desired.max_sessions), (5400, Some(50)));
    assert_eq!(desired.share.unwrap().namespace.as_ref(), "eu");
    assert_eq!(desired.gateways.named().count(), 2);
    assert_eq!(good(&[("idle-timeout", "0s")]).idle_timeout, Duration::ZERO);
}

#[test]
fn the_least_and_the_most_of_an_operators_levers() {
    for (text, seconds) in [("1s", 1), ("24h", 86_400)] {
        assert_eq!(good(&[("retry-after", text)]).retry_after.as_secs(), seconds);
    }
    assert_eq!(good(&[]).retry_after, RETRY_AFTER);
    for count in [1, 100_000] {
        assert_eq!(
            good(&[("new-sessions-per-second", &count.to_string())]).new_sessions_per_second,
            Some(count)
        );
    }
    let name = "x".repeat(64);
    assert_eq!(good(&[("drain-allow-cookie", &name)]).drain_cookie.as_deref(), Some(&*name));
}

#[test]
fn a_badly_named_gateway_is_not_every_gateway() {
    let (_, desired) = problem(&[("gateway", "e u")]);
    assert!(!desired.gateways.include(None));
    let (why, desired) = problem(&[("gateway", " ,")]);
    assert!(why.contains("names no gateway"), "{why}");
    assert!(!desired.gateways.include(None));
}

#[test]
fn drain_is_a_truth_or_a_url() {
    assert_eq!(good(&[("drain", "false")]).mode, Mode::Open);
    assert_eq!(good(&[("drain", "true")]).mode, Mode::Draining { redirect: None });
    let Mode::Draining { redirect: Some(redirect) } =
        good(&[("drain", "https://lobby.example.com:8443/in?a=b")]).mode
    else {
        panic!("no redirect")
    };
    assert_eq!(
        (redirect.https, &*redirect.host, redirect.port, redirect.path.as_deref()),
        (true, "lobby.example.com", Some(8443), Some("/in?a=b"))
    );
    let Mode::Draining { redirect: Some(redirect) } = good(&[("drain", "http://lobby.example.com")]).mode
    else {
        panic!("no redirect")
    };
    assert_eq!(redirect.path, None, "players keep their path");
    let Mode::Draining { redirect: Some(redirect) } = good(&[("drain", "http://lobby/lobby")]).mode else {
        panic!("no redirect")
    };
    assert_eq!(redirect.path.as_deref(), Some("/lobby"));
    for bad in [
        "soon",
        "ftp://a.example.com",
        "https://",
        "https://me:secret@a.example.com/",
        "https://*.x/",
        "https://a.x:99999/",
        "https://a.x:0/",
        "https://a.x:/",
        "https://a.x/#b",
        "https://a.x/é",
        "",
    ] {
        let (why, desired) = problem(&[("drain", bad)]);
        assert!(why.contains("it drains, with no redirect"), "{why}");
        assert_eq!(desired.mode, Mode::Draining { redirect: None });
    }
}

#[test]
fn a_redirect_to_the_server_itself_is_none() {
    for (path, own) in [
        ("/g", "https://a.example.com"),
        ("/g", "https://a.example.com/g"),
        ("/g", "https://a.example.com/g?to=/h"),
        ("/g", "http://a.example.com:81/g/x?y"),
        ("/g", "https://a.example.com/g/we%20moved"),
        ("/g", "https://a.example.com//g/"),
        ("/g", "https://a.example.com/h/../g/x"),
        ("/", "https://a.example.com/we%20moved"),
        ("/", "https://a.example.com/in:lobby?a=b"),
    ] {
        let (why, desired) = problem(&[("host", "a.example.com"), ("path", path), ("drain", own)]);
        assert!(why.contains("this server itself"), "{why}");
        assert_eq!(desired.mode, Mode::Draining { redirect: None }, "{own}");
    }
    for other in ["/h", "/g%20x", "/games", "/h?to=/g", "/G", "/g/../h", "/"] {
        let url = format!("https://a.example.com{other}");
        let desired = good(&[("host", "a.example.com"), ("path", "/g"), ("drain", &url)]);
        assert_ne!(desired.mode, Mode::Draining { redirect: None }, "{url}");
    }
}

#[test]
fn maintenance_closes_all_or_the_named_paths() {
    let Mode::Maintenance { text, paths } = good(&[("maintenance", "back at 5")]).mode else { panic!() };
    assert_eq!((&*text, paths.len()), ("back at 5", 0));
    let Mode::Maintenance { paths, .. } =
        good(&[("maintenance", "x"), ("maintenance-paths", "/shop,/rank")]).mode
    else {
        panic!()
    };
    assert_eq!(paths.len(), 2);
    let (_, desired) = problem(&[("maintenance", "x"), ("maintenance-paths", "shop")]);
    assert_eq!(desired.mode, Mode::Open, "a mistyped path closes nothing");
    let (why, _) = problem(&[("maintenance-paths", "/shop")]);
    assert!(why.contains("does nothing without tidegate.dev/maintenance"), "{why}");
    let Mode::Maintenance { paths, .. } = good(&[("maintenance", "x"), ("maintenance-paths", ",")]).mode
    else {
        panic!()
    };
    assert_eq!(paths.len(), 0, "a list of nothing is no list");
    for key in ["maintenance", "drain"] {
        let server = read_with(&[(key, &"x".repeat(5000))], |_| ());
        assert_ne!(server.desired.mode, Mode::Open, "what is too long still shuts the door");
    }
    let (why, desired) = problem(&[("maintenance", &"é".repeat(400))]);
    assert!(why.contains("has 800 bytes"), "{why}");
    let Mode::Maintenance { text, .. } = desired.mode else { panic!() };
    assert_eq!(text.len(), MAX_TEXT);
}

#[test]
fn the_nearest_layer_decides() {
    let near = BTreeMap::from([("tidegate.dev/weight".to_owned(), "1".to_owned())]);
    let far = BTreeMap::from([
        ("tidegate.dev/weight".to_owned(), "2".to_owned()),
        ("tidegate.dev/max-sessions".to_owned(), "3".to_owned()),
    ]);
    let layers = [Layer::new("near", &near), Layer::new("far", &far)];
    let server = read(Facts {
        id: ServerId::new(Source("test"), "eu", "lobby-7"),
        age: Age::Unknown,
        fleet: None,
        address: None,
        ports: &[],
        state: State::Starting,
        layers: &layers,
        name: None,
        host_template: None,
        problems: Vec::new(),
    });
    assert_eq!((server.desired.weight, server.desired.max_sessions), (Weight(1), Some(3)));
}

#[test]
fn the_state_is_obeyed() {
    let mode = |state, annotations: &[(&str, &str)]| {
        read_with(annotations, |facts| facts.state = state).desired.mode
    };
    assert_eq!(mode(State::Starting, &[]), Mode::Starting);
    assert_eq!(mode(State::Draining, &[]), Mode::Draining { redirect: None });
    assert_eq!(mode(State::Stopped, &[("maintenance", "x")]), Mode::Stopped);
    assert_eq!(mode(State::Starting, &[("drain", "true")]), Mode::Draining { redirect: None });
    assert_eq!(mode(State::Starting, &[("maintenance", "x")]).word(), "maintenance");
}

#[test]
fn what_is_too_much_is_cut_and_said() {
    let hosts: Vec<_> = (0..70).map(|i| format!("h{i}.example.com")).collect();
    let (why, desired) = problem(&[("host", &hosts.join(","))]);
    assert!(why.contains("has 70 items; the first 64 are used"), "{why}");
    assert_eq!(desired.routes.len(), MAX_ITEMS);
    let (why, _) = problem(&[("host", &"a".repeat(5000))]);
    assert!(why.contains("has 5000 bytes"), "{why}");
    let many: Vec<_> = (0..50).map(|i| (format!("x{i}"), "y")).collect();
    let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(read_with(&many, |_| ()).problems.len(), MAX_PROBLEMS);
}

/// What is read of a server with one value that is too long; nothing else is said of it.
#[track_caller]
fn long(annotations: &[(&str, &str)]) -> Desired {
    let (why, desired) = problem(annotations);
    assert!(why.contains("bytes; at most 4096 are read"), "{why}");
    desired
}

#[test]
fn what_is_too_long_is_not_as_if_nobody_had_written_it() {
    let host = ("host", "a.example.com");
    // Three bytes before two-byte characters: the limit falls into one of them.
    let tail = "é".repeat(4000);

    assert_eq!(keys(&long(&[host, ("path", &format!("/g{tail}"))])), [""; 0]);
    assert_eq!(keys(&long(&[host, ("path", &format!("/g,{tail}"))])), ["a.example.com/g"]);

    let named = |gateway: &str| long(&[("gateway", gateway)]).gateways;
    assert_eq!(named(&tail), Gateways::Named(BTreeSet::new()));
    assert_eq!(named(&format!("eu,{tail}")), Gateways::Named([Gateway("eu".into())].into()));

    for port in [tail.clone(), format!("7001,{tail}")] {
        let desired = long(&[("port", &port)]);
        assert_eq!((desired.endpoint, desired.mode), (None, Mode::Misconfigured));
    }

    let server = read_with(&[("host", &tail)], |facts| facts.host_template = Some("<name>.example.com"));
    assert_eq!((keys(&server.desired), server.problems.len()), (Vec::new(), 1));
    assert_eq!(keys(&long(&[("host", &format!("a.example.com,{tail}"))])), ["a.example.com"]);
    let many: Vec<_> = (0..1000).map(|i| format!("h{i}.example.com")).collect();
    assert_eq!(long(&[("host", &many.join(","))]).routes.len(), MAX_ITEMS);

    let closed = |paths: &str| long(&[("maintenance", "x"), ("maintenance-paths", paths)]).mode;
    assert_eq!(closed(&format!("/{tail}")), Mode::Open, "nobody asked to close all");
    let Mode::Maintenance { paths, .. } = closed(&format!("/shop,{tail}")) else { panic!() };
    assert_eq!(paths, [PathPrefix::parse("/shop").unwrap()]);

    let away = format!("https://b.example.com/{}", "x".repeat(5000));
    assert_eq!(long(&[("drain", &away)]).mode, Mode::Draining { redirect: None }, "not half of a URL");
}

#[test]
fn spaces_around_a_value_are_no_part_of_it() {
    assert_eq!(good(&[("weight", &format!("{}7\n", " ".repeat(5000)))]).weight, Weight(7));
}

#[test]
fn a_member_of_a_share_states_its_priority_affinity_and_version() {
    let desired =
        good(&[("share", "s"), ("priority", "100"), ("affinity", "cookie"), ("version", "1000000")]);
    assert_eq!(
        (desired.priority, desired.affinity, desired.version),
        (Priority(100), Affinity::Cookie, GameVersion(1_000_000))
    );
    let desired = good(&[("share", "s"), ("priority", "0"), ("affinity", "none"), ("version", "0")]);
    assert_eq!(
        (desired.priority, desired.affinity, desired.version),
        (Priority::default(), Affinity::default(), GameVersion::default())
    );
    assert_eq!(
        good(&[("affinity", "none"), ("version", "0")]).version,
        GameVersion(0),
        "a default needs no share"
    );
}

#[test]
fn a_bad_priority_affinity_or_version_leaves_the_default_and_says_what_was_expected() {
    for (key, text, expected) in [
        ("priority", "101", "is not a whole number from 0 to 100"),
        ("priority", "-1", "is not a whole number from 0 to 100"),
        ("priority", "high", "is not a whole number from 0 to 100"),
        ("affinity", "Cookie", "is not \"cookie\" or \"none\""),
        ("affinity", "ip", "is not \"cookie\" or \"none\""),
        ("version", "1000001", "is not a whole number from 0 to 1000000"),
        ("version", "1.2", "is not a whole number from 0 to 1000000"),
        ("version", "", "is not a whole number from 0 to 1000000"),
    ] {
        let (why, desired) = problem(&[("share", "s"), (key, text)]);
        assert!(why.contains(&format!("tidegate.dev/{key}\"]: {text:?} {expected}")), "{why}");
        assert_eq!(
            (desired.priority, desired.affinity, desired.version),
            (Priority::default(), Affinity::default(), GameVersion::default())
        );
    }
}

#[test]
fn what_is_for_members_of_a_share_says_so_alone() {
    for (key, text) in [("priority", "1"), ("affinity", "cookie"), ("version", "1")] {
        let (why, _) = problem(&[(key, text)]);
        assert!(why.contains("does nothing without tidegate.dev/share"), "{why}");
    }
}
