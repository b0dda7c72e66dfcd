//! Writes of a real kube-rs client: conflicts, preconditions, subresources, deletion, events.
#![allow(clippy::unwrap_used)]

mod common;

use cluster::{Cluster, Verb};
use common::{code, kruise_servers, server, servers};
use either::Either;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

async fn cluster() -> (Cluster, kube::Client) {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client().unwrap();
    let namespace: Namespace = from(json!({ "metadata": { "name": "games" } }));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    (cluster, client)
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str) -> Pod {
    from(
        json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "game", "image": "arena" }] } }),
    )
}

fn merge(patch: Value) -> Patch<Value> {
    Patch::Merge(patch)
}

#[tokio::test]
async fn what_is_made_has_name_uid_time_and_version() {
    let (_cluster, client) = cluster().await;
    let api = servers(&client);
    let mut new: DynamicObject = from(server("a", &json!({})));
    let made = api.create(&PostParams::default(), &new).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some() && made.resource_version().is_some());
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.data["status"]["state"], "Ready", "no status subresource: it is kept");
    match api.create(&PostParams::default(), &new).await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, &*status.reason), (409, "AlreadyExists")),
        other => panic!("{other:?}"),
    }
    new.metadata.name = None;
    new.metadata.generate_name = Some("b-".to_owned());
    let made = api.create(&PostParams::default(), &new).await.unwrap();
    assert!(made.name_any().starts_with("b-") && made.name_any().len() == 7, "{}", made.name_any());
    for bad in ["", "A", "-a", "a_b"] {
        new.metadata.generate_name = None;
        new.metadata.name = Some(bad.to_owned());
        assert_eq!(code(api.create(&PostParams::default(), &new).await), 422, "{bad:?}");
    }
    let elsewhere: Api<Pod> = Api::namespaced(client, "nowhere");
    assert_eq!(code(elsewhere.create(&PostParams::default(), &pod("a")).await), 404);
}

#[tokio::test]
async fn a_replace_meets_a_conflict() {
    let (_cluster, client) = cluster().await;
    let api = servers(&client);
    let read = api.create(&PostParams::default(), &from(server("a", &json!({})))).await.unwrap();
    let mut first = read.clone();
    first.labels_mut().insert("by".to_owned(), "first".to_owned());
    let first = api.replace("a", &PostParams::default(), &first).await.unwrap();
    assert_ne!(first.resource_version(), read.resource_version());
    match api.replace("a", &PostParams::default(), &read).await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, &*status.reason), (409, "Conflict")),
        other => panic!("{other:?}"),
    }
    let same = api.replace("a", &PostParams::default(), &first).await.unwrap();
    assert_eq!(same.resource_version(), first.resource_version(), "nothing differs: nothing is written");
    let mut other = first.clone();
    other.metadata.uid = Some("00000000-0000-4000-8000-000000000000".to_owned());
    assert_eq!(code(api.replace("a", &PostParams::default(), &other).await), 409);
    other = first;
    other.metadata.resource_version = None;
    assert_eq!(
        code(api.replace("a", &PostParams::default(), &other).await),
        422,
        "a CRD's must say what it read"
    );
}

#[tokio::test]
async fn a_patch_has_preconditions_and_may_be_of_four_kinds() {
    let (cluster, client) = cluster().await;
    let api = servers(&client);
    let made = api.create(&PostParams::default(), &from(server("a", &json!({ "x": "1" })))).await.unwrap();
    let params = PatchParams::default();
    let version = made.resource_version().unwrap();
    let meant =
        json!({ "metadata": { "resourceVersion": version, "uid": made.uid(), "labels": { "x": "2" } } });
    let moved = api.patch("a", &params, &merge(meant.clone())).await.unwrap();
    assert_eq!(moved.labels()["x"], "2");
    assert_eq!(code(api.patch("a", &params, &merge(meant)).await), 409, "the version has moved");
    let other = json!({ "metadata": { "uid": "another", "labels": { "x": "3" } } });
    assert_eq!(code(api.patch("a", &params, &merge(other)).await), 422, "a uid can't be changed");
    let same =
        api.patch("a", &params, &merge(json!({ "metadata": { "labels": { "x": "2", "y": null } } }))).await;
    assert_eq!(same.unwrap().resource_version(), moved.resource_version());
    assert_eq!(code(api.patch("b", &params, &merge(json!({}))).await), 404);

    let test = |held: &str| -> Patch<Value> {
        Patch::Json(from(json!([
            { "op": "test", "path": "/metadata/labels/x", "value": held },
            { "op": "replace", "path": "/metadata/labels/x", "value": "4" },
        ])))
    };
    assert_eq!(code(api.patch("a", &params, &test("1")).await), 422);
    assert_eq!(api.patch("a", &params, &test("2")).await.unwrap().labels()["x"], "4");
    let strategic = Patch::Strategic(json!({ "metadata": { "labels": { "x": "5" } } }));
    assert_eq!(code(api.patch("a", &params, &strategic).await), 415, "a CRD has no schema to merge by");

    let writes = cluster.journal().writes();
    let codes: Vec<_> = writes.iter().filter(|of| of.verb == Verb::Patch).map(|of| of.code).collect();
    assert_eq!(codes, [200, 409, 422, 200, 404, 422, 200, 415]);
    assert_eq!(writes.last().unwrap().json()["metadata"]["labels"]["x"], "5");
}

