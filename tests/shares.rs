//! Who of a shared host gets which player: weights, standbys, cookies and versions, at a real Envoy.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::fleet::{annotated, in_state, server_with};
use testkit::gate::Gate;
use testkit::joins::{Jar, landings, split};
use testkit::players::{Game, Player};

const HOST: &str = "lobby.localhost";

fn member(name: &str, game: &Game, annotations: &[(&str, &str)]) -> Value {
    let common = [("host", HOST), ("share", "lobby")];
    server_with(name, game.port, &[&common, annotations].concat())
}

/// Waits until this player, as they are each time, lands somewhere else or nowhere: what is said of it.
async fn refusal(gate: &Gate, jar: &Jar) -> (u16, String) {
    let ask = async || jar.clone().join(gate.envoy.http, HOST, "/").await.at;
    eventually("the door shuts", ask, Result::is_err).await.unwrap_err()
}

/// 500 players on one group; the other takes over by steps of 20 points.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shift_by_weights_drops_nobody() {
    let games = [Game::start("blue").await, Game::start("green").await];
    let [blue, green] = ["blue", "green"].map(|name| {
        let game = &games[usize::from(name == "green")];
        move |weight: u32| member(name, game, &[("weight", &weight.to_string())])
    });
    let gate = Gate::of(&[blue(100), green(0)]).await;
    let envoy = gate.envoy.http;
    let join = async |_| {
        let socket = Jar::default().join(envoy, HOST, "/").await.socket.unwrap();
        Player::with_beat(socket, Duration::from_millis(500))
    };
    let inside = stream::iter(0..500).map(join).buffer_unordered(32);
    let inside: Vec<Player> = inside.collect().await;
    assert_eq!(games[0].players(), 500);
    for percent in [20, 40, 60, 80, 100] {
        // At no moment is the sum 0: the door stays open.
        gate.fleet.put(&green(percent));
        gate.fleet.put(&blue(100 - percent));
        let settled = |row: &Value| {
            row["members"].as_array().is_some_and(|members| {
                members.iter().any(|m| {
                    m["server"] == "files/default/green" && m["percent"] == json!(f64::from(percent))
                })
            })
        };
        eventually(
            "the weights are read",
            async || gate.tidegate.get_json("/api/routes").await,
            |page| page["routes"].as_array().is_some_and(|rows| rows.iter().any(settled)),
        )
        .await;
        gate.tidegate.is_served_to(1).await;
        let counts = split(envoy, HOST, &[("blue", 100 - percent), ("green", percent)]).await;
        println!("green at {percent}: {counts:?}");
        eventually("all 500 are inside", async || games[0].players(), |players| *players == 500).await;
    }
    stream::iter(&inside).for_each_concurrent(None, Player::plays).await;
    let left = stream::iter(inside).map(Player::leave).buffer_unordered(500);
    let records: Vec<_> = left.collect().await;
    assert!(records.iter().all(testkit::players::Record::is_clean));
}

/// By scopes and by the table, with clusters at once and on demand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_comes_back_to_the_same_server_while_it_is_open() {
    for arguments in [&[][..], &["--routes", "table"], &["--clusters", "on-demand"]] {
        let games = [Game::start("a").await, Game::start("b").await, Game::start("c").await];
        let of = |n: usize| member(["a", "b", "c"][n], &games[n], &[("affinity", "cookie")]);
        let gate = Gate::with(&[of(0), of(1), of(2)], arguments).await;
        let envoy = gate.envoy.http;
        let mut jar = Jar::default();
        let first = jar.join(envoy, HOST, "/").await;
        let home = first.server().to_owned();
        let player = Player::on(first.socket.unwrap());
        let attributes = first.set[0].split_once(';').unwrap().1;
        assert_eq!(attributes, " Path=/; Max-Age=86400; HttpOnly; SameSite=Lax");
        for n in 0..40 {
            // Beside a game's own cookies, and after one of another path.
            let mut mine = Jar { cookie: format!("x={n}; tidegate=00000000.9; {}; y=1", jar.cookie) };
            let path = ["/", "/deep?x=1"][n % 2];
            assert_eq!(mine.join(envoy, HOST, path).await.server(), home, "join {n}, {arguments:?}");
            assert_eq!(mine.cookie, jar.cookie, "the same cookie is given again");
        }
        let landed = landings(envoy, HOST, 100).await;
        assert_eq!(landed.len(), 3, "without a cookie everybody is a new player: {landed:?}");

        let at = ["a", "b", "c"].iter().position(|name| *name == home).unwrap();
        let ask = async || jar.clone().join(envoy, HOST, "/").await.server().to_owned();
        for closed in [annotated(&of(at), "weight", "0"), annotated(&of(at), "drain", "true")] {
            gate.fleet.put(&closed);
            eventually("they are sent elsewhere", ask, |server| *server != home).await;
            // The old cookie would lead home again; a player has the new one.
            let mut moved = jar.clone();
            let other = moved.join(envoy, HOST, "/").await.server().to_owned();
            gate.fleet.put(&of(at));
            jar.until(envoy, HOST, &home).await;
            for _ in 0..10 {
                assert_eq!(moved.join(envoy, HOST, "/").await.server(), other, "who has moved stays there");
            }
        }
        player.plays().await;
        assert!(player.leave().await.is_clean(), "{arguments:?}");
    }
}

