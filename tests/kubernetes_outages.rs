//! An API server that is away, refuses, forgets or lies, and objects that can't be read: nothing that works is lost.
#![allow(clippy::unwrap_used)]

mod testkit;

use cluster::objects::agones_ready;
use cluster::{Fault, Verb};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::ground::{Ground, launch};
use testkit::kube::Kube;
use testkit::players::{Game, Player};
use testkit::tidegate::Tidegate;

const GAMESERVERS: &str = "gameservers.agones.dev";

fn server(name: &str, port: u16) -> Value {
    agones_ready(name, &[("tidegate.dev/host", "<name>.example.com")], "127.0.0.1", port)
}

/// The row of `/readyz` about Agones' GameServers.
async fn watch_row(tidegate: &Tidegate) -> Value {
    let page = tidegate.get_json("/readyz").await;
    let rows = page["sources"]["kube"]["watches"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["kind"] == "agones.dev/v1 GameServer").unwrap_or_default()
}

async fn until_state(ground: &Ground, state: &str) -> Value {
    eventually(
        &format!("the watch is {state}"),
        async || watch_row(&ground.tidegate).await,
        |row| row["state"] == state,
    )
    .await
}

#[tokio::test]
async fn a_restart_with_a_slow_first_list_moves_nothing_at_envoy() {
    let game = Game::start("game").await;
    let servers = ["a", "b", "c"].map(|name| server(name, game.port));
    let mut ground = Ground::with(&servers, &[]).await;
    ground.until_from("c.example.com", "/", "game").await;
    ground.tidegate.is_served_to(1).await;
    let player = Player::join(ground.envoy.http, "a.example.com").await;
    let config =
        async || ground.envoy.admin_get("/config_dump?resource=dynamic_scoped_route_configs").await.len();
    let updates = async |name: &str| {
        let stats = ground.envoy.stats("").await;
        stats.into_iter().filter(|(stat, _)| stat.ends_with(name)).map(|(_, value)| value).sum::<u64>()
    };
    let before = (updates("cds.update_success").await, updates("update_success").await, config().await);
    let slow = ground.kube.faults.set(Verb::List, GAMESERVERS, Fault::Hold);
    ground.tidegate.kill().await;
    ground.tidegate.restart().await;
    // It lists, and nobody is answered before it has.
    eventually("the list is asked for", async || slow.hits(), |hits| *hits > 0).await;
    assert_eq!(ground.tidegate.get("/readyz").await.status, 503);
    assert_eq!(ground.tidegate.metric("tidegate_pushes_total").await, 0);
    assert_eq!(ground.get("b.example.com", "/").await.status, 200);
    slow.lift();
    ground.tidegate.is_served_to(1).await;
    assert_eq!(ground.tidegate.get("/readyz").await.status, 200);
    let sent = |name: &'static str| ground.tidegate.metric(name);
    assert_eq!(
        (sent("tidegate_pushed_resources_total").await, sent("tidegate_pushed_removals_total").await),
        (0, 0)
    );
    assert_eq!(config().await, before.2);
    player.plays().await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_nothing_with_it() {
    let game = Game::start("game").await;
    let ground = Ground::with(&[server("a", game.port)], &[]).await;
    ground.until_from("a.example.com", "/", "game").await;
    let player = Player::join(ground.envoy.http, "a.example.com").await;
    ground.kube.faults.away();
    let row = until_state(&ground, "failing").await;
    assert!(row["why"].as_str().is_some_and(|why| !why.is_empty()), "{row}");
    assert_eq!(ground.get("a.example.com", "/").await.status, 200);
    // What happens meanwhile is heard when it is back.
    ground.kube.create(&server("b", game.port)).await;
    ground.kube.delete_now(&server("a", game.port)).await;
    ground.kube.faults.back().await.unwrap();
    ground.until_from("b.example.com", "/", "game").await;
    ground.until_status("a.example.com", 404).await;
    until_state(&ground, "watching").await;
    assert!(ground.tidegate.metric("tidegate_kube_errors_total").await > 0);
    player.plays().await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_is_said() {
    let game = Game::start("game").await;
    let ground = Ground::with(&[server("a", game.port)], &[]).await;
    ground.until_from("a.example.com", "/", "game").await;
    for code in [403, 404, 500] {
        let (list, watch) = (
            ground.kube.faults.set(Verb::List, GAMESERVERS, Fault::Status(code)),
            ground.kube.faults.set(Verb::Watch, GAMESERVERS, Fault::Status(code)),
        );
        ground.kube.faults.cut_watches(GAMESERVERS);
        let row = until_state(&ground, "failing").await;
        assert!(row["why"].as_str().unwrap().contains(&code.to_string()), "{row}");
        assert_eq!(ground.get("a.example.com", "/").await.status, 200);
        drop((list, watch));
        until_state(&ground, "watching").await;
    }
    assert_eq!(ground.get("a.example.com", "/").await.status, 200);
}

#[tokio::test]
async fn a_version_that_is_gone_is_a_new_list_and_a_difference() {
    let game = Game::start("game").await;
    let ground = Ground::with(&["a", "b"].map(|name| server(name, game.port)), &[]).await;
    ground.until_from("b.example.com", "/", "game").await;
    ground.tidegate.is_served_to(1).await;
    let (lists, before) =
        (ground.kube.faults.journal().requests(Verb::List, GAMESERVERS), ground.pushes().await);
    ground.kube.faults.expire_watches(GAMESERVERS);
    let listed = async || ground.kube.faults.journal().requests(Verb::List, GAMESERVERS);
    eventually("it lists again", listed, |count| *count > lists).await;
    ground.kube.create(&server("c", game.port)).await;
    ground.until_from("c.example.com", "/", "game").await;
    assert_eq!(ground.pushes().await - before, 2, "the cluster and the scope of the new one");
}

#[tokio::test]
async fn a_list_of_nothing_is_not_believed() {
    let game = Game::start("game").await;
    let ground = Ground::with(&["a", "b"].map(|name| server(name, game.port)), &[]).await;
    ground.until_from("b.example.com", "/", "game").await;
    let empty = ground.kube.faults.set(Verb::List, GAMESERVERS, Fault::EmptyList);
    ground.kube.faults.expire_watches(GAMESERVERS);
    let row = until_state(&ground, "held").await;
    assert_eq!(row["objects"], 2, "{row}");
    assert_eq!(ground.tidegate.metric("tidegate_removals_held").await, 1);
    let page = ground.tidegate.get_json("/readyz").await;
    assert!(page["sources"]["kube"]["held"].as_str().unwrap().contains("agones.dev/v1 GameServer"), "{page}");
    for host in ["a.example.com", "b.example.com"] {
        assert_eq!(ground.get(host, "/").await.status, 200);
    }
    // A list with something in it is believed again, in all that it lacks.
    ground.kube.delete_now(&server("a", game.port)).await;
    empty.lift();
    ground.kube.faults.expire_watches(GAMESERVERS);
    ground.until_status("a.example.com", 404).await;
    assert_eq!(ground.get("b.example.com", "/").await.status, 200);
    until_state(&ground, "watching").await;
    assert_eq!(ground.tidegate.metric("tidegate_removals_held").await, 0);
}

#[tokio::test]
async fn an_object_that_can_not_be_read_keeps_its_last_version_and_harms_no_other() {
    let game = Game::start("game").await;
    let ground = Ground::with(&["a", "b"].map(|name| server(name, game.port)), &[]).await;
    ground.until_from("b.example.com", "/", "game").await;
    let a = server("a", game.port);
    ground.kube.patch(&a, &json!({ "spec": { "ports": "seven thousand" } })).await;
    let problems = async || ground.tidegate.get_json("/readyz").await["sources"]["kube"]["problems"].clone();
    let told = eventually("it is reported", problems, |problems| problems[0].is_object()).await;
    let at = told[0]["field"].as_str().unwrap();
    assert!(at.starts_with("agones.dev/v1 GameServer") && at.ends_with("/a"), "{told}");
    ground.kube.create(&server("c", game.port)).await;
    ground.until_from("c.example.com", "/", "game").await;
    assert_eq!(ground.get("a.example.com", "/").await.status, 200);
    ground.kube.patch(&a, &json!({ "spec": { "ports": a["spec"]["ports"] } })).await;
    eventually("it is mended", problems, |problems| problems.as_array().is_some_and(Vec::is_empty)).await;
}

#[tokio::test]
async fn a_list_that_is_forbidden_at_start_answers_no_envoy_and_says_why() {
    let kube = Kube::start().await;
    let forbidden = kube.faults.set(Verb::List, "pods", Fault::Status(403));
    let tidegate = Tidegate::launch(launch(&kube, &[])).await;
    let page = eventually(
        "it says what it may not do",
        async || tidegate.get_json("/readyz").await,
        |page| page["sources"]["kube"]["watches"].to_string().contains("403"),
    )
    .await;
    assert_eq!((&page["ready"], &page["awaited"]), (&json!(false), &json!(["okg"])), "{page}");
    forbidden.lift();
    eventually("it is ready", async || tidegate.get("/readyz").await.status, |status| *status == 200).await;
}