#[tokio::test]
async fn status_is_written_where_it_belongs() {
    let (_cluster, client) = cluster().await;
    let okg = kruise_servers(&client);
    let new = json!({
        "apiVersion": "game.kruise.io/v1alpha1",
        "kind": "GameServer",
        "metadata": { "name": "a" },
        "spec": { "opsState": "None" },
        "status": { "currentState": "Ready" },
    });
    let made = okg.create(&PostParams::default(), &from(new)).await.unwrap();
    assert_eq!(made.data["status"], Value::Null, "the subresource alone writes it");
    let params = PatchParams::default();
    let both = json!({
        "metadata": { "labels": { "x": "1" } },
        "spec": { "opsState": "Kill" },
        "status": { "currentState": "Ready" },
    });
    let by_status = okg.patch_status("a", &params, &merge(both.clone())).await.unwrap();
    assert_eq!(by_status.data["status"]["currentState"], "Ready");
    assert_eq!(by_status.data["spec"]["opsState"], "None");
    assert!(by_status.labels().is_empty());
    assert_eq!(by_status.metadata.generation, Some(1));
    let mut plain = both;
    plain["status"]["currentState"] = "Crash".into();
    let plain = okg.patch("a", &params, &merge(plain)).await.unwrap();
    assert_eq!(
        (&plain.data["spec"]["opsState"], &plain.data["status"]["currentState"]),
        (&json!("Kill"), &json!("Ready"))
    );
    assert_eq!(plain.metadata.generation, Some(2), "the spec has changed");

    let agones = servers(&client);
    agones.create(&PostParams::default(), &from(server("a", &json!({})))).await.unwrap();
    let state = json!({ "status": { "state": "Allocated" } });
    assert_eq!(code(agones.patch_status("a", &params, &merge(state.clone())).await), 404);
    assert_eq!(agones.patch("a", &params, &merge(state)).await.unwrap().data["status"]["state"], "Allocated");

    let pods: Api<Pod> = Api::namespaced(client, "games");
    let made = pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    assert_eq!(made.status.unwrap().phase.unwrap(), "Pending");
    let running = json!({ "metadata": { "labels": { "x": "1" } }, "status": { "podIP": "10.0.0.1" } });
    let running = pods.patch_status("p", &params, &merge(running)).await.unwrap();
    assert_eq!(running.labels()["x"], "1", "a built-in status write takes labels with it");
    assert_eq!(running.status.unwrap().pod_ip.unwrap(), "10.0.0.1");
    let conditions =
        |status: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
    pods.patch_status("p", &params, &Patch::Strategic(conditions("False"))).await.unwrap();
    let ready = pods.patch_status("p", &params, &Patch::Strategic(conditions("True"))).await.unwrap();
    assert_eq!(ready.status.unwrap().conditions.unwrap().len(), 1, "one of each type");
}

#[tokio::test]
async fn a_pod_on_a_node_is_deleted_in_two_steps() {
    let (cluster, client) = cluster().await;
    let pods: Api<Pod> = Api::namespaced(client, "games");
    pods.create(&PostParams::default(), &pod("idle")).await.unwrap();
    pods.delete("idle", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("idle").await.unwrap().is_none(), "no node, no grace");

    let first = pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    cluster.bind("games", "p", "node-1").unwrap();
    assert_eq!(cluster.bind("games", "p", "node-2").unwrap_err().code, 409);
    let leaving = match pods.delete("p", &DeleteParams::default()).await.unwrap() {
        Either::Left(pod) => pod,
        Either::Right(status) => panic!("{status:?}"),
    };
    assert_eq!(leaving.metadata.deletion_grace_period_seconds, Some(30));
    let again = pods.delete("p", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(again.resource_version(), leaving.resource_version());
    let taken_back = merge(json!({ "metadata": { "deletionTimestamp": null } }));
    let kept = pods.patch("p", &PatchParams::default(), &taken_back).await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_some(), "a deletion is not taken back");
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
    let second = pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    assert_ne!(second.uid(), first.uid());
    let of_first = Preconditions { uid: first.uid(), resource_version: None };
    assert_eq!(code(pods.delete("p", &DeleteParams::default().preconditions(of_first)).await), 409);
    cluster.bind("games", "p", "node-1").unwrap();
    let both = json!({ "metadata": { "labels": { "x": "1" } }, "status": { "podIP": "10.0.0.1" } });
    cluster.patch("pods", "games", "p", &both).unwrap();
    let held = cluster.get("pods", "games", "p").unwrap();
    assert_eq!(
        (&held["metadata"]["labels"]["x"], &held["status"]["podIP"]),
        (&json!("1"), &json!("10.0.0.1"))
    );
    cluster.patch("pods", "games", "p", &json!({ "status": null })).unwrap();
    assert_eq!(
        cluster.get("pods", "games", "p").unwrap()["status"],
        Value::Null,
        "past HTTP all can be written"
    );
    cluster.delete("pods", "games", "p").unwrap();
    cluster.finish_deletion("pods", "games", "p").unwrap();
    assert_eq!(cluster.get("pods", "games", "p"), None);
}

