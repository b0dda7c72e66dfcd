//! Live sessions from Envoy's load reports: exact over several Envoys, gone with an Envoy, never zero on a guess; and
//! the wait until a server is empty.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use testkit::envoy::Envoy;
use testkit::fleet::{Fleet, annotated, server};
use testkit::gate::{comes_from, envoy, until};
use testkit::players::{Game, Player};
use testkit::proxy::Pipe;
use testkit::tidegate::{BINARY, Launch, Tidegate};
use testkit::wire::Wire;
use testkit::{LIMIT, eventually};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// Two servers, and a control plane whose Envoys report each second.
struct Hall {
    fleet: Fleet,
    tidegate: Tidegate,
    games: [Game; 2],
}

impl Hall {
    async fn open() -> Self {
        Self::reporting("1s").await
    }

    /// One whose Envoys report as often as this.
    async fn reporting(interval: &str) -> Self {
        let games = [Game::start("arena-0").await, Game::start("arena-1").await];
        let mut servers = [server("arena-0", games[0].port), server("arena-1", games[1].port)];
        servers[0]["metadata"]["labels"] = json!({ "version": "v1" });
        let fleet = Fleet::of(&servers);
        let launch =
            Launch::fleet(&fleet.path()).with(&["--report-interval", interval, "--metrics-top", "1"]);
        Self { tidegate: Tidegate::launch(launch).await, fleet, games }
    }

    /// Another replica on the same fleet, whose Envoys report each second.
    async fn replica(&self) -> Tidegate {
        let launch = Launch::fleet(&self.fleet.path()).with(&["--report-interval", "1s"]);
        Tidegate::launch(launch).await
    }

    /// An Envoy that serves both.
    async fn envoy(&self, name: &str, xds: SocketAddr) -> Envoy {
        let mut envoy = envoy(&xds.to_string(), &["--node-id", name]).await;
        envoy.ready().await;
        for name in ["arena-0", "arena-1"] {
            until(&envoy, &format!("{name}.localhost"), "/", |answer| comes_from(answer, name)).await;
        }
        envoy
    }

    /// What is said of the sessions of a server.
    async fn row(&self, name: &str) -> Value {
        let page = self.tidegate.get_json(&format!("/api/servers?q={name}")).await;
        page["servers"][0].clone()
    }

    /// Waits until this is said of `arena-0`.
    async fn says(&self, sessions: Value, reported: u64) -> Value {
        let what = format!("sessions {sessions}, reported {reported}");
        let is_said = |row: &Value| {
            (&row["sessions"], row["reported_sessions"].as_u64()) == (&sessions, Some(reported))
        };
        eventually(&what, async || self.row("arena-0").await, is_said).await
    }

    /// `wait-empty` with these arguments.
    fn wait(&self, arguments: &[&str]) -> Waiting {
        wait_at(&[&self.tidegate], arguments)
    }
}

