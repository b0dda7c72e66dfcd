//! The kit of a cluster: the lives of game servers, walked through the API, in our cluster or a real one.

mod testkit;

use cluster::objects::{
    AgonesPort, agones_allocated, agones_fleet, agones_game_server, agones_scheduled, agones_state,
    okg_annotated, okg_game_server, okg_network_ready, okg_pod, okg_pre_delete, okg_ready, okg_running,
    okg_set, okg_update_done, okg_update_prepared, okg_update_started,
};
use cluster::{Fault, Verb};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::kube::Kube;

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array().expect("a list");
    conditions.iter().find(|of| of["type"] == kind).map_or(&Value::Null, |of| &of["status"])
}

#[tokio::test]
async fn a_pod_of_a_set_lives_from_bare_to_gone() {
    let kube = Kube::start().await;
    let conf = [("Host", "game<id>.example.com"), ("Port", "5000"), ("Path", "/"), ("PathType", "Prefix")];
    let set = kube.create(&okg_set("arena", 3, &conf)).await;
    let pod = kube.create(&okg_pod(&set, 2)).await;
    assert_eq!(pod["metadata"]["name"], "arena-2");
    assert_eq!(pod["status"]["podIP"], Value::Null);
    let text = pod["metadata"]["annotations"]["game.kruise.io/network-conf"].as_str().expect("text");
    assert!(text.contains("\\u003cid\\u003e"), "as Go writes it: {text}");
    let read: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(read[0], json!({ "name": "Host", "value": "game<id>.example.com" }));

    let server = kube.create(&okg_game_server(&pod)).await;
    let state = json!({ "status": { "currentState": "Creating" } });
    assert_eq!(kube.patch_status(&server, &state).await["status"]["currentState"], "Creating");

    kube.step(&pod, &okg_annotated()).await;
    kube.bind(&pod, "node-1").await;
    kube.step(&pod, &okg_running(&pod, "10.1.2.3")).await;
    let held = kube.get(&pod).await.expect("it is there");
    assert_eq!((&held["status"]["podIP"], condition(&held, "Ready")), (&json!("10.1.2.3"), &json!("False")));
    kube.step(&pod, &okg_ready(&pod)).await;
    kube.step(&pod, &okg_network_ready("10.1.2.3", "game2.example.com", "/", 5000)).await;
    let ready = kube.get(&pod).await.expect("it is there");
    assert_eq!(
        (condition(&ready, "Ready"), condition(&ready, "InPlaceUpdateReady")),
        (&json!("True"), &json!("True"))
    );
    assert_eq!(ready["metadata"]["labels"]["game.kruise.io/gs-state"], "Ready");

    let image = "registry.example.com/arena:1.4.3";
    kube.step(&pod, &okg_update_prepared()).await;
    kube.step(&pod, &okg_update_started(&pod, image)).await;
    let updating = kube.get(&pod).await.expect("it is there");
    assert_eq!(
        (condition(&updating, "Ready"), &updating["status"]["podIP"]),
        (&json!("False"), &json!("10.1.2.3"))
    );
    assert_eq!(updating["metadata"]["uid"], pod["metadata"]["uid"]);
    kube.step(&pod, &okg_update_done(&pod, image)).await;
    let updated = kube.get(&pod).await.expect("it is there");
    assert_eq!(
        (condition(&updated, "Ready"), &updated["spec"]["containers"][0]["image"]),
        (&json!("True"), &json!(image))
    );

    kube.step(&pod, &okg_pre_delete()).await;
    kube.delete(&pod).await;
    let leaving = kube.get(&pod).await.expect("it has its grace");
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    kube.delete_now(&pod).await;
    assert_eq!(kube.get(&pod).await, None);
    let next = kube.create(&okg_pod(&set, 2)).await;
    assert_ne!(next["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(kube.list("v1", "Pod").await.len(), 1);
}

#[tokio::test]
async fn an_agones_server_lives_from_port_allocation_to_gone() {
    let kube = Kube::start().await;
    let annotations = [
        ("octops.io/gameserver-ingress-mode", "domain"),
        ("octops.io/gameserver-ingress-domain", "example.com"),
    ];
    let fleet = kube.create(&agones_fleet("arena", 2, &annotations)).await;
    assert_eq!(
        fleet["spec"]["template"]["metadata"]["annotations"]["octops.io/gameserver-ingress-mode"],
        "domain"
    );
    let server = kube.create(&agones_game_server("arena-x7k2p-9q4wd", &annotations)).await;
    assert_eq!(
        (&server["status"]["state"], &server["status"]["addresses"]),
        (&json!("PortAllocation"), &Value::Null)
    );
    assert_eq!(server["metadata"]["labels"]["agones.dev/fleet"], "arena");
    for state in ["Creating", "Starting"] {
        kube.step(&server, &agones_state(state)).await;
    }
    let ports = [AgonesPort { container: 8080, host: 7012, ..AgonesPort::default() }];
    kube.step(&server, &agones_scheduled(&ports, "192.0.2.10", "10.1.2.3")).await;
    let held = kube.get(&server).await.expect("it is there");
    assert_eq!(held["status"]["ports"], json!([{ "name": "default", "port": 7012 }]));
    assert_eq!(held["status"]["addresses"][2], json!({ "type": "PodIP", "address": "10.1.2.3" }));
    for state in ["RequestReady", "Ready"] {
        kube.step(&server, &agones_state(state)).await;
    }
    kube.step(&server, &agones_allocated(&[("match", "17")])).await;
    kube.wait("it is allocated", &server, |held| held["status"]["state"] == "Allocated").await;
    kube.delete(&server).await;
    let leaving = kube.get(&server).await.expect("its finalizer holds it");
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(leaving["status"]["state"], "Allocated", "a deletion does not move the state");
    kube.delete_now(&server).await;
    assert_eq!(kube.get(&server).await, None);
}

#[tokio::test]
async fn the_kubeconfig_leads_through_the_faults() {
    let kube = Kube::start().await;
    let read = Kubeconfig::read_from(kube.kubeconfig()).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let mut config = config.expect("it has a context");
    assert_eq!(config.default_namespace, kube.namespace);
    config.default_retry = false;
    let client = kube::Client::try_from(config).expect("a client");
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(client);
    let list = async || pods.list(&kube::api::ListParams::default()).await.map(|list| list.items.len());
    kube.create(&okg_pod(&okg_set("arena", 1, &[]), 0)).await;
    assert_eq!(list().await.expect("it is listed"), 1);
    let rule = kube.faults.set(Verb::List, "pods", Fault::EmptyList);
    assert_eq!(list().await.expect("it is listed"), 0);
    rule.lift();
    kube.faults.away();
    assert!(list().await.is_err());
    kube.faults.back().await.expect("its port is free");
    eventually("it is back", async || list().await.ok(), |count| *count == Some(1)).await;
    assert_eq!(kube.faults.journal().writes().len(), 0, "the test's own writes go past it");
}
