//! The promise, with nothing in place of anything: the real binary, a real Envoy, players on a real WebSocket. Servers
//! come, change and go; each answers on its own host, and nobody who plays notices.
#![allow(clippy::unwrap_used)]

mod testkit;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::envoy::{Answer, Envoy};
use testkit::eventually;
use testkit::fleet::{annotated, server};
use testkit::gate::{Gate, body, comes_from, get, status_word};
use testkit::players::{Game, Player, open};

#[tokio::test]
async fn each_server_answers_on_its_own_host_from_its_file_on_until_it_is_deleted() {
    let games = [Game::start("game0").await, Game::start("game1").await, Game::start("game2").await];
    let servers = [0, 1, 2].map(|n| server(&format!("game{n}"), games[n].port));
    let gate = Gate::of(&servers).await;
    for (n, game) in games.iter().enumerate() {
        let (name, host) = (format!("game{n}"), format!("game{n}.localhost"));
        let answer = gate.get(&host, "/who?are=you").await;
        assert!(comes_from(&answer, &name), "{answer:?}");
        assert_eq!((&body(&answer)["path"], &body(&answer)["host"]), (&json!("/who?are=you"), &json!(host)));
        let player = Player::join(gate.envoy.http, &host).await;
        player.plays().await;
        assert_eq!(game.players(), 1);
        assert!(player.leave().await.is_clean());
    }
    let unknown = gate.get("game3.localhost", "/").await;
    assert_eq!((unknown.status, status_word(&unknown).as_str()), (404, "unknown"));

    let game = Game::start("game3").await;
    let late = server("game3", game.port);
    gate.fleet.put(&late);
    gate.until_from("game3.localhost", "game3").await;

    gate.fleet.remove(&late);
    let answer = gate.until_status("game3.localhost", 404).await;
    assert_eq!(status_word(&answer), "unknown");
    assert!(comes_from(&gate.get("game0.localhost", "/").await, "game0"), "the others stay");
}

/// Everything that Envoy counts about its listeners. They are static: not one of these may ever move.
async fn listener_changes(envoy: &Envoy) -> Vec<(String, u64)> {
    let stats = envoy.stats("listener_manager.").await;
    assert!(!stats.iter().any(|(name, _)| name.contains("lds")), "there is no LDS: {stats:?}");
    let changes = [
        "listener_added",
        "listener_modified",
        "listener_removed",
        "listener_stopped",
        "total_listeners_draining",
    ];
    stats.into_iter().filter(|(name, _)| changes.iter().any(|change| name.ends_with(change))).collect()
}

async fn all_of_the_crowd(gate: &Gate, is_right: impl Fn(&Answer) -> bool) {
    let wrong = async || {
        let answers = stream::iter(0..CROWD)
            .map(|n| get(&gate.envoy, format!("crowd{n}.localhost").leak(), "/"))
            .buffer_unordered(16)
            .filter(|answer| std::future::ready(!is_right(answer)));
        answers.collect::<Vec<_>>().await
    };
    // The last one first: what is polled while the wave runs is one host, not a thousand.
    gate.until(&format!("crowd{}.localhost", CROWD - 1), "/", &is_right).await;
    eventually("all of the crowd answers as it should", wrong, Vec::is_empty).await;
}