/// A running `wait-empty`.
struct Waiting {
    process: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

fn wait_at(replicas: &[&Tidegate], arguments: &[&str]) -> Waiting {
    let mut command = Command::new(BINARY);
    command.arg("wait-empty").args(arguments).env_remove("TIDEGATE_ADMIN_URL");
    for replica in replicas {
        command.args(["--admin", &format!("http://{}", replica.admin)]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stderr.take().unwrap()).lines();
    Waiting { process, lines }
}

impl Waiting {
    /// Returns the next line that says this.
    async fn says(&mut self, what: &str) -> String {
        loop {
            let line = timeout(LIMIT, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("not said: {what}")).unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended before it said: {what}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    async fn code(&mut self) -> Option<i32> {
        timeout(LIMIT, self.process.wait()).await.expect("it ends in time").unwrap().code()
    }
}

async fn join(envoy: &Envoy) -> Player {
    Player::join(envoy.http, "arena-0.localhost").await
}

#[tokio::test]
async fn sessions_are_summed_over_envoys_and_go_with_one_that_is_killed() {
    let hall = Hall::open().await;
    hall.says(Value::Null, 0).await; // without an Envoy nobody knows
    let xds = hall.tidegate.xds;
    let (one, mut two) = (hall.envoy("one", xds).await, hall.envoy("two", xds).await);
    hall.says(json!(0), 0).await;
    let players = [join(&one).await, join(&one).await, join(&two).await];
    let elsewhere = Player::join(two.http, "arena-1.localhost").await;
    hall.says(json!(3), 3).await;
    assert_eq!(hall.games[0].players(), 3);
    eventually("the other has its own", async || hall.row("arena-1").await["sessions"].clone(), |n| *n == 1)
        .await;
    let page = hall.tidegate.get("/metrics").await.body;
    for line in [
        "tidegate_sessions 4",
        "tidegate_fleet_sessions{fleet=\"default/arena\"} 4",
        "tidegate_server_sessions{server=\"files/default/arena-0\"} 3",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("files/default/arena-1"), "only the first has a series");
    two.kill().await;
    hall.says(json!(2), 2).await;
    drop((players, elsewhere));
    hall.says(json!(0), 0).await;
}

#[tokio::test]
async fn an_envoy_that_falls_silent_stops_counting_and_nothing_is_called_empty() {
    let hall = Hall::open().await;
    let pipe = Pipe::start(hall.tidegate.xds).await;
    let one = hall.envoy("one", hall.tidegate.xds).await;
    let two = hall.envoy("two", pipe.address).await;
    let (_player, other) = (join(&one).await, join(&two).await);
    hall.says(json!(2), 2).await;
    // HTTP/2 would notice after 30 seconds, which is longer than this waits.
    pipe.set_open(false);
    let row = hall.says(Value::Null, 1).await;
    assert_eq!(row["unreported_by"], json!(["two"]), "{row}");
    other.plays().await;
    pipe.set_open(true);
    hall.says(json!(2), 2).await;
}

#[tokio::test]
async fn players_whom_envoy_counts_no_more_are_not_called_gone() {
    let hall = Hall::open().await;
    let one = hall.envoy("one", hall.tidegate.xds).await;
    let player = join(&one).await;
    hall.says(json!(1), 1).await;
    hall.fleet.put(&annotated(&server("arena-0", hall.games[0].port), "max-sessions", "50"));
    let row = hall.says(Value::Null, 0).await;
    assert_eq!(row["uncounted_sessions"], 1, "{row}");
    player.plays().await;
    // Its next life is at another address.
    let next = Game::start("arena-0").await;
    hall.fleet.put(&annotated(&server("arena-0", next.port), "max-sessions", "50"));
    hall.says(json!(0), 0).await;
}

#[tokio::test]
async fn a_wait_ends_when_the_last_player_has_left_and_not_before() {
    let hall = Hall::open().await;
    let one = hall.envoy("one", hall.tidegate.xds).await;
    let (first, second) = (join(&one).await, join(&one).await);
    hall.says(json!(2), 2).await;
    let mut waiting = hall.wait(&["default/arena-0"]);
    assert_eq!(waiting.says("players left: 2").await, "players left: 2 on 1 of 1: default/arena-0 2");
    // By label: the objects are read, for the control plane does not know their labels.
    let path = hall.fleet.path();
    let of_files = ["--fleet", path.to_str().unwrap(), "-l"];
    let mut labelled = hall.wait(&[&of_files[..], &["version=v1"]].concat());
    labelled.says("players left: 2 on 1 of 1: default/arena-0 2").await;
    let mut nobody = hall.wait(&[&of_files[..], &["version=v9"]].concat());
    nobody.says("-l \"version=v9\" matches none of the 2 servers").await;
    assert_eq!(nobody.code().await, Some(1));
    assert!(first.leave().await.is_clean());
    waiting.says("players left: 1").await;
    assert!(second.leave().await.is_clean());
    waiting.says("empty").await;
    assert_eq!((waiting.code().await, labelled.code().await), (Some(0), Some(0)));
    // A fleet, and in JSON.
    let mut waiting = hall.wait(&["--of", "arena", "-o", "json"]);
    assert_eq!(waiting.code().await, Some(0));
    let mut lines = BufReader::new(waiting.process.stdout.take().unwrap()).lines();
    let mut said: Vec<Value> = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push(serde_json::from_str(&line).unwrap());
    }
    let [first, .., line] = &said[..] else { panic!("{said:?}") };
    assert_eq!(first["empty"], false, "a report of before the wait proves nothing");
    assert_eq!((&line["empty"], &line["players"]), (&json!(true), &json!(0)), "{line}");
    assert_eq!(line["servers"].as_object().unwrap().len(), 2, "{line}");
}

#[tokio::test]
async fn who_came_behind_the_last_report_is_waited_for() {
    let hall = Hall::reporting("4s").await;
    let one = hall.envoy("one", hall.tidegate.xds).await;
    hall.says(json!(0), 0).await;
    // No report tells of him before the next one.
    let player = join(&one).await;
    hall.fleet.put(&annotated(&server("arena-0", hall.games[0].port), "drain", "true"));
    let mut waiting = hall.wait(&["arena-0"]);
    waiting.says("players left: 1 on 1 of 1: default/arena-0 1").await;
    player.plays().await;
    assert!(player.leave().await.is_clean());
    waiting.says("empty").await;
    assert_eq!(waiting.code().await, Some(0));
}

#[tokio::test]
async fn an_envoy_that_has_not_taken_the_drain_is_waited_for() {
    let hall = Hall::open().await;
    let other = hall.replica().await;
    // An Envoy may report to one replica and be told by another: there it takes its time.
    let _one = hall.envoy("one", hall.tidegate.xds).await;
    let mut told = Wire::synced(other.xds, "one", "default").await;
    hall.says(json!(0), 0).await;
    hall.fleet.put(&annotated(&server("arena-0", hall.games[0].port), "drain", "true"));
    let drain = told.next().await.unwrap().expect("it is sent");
    let mut waiting = wait_at(&[&hall.tidegate, &other], &["arena-0"]);
    waiting
        .says("players left: 0 on 1 of 1: default/arena-0 0 (the last changes are not taken by one)")
        .await;
    told.ack(&drain).await;
    waiting.says("empty").await;
    assert_eq!(waiting.code().await, Some(0));
}

#[tokio::test]
async fn whom_a_wait_is_for_is_said_by_labels_fleet_and_namespace_together() {
    let hall = Hall::open().await;
    let mut other = server("lobby-0", hall.games[1].port);
    other["metadata"]["labels"] = json!({ "version": "v1" });
    hall.fleet.put(&other);
    let ours = ["--of", "arena", "-n", "default", "-o", "json", "--timeout", "1s"];
    eventually("it is known", async || hall.row("lobby-0").await["id"].clone(), |id| !id.is_null()).await;
    // Nobody reports, so each wait ends with those whom it was for.
    let meant = async |arguments: &[&str]| -> Vec<String> {
        let mut waiting = hall.wait(arguments);
        let mut lines = BufReader::new(waiting.process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it says whom it waits for");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(waiting.code().await, Some(1));
        line["servers"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(meant(&ours).await, ["files/default/arena-0", "files/default/arena-1"]);
    let path = hall.fleet.path();
    let labelled = [&ours[..], &["-l", "version=v1", "--fleet", path.to_str().unwrap()]].concat();
    assert_eq!(meant(&labelled).await, ["files/default/arena-0"]);
    for (arguments, why) in [
        (&["arena-0", "-n", "eu"][..], "no server is known as eu/arena-0;"),
        (&["--of", "arena", "-n", "eu"], "no server is known as fleet eu/arena;"),
        (&["arena-0", "--of", "arena"], "cannot be used with"),
        (&["arena-0", "-l", "version=v1"], "cannot be used with"),
        (&["-l", "a", "--of", "a/b/c"], "--of \"a/b/c\" names no fleet"),
    ] {
        let mut refused = hall.wait(arguments);
        refused.says(why).await;
        assert_ne!(refused.code().await, Some(0), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_fleet_that_is_too_large_to_be_asked_for_is_not_cut_short() {
    let fleet = Fleet::of(&[]);
    fleet.put_all("all.ndjson", (0..10_001).map(|number| server(&format!("game-{number}"), 7000)));
    let tidegate = Tidegate::launch(Launch::fleet(&fleet.path())).await;
    eventually("ready", async || tidegate.get("/readyz").await.status, |status| *status == 200).await;
    let mut waiting = wait_at(&[&tidegate], &["--of", "game"]);
    waiting.says("10001 servers are meant; expected at most 10000").await;
    assert_eq!(waiting.code().await, Some(1));
}

#[tokio::test]
async fn a_wait_says_who_is_left_and_what_it_does_not_know() {
    let hall = Hall::open().await;
    let mut unknown = hall.wait(&["arena-9", "arena-0"]);
    unknown.says("no server is known as arena-9;").await;
    assert_eq!(unknown.code().await, Some(1));
    // Nobody reports, so nobody knows.
    let mut blind = hall.wait(&["arena-0", "--timeout", "1s"]);
    blind.says("the time is over").await;
    blind.says("files/default/arena-0: 0 or more (no Envoy reports it)").await;
    assert_eq!(blind.code().await, Some(1));
    let one = hall.envoy("one", hall.tidegate.xds).await;
    let _player = join(&one).await;
    hall.says(json!(1), 1).await;
    let mut late = hall.wait(&["arena-0", "arena-1", "--timeout", "1s"]);
    late.says("players left: 1 on 1 of 2").await;
    late.says("the time is over").await;
    late.says("files/default/arena-0: 1").await;
    assert_eq!(late.code().await, Some(1));
    let mut interrupted = hall.wait(&["arena-0"]);
    interrupted.says("players left: 1").await;
    let pid = interrupted.process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(interrupted.code().await, Some(130));
    // Whoever is gone has nobody left.
    let mut gone = hall.wait(&["arena-0"]);
    gone.says("players left: 1").await;
    hall.fleet.remove(&server("arena-0", 0));
    gone.says("empty").await;
    assert_eq!(gone.code().await, Some(0));
}

#[tokio::test]
async fn a_wait_sums_the_replicas_it_is_told_of() {
    let hall = Hall::open().await;
    let other = hall.replica().await;
    let _one = hall.envoy("one", hall.tidegate.xds).await;
    let two = hall.envoy("two", other.xds).await;
    let player = join(&two).await;
    hall.says(json!(0), 0).await;
    let mut alone = hall.wait(&["arena-0"]);
    assert_eq!(alone.code().await, Some(0), "each replica knows its own Envoys alone");
    let mut both = wait_at(&[&hall.tidegate, &other], &["arena-0"]);
    both.says("players left: 1 on 1 of 1: default/arena-0 1").await;
    drop(player);
    both.says("empty").await;
    assert_eq!(both.code().await, Some(0));
}
