//! The demo's game over real sockets: what players see of each other, and what the arcade starts and stops.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidegate::demo::game::{Arcade, MESSAGE_LIMIT, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const LIMIT: Duration = Duration::from_secs(10);
const ANYWHERE: &str = "127.0.0.1:0";

struct Player {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    welcome: Value,
}

impl Player {
    async fn join(address: SocketAddr) -> Self {
        Self::join_at(address, "/ws").await
    }

    async fn join_at(address: SocketAddr, path: &str) -> Self {
        let (socket, _) =
            timeout(LIMIT, connect_async(format!("ws://{address}{path}"))).await.unwrap().unwrap();
        let mut player = Self { socket, welcome: Value::Null };
        player.welcome = player.until(|message| message["type"] == "welcome").await;
        player
    }

    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn paint(&mut self, colour: u8, x: u8, y: u8) {
        self.say(json!({ "type": "paint", "colour": colour, "cells": [[x, y]] })).await;
    }

    /// The first message that is meant, however many come before it.
    async fn until(&mut self, meant: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else { continue };
                let message = serde_json::from_str(&text).unwrap();
                if meant(&message) {
                    return message;
                }
            }
        };
        timeout(LIMIT, wait).await.unwrap()
    }

    async fn until_painted(&mut self, cell: Value) {
        self.until(|message| message["cells"].as_array().is_some_and(|cells| cells.contains(&cell))).await;
    }

    /// Reads to the end, and says with what code it closed.
    async fn until_closed(&mut self) -> Option<u16> {
        let wait = async {
            let mut code = None;
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    code = Some(frame.code.into());
                }
            }
            code
        };
        timeout(LIMIT, wait).await.unwrap()
    }
}

fn wanted(names: &[&str]) -> Vec<(String, SocketAddr)> {
    names.iter().map(|&name| (name.to_owned(), ANYWHERE.parse().unwrap())).collect()
}

async fn one_game() -> (Arcade, SocketAddr) {
    let mut arcade = Arcade::new();
    let changes = arcade.reconcile(&wanted(&["game0"])).await;
    assert!(changes.failed.is_empty(), "{changes:?}");
    (arcade, changes.started[0].1)
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: game0\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(LIMIT, exchange).await.unwrap()
}

#[tokio::test]
async fn two_players_see_each_others_paint_and_cursor() {
    let (arcade, address) = one_game().await;
    let mut ann = Player::join(address).await;
    let mut bob = Player::join(address).await;
    ann.until(|message| message["type"] == "joined" && message["player"]["id"] == bob.welcome["you"]).await;
    assert_eq!(arcade.players(), [("game0".to_owned(), 2)]);

    ann.paint(3, 4, 5).await;
    bob.until_painted(json!([4, 5, 3])).await;
    bob.paint(7, 47, 26).await;
    ann.until_painted(json!([47, 26, 7])).await;

    bob.say(json!({ "type": "cursor", "at": [1.5, 2.25] })).await;
    let cursor = json!([bob.welcome["you"], [1.5, 2.25]]);
    ann.until(|message| message["cursors"].as_array().is_some_and(|all| all.contains(&cursor))).await;

    bob.socket.close(None).await.unwrap();
    ann.until(|message| message["type"] == "left" && message["id"] == bob.welcome["you"]).await;
}

