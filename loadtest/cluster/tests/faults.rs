//! The proxy and its faults, as a real kube-rs client meets them.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use cluster::{Cluster, Fault, Faults, Verb};
use common::{Heard, LIMIT, code, eventually, server, servers};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::Config;
use serde_json::json;

const SERVERS: &str = "gameservers.agones.dev";

async fn behind() -> (Cluster, Faults, kube::Client) {
    let cluster = Cluster::start().await.unwrap();
    cluster.put(server("a", &json!({}))).unwrap();
    let faults = Faults::start(cluster.client().unwrap()).await.unwrap();
    let client = cluster::client(faults.address()).unwrap();
    (cluster, faults, client)
}

#[tokio::test]
async fn without_faults_all_passes_and_is_noted() {
    let (cluster, faults, client) = behind().await;
    let mut heard = Heard::from(servers(&client), Config::default());
    assert_eq!(heard.take(3).await, ["init", "page a", "done"]);
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "x": "1" } } }));
    servers(&client).patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(heard.next().await, "apply a");
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let counts = faults.journal().counts();
    assert_eq!(counts[&(Verb::List, SERVERS.to_owned(), 200)], 1);
    assert_eq!(counts[&(Verb::Patch, SERVERS.to_owned(), 200)], 1);
    let writes = faults.journal().writes();
    assert_eq!(writes[0].path, "/apis/agones.dev/v1/namespaces/games/gameservers/a?");
    assert_eq!(writes[0].json(), cluster.journal().writes()[0].json());
}

#[tokio::test]
async fn a_held_list_waits_until_it_is_released() {
    let (cluster, faults, client) = behind().await;
    let rule = faults.set(Verb::List, SERVERS, Fault::Hold);
    let listed = tokio::spawn({
        let api = servers(&client);
        async move { api.list(&ListParams::default()).await }
    });
    eventually("the list is asked", async || rule.hits(), |hits| *hits == 1).await;
    assert_eq!(cluster.journal().requests(Verb::List, SERVERS), 0, "it is held before the server");
    assert!(!listed.is_finished());
    // Another verb, another kind: not meant.
    servers(&client).get("a").await.unwrap();
    rule.lift();
    let listed = tokio::time::timeout(LIMIT, listed).await.unwrap().unwrap().unwrap();
    assert_eq!(listed.items.len(), 1);
}

#[tokio::test]
async fn codes_empty_lists_and_delays() {
    let (cluster, faults, client) = behind().await;
    let api = servers(&client);
    for wanted in [403, 404, 410, 429, 500] {
        let rule = faults.set(Verb::List, SERVERS, Fault::Status(wanted));
        assert_eq!(code(api.list(&ListParams::default()).await), wanted);
        rule.lift();
    }
    let rule = faults.set(None, None, Fault::Status(500));
    assert_eq!(code(api.get("a").await), 500);
    drop(rule);
    let rule = faults.set(Verb::List, SERVERS, Fault::EmptyList);
    let empty = api.list(&ListParams::default()).await.unwrap();
    assert!(empty.items.is_empty());
    assert_eq!(empty.metadata.resource_version.unwrap(), cluster.revision().to_string());
    drop(rule);
    let _rule = faults.set(Verb::List, SERVERS, Fault::Delay(Duration::from_millis(30)));
    let start = std::time::Instant::now();
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn watches_are_cut_expired_and_silenced() {
    let (cluster, faults, client) = behind().await;
    let mut heard = Heard::from(servers(&client), Config::default());
    heard.take(3).await;
    let change = |name: &str| cluster.put(server(name, &json!({}))).unwrap();
    change("b");
    assert_eq!(heard.next().await, "apply b");
    assert_eq!(faults.cut_watches(SERVERS), 1);
    change("c");
    assert_eq!(heard.next().await, "apply c", "it goes on where it was, without a list");
    assert_eq!(faults.journal().requests(Verb::List, SERVERS), 1);

    assert_eq!(faults.expire_watches(None), 1);
    let told = heard.next().await;
    assert!(told.starts_with("error"), "{told}");
    assert_eq!(heard.take(5).await, ["init", "page a", "page b", "page c", "done"]);

    change("d");
    assert_eq!(heard.next().await, "apply d");
    let rule = faults.set(Verb::Watch, SERVERS, Fault::Silent);
    change("e");
    let silent = tokio::time::timeout(Duration::from_millis(50), heard.next()).await;
    assert!(silent.is_err(), "nothing comes through: {silent:?}");
    assert_eq!(faults.open_watches(SERVERS), 1);
    rule.lift();
    assert_eq!(heard.next().await, "apply e");
}

#[tokio::test]
async fn away_is_refused_and_back_is_where_it_was() {
    let (cluster, faults, client) = behind().await;
    let mut heard = Heard::from(servers(&client), Config::default());
    heard.take(3).await;
    faults.away();
    assert!(servers(&client).get("a").await.is_err());
    cluster.put(server("b", &json!({}))).unwrap();
    faults.back().await.unwrap();
    servers(&client).get("b").await.unwrap();
    loop {
        let next = heard.next().await;
        if next == "apply b" {
            break;
        }
        assert!(next.starts_with("error"), "{next}");
    }
    drop(cluster);
    assert_eq!(code(servers(&client).get("a").await), 503, "the server behind it is gone");
}
