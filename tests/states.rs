//! What a player meets at each door that an annotation or a state of life can make, at a real Envoy.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::{SinkExt, StreamExt, stream};
use serde_json::json;
use testkit::eventually;
use testkit::fleet::{annotated, in_state, made_at, server, server_with};
use testkit::gate::{Gate, body, comes_from, envoy, get, status_word, until};
use testkit::players::{Game, Player, open};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_drain_shuts_the_door_and_those_inside_stay() {
    let game = Game::start("game0").await;
    let ours = server("game0", game.port);
    let gate = Gate::of(std::slice::from_ref(&ours)).await;
    let player = Player::join(gate.envoy.http, "game0.localhost").await;
    for drained in [annotated(&ours, "drain", "true"), in_state(&ours, "Draining")] {
        gate.fleet.put(&drained);
        let answer = gate.until_status("game0.localhost", 503).await;
        assert_eq!(
            body(&answer),
            json!({ "status": "draining", "message": "this server takes no new players" })
        );
        assert_eq!(
            (answer.header("retry-after"), answer.header("content-type")),
            (Some("5"), Some("application/json"))
        );
        let (status, words) = open(gate.envoy.http, "game0.localhost", "/").await.unwrap_err();
        assert_eq!((status, words.contains("draining")), (503, true), "{words}");
        player.plays().await;
        gate.fleet.put(&ours);
        gate.until_from("game0.localhost", "game0").await;
    }
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_drain_with_a_url_sends_new_players_there() {
    let game = Game::start("game0").await;
    let ours = server("game0", game.port);
    let gate = Gate::of(&[annotated(&ours, "drain", "https://lobby.example.com/new?from=0")]).await;
    let answer = gate.get("game0.localhost", "/deep").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("https://lobby.example.com/new?from=0"))
    );
    gate.fleet.put(&annotated(&ours, "drain", "http://lobby.example.com:8080"));
    let answer = gate
        .until("game0.localhost", "/deep?x=1", |answer| {
            answer.header("location").is_some_and(|to| to.contains("8080"))
        })
        .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("http://lobby.example.com:8080/deep?x=1"))
    );
}

