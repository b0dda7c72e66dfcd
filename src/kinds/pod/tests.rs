use serde_json::{Value, json};

use super::*;

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a-0",
            "namespace": "eu",
            "uid": "1",
            "labels": { "game.kruise.io/owner-gss": "a", "controller-revision-hash": "a-1" },
            "annotations": {
                "game.kruise.io/network-type": "Kubernetes-Ingress",
                "game.kruise.io/network-trigger-time": "2026-04-23T10:00:05Z",
                "game.kruise.io/network-status": "{}",
            },
        },
        "spec": {
            "nodeName": "n",
            "containers": [{ "name": "game", "image": "a:1", "ports": [{ "name": "ws", "containerPort": 5000 }] }],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "podIPs": [{ "ip": "10.1.2.3" }, { "ip": "fd00::3" }],
            "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "2026-04-23T10:00:05Z" },
                { "type": "InPlaceUpdateReady", "status": "True" },
            ],
            "containerStatuses": [{ "name": "game", "ready": true, "restartCount": 0, "imageID": "x" }],
        },
    });
    change(&mut pod);
    serde_json::from_value(pod).expect("a pod")
}

#[test]
fn what_nobody_reads_makes_no_difference() {
    let one = pod(|_| ());
    let other = pod(|pod| {
        pod["metadata"]["labels"]["controller-revision-hash"] = "a-2".into();
        pod["metadata"]["labels"]["game.kruise.io/gs-state"] = "Updating".into();
        pod["metadata"]["annotations"]["game.kruise.io/network-trigger-time"] = "2026-04-23T10:00:10Z".into();
        pod["metadata"]["annotations"]["game.kruise.io/network-status"] = "{\"a\":1}".into();
        pod["metadata"]["annotations"]["game.kruise.io/gs-updating-containers"] = "game".into();
        pod["metadata"]["managedFields"] = json!([{ "manager": "x" }]);
        pod["spec"]["nodeName"] = "m".into();
        pod["spec"]["containers"][0]["image"] = "a:2".into();
        pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-04-23T10:01:05Z".into();
        pod["status"]["conditions"][1]["status"] = "False".into();
        pod["status"]["containerStatuses"][0]["restartCount"] = 7.into();
        pod["status"]["containerStatuses"][0]["imageID"] = "y".into();
    });
    assert_eq!(one, other);
}

#[test]
fn what_is_read_makes_a_difference() {
    let changes: [(&str, Value); 8] = [
        ("/metadata/uid", "2".into()),
        ("/metadata/labels", json!({ "lifecycle.apps.kruise.io/state": "PreparingDelete" })),
        ("/metadata/deletionTimestamp", "2026-04-23T10:00:05Z".into()),
        ("/spec/containers/0/ports/0/containerPort", 5001.into()),
        ("/status/phase", "Failed".into()),
        ("/status/podIP", "10.1.2.4".into()),
        ("/status/conditions/0/status", "False".into()),
        ("/status/containerStatuses/0/ready", false.into()),
    ];
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let other = pod(|pod| match pod.pointer_mut(parent).expect("a place") {
            Value::Array(list) => list[key.parse::<usize>().expect("a number")] = value,
            place => place[key] = value,
        });
        assert_ne!(pod(|_| ()), other, "{pointer}");
    }
}

#[test]
fn the_status_of_our_own_network_is_kept() {
    let own = pod(|pod| pod["metadata"]["annotations"]["game.kruise.io/network-type"] = "Tidegate".into());
    assert_eq!(own.metadata.annotation(okg::NETWORK_STATUS), Some("{}"));
    assert_eq!(pod(|_| ()).metadata.annotation(okg::NETWORK_STATUS), None);
}

#[test]
fn null_is_what_is_not_there() {
    for text in [
        "{}",
        r#"{"metadata":null,"spec":null,"status":null}"#,
        r#"{"metadata":{"labels":null,"annotations":null,"deletionTimestamp":null,"creationTimestamp":null},
            "spec":{"containers":null},"status":{"phase":null,"podIP":null,"podIPs":null,"conditions":null,"containerStatuses":null}}"#,
        r#"{"spec":{"containers":[null]},"status":{"podIPs":[null],"conditions":[null],"containerStatuses":[null]}}"#,
    ] {
        let pod: Pod = serde_json::from_str(text).expect(text);
        assert_eq!(pod, Pod::default(), "{text}");
        assert_eq!(pod.ip(), None);
    }
    let pod: Pod = serde_json::from_str(
        r#"{"spec":{"containers":[{"name":null,"ports":[null,{"name":null,"containerPort":null,"protocol":null}]}]},
            "status":{"containerStatuses":[{"name":null,"ready":null}]}}"#,
    )
    .expect("a pod");
    assert!(!pod.spec.containers[0].ports[0].is_tcp(), "port 0 is none");
}

#[test]
fn an_address_is_that_of_a_pod_which_lives() {
    assert_eq!(pod(|_| ()).ip(), Some([10, 1, 2, 3].into()));
    let second = pod(|pod| pod["status"]["podIP"] = "".into());
    assert_eq!(second.ip(), Some([10, 1, 2, 3].into()), "podIPs has it too");
    for phase in ["Failed", "Succeeded"] {
        let over = pod(|pod| pod["status"]["phase"] = phase.into());
        assert_eq!(over.ip(), None, "its address may be another pod's");
    }
    let bad = pod(|pod| pod["status"] = json!({ "podIP": "nowhere" }));
    assert_eq!(bad.ip(), None);
}
