//! OpenKruiseGame's pods through their lives, with an API server, the real binary and a real Envoy.
#![allow(clippy::unwrap_used)]

mod testkit;

use cluster::objects::{
    okg_annotated, okg_container, okg_game_server, okg_pod, okg_ready, okg_running, okg_set, okg_update_done,
    okg_update_started,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::gate::{comes_from, get, status_word};
use testkit::ground::Ground;
use testkit::players::{Game, Player, open};

/// As users of OpenKruiseGame's Ingress network write it for a WebSocket game: one host a server.
fn postio(replicas: u32, port: u16) -> Value {
    let port = port.to_string();
    okg_set(
        "postio",
        replicas,
        &[
            ("IngressClassName", "higress"),
            ("Port", &port),
            ("Path", "/"),
            ("PathType", "Prefix"),
            ("Host", "game<id>.postio.example.com"),
        ],
    )
}

const HIGRESS: [&str; 2] = ["--ingress-class", "higress"];

fn host(n: usize) -> String {
    format!("game{n}.postio.example.com")
}

/// A server's ops state, as its owners write it.
async fn set_ops_state(ground: &Ground, pod: &Value, state: &str) {
    ground.kube.patch(&okg_game_server(pod), &json!({ "spec": { "opsState": state } })).await;
}

/// Makes a pod and its GameServer, and brings it to life at an address.
async fn run(ground: &Ground, pod: &Value, ip: &str) {
    ground.kube.create(pod).await;
    ground.kube.create(&okg_game_server(pod)).await;
    ground.kube.step(pod, &okg_annotated()).await;
    ground.kube.step(pod, &okg_running(pod, ip)).await;
    ground.kube.step(pod, &okg_ready(pod)).await;
}

#[tokio::test]
async fn each_pod_answers_on_its_host_as_soon_as_it_has_an_address_and_its_container_is_ready() {
    let games = Game::start_pods(&["postio-0", "postio-1", "postio-2"]).await;
    let set = postio(3, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    for n in 0..3 {
        let pod = okg_pod(&set, n);
        let (ip, host) = (format!("127.0.0.{}", n + 1), host(n as usize));
        ground.kube.create(&pod).await;
        ground.until_status(&host, 503).await;
        ground.kube.step(&pod, &okg_running(&pod, &ip)).await;
        assert_eq!(status_word(&ground.get(&host, "/").await), "starting");
        ground.kube.step(&pod, &okg_container(&pod, true, 0)).await;
        ground.until_from(&host, "/", &format!("postio-{n}")).await;
        Player::join(ground.envoy.http, &host).await.plays().await;
    }
    assert_eq!(ground.get("game3.postio.example.com", "/").await.status, 404);
}

#[tokio::test]
async fn a_class_that_is_not_claimed_is_left_to_others() {
    let games = Game::start_pods(&["postio-0"]).await;
    let set = postio(1, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &[]).await;
    run(&ground, &okg_pod(&set, 0), "127.0.0.1").await;
    // It is routed as soon as somebody annotates it; until then it was seen and left alone.
    let pods = async || ground.tidegate.get_json("/readyz").await["sources"]["kube"]["watches"].clone();
    eventually("the pod is seen", pods, |watches| {
        watches.as_array().unwrap().iter().any(|row| row["kind"] == "v1 Pod")
    })
    .await;
    assert_eq!(ground.get(&host(0), "/").await.status, 404);
    let own = json!({ "metadata": { "annotations": { "tidegate.dev/host": "<name>.own.example.com", "tidegate.dev/port": games[0].port.to_string() } } });
    ground.kube.patch(&set, &own).await;
    ground.until_from("postio-0.own.example.com", "/", "postio-0").await;
}

#[tokio::test]
async fn the_nearest_annotation_wins_and_touches_no_pod() {
    let games = Game::start_pods(&["postio-0", "postio-1"]).await;
    let set = postio(2, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    for n in 0..2 {
        run(&ground, &okg_pod(&set, n), &format!("127.0.0.{}", n + 1)).await;
        ground.until_from(&host(n as usize), "/", &format!("postio-{n}")).await;
    }
    let annotate = |host: &str| json!({ "metadata": { "annotations": { "tidegate.dev/host": host } } });
    ground.kube.patch(&set, &annotate("<name>.arena.example.com")).await;
    ground.until_from("postio-0.arena.example.com", "/", "postio-0").await;
    ground.until_from("postio-1.arena.example.com", "/", "postio-1").await;
    ground.until_status(&host(0), 404).await;
    ground.kube.patch(&okg_game_server(&okg_pod(&set, 1)), &annotate("final.example.com")).await;
    ground.until_from("final.example.com", "/", "postio-1").await;
    ground.until_status("postio-1.arena.example.com", 404).await;
    assert!(comes_from(&ground.get("postio-0.arena.example.com", "/").await, "postio-0"), "the other stays");
}

#[tokio::test]
async fn an_update_of_a_sidecar_in_place_pushes_nothing() {
    let games = Game::start_pods(&["postio-0", "postio-1"]).await;
    let set = postio(2, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    let pods = [okg_pod(&set, 0), okg_pod(&set, 1)];
    for (n, pod) in pods.iter().enumerate() {
        run(&ground, pod, &format!("127.0.0.{}", n + 1)).await;
        ground.until_from(&host(n), "/", &format!("postio-{n}")).await;
    }
    ground.tidegate.is_served_to(1).await;
    let player = Player::join(ground.envoy.http, &host(0)).await;
    let (before, heard) = (ground.pushes().await, ground.tidegate.metric("tidegate_kube_news_total").await);
    for image in ["registry.example.com/sidecar:2", "registry.example.com/sidecar:3"] {
        ground.kube.step(&pods[0], &okg_update_started(&pods[0], image)).await;
        // What restarts is beside the game: its own container stays ready.
        ground.kube.step(&pods[0], &okg_container(&pods[0], true, 0)).await;
        ground.kube.step(&pods[0], &okg_update_done(&pods[0], image)).await;
    }
    // One change that does matter, behind all that do not: by its arrival they were heard.
    set_ops_state(&ground, &pods[1], "Maintaining").await;
    ground.until_status(&host(1), 503).await;
    let heard = ground.tidegate.metric("tidegate_kube_news_total").await - heard;
    assert!(heard >= 5, "{heard} versions were heard");
    assert_eq!(ground.pushes().await - before, 1, "only the change of the other server was pushed");
    player.plays().await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_pod_that_is_deleted_takes_no_new_players_and_keeps_those_inside_until_it_ends() {
    let games = Game::start_pods(&["postio-0"]).await;
    let set = postio(1, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    let pod = okg_pod(&set, 0);
    run(&ground, &pod, "127.0.0.1").await;
    ground.until_from(&host(0), "/", "postio-0").await;
    let player = Player::join(ground.envoy.http, &host(0)).await;
    ground.kube.bind(&pod, "node-1").await;
    ground.kube.delete(&pod).await;
    let answer = ground.until_status(&host(0), 503).await;
    assert_eq!((status_word(&answer).as_str(), answer.header("retry-after")), ("draining", Some("5")));
    assert!(open(ground.envoy.http, &host(0), "/").await.is_err(), "nobody new comes in");
    player.plays().await;
    ground.kube.delete_now(&pod).await;
    ground.until_status(&host(0), 404).await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_pod_that_comes_back_keeps_its_host_and_nobody_is_sent_to_the_old_address() {
    let games = Game::start_pods(&["old", "new"]).await;
    let set = postio(1, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    let pod = okg_pod(&set, 0);
    run(&ground, &pod, "127.0.0.1").await;
    ground.until_from(&host(0), "/", "old").await;
    ground.kube.delete_now(&pod).await;
    ground.until_status(&host(0), 404).await;
    ground.kube.create(&pod).await;
    let answer = ground.until_status(&host(0), 503).await;
    assert_eq!(status_word(&answer), "starting");
    let asked = games[0].requests();
    ground.kube.step(&pod, &okg_running(&pod, "127.0.0.2")).await;
    ground.kube.step(&pod, &okg_ready(&pod)).await;
    ground.until_from(&host(0), "/", "new").await;
    assert_eq!(games[0].requests(), asked, "the old pod was asked nothing more");
}

#[tokio::test]
async fn ops_states_are_what_the_configuration_makes_of_them() {
    let games = Game::start_pods(&["postio-0"]).await;
    let set = postio(1, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    let pod = okg_pod(&set, 0);
    run(&ground, &pod, "127.0.0.1").await;
    for (state, status) in
        [("None", 200), ("Kill", 503), ("WaitToBeDeleted", 200), ("Maintaining", 503), ("Allocated", 200)]
    {
        set_ops_state(&ground, &pod, state).await;
        ground.until_status(&host(0), status).await;
    }
}

const CROWD: u32 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_to_a_thousand_pods_touches_no_listener_and_no_player() {
    let games = Game::start_pods(&["postio"]).await;
    let set = postio(CROWD, games[0].port);
    let ground = Ground::with(std::slice::from_ref(&set), &HIGRESS).await;
    run(&ground, &okg_pod(&set, 0), "127.0.0.1").await;
    ground.until_from(&host(0), "/", "postio").await;
    let player = Player::join(ground.envoy.http, &host(0)).await;
    let listeners = async || ground.envoy.stats("listener_manager.").await;
    let before = listeners().await;
    stream::iter(1..CROWD)
        .for_each_concurrent(16, async |n| {
            let pod = okg_pod(&set, n);
            ground.kube.create(&pod).await;
            ground.kube.step(&pod, &okg_running(&pod, "127.0.0.1")).await;
            ground.kube.step(&pod, &okg_ready(&pod)).await;
        })
        .await;
    let wrong = async || {
        let answers = stream::iter(0..CROWD as usize)
            .map(async |n| get(&ground.envoy, &host(n), "/").await)
            .buffer_unordered(16)
            .filter(|answer| std::future::ready(!comes_from(answer, "postio")));
        answers.count().await
    };
    ground.until_from(&host(CROWD as usize - 1), "/", "postio").await;
    eventually("all of the crowd answers", wrong, |wrong| *wrong == 0).await;
    assert_eq!(listeners().await, before, "no listener was touched");
    player.plays().await;
    assert!(player.leave().await.is_clean());
}
