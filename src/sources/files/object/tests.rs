#![allow(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use serde_json::json;

use super::*;
use crate::model::{Mode, Weight};

fn good() -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1", "kind": "Server",
        "metadata": { "name": "game-7", "annotations": { "tidegate.dev/host": "<name>.example.com" } },
        "spec": { "address": "10.0.0.7", "port": 7000 },
    })
}

/// The good server with one thing changed, at a JSON pointer's place.
#[track_caller]
fn server(change: impl FnOnce(&mut Value)) -> Arc<Server> {
    let mut value = good();
    change(&mut value);
    super::server(value.as_object().unwrap(), None).unwrap()
}

/// The one problem of the good server when `pointer` holds `value`.
#[track_caller]
fn problem(pointer: [&str; 2], value: Value) -> (String, Arc<Server>) {
    let server = server(|object| object[pointer[0]][pointer[1]] = value);
    let [problem] = &server.problems[..] else { panic!("{:?}", server.problems) };
    (problem.to_string(), server.clone())
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut value = good();
    change(&mut value);
    super::server(value.as_object().unwrap(), None).unwrap_err().1
}

#[test]
fn a_server_is_read_as_it_is_written() {
    let server = server(|object| {
        object["metadata"]["namespace"] = "eu".into();
        object["metadata"]["creationTimestamp"] = "2026-05-01T10:00:00Z".into();
        object["metadata"]["labels"] = json!({ "tidegate.dev/fleet": "lobby" });
        object["metadata"]["annotations"]["tidegate.dev/path"] = "/<fleet>".into();
        object["spec"]["ports"] = json!([{ "name": "query", "port": 7001 }]);
        object["spec"]["state"] = "Draining".into();
        object["status"] = json!({ "anything": 1 });
    });
    assert_eq!(server.problems, []);
    assert_eq!(server.id.to_string(), "files/eu/game-7");
    assert_eq!(server.age, Age::Since(1_777_629_600_000));
    assert_eq!(server.desired.endpoint, Some(([10, 0, 0, 7], 7000).into()));
    assert_eq!(server.desired.routes[0].to_string(), "game-7.example.com/lobby");
    assert_eq!(server.desired.mode, Mode::Draining { redirect: None });
}

#[test]
fn the_defaults_are_ready_default_and_unknown() {
    let server = server(|_| ());
    assert_eq!(
        (server.id.namespace(), server.age, &server.desired.mode),
        ("default", Age::Unknown, &Mode::Open)
    );
}

#[test]
fn a_bad_port_or_address_is_said_and_closes_the_door() {
    for bad in [json!(0), json!("abc"), json!(65536), json!(-1), json!(7000.5), json!([7000])] {
        let (why, server) = problem(["spec", "port"], bad);
        assert!(
            why.starts_with("spec.port: ")
                && why.ends_with("is not a port; expected a whole number from 1 to 65535"),
            "{why}"
        );
        assert_eq!(server.desired.mode, Mode::Misconfigured);
    }
    for bad in [json!("game.example.com"), json!("10.0.0.7:7000"), json!(10), json!("")] {
        let (why, server) = problem(["spec", "address"], bad);
        assert!(why.starts_with("spec.address: ") && why.contains("write an IP address"), "{why}");
        assert_eq!(server.desired.mode, Mode::Misconfigured);
    }
    let (why, _) = problem(["spec", "address"], Value::Null);
    assert_eq!(why, "spec.address: is missing; write the server's IP address");
    let (why, _) = problem(["spec", "port"], Value::Null);
    assert!(why.starts_with("port: is missing"), "{why}");
}

#[test]
fn a_bad_default_port_does_not_become_the_next_one() {
    let ports = json!([{ "name": "query", "port": 7001 }]);
    let spoiled = |object: &mut Value| {
        object["spec"]["port"] = "x".into();
        object["spec"]["ports"] = ports.clone();
    };
    assert_eq!(server(spoiled).desired.endpoint, None);
    let chosen = server(|object| {
        spoiled(object);
        object["metadata"]["annotations"]["tidegate.dev/port"] = "query".into();
    });
    assert_eq!(chosen.desired.endpoint.unwrap().port(), 7001);
    let first = server(|object| {
        object["spec"] =
            json!({ "address": "::1", "ports": [{ "name": "game", "port": "7000" }, { "port": 7001 }] });
    });
    assert_eq!((first.desired.endpoint, &first.problems[..]), (Some("[::1]:7000".parse().unwrap()), &[][..]));
}

#[test]
fn one_that_starts_needs_no_address() {
    assert_eq!(server(|object| object["spec"] = json!({ "state": "Starting" })).problems, []);
    let bare = server(|object| _ = object.as_object_mut().unwrap().remove("spec"));
    let fields: Vec<_> = bare.problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["spec", "spec.address"]);
}

