//! What the control plane writes to game servers: the truth, once, by one replica, and never on another.
#![allow(clippy::unwrap_used)]

mod testkit;

use cluster::objects::{
    agones_game_server, agones_ready, agones_state, okg_game_server, okg_pod, okg_ready, okg_running, okg_set,
};
use cluster::{Fault, Verb};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::gate::envoy;
use testkit::ground::{Ground, launch};
use testkit::kube::Kube;
use testkit::players::Game;
use testkit::tidegate::Tidegate;

const GAMESERVERS: &str = "gameservers.agones.dev";

fn server(name: &str, port: u16) -> Value {
    let octops = [
        ("octops.io/gameserver-ingress-mode", "domain"),
        ("octops.io/gameserver-ingress-domain", "example.com"),
    ];
    agones_ready(name, &octops, "127.0.0.1", port)
}

fn is_marked(object: &Value) -> bool {
    object["metadata"]["labels"]["tidegate.dev/routed"] == "true"
}

fn patches(kube: &Kube) -> u64 {
    kube.faults.journal().requests(Verb::Patch, GAMESERVERS)
}

#[tokio::test]
async fn a_server_is_marked_once_and_only_when_it_answers() {
    let game = Game::start("game").await;
    let arena = server("arena", game.port);
    let ground = Ground::with(&[], &["--write-back"]).await;
    ground.kube.create(&arena).await;
    let marked = ground.kube.wait("it is marked", &arena, is_marked).await;
    // Whoever reads the mark may send players at once.
    assert_eq!(ground.get("arena.example.com", "/").await.status, 200);
    let annotations = &marked["metadata"]["annotations"];
    assert_eq!(annotations["octops.io/ingress-ready"], "true");
    assert_eq!(annotations["tidegate.dev/url"], "https://arena.example.com/");
    // Its life goes on, and no write of ours disturbs an allocation.
    for state in ["Reserved", "Ready", "Allocated"] {
        ground.kube.step(&arena, &agones_state(state)).await;
    }
    let domain =
        json!({ "metadata": { "annotations": { "octops.io/gameserver-ingress-domain": "example.org" } } });
    ground.kube.patch(&arena, &domain).await;
    let is_moved = |object: &Value| {
        object["metadata"]["annotations"]["tidegate.dev/url"] == "https://arena.example.org/"
    };
    ground.kube.wait("its new URL is written", &arena, is_moved).await;
    assert_eq!(patches(&ground.kube), 2, "one for its life and one for its new URL");
    // A mark that somebody takes away is missing again.
    ground.kube.patch(&arena, &json!({ "metadata": { "labels": { "tidegate.dev/routed": null } } })).await;
    ground.kube.wait("it is marked again", &arena, is_marked).await;
    // And nobody is sent to what is routed no more, though it lives.
    let unasked = json!({ "metadata": { "annotations": { "octops.io/gameserver-ingress-mode": null } } });
    ground.kube.patch(&arena, &unasked).await;
    let is_bare = |object: &Value| {
        !is_marked(object) && object["metadata"]["annotations"].get("tidegate.dev/url").is_none()
    };
    ground.kube.wait("its marks are gone", &arena, is_bare).await;
    let unwritten = async || ground.tidegate.metric("tidegate_unwritten").await;
    eventually("nothing is left to write", unwritten, |count| *count == 0).await;
}

#[tokio::test]
async fn a_server_of_every_host_is_marked_without_a_url() {
    let game = Game::start("game").await;
    let arena = agones_ready(
        "arena",
        &[("tidegate.dev/host", "*"), ("tidegate.dev/path", "/<name>")],
        "127.0.0.1",
        game.port,
    );
    let ground = Ground::with(std::slice::from_ref(&arena), &["--write-back"]).await;
    let marked = ground.kube.wait("it is marked", &arena, is_marked).await;
    assert!(marked["metadata"]["annotations"].get("tidegate.dev/url").is_none(), "{marked:#}");
}

#[tokio::test]
async fn a_write_that_is_refused_is_said_and_tried_again() {
    let game = Game::start("game").await;
    let ground = Ground::with(&[], &["--write-back"]).await;
    // An admission policy says 422 as well as who is asked to change a uid, and names another cause or none.
    let refusal = ground.kube.faults.set(Verb::Patch, GAMESERVERS, Fault::Status(422));
    let arena = server("arena", game.port);
    ground.kube.create(&arena).await;
    let said = "not written, trying again; others that fail so are not logged";
    let logged = async || ground.tidegate.logged(said);
    let told = eventually("it is said", logged, |lines| !lines.is_empty()).await;
    assert!(told[0]["why"].as_str().unwrap().contains("422"), "{told:?}");
    refusal.lift();
    ground.kube.wait("it is marked", &arena, is_marked).await;
}

