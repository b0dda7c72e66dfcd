//! An operator's levers on one server, at a real Envoy: who comes back into a drain, what those outside are shown, how
//! many come in, and how many in a second.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::envoy::{Answer, Envoy, exchange};
use testkit::eventually;
use testkit::fleet::{Fleet, annotated, in_state, server, server_with};
use testkit::gate::{Gate, body, comes_from, status_word};
use testkit::players::{Game, Player, Socket, open};
use testkit::tidegate::{Tidegate, printed, run};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// As browsers ask for a page.
const BROWSER: &str = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

/// One request with more header lines.
async fn ask(envoy: &Envoy, host: &str, path: &str, more: &[u8]) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    exchange(envoy.http, &[head.as_bytes(), more, b"\r\n"].concat()).await.unwrap()
}

/// A fleet behind an Envoy with this many threads.
async fn busy_gate(servers: &[Value], workers: usize) -> Gate {
    let fleet = Fleet::of(servers);
    let tidegate = Tidegate::start(&fleet.path()).await;
    let xds = tidegate.xds.to_string();
    let bootstrap =
        run(&["bootstrap", "--xds", &xds, "--http", "127.0.0.1:0", "--envoy-admin", "127.0.0.1:0"]).await;
    let mut envoy = Envoy::start_with(&printed(bootstrap), workers).await;
    envoy.ready().await;
    Gate { fleet, tidegate, envoy }
}

/// Players who knock in the same moment: those who were let in, and what the others were told.
async fn storm(gate: &Gate, host: &str, players: usize) -> (Vec<Socket>, Vec<Value>) {
    let (door, start) = (gate.envoy.http, Arc::new(Barrier::new(players)));
    let knocks = (0..players).map(|_| {
        let (host, start) = (host.to_owned(), start.clone());
        tokio::spawn(async move {
            start.wait().await;
            open(door, &host, "/").await
        })
    });
    let (mut inside, mut told) = (Vec::new(), Vec::new());
    for answer in join_all(knocks).await {
        match answer.unwrap() {
            Ok(socket) => inside.push(socket),
            Err((status, words)) => {
                assert_eq!(status, 503, "{words}");
                told.push(serde_json::from_str(&words).unwrap());
            }
        }
    }
    (inside, told)
}

