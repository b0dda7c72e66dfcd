//! The control plane dies, comes back, or is another one: players play on, and no Envoy is told anything twice.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::fs;

use testkit::eventually;
use testkit::fleet::{Fleet, annotated, server};
use testkit::gate::Gate;
use testkit::players::{Game, Player};
use testkit::tidegate::Tidegate;
use testkit::wire::{Wire, names};
use tidegate::translate::{CLUSTER, SCOPE};

async fn pushed(tidegate: &Tidegate) -> (u64, u64) {
    (
        tidegate.metric("tidegate_pushed_resources_total").await,
        tidegate.metric("tidegate_pushed_removals_total").await,
    )
}

#[tokio::test]
async fn players_come_and_play_while_the_control_plane_is_dead_and_its_return_resends_nothing() {
    let game = Game::start("game").await;
    let servers = ["a", "b", "c"].map(|name| server(name, game.port));
    let mut gate = Gate::of(&servers).await;
    let inside = Player::join(gate.envoy.http, "a.localhost").await;
    inside.plays().await;
    gate.tidegate.kill().await;
    let late = Player::join(gate.envoy.http, "b.localhost").await;
    late.plays().await;
    inside.plays().await;
    assert_eq!(gate.get("nobody.localhost", "/").await.status, 404);

    gate.tidegate.restart().await;
    gate.tidegate.is_served_to(1).await;
    assert_eq!(gate.tidegate.metric("tidegate_streams").await, 1);
    assert_eq!(pushed(&gate.tidegate).await, (0, 0));
    for player in [inside, late] {
        player.plays().await;
        assert!(player.leave().await.is_clean());
    }
}

#[tokio::test]
async fn what_changed_while_it_was_away_is_sent_alone() {
    let game = Game::start("game").await;
    let servers = ["a", "b", "c", "d"].map(|name| server(name, game.port));
    let mut gate = Gate::of(&servers).await;
    gate.tidegate.is_served_to(1).await;
    gate.tidegate.kill().await;
    gate.fleet.put(&annotated(&servers[0], "drain", "true"));
    gate.fleet.remove(&servers[1]);
    gate.fleet.put(&server("new", game.port));
    gate.tidegate.restart().await;
    gate.until_status("a.localhost", 503).await;
    gate.until_status("b.localhost", 404).await;
    gate.until_from("new.localhost", "game").await;
    gate.tidegate.is_served_to(1).await;
    // The scope of the drained one, the cluster and the scope of the new one; both of the deleted one.
    assert_eq!(pushed(&gate.tidegate).await, (3, 2));
    assert_eq!(gate.get("c.localhost", "/").await.status, 200);
}

/// To xDS the name `*` alone means everything: an Envoy that reconnects does not tell that it holds a resource named so.
#[tokio::test]
async fn the_server_of_all_other_hosts_that_goes_while_it_is_away_is_gone() {
    let game = Game::start("game").await;
    let any = annotated(&server("any", game.port), "host", "*");
    let mut gate = Gate::of(&[server("a", game.port), any.clone()]).await;
    assert_eq!(gate.get("nobody.localhost", "/").await.status, 200);
    gate.tidegate.is_served_to(1).await;
    gate.tidegate.kill().await;
    gate.tidegate.restart().await;
    gate.tidegate.is_served_to(1).await;
    assert_eq!(pushed(&gate.tidegate).await, (0, 0), "it stays, and is not sent again");
    gate.tidegate.kill().await;
    gate.fleet.remove(&any);
    gate.tidegate.restart().await;
    gate.until_status("nobody.localhost", 404).await;
    assert_eq!(gate.get("a.localhost", "/").await.status, 200);
}

#[tokio::test]
async fn an_envoy_that_moves_to_another_replica_is_sent_nothing() {
    let mut servers: Vec<_> = (0..200).map(|n| server(&format!("game-{n}"), 7000 + n)).collect();
    // A host of many paths is a map inside: its order must not depend on the replica.
    servers.extend((0..50).map(|n| {
        let server = annotated(&server(&format!("path-{n}"), 9000 + n), "host", "paths.localhost");
        annotated(&server, "path", if n == 0 { "/" } else { "/<name>" })
    }));
    let fleet = Fleet::of(&[]);
    fleet.put_all("fleet.ndjson", servers);
    let one = Tidegate::start(&fleet.path()).await;
    let mut wire = Wire::synced(one.xds, "mover", "default").await;
    wire.take_rest().await;
    assert_eq!((wire.held[CLUSTER].len(), wire.held[SCOPE].len()), (250, 201));

    let two = Tidegate::start(&fleet.path()).await;
    let fresh = Wire::synced(two.xds, "fresh", "default").await;
    assert_eq!(wire.held[CLUSTER], fresh.held[CLUSTER], "versions are hashes of content");
    assert_eq!(wire.held[SCOPE], fresh.held[SCOPE]);
    drop(fresh);

    let (before, _) = pushed(&two).await;
    let mut moved = Wire::open(two.xds, "mover", "default").await;
    moved.held = wire.held.clone();
    moved.subscribe_all().await;
    let told: Vec<_> = moved.take_rest().await;
    assert!(
        told.iter().all(|told| told.resources.is_empty() && told.removed_resources.is_empty()),
        "{told:?}"
    );
    assert_eq!(pushed(&two).await.0, before);

    // The stream is alive: a change comes, and comes alone.
    fleet.put(&server("late", 7999));
    assert_eq!(names(&moved.take(CLUSTER).await), ["gs/files/default/late"]);
    assert_eq!(names(&moved.take(SCOPE).await), ["late.localhost"]);
}