#[tokio::test]
async fn a_late_joiner_gets_the_canvas() {
    let (_arcade, address) = one_game().await;
    let mut early = Player::join(address).await;
    early.paint(2, 1, 0).await;
    early.until_painted(json!([1, 0, 2])).await;

    let late = Player::join(address).await;
    assert_eq!(late.welcome["server"], "game0");
    let cells = late.welcome["cells"].as_str().unwrap();
    assert_eq!(cells.len(), 48 * 27);
    assert!(cells.starts_with("aca"), "{cells}");
    assert_eq!(late.welcome["players"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_malformed_message_is_answered_and_forgiven() {
    let (_arcade, address) = one_game().await;
    let mut player = Player::join(address).await;
    let mut other = Player::join(address).await;
    let nonsense = [
        "",
        "{",
        "null",
        "[]",
        r#"{"type":"fly"}"#,
        r#"{"type":"ping","n":-1}"#,
        r#"{"type":"cursor","at":[1e999,0]}"#,
        r#"{"type":"cursor","at":[0]}"#,
        r#"{"type":"paint","colour":13,"cells":[[0,0]]}"#,
        r#"{"type":"paint","colour":1,"cells":[[48,0]]}"#,
        r#"{"type":"paint","colour":1,"cells":[[-1,256]]}"#,
    ];
    for text in nonsense.map(str::to_owned).into_iter().chain(["[".repeat(MESSAGE_LIMIT)]) {
        player.socket.send(Message::text(text)).await.unwrap();
        player.until(|message| message["type"] == "error").await;
    }
    player.socket.send(Message::binary(vec![0xff; 9])).await.unwrap();
    player.until(|message| message["type"] == "error").await;

    player.paint(1, 0, 0).await;
    other.until_painted(json!([0, 0, 1])).await;
}

#[tokio::test]
async fn an_oversized_message_ends_its_sender_and_nobody_else() {
    let (_arcade, address) = one_game().await;
    let mut loud = Player::join(address).await;
    let mut other = Player::join(address).await;
    loud.socket.send(Message::text("x".repeat(MESSAGE_LIMIT + 1))).await.unwrap();
    loud.until_closed().await;
    other.until(|message| message["type"] == "left" && message["id"] == loud.welcome["you"]).await;
    other.say(json!({ "type": "ping", "n": 7 })).await;
    assert_eq!(other.until(|message| message["type"] == "pong").await["n"], 7);
}

#[tokio::test]
async fn who_paints_too_fast_is_told() {
    let (_arcade, address) = one_game().await;
    let mut player = Player::join(address).await;
    let cells: Vec<_> = (0..48).map(|x| (x, 0)).collect();
    for _ in 0..60 {
        player.say(json!({ "type": "paint", "colour": 1, "cells": cells })).await;
    }
    let error = player.until(|message| message["type"] == "error").await;
    assert_eq!(error["message"], "you paint too fast");
}

#[tokio::test]
async fn a_player_who_never_reads_holds_up_nobody() {
    let (_arcade, address) = one_game().await;
    let _deaf = Player::join(address).await;
    let mut ann = Player::join(address).await;
    let mut bob = Player::join(address).await;
    for round in 0..100_u8 {
        ann.paint(1 + round % 2, round % 48, 0).await;
        bob.until_painted(json!([round % 48, 0, 1 + round % 2])).await;
    }
}

#[tokio::test]
async fn reconcile_starts_what_is_missing_and_stops_what_is_not_wanted() {
    let mut arcade = Arcade::new();
    let first = arcade.reconcile(&wanted(&["game0", "game1"])).await;
    assert_eq!(first.started.len(), 2);
    let (kept, stopped) = (first.started[0].1, first.started[1].1);
    let mut stays = Player::join(kept).await;
    let mut goes = Player::join(stopped).await;
    assert!(arcade.reconcile(&wanted(&["game1", "game0"])).await.is_empty());

    let second = arcade.reconcile(&wanted(&["game0", "game2"])).await;
    assert_eq!(second.stopped, [("game1".to_owned(), stopped)]);
    assert_eq!(second.started[0].0, "game2");
    assert_eq!(goes.until_closed().await, Some(1001));
    assert!(TcpStream::connect(stopped).await.is_err());

    stays.say(json!({ "type": "ping", "n": 1 })).await;
    stays.until(|message| message["type"] == "pong").await;
    assert_eq!(arcade.players(), [("game0".to_owned(), 1), ("game2".to_owned(), 0)]);
}

#[tokio::test]
async fn a_server_that_comes_back_has_its_port_and_an_empty_canvas() {
    let (mut arcade, address) = one_game().await;
    let mut player = Player::join(address).await;
    player.paint(1, 0, 0).await;
    player.until_painted(json!([0, 0, 1])).await;

    let again = [("game0".to_owned(), address)];
    let changes = arcade.reconcile(&again).await;
    assert_eq!((changes.started, changes.stopped), (again.to_vec(), again.to_vec()));
    assert!(Player::join(address).await.welcome["cells"].as_str().unwrap().starts_with("aa"));
}

#[tokio::test]
async fn dropping_the_arcade_ends_its_players() {
    let (arcade, address) = one_game().await;
    let mut player = Player::join(address).await;
    drop(arcade);
    assert_eq!(player.until_closed().await, Some(1001));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_value_and_is_tried_again() {
    let taken = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let address = taken.local_addr().unwrap();
    let all = [("game0".to_owned(), address), ("game1".to_owned(), ANYWHERE.parse().unwrap())];
    let mut arcade = Arcade::new();
    let changes = arcade.reconcile(&all).await;
    assert_eq!(changes.started.len(), 1, "the other server starts all the same");
    assert!(matches!(&changes.failed[..], [(_, at, Refusal::Bind(..))] if *at == address), "{changes:?}");

    drop(taken);
    assert_eq!(arcade.reconcile(&all).await.started, [("game0".to_owned(), address)]);
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let mut arcade = Arcade::new();
    let changes = arcade.reconcile(&[("game0".to_owned(), "0.0.0.0:0".parse().unwrap())]).await;
    assert!(changes.started.is_empty());
    assert!(changes.failed[0].2.to_string().contains("loopback only"));
}

#[tokio::test]
async fn the_page_is_html_with_the_servers_name() {
    let mut arcade = Arcade::new();
    let address = arcade.reconcile(&wanted(&["<game0>"])).await.started[0].1;
    for path in ["/", "/worlds/game0/", "/?a=b"] {
        let answer = fetch(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("<title>&lt;game0&gt;</title>"));
        assert!(!answer.contains("{{"), "a placeholder is left");
    }
}

#[tokio::test]
async fn every_other_path_has_a_plain_answer() {
    let (_arcade, address) = one_game().await;
    assert!(fetch(address, "/healthz").await.ends_with("ok\n"));
    assert!(fetch(address, "/ws").await.starts_with("HTTP/1.1 426"));
    assert!(fetch(address, "/robots.txt").await.ends_with(r#"{"message":"nothing here"}"#));
    assert!(fetch(address, "/worlds/a:b").await.contains("location: ./a:b/\r\n"));
    Player::join_at(address, "/worlds/game0/ws").await;
}

#[tokio::test]
async fn a_full_server_says_so() {
    let (_arcade, address) = one_game().await;
    let mut players = Vec::new();
    for _ in 0..200 {
        players.push(Player::join(address).await);
    }
    match timeout(LIMIT, connect_async(format!("ws://{address}/ws"))).await.unwrap() {
        Err(Error::Http(answer)) => {
            assert_eq!(answer.status(), 503);
            let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap_or_default()).unwrap();
            assert_eq!(body["message"], "this server is full");
        }
        other => panic!("{other:?}"),
    }
}
