//! Clusters on demand: a real Envoy holds the cluster of a server from the first request for it on, and no other.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::envoy::Envoy;
use testkit::eventually;
use testkit::fleet::{Fleet, annotated, server};
use testkit::gate::{Gate, comes_from, status_word};
use testkit::players::{Game, Player};
use testkit::wire::{Wire, names};
use tidegate::translate::{CLUSTER, SCOPE};

const ON_DEMAND: [&str; 2] = ["--clusters", "on-demand"];

/// The servers whose clusters Envoy holds.
async fn held(envoy: &Envoy) -> BTreeSet<String> {
    let text = envoy.admin_get("/clusters").await;
    let clusters = text.lines().filter_map(|line| line.strip_prefix("gs/files/default/"));
    clusters.filter_map(|line| Some(line.split_once("::")?.0.to_owned())).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn the_first_request_brings_the_cluster_and_changes_follow_it() {
    let (a, b) = (Game::start("a").await, Game::start("b").await);
    let shut = annotated(&server("shut", a.port), "drain", "true");
    let fleet = [server("a", a.port), server("b", b.port), server("cold", a.port), shut];
    let gate = Gate::with(&fleet, &ON_DEMAND).await;
    assert_eq!(held(&gate.envoy).await, set(&[]));
    let answer = gate.get("a.localhost", "/").await;
    assert!(comes_from(&answer, "a"), "the very first: {answer:?}");
    let player = Player::join(gate.envoy.http, "b.localhost").await;
    player.plays().await;
    assert_eq!(held(&gate.envoy).await, set(&["a", "b"]), "and no other");
    assert_eq!(gate.get("nobody.localhost", "/").await.status, 404);

    // A held cluster is kept up to date: the server moves.
    let moved = Game::start("moved").await;
    gate.fleet.put(&server("a", moved.port));
    gate.until_from("a.localhost", "moved").await;

    // A server that goes takes its cluster with it; its host is unknown then, and at once.
    gate.fleet.remove(&server("a", moved.port));
    gate.until_status("a.localhost", 404).await;
    eventually("its cluster goes", async || held(&gate.envoy).await, |held| *held == set(&["b"])).await;

    // A server of the same name comes again.
    gate.fleet.put(&server("a", a.port));
    gate.until_from("a.localhost", "a").await;

    // A door that is shut needs no cluster, and one that opens brings it.
    let shut = gate.get("shut.localhost", "/").await;
    assert_eq!((shut.status, status_word(&shut).as_str()), (503, "draining"));
    assert_eq!(held(&gate.envoy).await, set(&["a", "b"]));
    gate.fleet.put(&server("shut", a.port));
    gate.until_from("shut.localhost", "a").await;
    player.plays().await;
    assert!(player.leave().await.is_clean());
    assert_eq!(gate.tidegate.metric("tidegate_nacks_total").await, 0);
}

#[tokio::test]
async fn an_envoy_that_comes_back_asks_for_what_it_holds_and_is_sent_only_what_changed() {
    let game = Game::start("game").await;
    let servers = ["a", "b", "c", "d"].map(|name| server(name, game.port));
    let mut gate = Gate::with(&servers, &ON_DEMAND).await;
    for host in ["a.localhost", "b.localhost", "c.localhost"] {
        assert_eq!(gate.get(host, "/").await.status, 200);
    }
    let player = Player::join(gate.envoy.http, "a.localhost").await;
    gate.tidegate.is_served_to(1).await;
    gate.tidegate.kill().await;
    assert_eq!(gate.get("b.localhost", "/").await.status, 200, "what it holds needs no control plane");
    gate.tidegate.restart().await;
    gate.tidegate.is_served_to(1).await;
    assert_eq!(gate.tidegate.metric("tidegate_pushed_resources_total").await, 0);
    assert_eq!(gate.tidegate.metric("tidegate_pushed_removals_total").await, 0);
    assert_eq!(gate.get("d.localhost", "/").await.status, 200, "a cold one, by the new stream");

    gate.tidegate.kill().await;
    gate.fleet.remove(&servers[1]);
    let moved = Game::start("moved").await;
    gate.fleet.put(&server("c", moved.port));
    gate.tidegate.restart().await;
    gate.until_from("c.localhost", "moved").await;
    gate.until_status("b.localhost", 404).await;
    eventually("b's cluster goes", async || held(&gate.envoy).await, |held| *held == set(&["a", "c", "d"]))
        .await;
    player.plays().await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn names_are_answered_at_once_whether_they_exist_or_not() {
    let servers: Vec<Value> = (0..50).map(|n| server(&format!("game-{n}"), 7000 + n)).collect();
    let fleet = Fleet::of(&servers);
    let tidegate = testkit::tidegate::Tidegate::start(&fleet.path()).await;
    let mut wire = Wire::open(tidegate.xds, "wire", "default").await;
    // No clusters are asked for: scopes do not wait for any.
    wire.subscribe(SCOPE, &["*"]).await;
    assert_eq!(wire.take(SCOPE).await.resources.len(), 50);
    wire.subscribe(CLUSTER, &["gs/files/default/game-7", "gs/files/default/none"]).await;
    let answer = wire.take(CLUSTER).await;
    assert_eq!(names(&answer), ["gs/files/default/game-7"]);
    assert_eq!(answer.removed_resources, ["gs/files/default/none"]);

    // Only what is held is kept up to date.
    fleet.put(&server("game-8", 9000));
    fleet.put(&server("game-7", 9000));
    assert_eq!(names(&wire.take(CLUSTER).await), ["gs/files/default/game-7"]);
}
