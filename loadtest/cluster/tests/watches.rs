//! What a real kube-rs client sees of lists and watches.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use cluster::{Cluster, Gone, Options, Verb, agones, okg};
use common::{Heard, LIMIT, code, eventually, server, servers};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, InitialListStrategy};
use kube::{Api, ResourceExt};
use serde_json::json;

async fn cluster_of(names: &[&str]) -> Cluster {
    let cluster = Cluster::start().await.unwrap();
    for name in names {
        cluster.put(server(name, &json!({}))).unwrap();
    }
    cluster
}

#[tokio::test]
async fn a_watcher_lists_in_pages_and_then_hears_every_change() {
    let cluster = cluster_of(&["a", "b", "c", "d", "e"]).await;
    let config = Config::default().page_size(2);
    let mut heard = Heard::from(servers(&cluster.client().unwrap()), config);
    assert_eq!(heard.take(7).await, ["init", "page a", "page b", "page c", "page d", "page e", "done"]);
    assert_eq!(cluster.journal().requests(Verb::List, "gameservers.agones.dev"), 3);
    cluster.put(server("f", &json!({}))).unwrap();
    cluster
        .patch("gameservers.agones.dev", "games", "a", &json!({ "status": { "state": "Shutdown" } }))
        .unwrap();
    cluster.delete("gameservers.agones.dev", "games", "b").unwrap();
    assert_eq!(heard.take(3).await, ["apply f", "apply a", "delete b"]);
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_mark() {
    let cluster = cluster_of(&["a", "b"]).await;
    let config = Config::default().streaming_lists();
    assert_eq!(config.initial_list_strategy, InitialListStrategy::StreamingList);
    let mut heard = Heard::from(servers(&cluster.client().unwrap()), config);
    assert_eq!(heard.take(4).await, ["init", "page a", "page b", "done"]);
    cluster.put(server("c", &json!({}))).unwrap();
    assert_eq!(heard.next().await, "apply c");
    assert_eq!(cluster.journal().requests(Verb::List, "gameservers.agones.dev"), 0);
}

#[tokio::test]
async fn the_pages_of_a_list_show_one_moment() {
    let cluster = cluster_of(&["a", "b", "c"]).await;
    let api = servers(&cluster.client().unwrap());
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(1));
    cluster.delete("gameservers.agones.dev", "games", "c").unwrap();
    cluster.put(server("b2", &json!({}))).unwrap();
    let token = first.metadata.continue_.unwrap();
    let second = api.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(second.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["c"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(second.metadata.continue_, None);
    cluster.compact();
    let late = api.list(&ListParams::default().continue_token(&token)).await;
    assert_eq!(code(late), 410);
}

#[tokio::test]
async fn a_forgotten_version_is_gone_and_the_watcher_lists_again() {
    for gone in [Gone::Event, Gone::Status] {
        let cluster = Cluster::with(Options { gone, ..Options::default() }).await.unwrap();
        cluster.put(server("a", &json!({}))).unwrap();
        let client = cluster.client().unwrap();
        // A watch of a second, so that it is begun anew behind the compaction.
        let config = Config::default().timeout(1);
        let mut heard = Heard::from(servers(&client), config);
        assert_eq!(heard.take(3).await, ["init", "page a", "done"]);
        let stays = servers(&client).list(&ListParams::default()).await.unwrap().metadata.resource_version;
        cluster.compact();
        let told = heard.next().await;
        assert!(told.starts_with("error"), "{told}");
        if gone == Gone::Event {
            assert_eq!(heard.take(3).await, ["init", "page a", "done"]);
        }
        let old = servers(&client).watch(&WatchParams::default(), &stays.unwrap()).await;
        match gone {
            Gone::Status => assert_eq!(code(old.map(drop)), 410),
            Gone::Event => match old.unwrap().boxed().try_next().await.unwrap().unwrap() {
                WatchEvent::Error(status) => assert_eq!((status.code, &*status.reason), (410, "Expired")),
                other => panic!("{other:?}"),
            },
        }
    }
}

#[tokio::test]
async fn an_open_watch_outlives_a_compaction() {
    let cluster = cluster_of(&["a"]).await;
    let mut heard = Heard::from(servers(&cluster.client().unwrap()), Config::default());
    heard.take(3).await;
    cluster.put(server("b", &json!({}))).unwrap();
    assert_eq!(heard.next().await, "apply b");
    cluster.compact();
    cluster.put(server("c", &json!({}))).unwrap();
    assert_eq!(heard.next().await, "apply c");
}

#[tokio::test]
async fn a_watch_too_far_behind_is_gone() {
    let cluster = Cluster::with(Options { history: 3, ..Options::default() }).await.unwrap();
    let start = cluster.revision();
    let mut revisions = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        revisions.push(cluster.put(server(name, &json!({}))).unwrap());
    }
    let api = servers(&cluster.client().unwrap());
    let mut late = api.watch(&WatchParams::default(), &start.to_string()).await.unwrap().boxed();
    assert!(matches!(late.try_next().await, Ok(Some(WatchEvent::Error(status))) if status.code == 410));
    let mut near = api.watch(&WatchParams::default(), &revisions[1].to_string()).await.unwrap().boxed();
    for name in ["c", "d", "e"] {
        match near.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => assert_eq!(object.name_any(), name),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn bookmarks_move_the_version_and_come_at_the_end() {
    let cluster = cluster_of(&["a"]).await;
    let api = servers(&cluster.client().unwrap());
    let start = cluster.revision();
    let mut events = api.watch(&WatchParams::default().timeout(5), &start.to_string()).await.unwrap().boxed();
    // Another kind moves the revision of all.
    let moved =
        cluster.put(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" } })).unwrap();
    assert!(moved > start);
    eventually(
        "the watch is open",
        async || cluster.journal().requests(Verb::Watch, "gameservers.agones.dev"),
        |count| *count == 1,
    )
    .await;
    cluster.bookmark();
    let version = |event| match event {
        Some(WatchEvent::Bookmark(mark)) => mark.metadata.resource_version.parse::<u64>().unwrap(),
        other => panic!("expected a bookmark: {other:?}"),
    };
    assert!(version(events.try_next().await.unwrap()) >= moved);
    let moved =
        cluster.put(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "q" } })).unwrap();
    let last = tokio::time::timeout(LIMIT, events.try_next()).await.unwrap();
    assert!(version(last.unwrap()) >= moved);
    assert!(events.try_next().await.unwrap().is_none(), "the time it asked for is over");
}

#[tokio::test]
async fn bookmarks_come_by_themselves() {
    let options = Options { bookmark_every: Duration::from_millis(20), ..Options::default() };
    let cluster = Cluster::with(options).await.unwrap();
    let api = servers(&cluster.client().unwrap());
    let head = cluster.revision().to_string();
    let mut events = api.watch(&WatchParams::default(), &head).await.unwrap().boxed();
    for _ in 0..3 {
        assert!(matches!(events.try_next().await, Ok(Some(WatchEvent::Bookmark(_)))));
    }
    let mut silent =
        api.watch(&WatchParams::default().disable_bookmarks().timeout(1), &head).await.unwrap().boxed();
    assert!(silent.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_selection() {
    let cluster = Cluster::start().await.unwrap();
    cluster.put(server("a", &json!({ "tier": "gold" }))).unwrap();
    cluster.put(server("b", &json!({}))).unwrap();
    let api = servers(&cluster.client().unwrap());
    let selected = WatchParams::default().labels("tier in (gold, silver)");
    let head = cluster.revision().to_string();
    let mut events = api.watch(&selected, &head).await.unwrap().boxed();
    let label = |name: &str, tier: serde_json::Value| {
        let patch = json!({ "metadata": { "labels": { "tier": tier } } });
        cluster.patch("gameservers.agones.dev", "games", name, &patch).unwrap()
    };
    let entered = label("b", json!("silver"));
    label("b", json!("gold"));
    let left = label("a", json!(null));
    label("a", json!("bronze"));
    cluster.delete("gameservers.agones.dev", "games", "a").unwrap();
    cluster.delete("gameservers.agones.dev", "games", "b").unwrap();
    let mut said = Vec::new();
    for _ in 0..4 {
        let (kind, object) = match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => ("added", object),
            WatchEvent::Modified(object) => ("modified", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            other => panic!("{other:?}"),
        };
        let tier = object.labels().get("tier").cloned().unwrap_or_default();
        said.push(format!("{kind} {} {tier}", object.name_any()));
        match said.len() {
            1 => assert_eq!(object.resource_version(), Some(entered.to_string())),
            // As it was inside, at the version at which it left.
            3 => assert_eq!(object.resource_version(), Some(left.to_string())),
            _ => {}
        }
    }
    assert_eq!(said, ["added b silver", "modified b gold", "deleted a gold", "deleted b gold"]);
}

#[tokio::test]
async fn a_watch_may_be_of_one_object_one_namespace_or_all() {
    let cluster = cluster_of(&["a", "b"]).await;
    let client = cluster.client().unwrap();
    cluster
        .put(json!({
            "apiVersion": "agones.dev/v1",
            "kind": "GameServer",
            "metadata": { "name": "a", "namespace": "lab" },
        }))
        .unwrap();
    let api = servers(&client);
    let one = api.list(&ListParams::default().fields("metadata.name=b")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 2);
    let kind = kube::api::GroupVersionKind::gvk("agones.dev", "v1", "GameServer");
    let all: Api<kube::api::DynamicObject> = Api::all_with(client, &kube::api::ApiResource::from_gvk(&kind));
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 3);
    assert_eq!(code(all.list(&ListParams::default().fields("spec.x=1")).await), 400);
    assert_eq!(code(all.list(&ListParams::default().labels("a in (b")).await), 400);
    assert_eq!(code(all.list(&ListParams::default().at("999999")).await), 504);
}

#[tokio::test]
async fn metadata_alone_can_be_listed_and_watched() {
    let cluster = Cluster::start().await.unwrap();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "p", "namespace": "games", "annotations": { "a": "1" } },
        "spec": { "containers": [{ "name": "game", "image": "arena" }] },
    });
    cluster.put(pod).unwrap();
    let client = cluster.client().unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "games");
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items[0].name_any(), "p");
    let metadata: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, "games");
    let listed = metadata.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].annotations()["a"], "1");
    assert_eq!(metadata.get("p").await.unwrap().name_any(), "p");
    let mut events = metadata.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert!(matches!(events.try_next().await, Ok(Some(WatchEvent::Added(pod))) if pod.name_any() == "p"));
}

#[tokio::test]
async fn a_group_that_is_not_installed_is_not_found() {
    let options = Options { resources: okg(), ..Options::default() };
    let cluster = Cluster::with(options).await.unwrap();
    let client = cluster.client().unwrap();
    assert_eq!(code(servers(&client).list(&ListParams::default()).await), 404);
    let groups: Vec<_> =
        client.list_api_groups().await.unwrap().groups.into_iter().map(|of| of.name).collect();
    assert!(groups.contains(&"game.kruise.io".to_owned()) && !groups.contains(&"agones.dev".to_owned()));
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let found = client.list_api_group_resources("game.kruise.io/v1alpha1").await.unwrap();
    assert!(found.resources.iter().any(|of| of.name == "gameservers/status"));
    let core = client.list_core_api_resources("v1").await.unwrap();
    assert!(core.resources.iter().any(|of| of.name == "pods" && of.namespaced));
    let options = Options { resources: agones(), ..Options::default() };
    let cluster = Cluster::with(options).await.unwrap();
    let found = cluster.client().unwrap().list_api_group_resources("agones.dev/v1").await.unwrap();
    assert!(!found.resources.iter().any(|of| of.name == "gameservers/status"));
}
