//! `tidegate drain-envoy` before a real Envoy with players: what a rolling update of the gateways does to them.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::time::Instant;

use testkit::envoy::exchange;
use testkit::eventually;
use testkit::fleet::server;
use testkit::gate::Gate;
use testkit::players::{Game, Player};
use testkit::tidegate::{printed, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn an_envoy_is_emptied_and_those_inside_play_on() {
    let game = Game::start("game").await;
    let gate = Gate::of(&[server("a", game.port)]).await;
    let inside = Player::join(gate.envoy.http, "a.localhost").await;
    inside.plays().await;
    let admin = gate.envoy.admin.to_string();
    let drain = tokio::spawn(async move {
        run(&["drain-envoy", "--envoy-admin", &admin, "--at-least", "0", "--at-most", "3540"]).await
    });

    // A connection that would be kept is closed after its answer, so that the next goes to another Envoy.
    let keep = "GET / HTTP/1.1\r\nhost: a.localhost\r\n\r\n";
    let answer = eventually(
        "Envoy says good-bye to each",
        async || exchange(gate.envoy.http, keep.as_bytes()).await.unwrap(),
        |answer| answer.header("connection") == Some("close"),
    )
    .await;
    assert_eq!(answer.status, 200, "who comes meanwhile is served");
    let late = Player::join(gate.envoy.http, "a.localhost").await;
    for player in [inside, late] {
        player.plays().await;
        assert!(!drain.is_finished(), "players are left");
        let record = player.leave().await;
        assert!(record.is_clean(), "{record:?}");
    }
    assert_eq!(printed(drain.await.unwrap()), "empty\n");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_and_says_so() {
    let game = Game::start("game").await;
    let gate = Gate::of(&[server("a", game.port)]).await;
    let inside = Player::join(gate.envoy.http, "a.localhost").await;
    let admin = gate.envoy.admin.to_string();
    let start = Instant::now();
    let said = run(&["drain-envoy", "--envoy-admin", &admin, "--at-least", "2", "--at-most", "2"]).await;
    assert!(start.elapsed().as_secs() >= 2);
    assert_eq!(printed(said), "the time is over; requests and WebSockets left: 1\n");
    inside.plays().await;
    assert!(inside.leave().await.is_clean());
}

#[tokio::test]
async fn where_no_envoy_is_a_drain_fails_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let said = run(&["drain-envoy", "--envoy-admin", &free]).await;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && error.contains(&free) && error.contains("--envoy-admin"), "{error}");
}

/// An admin page that is too busy for the first request, and that has nobody left then.
#[tokio::test]
async fn what_a_busy_envoy_does_not_answer_is_said_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let admin = tokio::spawn(async move {
        let mut asked = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            asked.push(request.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" "));
            if asked.len() == 1 {
                continue;
            }
            let body = r#"{"stats":[{"name":"http.http.downstream_rq_active","value":0}]}"#;
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            if asked.len() == 3 {
                return asked;
            }
        }
    });
    let said = run(&["drain-envoy", "--envoy-admin", &address, "--at-least", "0"]).await;
    assert_eq!(printed(said), "empty\n");
    assert_eq!(admin.await.unwrap(), ["POST /healthcheck/fail", "POST /healthcheck/fail", "GET /stats"]);
}

/// As in a Pod: the program is copied beside the bootstrap, and runs from there.
#[tokio::test]
async fn the_program_can_be_copied_to_where_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, file) = (folder.path().join("tidegate"), folder.path().join("envoy.yaml"));
    let (copy, file) = (copy.to_str().unwrap(), file.to_str().unwrap());
    assert_eq!(printed(run(&["bootstrap", "-o", file, "--install", copy]).await), "");
    let version = std::process::Command::new(copy).arg("--version").output().unwrap();
    assert!(printed(version).starts_with("tidegate "));
    assert_eq!(std::fs::read_to_string(file).unwrap(), printed(run(&["bootstrap"]).await));
    let nowhere = run(&["bootstrap", "-o", "/nowhere/envoy.yaml"]).await;
    let error = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && error.contains("--output: writing /nowhere/envoy.yaml"), "{error}");
}