#[tokio::test]
async fn without_an_envoy_nothing_is_said() {
    let game = Game::start("game").await;
    let kube = Kube::start().await;
    kube.create(&server("arena", game.port)).await;
    let tidegate = Tidegate::launch(launch(&kube, &["--write-back"])).await;
    let waits =
        async || (tidegate.metric("tidegate_writer").await, tidegate.metric("tidegate_unwritten").await);
    eventually("it leads, and waits", waits, |waits| *waits == (1, 1)).await;
    assert_eq!(patches(&kube), 0);
    let mut envoy = envoy(&tidegate.xds.to_string(), &[]).await;
    envoy.ready().await;
    kube.wait("it is marked", &server("arena", game.port), is_marked).await;
    eventually("nothing is left to write", waits, |waits| *waits == (1, 0)).await;
}

#[tokio::test]
async fn without_the_flag_nothing_is_written_nor_any_lease_asked_for() {
    let game = Game::start("game").await;
    let ground = Ground::with(&[server("arena", game.port)], &[]).await;
    ground.until_from("arena.example.com", "/", "game").await;
    ground.tidegate.is_served_to(1).await;
    let writes = ground.kube.faults.journal().writes();
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(ground.kube.faults.journal().requests(Verb::Get, "leases.coordination.k8s.io"), 0);
}

#[tokio::test]
async fn a_server_made_again_under_the_same_name_is_told_of_itself_alone() {
    let game = Game::start("game").await;
    let arena = server("arena", game.port);
    let ground = Ground::with(std::slice::from_ref(&arena), &["--write-back"]).await;
    ground.kube.wait("it is marked", &arena, is_marked).await;
    ground.kube.delete_now(&arena).await;
    // The next one has no address yet: the mark of the last must not be on it.
    let next = agones_game_server("arena", &[("tidegate.dev/host", "arena.example.com")]);
    let made = ground.kube.create(&next).await;
    assert!(!is_marked(&made));
    ground.kube.create(&server("other", game.port)).await;
    ground.kube.wait("another one is marked", &server("other", game.port), is_marked).await;
    assert!(!is_marked(&ground.kube.get(&next).await.unwrap()));
    let uids: Vec<_> = ground
        .kube
        .faults
        .journal()
        .writes()
        .iter()
        .map(|write| write.json()["metadata"]["uid"].clone())
        .collect();
    assert!(!uids.contains(&made["metadata"]["uid"]), "{uids:?}");
}

#[tokio::test]
async fn what_is_wrong_becomes_one_event_on_the_object() {
    let game = Game::start("game").await;
    let arena = agones_ready(
        "arena",
        &[("tidegate.dev/host", "<name>.example.com"), ("tidegate.dev/weight", "-1")],
        "127.0.0.1",
        game.port,
    );
    let ground = Ground::with(std::slice::from_ref(&arena), &["--write-back"]).await;
    let events = async || ground.kube.list("events.k8s.io/v1", "Event").await;
    let told = eventually("it is told", events, |events| !events.is_empty()).await;
    assert_eq!(
        (&told[0]["reason"], &told[0]["regarding"]["name"]),
        (&json!("Misconfigured"), &json!("arena")),
        "{told:#?}"
    );
    assert!(told[0]["note"].as_str().unwrap().contains("tidegate.dev/weight"), "{told:#?}");
    // It is routed all the same, and its states do not repeat the complaint.
    ground.kube.wait("it is marked", &arena, is_marked).await;
    for state in ["Reserved", "Ready"] {
        ground.kube.step(&arena, &agones_state(state)).await;
    }
    let rival = agones_ready("rival", &[("tidegate.dev/host", "arena.example.com")], "127.0.0.1", game.port);
    ground.kube.create(&rival).await;
    let told = eventually("the rival is told", events, |events| events.len() > 1).await;
    let of_rival = told.iter().find(|event| event["regarding"]["name"] == "rival").unwrap();
    assert_eq!(of_rival["reason"], "RouteTaken");
    assert_eq!(told.len(), 2, "{told:#?}");
}

#[tokio::test]
async fn each_mistake_is_an_event_with_its_own_words() {
    let game = Game::start("game").await;
    let arena = server("arena", game.port);
    let ground = Ground::with(std::slice::from_ref(&arena), &["--write-back"]).await;
    for (count, mistake) in [(1, "tidegate.dev/weight"), (2, "tidegate.dev/priority")] {
        ground.kube.patch(&arena, &json!({ "metadata": { "annotations": { mistake: "-1" } } })).await;
        let events = async || ground.kube.list("events.k8s.io/v1", "Event").await;
        let told = eventually("it is told", events, |events| events.len() == count).await;
        let notes: Vec<_> = told.iter().map(|event| event["note"].as_str().unwrap()).collect();
        assert!(notes.iter().any(|note| note.contains(mistake)), "{notes:?}");
        assert!(told.iter().all(|event| event["series"].is_null()), "{told:#?}");
        ground.kube.patch(&arena, &json!({ "metadata": { "annotations": { mistake: null } } })).await;
    }
}

