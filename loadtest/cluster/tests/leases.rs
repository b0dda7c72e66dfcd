//! Leader election by a real holder's client, and the server-side apply it rests on.
#![allow(clippy::unwrap_used)]

mod common;

use cluster::Cluster;
use common::{LIMIT, code};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube_lease_manager::LeaseManagerBuilder;
use serde_json::{Value, json};

fn lease(holder: &str) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15 },
    }))
}

#[tokio::test]
async fn an_apply_meets_who_owns_the_field() {
    let cluster = Cluster::start().await.unwrap();
    let api: Api<Lease> = Api::namespaced(cluster.client().unwrap(), "default");
    let by = PatchParams::apply;
    let held = api.patch("writer", &by("a"), &lease("a")).await.unwrap();
    assert_eq!(held.spec.unwrap().holder_identity.unwrap(), "a", "an apply makes what is not there");
    match api.patch("writer", &by("b"), &lease("b")).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, &*status.reason), (409, "Conflict"));
            assert!(
                status.message.contains(".spec.holderIdentity") && status.message.contains("\"a\""),
                "{status:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    let same = Patch::Apply(
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": { "leaseDurationSeconds": 15 } }),
    );
    api.patch("writer", &by("b"), &same).await.unwrap();
    let forced = api.patch("writer", &by("b").force(), &lease("b")).await.unwrap();
    assert_eq!(forced.spec.unwrap().holder_identity.unwrap(), "b");
    assert_eq!(code(api.patch("writer", &by("a"), &lease("a")).await), 409, "now it is b's");
    // What was applied and is no longer goes with its owner; what somebody else owns too stays.
    let empty = Patch::Apply(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease" }));
    let left = api.patch("writer", &by("b"), &empty).await.unwrap().spec.unwrap();
    assert_eq!((left.holder_identity, left.lease_duration_seconds), (None, Some(15)));
    // A plain write that takes a field away leaves it to nobody.
    api.patch("writer", &by("b"), &lease("b")).await.unwrap();
    let freed = Patch::Strategic(json!({ "spec": { "holderIdentity": null, "leaseDurationSeconds": null } }));
    api.patch(
        "writer",
        &PatchParams { field_manager: Some("b".to_owned()), ..PatchParams::default() },
        &freed,
    )
    .await
    .unwrap();
    api.patch("writer", &by("a"), &lease("a")).await.unwrap();
    let nobody = PatchParams { field_manager: Some(String::new()), ..PatchParams::default() };
    assert!(api.patch("writer", &nobody, &lease("c")).await.is_err(), "an apply says who applies");
}

#[tokio::test]
async fn one_of_two_holders_has_the_lease_and_it_moves_when_that_one_leaves() {
    let cluster = Cluster::start().await.unwrap();
    let holder = async |name: &str| {
        LeaseManagerBuilder::new(cluster.client().unwrap(), "writer")
            .with_namespace("default")
            .with_identity(name)
            .with_duration(2)
            .with_grace(1)
            .build()
            .await
            .unwrap()
    };
    let (a, b) = (holder("a").await, holder("b").await);
    assert!(a.changed().await.unwrap(), "it is free");
    // The other one waits, and gets it when the first gives it up.
    let waits = tokio::spawn(async move {
        let is_mine = b.changed().await.unwrap();
        (b, is_mine)
    });
    let held = cluster.get("leases.coordination.k8s.io", "default", "writer").unwrap();
    assert_eq!(held["spec"]["holderIdentity"], "a");
    a.release().await.unwrap();
    let (_b, is_mine) = tokio::time::timeout(LIMIT, waits).await.unwrap().unwrap();
    assert!(is_mine);
    let held = cluster.get("leases.coordination.k8s.io", "default", "writer").unwrap();
    assert_eq!(held["spec"]["holderIdentity"], "b");
}