const CROWD: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_servers_come_change_and_go_and_no_player_notices() {
    let games = [Game::start("game0").await, Game::start("game1").await, Game::start("game2").await];
    let servers = [0, 1, 2].map(|n| server(&format!("game{n}"), games[n].port));
    let gate = Gate::of(&servers).await;
    let mut players = Vec::new();
    for n in [0, 1, 2, 0, 1, 2] {
        players.push(Player::join(gate.envoy.http, &format!("game{n}.localhost")).await);
    }
    let before = listener_changes(&gate.envoy).await;
    assert!(before.contains(&("listener_manager.listener_added".into(), 1)), "{before:?}");

    let hall = Game::start("hall").await;
    let crowd = || (0..CROWD).map(|n| server(&format!("crowd{n}"), hall.port));
    let part = CROWD / 2;
    gate.fleet.put_all("a.ndjson", crowd().take(part));
    gate.fleet.put_all("b.ndjson", crowd().skip(part));
    all_of_the_crowd(&gate, |answer| comes_from(answer, "hall")).await;

    gate.fleet.put_all("a.ndjson", crowd().take(part).map(|server| annotated(&server, "drain", "true")));
    gate.fleet.put_all("b.ndjson", crowd().skip(part).map(|server| annotated(&server, "drain", "true")));
    all_of_the_crowd(&gate, |answer| answer.status == 503 && status_word(answer) == "draining").await;

    gate.fleet.delete("a.ndjson");
    gate.fleet.delete("b.ndjson");
    all_of_the_crowd(&gate, |answer| answer.status == 404).await;

    for player in players {
        player.plays().await;
        let record = player.leave().await;
        assert!(record.is_clean(), "{record:?}");
    }
    assert_eq!(listener_changes(&gate.envoy).await, before);
    assert_eq!(gate.tidegate.metric("tidegate_nacks_total").await, 0);
}

/// Nothing that can be done to a server takes its players away: it shuts the door, and only the door.
#[tokio::test]
async fn players_stay_while_their_own_server_is_drained_moved_and_deleted() {
    let (game, other) = (Game::start("game0").await, Game::start("other").await);
    let host = "game0.localhost";
    let (ours, moved) = (server("game0", game.port), server("game0", other.port));
    let gate = Gate::of(std::slice::from_ref(&ours)).await;
    let player = Player::join(gate.envoy.http, host).await;
    gate.fleet.put(&annotated(&ours, "drain", "true"));
    gate.until_status(host, 503).await;
    player.plays().await;
    gate.fleet.put(&annotated(&ours, "max-sessions", "50"));
    gate.until_from(host, "game0").await;
    player.plays().await;
    gate.fleet.put(&moved);
    gate.until_from(host, "other").await;
    player.plays().await;
    gate.fleet.remove(&moved);
    gate.until_status(host, 404).await;
    player.plays().await;
    assert_eq!(game.players(), 1);
    let record = player.leave().await;
    assert!(record.is_clean(), "{record:?}");
}

#[tokio::test]
async fn a_table_serves_hosts_and_their_changes() {
    let game = Game::start("game0").await;
    let ours = server("game0", game.port);
    let gate = Gate::with(std::slice::from_ref(&ours), &["--routes", "table"]).await;
    gate.until_from("game0.localhost", "game0").await;
    let player = Player::join(gate.envoy.http, "game0.localhost").await;
    let late = server("late", game.port);
    gate.fleet.put(&late);
    gate.until_from("late.localhost:8080", "game0").await;
    gate.fleet.put(&annotated(&ours, "drain", "true"));
    assert_eq!(status_word(&gate.until_status("game0.localhost", 503).await), "draining");
    gate.fleet.remove(&late);
    assert_eq!(status_word(&gate.until_status("late.localhost", 404).await), "unknown");
    player.plays().await;
    let record = player.leave().await;
    assert!(record.is_clean(), "{record:?}");
}

#[tokio::test]
async fn live_sessions_are_counted_by_server() {
    let game = Game::start("game0").await;
    let gate = Gate::of(&[server("game0", game.port), server("idle", game.port)]).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(open(gate.envoy.http, "game0.localhost", "/").await.unwrap());
    }
    let rows = async || gate.tidegate.get_json("/api/servers").await["servers"].clone();
    let sessions = |rows: &Value| -> Vec<_> {
        rows.as_array().unwrap().iter().map(|row| row["sessions"].clone()).collect()
    };
    eventually("3 and none are reported", rows, |rows| sessions(rows) == [3, 0]).await;
    assert_eq!(gate.tidegate.metric("tidegate_sessions").await, 3);
    sockets.pop();
    eventually("2 and none are reported", rows, |rows| sessions(rows) == [2, 0]).await;
}
