//! Agones' GameServers with Octops' annotations and with ours, through their lives.
#![allow(clippy::unwrap_used)]

mod testkit;

use cluster::objects::{
    AgonesPort, agones_allocated, agones_game_server, agones_ready, agones_scheduled, agones_state,
};
use serde_json::{Value, json};
use testkit::gate::{body, comes_from, status_word};
use testkit::ground::Ground;
use testkit::players::{Game, Player, open};

const MODE: &str = "octops.io/gameserver-ingress-mode";
const DOMAIN: &str = "octops.io/gameserver-ingress-domain";
const FQDN: &str = "octops.io/gameserver-ingress-fqdn";
const CLASS: &str = "octops-kubernetes.io/ingress.class";
const CONTOUR: [&str; 2] = ["--ingress-class", "contour"];

fn domain_server(name: &str, port: u16) -> Value {
    agones_ready(
        name,
        &[(CLASS, "contour"), (MODE, "domain"), (DOMAIN, "example.com,example.gg")],
        "127.0.0.1",
        port,
    )
}

#[tokio::test]
async fn octops_domains_give_a_host_each() {
    let game = Game::start("arena").await;
    let server = domain_server("octops-domain-x7k2p-9q4wd", game.port);
    let ground = Ground::with(std::slice::from_ref(&server), &CONTOUR).await;
    for domain in ["example.com", "example.gg"] {
        let host = format!("octops-domain-x7k2p-9q4wd.{domain}");
        ground.until_from(&host, "/deep/path", "arena").await;
        Player::join(ground.envoy.http, &host).await.plays().await;
    }
}

#[tokio::test]
async fn octops_paths_give_a_path_each_and_servers_see_it() {
    let game = Game::start("arena").await;
    let annotations = [
        (CLASS, "contour"),
        (MODE, "path"),
        (FQDN, "servers.example.com"),
        ("octops-projectcontour.io/websocket-routes", "/{{ .Name }}"),
    ];
    let servers = ["octops-path-a1b2c-11111", "octops-path-a1b2c-22222"]
        .map(|name| agones_ready(name, &annotations, "127.0.0.1", game.port));
    let ground = Ground::with(&servers, &CONTOUR).await;
    for name in ["octops-path-a1b2c-11111", "octops-path-a1b2c-22222"] {
        let answer = ground.until_from("servers.example.com", &format!("/{name}/play"), "arena").await;
        assert_eq!(body(&answer)["path"], format!("/{name}/play"), "the path is not rewritten");
        assert!(open(ground.envoy.http, "servers.example.com", &format!("/{name}")).await.is_ok());
    }
    assert_eq!(ground.get("servers.example.com", "/octops-path-a1b2c-111111").await.status, 404);
}

#[tokio::test]
async fn a_new_domain_on_a_live_server_moves_its_route() {
    let game = Game::start("arena").await;
    let server = domain_server("arena-1", game.port);
    let ground = Ground::with(std::slice::from_ref(&server), &CONTOUR).await;
    ground.until_from("arena-1.example.com", "/", "arena").await;
    let player = Player::join(ground.envoy.http, "arena-1.example.com").await;
    ground
        .kube
        .patch(&server, &json!({ "metadata": { "annotations": { DOMAIN: "moved.example.org" } } }))
        .await;
    ground.until_from("arena-1.moved.example.org", "/", "arena").await;
    ground.until_status("arena-1.example.com", 404).await;
    player.plays().await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_server_is_routed_from_scheduled_on_and_drained_at_its_end() {
    let game = Game::start("arena").await;
    let server = agones_game_server("arena-1", &[("tidegate.dev/host", "<name>.example.com")]);
    let ground = Ground::with(&[], &[]).await;
    ground.kube.create(&server).await;
    let ports = [AgonesPort { container: game.port, host: 7001, ..AgonesPort::default() }];
    for state in ["Creating", "Starting"] {
        ground.kube.step(&server, &agones_state(state)).await;
    }
    assert_ne!(ground.get("arena-1.example.com", "/").await.status, 200);
    ground.kube.step(&server, &agones_scheduled(&ports, "192.0.2.10", "127.0.0.1")).await;
    ground.until_from("arena-1.example.com", "/", "arena").await;
    ground.tidegate.is_served_to(1).await;
    let player = Player::join(ground.envoy.http, "arena-1.example.com").await;

    // Its states until the end are none of the router's business.
    let before = ground.pushes().await;
    for state in ["RequestReady", "Ready", "Reserved"] {
        ground.kube.step(&server, &agones_state(state)).await;
    }
    ground.kube.step(&server, &agones_allocated(&[("match", "7")])).await;
    for count in 0..5 {
        let counters = json!({ "status": { "counters": { "rooms": { "count": count, "capacity": 10 } } } });
        ground.kube.patch(&server, &counters).await;
    }
    ground.kube.step(&server, &agones_state("Shutdown")).await;
    let answer = ground.until_status("arena-1.example.com", 503).await;
    assert_eq!(status_word(&answer), "draining");
    assert_eq!(ground.pushes().await - before, 1, "nothing but the drain was pushed");
    player.plays().await;
    ground.kube.delete_now(&server).await;
    ground.until_status("arena-1.example.com", 404).await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn a_deletion_drains_whatever_the_state_says() {
    let game = Game::start("arena").await;
    let server = domain_server("arena-1", game.port);
    let ground = Ground::with(std::slice::from_ref(&server), &CONTOUR).await;
    ground.until_from("arena-1.example.com", "/", "arena").await;
    let player = Player::join(ground.envoy.http, "arena-1.example.com").await;
    ground.kube.delete(&server).await;
    ground.until_status("arena-1.example.com", 503).await;
    player.plays().await;
    assert!(player.leave().await.is_clean());
}

#[tokio::test]
async fn one_that_is_allocated_at_start_is_routed() {
    let game = Game::start("arena").await;
    let mut server = domain_server("arena-1", game.port);
    agones_allocated(&[]).apply_to(&mut server);
    let ground = Ground::with(std::slice::from_ref(&server), &CONTOUR).await;
    assert!(comes_from(&ground.get("arena-1.example.com", "/").await, "arena"), "at Envoy's first answer");
}

#[tokio::test]
async fn before_agones_1_40_the_pod_says_its_address() {
    let game = Game::start("arena").await;
    let mut server = domain_server("arena-1", game.port);
    let ports = [AgonesPort { container: game.port, host: 7001, ..AgonesPort::default() }];
    agones_scheduled(&ports, "192.0.2.10", "").apply_to(&mut server);
    agones_state("Ready").apply_to(&mut server);
    // A selector is about GameServers: their pods do not have these labels.
    server["metadata"]["labels"]["region"] = "eu".into();
    let arguments = [&CONTOUR[..], &["--selector", "region=eu"]].concat();
    let ground = Ground::with(std::slice::from_ref(&server), &arguments).await;
    ground.until_status("arena-1.example.com", 503).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "arena-1", "labels": { "agones.dev/role": "gameserver", "agones.dev/gameserver": "arena-1" } },
        "spec": {
            "containers": [{ "name": "game", "image": "registry.example.com/arena:1.4.2" }],
            "schedulerName": cluster::objects::NO_SCHEDULER,
        },
    });
    ground.kube.create(&pod).await;
    let status =
        json!({ "status": { "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{ "ip": "127.0.0.1" }] } });
    ground.kube.patch_status(&pod, &status).await;
    ground.until_from("arena-1.example.com", "/", "arena").await;
}