#[tokio::test]
async fn maintenance_says_its_text_on_all_paths_or_on_those_named() {
    let game = Game::start("game").await;
    let all = annotated(&server("all", game.port), "maintenance", "back at \"noon\" – ☀");
    let part = annotated(
        &annotated(&server("part", game.port), "maintenance", "shop closed"),
        "maintenance-paths",
        "/shop, /a/b",
    );
    let gate = Gate::of(&[all, part]).await;
    let answer = gate.get("all.localhost", "/x").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(body(&answer), json!({ "status": "maintenance", "message": "back at \"noon\" – ☀" }));
    for (path, status) in
        [("/", 200), ("/shop", 503), ("/shop/1?x", 503), ("/shopping", 200), ("/a/b/", 503), ("/a", 200)]
    {
        let answer = gate.get("part.localhost", path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(status == 200 || body(&answer)["message"] == "shop closed", "{answer:?}");
    }
}

#[tokio::test]
async fn a_server_that_starts_or_has_no_port_says_so_until_it_is_ready() {
    let game = Game::start("game").await;
    let starting = in_state(&server("new", game.port), "Starting");
    let gate = Gate::of(&[starting, server("bad", 0)]).await;
    let answer = gate.get("new.localhost", "/").await;
    assert_eq!(
        (answer.status, status_word(&answer).as_str(), answer.header("retry-after")),
        (503, "starting", Some("5"))
    );
    let answer = gate.get("bad.localhost", "/").await;
    assert_eq!((answer.status, status_word(&answer).as_str()), (503, "misconfigured"));
    gate.fleet.put(&server("new", game.port));
    gate.until_from("new.localhost", "game").await;
    gate.fleet.put(&server("bad", game.port));
    gate.until_from("bad.localhost", "game").await;
    gate.fleet.put(&in_state(&server("new", game.port), "Stopped"));
    gate.until_status("new.localhost", 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_splits_its_players_by_weight_and_a_weight_of_zero_takes_none() {
    let games = [Game::start("most").await, Game::start("some").await, Game::start("none").await];
    let shared = |name: &str, port: u16, weight: &str| {
        server_with(name, port, &[("host", "share.localhost"), ("share", "party"), ("weight", weight)])
    };
    let fleet = [
        shared("most", games[0].port, "80"),
        shared("some", games[1].port, "20"),
        shared("none", games[2].port, "0"),
    ];
    let gate = Gate::of(&fleet).await;
    let answers =
        stream::iter(0..1000).map(|_| get(&gate.envoy, "share.localhost", "/")).buffer_unordered(16);
    let counts = answers
        .fold(BTreeMap::<String, usize>::new(), async |mut counts, answer| {
            *counts.entry(body(&answer)["server"].as_str().unwrap().to_owned()).or_default() += 1;
            counts
        })
        .await;
    assert!((750..=850).contains(&counts["most"]) && counts["some"] == 1000 - counts["most"], "{counts:?}");
    assert_eq!(games[2].requests(), 0);

    gate.fleet.remove(&fleet[0]);
    gate.fleet.remove(&fleet[1]);
    let answer = gate.until_status("share.localhost", 503).await;
    assert_eq!(status_word(&answer), "draining", "only the weight of 0 is left");
}

#[tokio::test]
async fn paths_of_one_host_go_to_their_servers_whole_segments_only() {
    let one = Game::start("one").await;
    let ten = Game::start("ten").await;
    let root = Game::start("root").await;
    let at = |name: &str, port: u16, host: &str, path: &str| {
        server_with(name, port, &[("host", host), ("path", path)])
    };
    let stripped = annotated(&at("bare", one.port, "play.localhost", "/bare"), "strip-prefix", "true");
    let gate = Gate::of(&[
        at("game-1", one.port, "play.localhost", "/game-1"),
        at("game-10", ten.port, "play.localhost", "/game-<id>"),
        stripped,
        at("root", root.port, "both.localhost", "/"),
        at("inner", one.port, "both.localhost", "/one"),
        at("deep", ten.port, "both.localhost", "/one/ten"),
    ])
    .await;
    for (host, path, name, seen) in [
        ("play.localhost", "/game-1", "one", "/game-1"),
        ("play.localhost", "/game-1/x?y=z", "one", "/game-1/x?y=z"),
        ("play.localhost", "/game-10", "ten", "/game-10"),
        ("play.localhost", "/game-10/x", "ten", "/game-10/x"),
        ("play.localhost", "/bare", "one", "/"),
        ("play.localhost", "/bare/", "one", "/"),
        ("play.localhost", "/bare/x/y?z=1", "one", "/x/y?z=1"),
        ("both.localhost", "/", "root", "/"),
        ("both.localhost", "/one", "one", "/one"),
        ("both.localhost", "/one/ten/x", "ten", "/one/ten/x"),
        ("both.localhost", "/one/tent", "one", "/one/tent"),
        ("both.localhost", "/oner", "root", "/oner"),
    ] {
        let answer = gate.get(host, path).await;
        assert!(comes_from(&answer, name), "{host}{path} should be {name}'s: {answer:?}");
        assert_eq!(body(&answer)["path"], seen, "{host}{path}");
    }
    for path in ["/", "/game-", "/game-100", "/game-1x", "/barely"] {
        assert_eq!(gate.get("play.localhost", path).await.status, 404, "{path}");
    }
    let mut socket = open(gate.envoy.http, "play.localhost", "/bare/ws").await.unwrap();
    socket.send(Message::text("1")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1"));

    // The host's root comes and goes, so its routes move from scope to scope: in one response, so that none is missing.
    let player = Player::on(socket);
    let rooted = at("all", root.port, "play.localhost", "/");
    gate.fleet.put(&rooted);
    gate.until("play.localhost", "/other", |answer| comes_from(answer, "root")).await;
    assert!(comes_from(&gate.get("play.localhost", "/game-10/x").await, "ten"));
    gate.fleet.remove(&rooted);
    gate.until("play.localhost", "/other", |answer| answer.status == 404).await;
    assert!(comes_from(&gate.get("play.localhost", "/game-10/x").await, "ten"));
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn wildcards_take_what_no_nearer_host_takes() {
    let game = Game::start("game").await;
    let names = [
        ("any", "*"),
        ("wild", "*.wild.localhost"),
        ("own", "own.wild.localhost"),
        ("twice", "a.localhost, B.localhost."),
    ];
    let mut games = Vec::new();
    let mut servers = vec![annotated(&server("part", game.port), "host", "*.paths.localhost")];
    servers[0] = annotated(&servers[0], "path", "/game");
    for (name, hosts) in names {
        let game = Game::start(name).await;
        servers.push(server_with(name, game.port, &[("host", hosts)]));
        games.push(game);
    }
    let gate = Gate::of(&servers).await;
    for (host, path, name) in [
        ("own.wild.localhost", "/", "own"),
        ("other.wild.localhost", "/x", "wild"),
        ("a.b.wild.localhost", "/", "any"),
        ("nobody.example.com", "/", "any"),
        ("a.localhost:8080", "/", "twice"),
        ("b.localhost", "/", "twice"),
        ("x.paths.localhost", "/game/1", "game"),
        ("x.paths.localhost", "/games", "any"),
    ] {
        let answer = gate.get(host, path).await;
        assert!(comes_from(&answer, name), "{host}{path} should be {name}'s: {answer:?}");
    }
}

#[tokio::test]
async fn an_envoy_serves_its_gateway_alone() {
    let game = Game::start("game").await;
    let at = |name: &str, gateway: &str| annotated(&server(name, game.port), "gateway", gateway);
    let gate =
        Gate::of(&[at("eu", "eu"), at("us", "us"), at("two", "eu, us"), server("every", game.port)]).await;
    let mut eu = envoy(&gate.tidegate.xds.to_string(), &["--gateway", "eu", "--node-id", "eu-1"]).await;
    eu.ready().await;
    for (host, here, there) in [("eu", 200, 404), ("us", 404, 404), ("two", 200, 404), ("every", 200, 200)] {
        let host = format!("{host}.localhost");
        assert_eq!(get(&eu, &host, "/").await.status, here, "{host} at eu");
        assert_eq!(gate.get(&host, "/").await.status, there, "{host} at the default gateway");
    }
    gate.fleet.put(&at("us", "eu"));
    until(&eu, "us.localhost", "/", |answer| answer.status == 200).await;
    gate.fleet.put(&at("eu", "us"));
    until(&eu, "eu.localhost", "/", |answer| answer.status == 404).await;
    assert_eq!(gate.get("every.localhost", "/").await.status, 200);
}

#[tokio::test]
async fn a_silent_websocket_is_cut_after_its_idle_timeout_and_only_that() {
    let game = Game::start("game").await;
    let short = annotated(&server("short", game.port), "idle-timeout", "1s");
    let never = annotated(&server("never", game.port), "idle-timeout", "0s");
    let gate = Gate::of(&[short, never]).await;
    let active = Player::join(gate.envoy.http, "short.localhost").await;
    let mut patient = open(gate.envoy.http, "never.localhost", "/").await.unwrap();
    let start = Instant::now();
    let mut silent = open(gate.envoy.http, "short.localhost", "/").await.unwrap();
    let end = timeout(testkit::LIMIT, silent.next()).await.expect("it is cut in time");
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
    assert!(start.elapsed() >= Duration::from_millis(900), "not before its time: {:?}", start.elapsed());
    active.plays().await;
    assert!(active.leave().await.is_clean());
    patient.send(Message::text("still here")).await.unwrap();
    assert_eq!(patient.next().await.unwrap().unwrap(), Message::text("still here"));
}

#[tokio::test]
async fn a_full_server_says_so_until_somebody_leaves() {
    let game = Game::start("game").await;
    let gate =
        Gate::of(&[annotated(&server("two", game.port), "max-sessions", "2"), server("any", game.port)])
            .await;
    let door = gate.envoy.http;
    let mut first = open(door, "two.localhost", "/").await.unwrap();
    let second = Player::join(door, "two.localhost").await;
    let (status, words) = open(door, "two.localhost", "/").await.unwrap_err();
    assert_eq!((status, words.contains("\"status\":\"full\"")), (503, true), "{words}");
    let answer = gate.get("two.localhost", "/").await;
    assert_eq!((status_word(&answer).as_str(), answer.header("retry-after")), ("full", Some("5")));
    assert_eq!(gate.get("any.localhost", "/").await.status, 200);
    first.close(None).await.unwrap();
    drop(first);
    eventually(
        "there is a place again",
        async || open(door, "two.localhost", "/").await.is_ok(),
        |is_in| *is_in,
    )
    .await;
    assert!(second.leave().await.is_clean());
}

#[tokio::test]
async fn a_server_may_speak_http2_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let version = async |request: axum::extract::Request| format!("{:?}", request.version());
    // Tonic's server speaks HTTP/2 and nothing else.
    let routes = tonic::service::Routes::from(Router::new().fallback(version));
    let server = tonic::transport::Server::builder().add_routes(routes);
    let game = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let speaks =
        |name: &str, protocol: &str| annotated(&testkit::fleet::server(name, port), "protocol", protocol);
    let gate = Gate::of(&[speaks("two", "h2c"), speaks("one", "http1")]).await;
    let answer = gate.get("two.localhost", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "HTTP/2.0"));
    assert_eq!(status_word(&gate.get("one.localhost", "/").await), "unreachable");
    game.abort();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unreachable_and_the_others_are_not() {
    let game = Game::start("game").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let gate = Gate::of(&[server("dead", closed), server("well", game.port)]).await;
    let answer = gate.get("dead.localhost", "/").await;
    assert_eq!((answer.status, status_word(&answer).as_str()), (503, "unreachable"));
    assert_eq!(gate.get("well.localhost", "/").await.status, 200);
}

#[tokio::test]
async fn of_two_servers_on_one_host_the_oldest_has_it_until_it_goes() {
    let (one, two) = (Game::start("old").await, Game::start("young").await);
    let claim = |name: &str, port: u16| server_with(name, port, &[("host", "won.localhost")]);
    let old = made_at(&claim("old", one.port), "10:00:00");
    let young = made_at(&claim("young", two.port), "11:00:00");
    let gate = Gate::of(std::slice::from_ref(&young)).await;
    assert!(comes_from(&gate.get("won.localhost", "/").await, "young"));
    gate.fleet.put(&old);
    gate.until_from("won.localhost", "old").await;

    let routes = gate.tidegate.get_json("/api/routes").await;
    let row = &routes["routes"][0];
    assert_eq!(
        (&row["holders"], &row["lost"]),
        (&json!(["files/default/old"]), &json!(["files/default/young"])),
        "{row}"
    );
    let servers = gate.tidegate.get_json("/api/servers?q=young").await;
    assert_eq!(servers["servers"][0]["lost"], json!({ "won.localhost": "files/default/old" }), "{servers}");
    assert_eq!(gate.tidegate.metric("tidegate_lost_claims").await, 1);

    gate.fleet.remove(&old);
    gate.until_from("won.localhost", "young").await;
    eventually("nobody lost", async || gate.tidegate.metric("tidegate_lost_claims").await, |lost| *lost == 0)
        .await;
}