#[tokio::test]
async fn finalizers_hold_what_is_deleted() {
    let (cluster, client) = cluster().await;
    let api = servers(&client);
    let mut new: DynamicObject = from(server("a", &json!({})));
    new.finalizers_mut().push("agones.dev/controller".to_owned());
    api.create(&PostParams::default(), &new).await.unwrap();
    let held = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let off = merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("a", &PatchParams::default(), &off).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
    new.metadata.finalizers = None;
    api.create(&PostParams::default(), &new).await.unwrap();
    assert!(api.delete("a", &DeleteParams::default()).await.unwrap().is_right(), "a Status says it is gone");
    assert_eq!(code(api.delete("a", &DeleteParams::default()).await), 404);

    for name in ["b", "c", "d"] {
        cluster.put(server(name, &json!({ "gone": (name != "d").to_string() }))).unwrap();
    }
    let selected = ListParams::default().labels("gone=true");
    api.delete_collection(&DeleteParams::default(), &selected).await.unwrap();
    let left = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["d"]);
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete("games", &DeleteParams::default()).await.unwrap();
    assert_eq!(cluster.list("gameservers.agones.dev", "").unwrap(), Vec::<Value>::new());
}

#[tokio::test]
async fn events_are_recorded() {
    let (cluster, client) = cluster().await;
    let api = servers(&client);
    let made = api.create(&PostParams::default(), &from(server("a", &json!({})))).await.unwrap();
    let kind = kube::api::GroupVersionKind::gvk("agones.dev", "v1", "GameServer");
    let about = made.object_ref(&kube::api::ApiResource::from_gvk(&kind));
    let recorder = Recorder::new(client, Reporter::from("cluster-test"));
    let event = Event {
        type_: EventType::Warning,
        reason: "BadHost".to_owned(),
        note: Some("a host may not end with a hyphen".to_owned()),
        action: "Route".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &about).await.unwrap();
    recorder.publish(&event, &about).await.unwrap();
    let events = cluster.list("events.events.k8s.io", "").unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["reason"], &events[0]["series"]["count"]), (&json!("BadHost"), &json!(2)));
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let (_cluster, client) = cluster().await;
    let path = "/apis/agones.dev/v1/namespaces/games/gameservers";
    for (method, path, body, wanted) in [
        ("POST", path, "no json", 400),
        ("POST", path, "[]", 400),
        ("POST", path, r#"{"metadata":[]}"#, 400),
        ("POST", path, r#"{"kind":"Pod","metadata":{"name":"a"}}"#, 400),
        ("POST", path, r#"{"metadata":{"name":"a","namespace":"other"}}"#, 400),
        ("POST", path, r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#, 400),
        ("POST", "/apis/agones.dev/v1/gameservers", r#"{"metadata":{"name":"a"}}"#, 405),
        ("GET", "/apis/agones.dev/v1/gameservers?watch=1&resourceVersion=x", "", 400),
        ("GET", "/apis/agones.dev/v1/gameservers?watch=1&timeoutSeconds=x", "", 400),
        ("GET", "/apis/agones.dev/v1/gameservers?watch=1&sendInitialEvents=true", "", 422),
        ("GET", "/apis/agones.dev/v1/gameservers?limit=x", "", 400),
        ("GET", "/apis/agones.dev/v1/gameservers?continue=x", "", 400),
        ("GET", "/apis/agones.dev/v2/gameservers", "", 404),
    ] {
        let request =
            http::Request::builder().method(method).uri(path).body(body.as_bytes().to_vec()).unwrap();
        assert_eq!(code(client.request_text(request).await), wanted, "{method} {path} {body}");
    }
    let large = http::Request::post(path).body(vec![b' '; 4 << 20]).unwrap();
    assert_eq!(code(client.request_text(large).await), 413);
}
