//! Live sessions told to the cluster: the annotation, and the word to the fleet manager that a drained server is empty.
#![allow(clippy::unwrap_used)]

mod testkit;

use cluster::objects::{agones_ready, okg_game_server, okg_pod, okg_ready, okg_running, okg_set};
use serde_json::{Value, json};
use testkit::gate::envoy;
use testkit::ground::{Ground, launch};
use testkit::players::{Game, Player};
use testkit::tidegate::Tidegate;
use testkit::{eventually, kube::Kube};

const WRITES: [&str; 5] = ["--write-back", "--report-interval", "1s", "--empty-for", "3s"];

fn server(name: &str, port: u16) -> Value {
    agones_ready(name, &[("tidegate.dev/host", "<name>.example.com")], "127.0.0.1", port)
}

fn is_called_empty(object: &Value) -> bool {
    object["metadata"]["labels"]["tidegate.dev/empty"] == "true"
}

fn drain(drained: &Value) -> Value {
    json!({ "metadata": { "annotations": { "tidegate.dev/drain": drained } } })
}

fn ops_state(state: &str) -> Value {
    json!({ "spec": { "opsState": state } })
}

/// How often an object of this uid was called empty, and that was taken back.
fn words(kube: &Kube, object: &Value) -> (usize, usize) {
    let uid = &object["metadata"]["uid"];
    let writes = kube.faults.journal().writes();
    let words = writes.iter().map(cluster::Write::json).filter(|write| write["metadata"]["uid"] == *uid);
    let said: Vec<_> = words
        .filter_map(|write| write["metadata"]["annotations"].get("tidegate.dev/empty").cloned())
        .collect();
    (said.iter().filter(|said| said.is_string()).count(), said.iter().filter(|said| said.is_null()).count())
}

async fn sessions(tidegate: &Tidegate, name: &str) -> Value {
    tidegate.get_json(&format!("/api/servers?q={name}")).await["servers"][0]["sessions"].clone()
}

#[tokio::test]
async fn a_server_is_called_empty_once_and_only_when_it_is_drained_and_empty() {
    let game = Game::start("game").await;
    let (arena, open, idle) =
        (server("arena", game.port), server("open", game.port), server("idle", game.port));
    let arguments = [&WRITES[..], &["--peers", "none", "--write-sessions"]].concat();
    let ground = Ground::with(&[open.clone(), idle.clone()], &arguments).await;
    let arena_made = ground.kube.create(&arena).await;
    ground.until_from("arena.example.com", "/", "game").await;
    let player = Player::join(ground.envoy.http, "arena.example.com").await;
    let is_counted = |object: &Value| object["metadata"]["annotations"]["tidegate.dev/sessions"] == "1";
    ground.kube.wait("its sessions are written", &arena, is_counted).await;
    ground.kube.patch(&arena, &drain(&"true".into())).await;
    // One that is drained later, with nobody inside, is told of while the player plays on.
    ground.kube.patch(&idle, &drain(&"true".into())).await;
    ground.kube.wait("the idle one is called empty", &idle, is_called_empty).await;
    player.plays().await;
    assert!(!is_called_empty(&ground.kube.get(&arena).await.unwrap()));
    assert!(player.leave().await.is_clean());
    let told = ground.kube.wait("it is called empty", &arena, is_called_empty).await;
    assert!(is_counted(&told), "its sessions are written at most once a minute: {told:#}");
    // Nobody is deleted who takes players again.
    ground.kube.patch(&arena, &drain(&Value::Null)).await;
    let is_free = |object: &Value| {
        !is_called_empty(object) && object["metadata"]["annotations"].get("tidegate.dev/empty").is_none()
    };
    ground.kube.wait("that is taken back", &arena, is_free).await;
    assert_eq!(words(&ground.kube, &arena_made), (1, 1));
    let open = ground.kube.get(&open).await.unwrap();
    assert!(is_free(&open), "one that takes players is never called empty");
    assert!(open["metadata"]["annotations"].get("tidegate.dev/sessions").is_none(), "none was as good as 0");
    // What we write is no wish of its author's, and no mistake.
    let page = ground.tidegate.get_json("/api/servers").await;
    for row in page["servers"].as_array().unwrap() {
        assert_eq!(row["problems"], json!([]), "{row}");
    }
}