#[tokio::test]
async fn a_replica_that_does_not_lead_says_what_its_envoys_alone_know() {
    let game = Game::start("game").await;
    let kube = Kube::start().await;
    let leader = Tidegate::launch(launch(&kube, &["--write-back"])).await;
    eventually("it leads", async || leader.metric("tidegate_writer").await, |leads| *leads == 1).await;
    let follower = Tidegate::launch(launch(&kube, &["--write-back"])).await;
    let mut envoy = envoy(&follower.xds.to_string(), &[]).await;
    envoy.ready().await;
    let arena = server("arena", game.port);
    kube.create(&arena).await;
    let marked = kube.wait("it is marked", &arena, is_marked).await;
    assert_eq!(marked["metadata"]["annotations"]["tidegate.dev/url"], "https://arena.example.com/");
    for replica in [&leader, &follower] {
        let unwritten = async || replica.metric("tidegate_unwritten").await;
        eventually("nothing is left to write", unwritten, |count| *count == 0).await;
    }
    assert_eq!(follower.metric("tidegate_writer").await, 0);
    assert_eq!(patches(&kube), 1);
    // What is to be taken back is the leader's to say.
    let shut = json!({ "metadata": { "annotations": { "octops.io/gameserver-ingress-mode": null } } });
    kube.patch(&arena, &shut).await;
    kube.wait("its mark is gone", &arena, |object| !is_marked(object)).await;
    assert_eq!(patches(&kube), 2);
}

#[tokio::test]
async fn one_of_two_replicas_writes_and_the_other_takes_over() {
    let game = Game::start("game").await;
    let mut ground = Ground::with(&[], &["--write-back"]).await;
    let second = Tidegate::launch(launch(&ground.kube, &["--write-back"])).await;
    let mut other = envoy(&second.xds.to_string(), &[]).await;
    other.ready().await;
    let leads =
        async || ground.tidegate.metric("tidegate_writer").await + second.metric("tidegate_writer").await;
    eventually("one of them leads", leads, |count| *count == 1).await;
    let arena = server("arena", game.port);
    ground.kube.create(&arena).await;
    ground.kube.wait("it is marked", &arena, is_marked).await;
    assert_eq!(patches(&ground.kube), 1);
    if ground.tidegate.metric("tidegate_writer").await == 0 {
        return take_over(&ground.kube, second, &ground.tidegate, game.port).await;
    }
    let first = std::mem::replace(&mut ground.tidegate, second);
    take_over(&ground.kube, first, &ground.tidegate, game.port).await;
}

async fn take_over(kube: &Kube, mut leader: Tidegate, heir: &Tidegate, port: u16) {
    let metadata = json!({ "name": "tidegate" });
    let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata });
    let holder = async || kube.get(&lease).await.unwrap()["spec"]["holderIdentity"].clone();
    let before = holder().await;
    assert!(before.is_string(), "{before}");
    assert!(leader.stop().await.success());
    // It is given back, or taken by the other since then.
    assert_ne!(holder().await, before);
    eventually("the other leads", async || heir.metric("tidegate_writer").await, |leads| *leads == 1).await;
    let late = server("late", port);
    kube.create(&late).await;
    kube.wait("the heir marks it", &late, is_marked).await;
}

#[tokio::test]
async fn a_pod_of_our_network_type_learns_its_address_and_a_new_pod_its_own() {
    let games = Game::start_pods(&["arena-0"]).await;
    let port = games[0].port.to_string();
    let mut set = okg_set("arena", 1, &[]);
    let conf = json!([{ "name": "Port", "value": port }, { "name": "Path", "value": "/" }, { "name": "PathType", "value": "Prefix" },
        { "name": "Host", "value": "arena<id>.example.com" }]);
    set["spec"]["gameServerTemplate"]["metadata"]["annotations"] = json!({
        "game.kruise.io/network-type": "Tidegate",
        "game.kruise.io/network-conf": conf.to_string(),
    });
    let ground = Ground::with(std::slice::from_ref(&set), &["--write-back"]).await;
    let pod = okg_pod(&set, 0);
    let status = |pod: &Value| -> Value {
        let text =
            pod["metadata"]["annotations"]["game.kruise.io/network-status"].as_str().unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    };
    for _ in 0..2 {
        ground.kube.create(&pod).await;
        // OpenKruiseGame asks for ever while nothing stands there.
        ground
            .kube
            .wait("it is told to wait", &pod, |pod| status(pod)["currentNetworkState"] == "Waiting")
            .await;
        ground.kube.create(&okg_game_server(&pod)).await;
        ground.kube.step(&pod, &okg_running(&pod, "127.0.0.1")).await;
        ground.kube.step(&pod, &okg_ready(&pod)).await;
        let told =
            ground.kube.wait("it is ready", &pod, |pod| status(pod)["currentNetworkState"] == "Ready").await;
        assert_eq!(ground.get("arena0.example.com", "/").await.status, 200);
        let told = status(&told);
        assert_eq!(told["externalAddresses"][0]["endPoint"], "arena0.example.com");
        assert_eq!(told["internalAddresses"][0]["ip"], "127.0.0.1");
        ground.kube.wait("its GameServer is marked", &okg_game_server(&pod), is_marked).await;
        ground.kube.delete_now(&okg_game_server(&pod)).await;
        ground.kube.delete_now(&pod).await;
    }
}