/// Whatever a client sends, it reaches an open member of this host and path, as a new player does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_cookie_leads_nowhere_else() {
    let games =
        [Game::start("a").await, Game::start("b").await, Game::start("shut").await, Game::start("eu").await];
    let sticky = ("affinity", "cookie");
    let shut = member("shut", &games[2], &[sticky]);
    let eu = server_with("eu", games[3].port, &[("host", HOST), ("path", "/eu"), ("share", "eu"), sticky]);
    let gate =
        Gate::of(&[member("a", &games[0], &[sticky]), member("b", &games[1], &[sticky]), shut.clone(), eu])
            .await;
    let envoy = gate.envoy.http;
    let mut cookies = Vec::new();
    for server in ["a", "shut"] {
        let land = async || {
            let mut jar = Jar::default();
            (jar.join(envoy, HOST, "/").await.server().to_owned(), jar.cookie)
        };
        let (_, cookie) = eventually("each has a player", land, |(at, _)| at == server).await;
        cookies.push(cookie.strip_prefix("tidegate=").unwrap().to_owned());
    }
    let mut there = Jar::default();
    assert_eq!(there.join(envoy, HOST, "/eu").await.server(), "eu");
    gate.fleet.put(&annotated(&shut, "drain", "true"));
    let to_shut = Jar::with(&cookies[1]);
    let ask = async || to_shut.clone().join(envoy, HOST, "/").await.server().to_owned();
    eventually("it takes nobody", ask, |server| server != "shut").await;

    let tag = cookies[0].split('.').next().unwrap();
    let eu_member = there.value().rsplit('.').next().unwrap();
    let mut forged: Vec<String> =
        ["", ".", "..", "%00", "0", "eu", "default/eu", "gs/files/default/eu"].map(str::to_owned).into();
    forged.extend([
        cookies[1].clone(),
        there.value().to_owned(),
        format!("{tag}.0.{eu_member}"),
        format!("{tag}.-1.{eu_member}"),
        format!("{tag}.0.default/shut"),
        format!("{tag}.0.{}", "f".repeat(4000)),
        format!("{tag}.{}", "0".repeat(4000)),
        format!("{tag}.99999999"),
        format!("{tag}.0x1"),
        format!("{tag}.0."),
        "[%z".repeat(500),
    ]);
    for value in &forged {
        for _ in 0..5 {
            let mut jar = Jar::with(value);
            let at = jar.join(envoy, HOST, "/").await;
            assert!(["a", "b"].contains(&at.server()), "{value}: {at:?}");
            assert_eq!(
                jar.clone().join(envoy, HOST, "/").await.server(),
                at.server(),
                "it gets a good one instead"
            );
        }
    }
    let many = Jar { cookie: vec![format!("tidegate={tag}.0.ffffffffffff"); 1000].join("; ") };
    assert!(["a", "b"].contains(&many.clone().join(envoy, HOST, "/").await.server()));
    assert_eq!(Jar::with(&cookies[0]).join(envoy, HOST, "/eu").await.server(), "eu");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_never_goes_back_to_an_older_version() {
    for affinity in ["cookie", "none"] {
        let games = [Game::start("old").await, Game::start("new").await];
        let old = |weight| member("old", &games[0], &[("affinity", affinity), ("weight", weight)]);
        let new = member("new", &games[1], &[("affinity", affinity), ("version", "2"), ("weight", "50")]);
        let gate = Gate::of(&[old("50"), new.clone()]).await;
        let envoy = gate.envoy.http;
        let mut jar = Jar::default();
        let land = async || Jar::default().join(envoy, HOST, "/").await.server().to_owned();
        eventually("the old one takes some", land, |server| server == "old").await;
        let first = async || {
            jar = Jar::default();
            let joined = jar.join(envoy, HOST, "/").await;
            (joined.server().to_owned(), joined.socket)
        };
        let (_, socket) = eventually("the new one takes some", first, |(server, _)| server == "new").await;
        let player = Player::on(socket.unwrap());
        for _ in 0..30 {
            assert_eq!(jar.join(envoy, HOST, "/").await.server(), "new", "{affinity}");
        }
        // It closes, it stops, it is gone: whoever was there waits, and others play on.
        for (what, closed) in [
            ("closed", Some(annotated(&new, "weight", "0"))),
            ("stopped", Some(in_state(&new, "Stopped"))),
            ("gone", None),
        ] {
            match &closed {
                Some(closed) => gate.fleet.put(closed),
                None => gate.fleet.remove(&new),
            }
            let (status, body) = refusal(&gate, &jar).await;
            assert!(status == 503 && body.contains("\"status\":\"updating\""), "{what}: {body}");
            assert_eq!(Jar::default().join(envoy, HOST, "/").await.server(), "old", "{what}");
        }
        // A newer one is as good as the same.
        gate.fleet.put(&annotated(&new, "version", "3"));
        jar.until(envoy, HOST, "new").await;
        player.plays().await;
        assert!(player.leave().await.is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_new_players_while_nobody_better_is_open() {
    let games = [Game::start("main").await, Game::start("spare").await];
    let main = member("main", &games[0], &[("priority", "10")]);
    let spare = member("spare", &games[1], &[]);
    let gate = Gate::of(&[main.clone(), spare]).await;
    let envoy = gate.envoy.http;
    assert_eq!(landings(envoy, HOST, 200).await.keys().collect::<Vec<_>>(), ["main"]);
    let player = Player::join(envoy, HOST).await;
    let anybody = Jar::default();
    for closed in [
        in_state(&main, "Stopped"),
        annotated(&main, "drain", "true"),
        annotated(&main, "weight", "0"),
        in_state(&main, "Starting"),
    ] {
        let start = Instant::now();
        gate.fleet.put(&closed);
        anybody.until(envoy, HOST, "spare").await;
        println!("to the standby after {:?}", start.elapsed());
        let start = Instant::now();
        gate.fleet.put(&main);
        anybody.until(envoy, HOST, "main").await;
        println!("back after {:?}", start.elapsed());
        assert_eq!(landings(envoy, HOST, 50).await.keys().collect::<Vec<_>>(), ["main"]);
    }
    player.plays().await;
    assert!(player.leave().await.is_clean(), "who was inside stayed inside");
}

/// What one host with thousands of members costs, said and not timed; that Envoy takes it, asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_five_thousand_is_taken_whole() {
    const MEMBERS: usize = 5_000;
    let game = Game::start("game").await;
    let one = |n: usize, weight: &str| {
        let version = (n % 2).to_string();
        member(&format!("m-{n}"), &game, &[("affinity", "cookie"), ("weight", weight), ("version", &version)])
    };
    let gate = Gate::of(&[]).await;
    let envoy = gate.envoy.http;
    let start = Instant::now();
    gate.fleet.put_all("crowd.ndjson", (0..MEMBERS).map(|n| one(n, "1000")));
    let mut jar = Jar::default();
    jar.until(envoy, HOST, "game").await;
    println!("{MEMBERS} members after {:?}", start.elapsed());
    jar.join(envoy, HOST, "/").await;
    let before = gate.tidegate.metric("tidegate_pushed_bytes_total").await;
    let start = Instant::now();
    gate.fleet.put(&one(MEMBERS, "1000"));
    let revision = async || gate.tidegate.get_json("/api/servers?limit=1&q=m-5000").await;
    eventually("the next one is known", revision, |page| !page["servers"].as_array().unwrap().is_empty())
        .await;
    gate.tidegate.is_served_to(1).await;
    let bytes = gate.tidegate.metric("tidegate_pushed_bytes_total").await - before;
    println!("a member more: {bytes} bytes, taken after {:?}", start.elapsed());
    let kept = jar.value().to_owned();
    jar.join(envoy, HOST, "/").await;
    assert_eq!(jar.value(), kept, "the player is still known");
    assert_eq!(gate.tidegate.metric("tidegate_nacks_total").await, 0);
}