#[tokio::test]
async fn kruise_game_learns_it_by_the_ops_state_which_is_given_back() {
    let games = Game::start_pods(&["arena-0"]).await;
    let mut set = okg_set("arena", 1, &[]);
    set["spec"]["gameServerTemplate"]["metadata"]["annotations"] = json!({
        "game.kruise.io/network-type": "Tidegate",
        "game.kruise.io/network-conf":
            json!([{ "name": "Port", "value": games[0].port.to_string() }, { "name": "Host", "value": "arena.example.com" }])
                .to_string(),
    });
    let arguments = [&WRITES[..], &["--peers", "none"]].concat();
    let ground = Ground::with(std::slice::from_ref(&set), &arguments).await;
    let pod = okg_pod(&set, 0);
    ground.kube.create(&pod).await;
    let game_server = okg_game_server(&pod);
    ground.kube.create(&game_server).await;
    ground.kube.step(&pod, &okg_running(&pod, "127.0.0.1")).await;
    ground.kube.step(&pod, &okg_ready(&pod)).await;
    ground.until_from("arena.example.com", "/", "arena-0").await;
    let is = |state: &'static str, before: Value| {
        move |object: &Value| {
            let said = object["metadata"]["annotations"].get("tidegate.dev/empty").cloned();
            object["spec"]["opsState"] == state && said.unwrap_or_default() == before
        }
    };
    ground.kube.patch(&game_server, &ops_state("Maintaining")).await;
    ground.kube.wait("it may be deleted", &game_server, is("WaitToBeDeleted", "Maintaining".into())).await;
    // It takes nobody, though that ops state says nothing of players by itself.
    ground.until_status("arena.example.com", 503).await;
    // Its people think otherwise: what they wrote stands.
    ground.kube.patch(&game_server, &ops_state("None")).await;
    ground.kube.wait("our note is gone", &game_server, is("None", Value::Null)).await;
    ground.until_from("arena.example.com", "/", "arena-0").await;
    ground.kube.patch(&game_server, &drain(&"true".into())).await;
    ground.kube.wait("it may be deleted", &game_server, is("WaitToBeDeleted", "None".into())).await;
    ground.kube.patch(&game_server, &drain(&Value::Null)).await;
    ground.kube.wait("it is as it was", &game_server, is("None", Value::Null)).await;
    ground.until_from("arena.example.com", "/", "arena-0").await;
}

/// Two replicas, one of which writes and asks the other, and two servers behind one game.
struct Pair {
    _game: Game,
    kube: Kube,
    arena: Value,
    idle: Value,
    peer: Tidegate,
    writer: Tidegate,
}

impl Pair {
    async fn start() -> Self {
        let game = Game::start("game").await;
        let kube = Kube::start().await;
        let (arena, idle) = (server("arena", game.port), server("idle", game.port));
        for object in [&arena, &idle] {
            kube.create(object).await;
        }
        let peer = Tidegate::launch(launch(&kube, &["--report-interval", "1s"])).await;
        let url = format!("http://{}", peer.admin);
        let writer = Tidegate::launch(launch(&kube, &[&WRITES[..], &["--peers", &url]].concat())).await;
        Self { _game: game, kube, arena, idle, peer, writer }
    }
}

#[tokio::test]
async fn a_player_who_came_by_another_replica_keeps_a_server_from_being_called_empty() {
    let Pair { _game, kube, arena, idle, peer, writer } = Pair::start().await;
    let (mut near, mut far) =
        (envoy(&writer.xds.to_string(), &[]).await, envoy(&peer.xds.to_string(), &[]).await);
    near.ready().await;
    far.ready().await;
    testkit::gate::until(&far, "arena.example.com", "/", |answer| answer.status == 200).await;
    let player = Player::join(far.http, "arena.example.com").await;
    eventually("the peer counts", async || sessions(&peer, "arena").await, |n| *n == 1).await;
    for object in [&arena, &idle] {
        kube.patch(object, &drain(&"true".into())).await;
    }
    kube.wait("the idle one is called empty", &idle, is_called_empty).await;
    assert_eq!(sessions(&writer, "arena").await, 0, "here nobody is");
    assert!(!is_called_empty(&kube.get(&arena).await.unwrap()));
    assert!(player.leave().await.is_clean());
    kube.wait("it is called empty", &arena, is_called_empty).await;
}

#[tokio::test]
async fn a_writer_without_an_envoy_asks_the_replica_that_has_one() {
    let Pair { _game, kube, arena, idle, peer, writer } = Pair::start().await;
    let mut far = envoy(&peer.xds.to_string(), &[]).await;
    far.ready().await;
    testkit::gate::until(&far, "arena.example.com", "/", |answer| answer.status == 200).await;
    let player = Player::join(far.http, "arena.example.com").await;
    eventually("the peer counts", async || sessions(&peer, "arena").await, |n| *n == 1).await;
    for object in [&arena, &idle] {
        kube.patch(object, &drain(&"true".into())).await;
    }
    kube.wait("the idle one is called empty", &idle, is_called_empty).await;
    assert_eq!(sessions(&writer, "arena").await, Value::Null, "here nobody knows");
    assert!(!is_called_empty(&kube.get(&arena).await.unwrap()));
    assert!(player.leave().await.is_clean());
    kube.wait("it is called empty", &arena, is_called_empty).await;
}