#[tokio::test]
async fn who_has_the_cookie_comes_back_into_a_server_that_drains() {
    let game = Game::start("game0").await;
    let ours = annotated(&server("game0", game.port), "drain-allow-cookie", "seat.1");
    let gate = Gate::of(std::slice::from_ref(&ours)).await;
    let player = Player::join(gate.envoy.http, "game0.localhost").await;
    for (drained, refusal) in [
        (annotated(&ours, "drain", "true"), 503),
        (in_state(&ours, "Draining"), 503),
        (annotated(&ours, "weight", "0"), 503),
        (annotated(&ours, "drain", "https://lobby.example.com"), 307),
    ] {
        gate.fleet.put(&drained);
        gate.until_status("game0.localhost", refusal).await;
        for (cookie, is_let_in) in [
            (&b"cookie: seat.1=7f3\r\n"[..], true),
            (b"Cookie: seat.1=\r\n", true),
            (b"cookie: a=b; seat.1=7\r\n", true),
            (b"cookie: a=\xff\xfe;seat.1=7; c=\xe9\r\n", true),
            (b"cookie: a=b\r\ncookie: seat.1=7\r\n", true),
            (b"cookie: seat.1\r\n", false),
            (b"cookie: seat.10=7\r\n", false),
            (b"cookie: myseat.1=7\r\n", false),
            (b"cookie: seat_1=7\r\n", false),
            (b"cookie: SEAT.1=7\r\n", false),
            (b"cookie: a=seat.1=7\r\n", false),
            (b"x-cookie: seat.1=7\r\n", false),
        ] {
            let answer = ask(&gate.envoy, "game0.localhost", "/", cookie).await;
            let status = if is_let_in { 200 } else { refusal };
            assert_eq!(answer.status, status, "{}: {answer:?}", String::from_utf8_lossy(cookie));
        }
        let mut hello = "ws://game0.localhost/".into_client_request().unwrap();
        hello.headers_mut().insert("cookie", "seat.1=7".parse().unwrap());
        let stream = TcpStream::connect(gate.envoy.http).await.unwrap();
        let back = Player::on(client_async(hello, stream).await.unwrap().0);
        back.plays().await;
        assert!(back.leave().await.is_clean());
        gate.fleet.put(&ours);
        gate.until_from("game0.localhost", "game0").await;
    }
    let said = gate.tidegate.asked(&["explain", "game0.localhost", "-o", "json"]).await;
    let explained: Value = serde_json::from_str(&printed(said)).unwrap();
    assert_eq!(explained["servers"][0]["drain_cookie"], "seat.1");
    for shut in [annotated(&ours, "maintenance", "x"), in_state(&ours, "Starting")] {
        gate.fleet.put(&shut);
        gate.until_status("game0.localhost", 503).await;
        let answer = ask(&gate.envoy, "game0.localhost", "/", b"cookie: seat.1=7\r\n").await;
        assert_eq!(answer.status, 503, "a cookie is for drains: {answer:?}");
    }
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_cookie_passes_the_drain_of_a_share_and_of_a_prefix() {
    let (old, young) = (Game::start("old").await, Game::start("young").await);
    let member = |name: &str, port: u16, cookie: Option<&str>| {
        let ours =
            [("host", "lobby.localhost"), ("path", "/in"), ("share", "lobby"), ("strip-prefix", "true")];
        let member = annotated(&server_with(name, port, &ours), "drain", "true");
        cookie.map_or(member.clone(), |cookie| annotated(&member, "drain-allow-cookie", cookie))
    };
    let gate = Gate::of(&[
        member("a", old.port, None),
        member("b", old.port, Some("seat")),
        member("c", young.port, Some("seat")),
        member("d", young.port, Some("chair")),
    ])
    .await;
    for path in ["/in", "/in/x"] {
        for (cookie, name) in [("seat", "old"), ("chair", "young")] {
            let cookie = format!("cookie: {cookie}=1\r\n");
            let answer = ask(&gate.envoy, "lobby.localhost", path, cookie.as_bytes()).await;
            assert!(comes_from(&answer, name), "{path}: {answer:?}");
            assert_eq!(body(&answer)["path"], path[3..].to_owned().max("/".to_owned()));
        }
        assert_eq!(status_word(&gate.get("lobby.localhost", path).await), "draining");
    }
    assert_eq!(ask(&gate.envoy, "lobby.localhost", "/inn", b"cookie: seat=1\r\n").await.status, 404);
}

#[tokio::test]
async fn browsers_are_shown_a_page_for_each_refusal_and_programs_json() {
    let game = Game::start("game").await;
    let wild = "<script>alert(\"1\")</script> & 100% %START_TIME% %% 'ü' ☀ \u{202e}\\n";
    let shown = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; 100% %START_TIME% %% &#39;ü&#39; ☀ \u{202e}\\n";
    let server = |name: &str| server(name, game.port);
    let part = annotated(&annotated(&server("part"), "maintenance", wild), "maintenance-paths", "/shop");
    let gate = Gate::of(&[
        annotated(&server("all"), "maintenance", wild),
        annotated(&part, "retry-after", "24h"),
        annotated(&annotated(&server("empty"), "maintenance", ""), "retry-after", "1m30s"),
        annotated(&server("drain"), "drain", "true"),
        annotated(&in_state(&server("new"), "Starting"), "retry-after", "1s"),
        testkit::fleet::server("bad", 0),
    ])
    .await;
    for (host, path, status, retry, text, html) in [
        ("all", "/x", "maintenance", "5", wild, shown),
        ("part", "/shop/1", "maintenance", "86400", wild, shown),
        ("empty", "/", "maintenance", "90", "this server is in maintenance", "this server is in maintenance"),
        (
            "drain",
            "/",
            "draining",
            "5",
            "this server takes no new players",
            "this server takes no new players",
        ),
        ("new", "/", "starting", "1", "this server is starting", "this server is starting"),
        (
            "bad",
            "/",
            "misconfigured",
            "5",
            "this server has no usable address",
            "this server has no usable address",
        ),
    ] {
        let host = format!("{host}.localhost");
        let answer = ask(&gate.envoy, &host, path, BROWSER.as_bytes()).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some(retry)), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body.contains(&format!("<h1 dir=\"auto\">{html}</h1>")), "{}", answer.body);
        for accept in ["", "accept: */*\r\n", "accept: application/json\r\n"] {
            let answer = ask(&gate.envoy, &host, path, accept.as_bytes()).await;
            assert_eq!(body(&answer), json!({ "status": status, "message": text }), "{answer:?}");
            assert_eq!(
                (answer.status, answer.header("retry-after"), answer.header("content-type")),
                (503, Some(retry), Some("application/json"))
            );
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    let answer = ask(&gate.envoy, "part.localhost", "/", BROWSER.as_bytes()).await;
    assert!(comes_from(&answer, "game"), "what servers answer passes as it is: {answer:?}");
    let answer = ask(&gate.envoy, "nobody.localhost", "/", BROWSER.as_bytes()).await;
    assert!(answer.status == 404 && answer.body.contains("no server is known here"), "{answer:?}");
}

#[tokio::test]
async fn a_page_of_ones_own_is_shown_at_unknown_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let page = "<!doctype html>\n<title>Nobody's \"here\"</title>\n\n  <p>100% ☀</p>\n";
    let file = folder.path().join("lost.html");
    std::fs::write(&file, page).unwrap();
    let gate = Gate::with(&[server("game0", 1)], &["--unknown-page", file.to_str().unwrap()]).await;
    let answer = ask(&gate.envoy, "nobody.localhost", "/", BROWSER.as_bytes()).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, page));
    assert_eq!(status_word(&gate.get("nobody.localhost", "/").await), "unknown");
}