#[tokio::test]
async fn no_envoy_is_answered_before_the_fleet_was_listed() {
    let fleet = Fleet::missing();
    let tidegate = Tidegate::start(&fleet.path()).await;
    let mut wire = Wire::open(tidegate.xds, "early", "default").await;
    wire.subscribe_all().await;
    eventually(
        "the stream is open",
        async || tidegate.metric("tidegate_streams").await,
        |streams| *streams == 1,
    )
    .await;
    let answer = tidegate.get("/readyz").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("\"awaited\":[\"files\",\"files-agones\",\"files-okg\"]"), "{answer:?}");
    assert_eq!(tidegate.get("/healthz").await.status, 200);
    assert_eq!(tidegate.metric("tidegate_synced").await, 0);
    assert_eq!(tidegate.metric("tidegate_pushes_total").await, 0);

    // The directory comes with its server: the first answer knows it.
    fs::create_dir(fleet.elsewhere()).unwrap();
    fs::write(fleet.elsewhere().join("game.json"), server("game", 7000).to_string()).unwrap();
    fs::rename(fleet.elsewhere(), fleet.path()).unwrap();
    assert_eq!(names(&wire.take(CLUSTER).await), ["gs/files/default/game"]);
    assert_eq!(names(&wire.take(SCOPE).await), ["game.localhost"]);
    let ready =
        eventually("it is ready", async || tidegate.get("/readyz").await, |answer| answer.status == 200)
            .await;
    assert!(ready.body.contains("\"awaited\":[]"), "{ready:?}");
}

#[tokio::test]
async fn an_envoy_keeps_all_it_has_while_a_new_control_plane_can_not_list_its_fleet() {
    let game = Game::start("game").await;
    let servers = ["a", "b"].map(|name| server(name, game.port));
    let mut gate = Gate::of(&servers).await;
    let player = Player::join(gate.envoy.http, "a.localhost").await;
    gate.tidegate.kill().await;
    fs::rename(gate.fleet.path(), gate.fleet.elsewhere()).unwrap();
    gate.tidegate.restart().await;
    let streams = async || gate.tidegate.metric("tidegate_streams").await;
    eventually("Envoy is back", streams, |streams| *streams == 1).await;
    assert_eq!(gate.tidegate.get("/readyz").await.status, 503);
    for host in ["a.localhost", "b.localhost"] {
        assert_eq!(gate.get(host, "/").await.status, 200, "{host}");
    }
    player.plays().await;

    fs::rename(gate.fleet.elsewhere(), gate.fleet.path()).unwrap();
    gate.tidegate.is_served_to(1).await;
    assert_eq!(pushed(&gate.tidegate).await, (0, 0));
    assert_eq!(gate.get("b.localhost", "/").await.status, 200);
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn what_a_new_control_plane_can_not_read_is_left_to_envoy() {
    let game = Game::start("game").await;
    let mut gate = Gate::of(&[server("a", game.port)]).await;
    gate.fleet.put_all("more.ndjson", [server("b", game.port)]);
    gate.until_status("b.localhost", 200).await;
    gate.tidegate.kill().await;
    gate.fleet.write("more.ndjson", "{\"apiVersion\": \"tidegate.dev/v1\", \"ki");
    gate.tidegate.restart().await;
    gate.tidegate.is_served_to(1).await;
    assert_eq!(gate.tidegate.metric("tidegate_removals_held").await, 1);
    assert_eq!(gate.get("b.localhost", "/").await.status, 200, "nobody knows that it is gone");

    gate.fleet.put_all("more.ndjson", [server("c", game.port)]);
    gate.until_status("b.localhost", 404).await;
    assert_eq!(gate.get("c.localhost", "/").await.status, 200);
    assert_eq!(gate.tidegate.metric("tidegate_removals_held").await, 0);
}

#[tokio::test]
async fn an_empty_fleet_wipes_no_envoy_that_comes_back() {
    let game = Game::start("game").await;
    let a = server("a", game.port);
    let mut gate = Gate::of(std::slice::from_ref(&a)).await;
    gate.tidegate.kill().await;
    gate.fleet.remove(&a);
    gate.tidegate.restart().await;
    gate.tidegate.is_served_to(1).await;
    assert_eq!(gate.get("a.localhost", "/").await.status, 200);
    gate.fleet.put(&server("b", game.port));
    gate.until_status("a.localhost", 404).await;
    assert_eq!(gate.get("b.localhost", "/").await.status, 200);
}

#[tokio::test]
async fn a_fleet_directory_that_vanishes_under_a_running_control_plane_takes_nobody_with_it() {
    let game = Game::start("game").await;
    let ours = server("a", game.port);
    let gate = Gate::of(std::slice::from_ref(&ours)).await;
    let before = pushed(&gate.tidegate).await;
    fs::rename(gate.fleet.path(), gate.fleet.elsewhere()).unwrap();
    let held = async || gate.tidegate.metric("tidegate_removals_held").await;
    eventually("it says that it holds removals back", held, |held| *held == 1).await;
    assert_eq!(gate.get("a.localhost", "/").await.status, 200);
    fs::rename(gate.fleet.elsewhere(), gate.fleet.path()).unwrap();
    eventually("it holds nothing back", held, |held| *held == 0).await;
    assert_eq!(pushed(&gate.tidegate).await, before);
    gate.fleet.remove(&ours);
    gate.until_status("a.localhost", 404).await;
}