#[test]
fn an_unknown_field_is_named_with_its_neighbour() {
    let (why, _) = problem(["spec", "adress"], "10.0.0.1".into());
    assert!(why.starts_with("spec.adress: is not a field of a Server; did you mean spec.address?"), "{why}");
    let (why, _) = problem(["spec", "host"], "a.example.com".into());
    assert!(why.ends_with("annotations, such as tidegate.dev/host"), "{why}");
    let (why, _) = problem(["metadata", "anotations"], json!({}));
    assert!(why.ends_with("did you mean metadata.annotations?"), "{why}");
    let server = server(|object| object["sepc"] = json!({}));
    assert!(server.problems[0].to_string().ends_with("did you mean spec?"), "{:?}", server.problems);
    let (why, _) = problem(["spec", "ports"], json!([{ "port": 7000, "nam": "game" }]));
    assert!(why.contains("did you mean spec.ports[0].name?"), "{why}");
}

#[test]
fn a_long_key_is_shown_in_part_and_compared_with_nothing() {
    let long = "x".repeat(10_000);
    let (why, _) = problem(["spec", &long], 1.into());
    assert_eq!(why, format!("spec.{}: is not a field of a Server", "x".repeat(80)));
    let (why, _) = problem(["metadata", &long], 1.into());
    assert_eq!(why, format!("metadata.{}: is not a field of a Server", "x".repeat(80)));
    let key = format!("tidegate.dev/{long}");
    for (value, said) in [
        (json!([1]), "is a list; expected a text. It is ignored"),
        (json!("y"), "is not an annotation of Tidegate"),
    ] {
        let server = server(|object| object["metadata"]["annotations"][&key] = value);
        let [problem] = &server.problems[..] else { panic!("{:?}", server.problems) };
        assert_eq!(problem.field, format!("metadata.annotations[\"{}\"]", &key[..80]));
        assert_eq!(problem.why, said);
    }
}

#[test]
fn bad_values_are_said_and_leave_the_default() {
    let (why, server) = problem(["spec", "state"], "ready".into());
    assert!(why.contains("expected Ready, Starting, Draining or Stopped"), "{why}");
    assert_eq!(server.desired.mode, Mode::Open);
    let (why, server) = problem(["metadata", "creationTimestamp"], "yesterday".into());
    assert!(why.contains("\"yesterday\" is not a time"), "{why}");
    assert_eq!(server.age, Age::Unknown);
    for (field, value) in [
        (["metadata", "annotations"], json!([])),
        (["metadata", "labels"], json!("x")),
        (["spec", "ports"], json!(1)),
    ] {
        let (why, _) = problem(field, value);
        assert!(why.contains("expected"), "{why}");
    }
}

#[test]
fn annotations_without_quotes_are_their_text() {
    let server = server(|object| {
        object["metadata"]["annotations"]["tidegate.dev/weight"] = 7.into();
        object["metadata"]["annotations"]["tidegate.dev/strip-prefix"] = true.into();
        object["metadata"]["annotations"]["other.example.com/x"] = json!([1]);
    });
    assert_eq!(
        (&server.problems[..], server.desired.weight, server.desired.strip_prefix),
        (&[][..], Weight(7), true)
    );
    let server =
        self::server(|object| object["metadata"]["annotations"]["tidegate.dev/weight"] = Value::Null);
    assert_eq!(
        server.problems[0].to_string(),
        "metadata.annotations[\"tidegate.dev/weight\"]: is nothing; expected a text. It is ignored"
    );
}

#[test]
fn an_object_that_cannot_be_named_is_refused() {
    assert!(refused(|object| object["metadata"] = json!({})).contains("has no metadata.name"));
    assert!(refused(|object| object["metadata"] = json!("x")).contains("has no metadata.name"));
    for bad in [json!("a/b"), json!(""), json!("a b"), json!("a\nb"), json!("x".repeat(254)), json!(["x"])] {
        assert!(
            refused(|object| object["metadata"]["name"] = bad.clone()).contains("has metadata.name"),
            "{bad}"
        );
        assert!(
            refused(|object| object["metadata"]["namespace"] = bad.clone())
                .contains("has metadata.namespace"),
            "{bad}"
        );
    }
}

#[test]
fn the_template_gives_a_host_to_those_without() {
    let mut value = good();
    value["metadata"]["annotations"] = json!({});
    let server = super::server(value.as_object().unwrap(), Some("<name>.games.example.com")).unwrap();
    assert_eq!(server.desired.routes[0].to_string(), "game-7.games.example.com");
}