/// A thread looks at the count and adds to it in two steps, so that each of the others can be one too many between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_holds_when_everybody_comes_at_once() {
    let game = Game::start("fifty").await;
    let gate = busy_gate(&[annotated(&server("fifty", game.port), "max-sessions", "50")], 2).await;
    let (inside, told) = storm(&gate, "fifty.localhost", 400).await;
    assert!((50..=51).contains(&inside.len()), "{} are inside", inside.len());
    assert!(
        told.iter().all(|told| *told == json!({ "status": "full", "message": "server full" })),
        "{told:?}"
    );
    let (more, told) = storm(&gate, "fifty.localhost", 20).await;
    assert_eq!((more.len(), told.len()), (0, 20), "it is full");
    let players: Vec<_> = inside.into_iter().map(Player::on).collect();
    for player in players {
        player.plays().await;
        assert!(player.leave().await.is_clean());
    }
}

/// Whoever could not connect is tried again; the door opens when all have knocked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_back_in_a_moment_is_waited_for() {
    const PLAYERS: usize = 100;
    let gate = Gate::of(&[]).await;
    // A machine that is slow enough may be too late for every retry, once.
    for round in 0..5 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let name = format!("game{round}");
        gate.fleet.put(&server(&name, socket.local_addr().unwrap().port()));
        let host = format!("{name}.localhost");
        let answer = gate.until_status(&host, 503).await;
        assert_eq!((status_word(&answer).as_str(), answer.header("retry-after")), ("unreachable", Some("2")));

        let asked = async || gate.envoy.stats("http.http.downstream_rq_total").await[0].1;
        let before = asked().await;
        let knocks = storm(&gate, &host, PLAYERS);
        let back = async {
            eventually("all have knocked", asked, |asked| *asked >= before + PLAYERS as u64).await;
            Game::serve(&name, socket.listen(1024).unwrap())
        };
        let ((inside, told), _game) = tokio::join!(knocks, back);
        assert!(told.iter().all(|told| told["status"] == "unreachable"), "{told:?}");
        if inside.len() > 10 {
            return;
        }
    }
    panic!("nobody was waited for");
}

#[tokio::test]
async fn what_reached_a_server_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = Gate::of(&[server("game", listener.local_addr().unwrap().port())]).await;
    let hangs_up = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    };
    let (answer, ()) = tokio::join!(gate.get("game.localhost", "/buy"), hangs_up);
    assert_eq!((answer.status, status_word(&answer).as_str()), (503, "unreachable"));
    assert!(listener.accept().now_or_never().is_none(), "it came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_new_sessions_a_second_than_a_server_takes() {
    const LIMIT: usize = 20;
    let game = Game::start("slow").await;
    let limited = annotated(&server("slow", game.port), "new-sessions-per-second", &LIMIT.to_string());
    let gate = busy_gate(&[limited, server("free", game.port)], 2).await;
    let start = Instant::now();
    let (inside, told) = storm(&gate, "slow.localhost", 200).await;
    // A bucket of 20, which fills while they knock.
    let most = LIMIT + 1 + usize::try_from((start.elapsed() * 20).as_secs()).unwrap();
    assert!((LIMIT..=most).contains(&inside.len()), "{} of at most {most}", inside.len());
    let busy = json!({ "status": "busy", "message": "many players are joining just now" });
    assert!(told.iter().all(|told| *told == busy), "{told:?}");
    assert_eq!(storm(&gate, "free.localhost", 100).await.1, [Value::Null; 0], "the others have no limit");

    let mut answer = ask(&gate.envoy, "slow.localhost", "/", BROWSER.as_bytes()).await;
    while answer.status == 200 {
        answer = ask(&gate.envoy, "slow.localhost", "/", BROWSER.as_bytes()).await;
    }
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{answer:?}");
    assert!(answer.body.contains("many players are joining just now"), "{answer:?}");
    let players: Vec<_> = inside.into_iter().map(Player::on).collect();
    for player in &players {
        player.plays().await;
    }
    let knock = async || open(gate.envoy.http, "slow.localhost", "/").await.is_ok();
    eventually("the bucket fills again", knock, |is_in| *is_in).await;
    for player in players {
        assert!(player.leave().await.is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_share_each_server_has_its_own_limit() {
    let (slow, free) = (Game::start("slow").await, Game::start("free").await);
    let member =
        |name: &str, port: u16| server_with(name, port, &[("host", "share.localhost"), ("share", "s")]);
    let limited = annotated(&member("slow", slow.port), "new-sessions-per-second", "1");
    let gate = busy_gate(&[limited, member("free", free.port)], 2).await;
    let (inside, told) = storm(&gate, "share.localhost", 200).await;
    assert!(free.players() > 30, "about a half of 200: {}", free.players());
    assert!(slow.players() >= 1 && told.len() > 30, "{} and {} refused", slow.players(), told.len());
    assert_eq!(inside.len() + told.len(), 200);
}
