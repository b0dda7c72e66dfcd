//! Operators' commands on a cluster: which object they write to and how, what they do when others are faster, and what
//! they say when they may not.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::process::{Output, Stdio};

use cluster::objects::{
    agones_ready, okg_annotated, okg_game_server, okg_pod, okg_ready, okg_running, okg_set,
};
use cluster::{Fault, Verb};
use serde_json::{Value, json};
use testkit::gate::status_word;
use testkit::ground::Ground;
use testkit::kube::Kube;
use testkit::players::Game;
use testkit::tidegate::{BINARY, printed};
use testkit::{LIMIT, eventually};
use tokio::process::Command;
use tokio::time::timeout;

const AGONES: &str = "gameservers.agones.dev";
const OKG: &str = "gameservers.game.kruise.io";

/// Runs a command on a cluster, in the namespace of the test.
async fn on(kube: &Kube, arguments: &[&str]) -> Output {
    within(kube, &kube.namespace, arguments).await
}

/// Runs a command on a cluster, in this namespace.
async fn within(kube: &Kube, namespace: &str, arguments: &[&str]) -> Output {
    let run = Command::new(BINARY)
        .args(arguments)
        .args(["--kube", "-n", namespace])
        .env("KUBECONFIG", kube.kubeconfig())
        .env_remove("TIDEGATE_FLEET")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    timeout(LIMIT, run).await.expect("it ends in time").expect("tidegate starts")
}

async fn said(kube: &Kube, arguments: &[&str]) -> String {
    printed(on(kube, arguments).await).replace(&kube.namespace, "NS")
}

async fn refused(kube: &Kube, arguments: &[&str]) -> String {
    let output = on(kube, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap().replace(&kube.namespace, "NS")
}

/// An Agones server at a host of its own.
fn race(name: &str, annotations: &[(&str, &str)]) -> Value {
    let host = format!("{name}.example.com");
    agones_ready(
        name,
        &[&[("tidegate.dev/host", host.as_str())][..], annotations].concat(),
        "127.0.0.1",
        7000,
    )
}

/// An Agones server of share `lobby`, of a version.
fn sharer(name: &str, version: &str) -> Value {
    let annotations = [("tidegate.dev/host", "play.example.com"), ("tidegate.dev/share", "lobby")];
    let mut object = agones_ready(name, &annotations, "127.0.0.1", 7000);
    object["metadata"]["labels"]["version"] = version.into();
    object
}

fn annotation(object: &Value, key: &str) -> Option<String> {
    object["metadata"]["annotations"][format!("tidegate.dev/{key}")].as_str().map(str::to_owned)
}

async fn held(kube: &Kube, object: &Value, key: &str) -> Option<String> {
    annotation(&kube.get(object).await.unwrap(), key)
}

#[tokio::test]
async fn players_see_a_drain_of_an_openkruisegame_server() {
    let game = Game::start("arena-0").await;
    let port = game.port.to_string();
    let set = okg_set(
        "arena",
        1,
        &[
            ("IngressClassName", "tidegate"),
            ("Port", &port),
            ("Path", "/"),
            ("PathType", "Prefix"),
            ("Host", "game<id>.example.com"),
        ],
    );
    let pod = okg_pod(&set, 0);
    let server = okg_game_server(&pod);
    let ground = Ground::with(&[set, pod.clone(), server.clone()], &[]).await;
    for step in [okg_annotated(), okg_running(&pod, "127.0.0.1"), okg_ready(&pod)] {
        ground.kube.step(&pod, &step).await;
    }
    ground.until_from("game0.example.com", "/", "arena-0").await;
    let text = said(&ground.kube, &["drain", "--of", "arena"]).await;
    assert_eq!(text, "GameServer NS/arena-0 tidegate.dev/drain: none -> \"true\"\n1 server: 1 changed\n");
    let answer = ground.until_status("game0.example.com", 503).await;
    assert_eq!(status_word(&answer), "draining");
    // It stands on the GameServer, written as by a patch of its own manager, on what was read.
    assert_eq!(held(&ground.kube, &server, "drain").await.as_deref(), Some("true"));
    let writes = ground.kube.faults.journal().writes();
    let write = writes.iter().find(|write| write.verb == Verb::Patch && write.resource == OKG).unwrap();
    assert!(write.path.contains("fieldManager=tidegate-cli"), "{}", write.path);
    let metadata = &write.json()["metadata"];
    assert!(metadata["uid"].is_string() && metadata["resourceVersion"].is_string(), "{metadata}");
    assert_eq!(metadata["annotations"], json!({ "tidegate.dev/drain": "true" }));
    // What its people say besides is not taken away, and said.
    ground.kube.patch(&server, &json!({ "spec": { "opsState": "Maintaining" } })).await;
    let text = said(&ground.kube, &["undrain", "arena-0"]).await;
    assert!(
        text.contains(
            "note: GameServer NS/arena-0 still takes no new players: its spec.opsState is Maintaining"
        ),
        "{text}"
    );
    assert_eq!(held(&ground.kube, &server, "drain").await, None);
    ground.kube.patch(&server, &json!({ "spec": { "opsState": "None" } })).await;
    ground.until_from("game0.example.com", "/", "arena-0").await;
}

#[tokio::test]
async fn agones_servers_are_maintained_and_weighed_and_a_dry_run_asks_for_no_write() {
    let kube = Kube::start().await;
    for name in ["race-x-0", "race-x-1", "race-x-10"] {
        kube.create(&race(name, &[])).await;
    }
    let text = said(&kube, &["maintenance", "--of", "race", "--text", "soon", "--dry-run"]).await;
    assert_eq!(
        text,
        "GameServer NS/race-x-0 tidegate.dev/maintenance: none -> \"soon\"\nGameServer NS/race-x-1 tidegate.dev/maintenance: none -> \"soon\"\nGameServer NS/race-x-10 tidegate.dev/maintenance: none -> \"soon\"\n3 servers: 3 to change; nothing was written\n"
    );
    assert_eq!(kube.faults.journal().requests(Verb::Patch, AGONES), 0);
    said(&kube, &["maintenance", "-l", "agones.dev/fleet in (race)", "--text", "soon", "--paths", "/shop"])
        .await;
    for name in ["race-x-0", "race-x-10"] {
        let object = kube.get(&race(name, &[])).await.unwrap();
        assert_eq!(annotation(&object, "maintenance").as_deref(), Some("soon"));
        assert_eq!(annotation(&object, "maintenance-paths").as_deref(), Some("/shop"));
    }
    assert_eq!(kube.faults.journal().requests(Verb::Patch, AGONES), 3, "one for each object");
    said(&kube, &["maintenance", "--of", "race", "--off"]).await;
    said(&kube, &["weight", "race-x-1", "0"]).await;
    let object = kube.get(&race("race-x-1", &[])).await.unwrap();
    assert_eq!(
        (annotation(&object, "maintenance"), annotation(&object, "weight").as_deref()),
        (None, Some("0"))
    );
    let text = refused(&kube, &["drain", "race-x-2"]).await;
    assert!(
        text.contains(
            "no server \"race-x-2\" is in namespace \"NS\"; the nearest of 3 there: race-x-0, race-x-1, race-x-10"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn a_name_that_says_its_namespace_is_looked_for_there() {
    let kube = Kube::start().await;
    let server = race("race-x-0", &[]);
    kube.create(&server).await;
    let name = format!("{}/race-x-0", kube.namespace);
    let text = printed(within(&kube, "elsewhere", &["drain", &name]).await);
    assert!(text.ends_with("1 server: 1 changed\n"), "{text}");
    assert_eq!(held(&kube, &server, "drain").await.as_deref(), Some("true"));
    assert_eq!(kube.faults.journal().requests(Verb::List, AGONES), 1, "nobody named the other namespace");
    // Who says none is in that of -n all the same.
    let mixed = within(&kube, "elsewhere", &["undrain", &name, "race-x-0"]).await;
    let text = String::from_utf8(mixed.stderr).unwrap().replace(&kube.namespace, "NS");
    assert!(
        text.contains("no server \"race-x-0\" is in namespace \"elsewhere\"; there is NS/race-x-0"),
        "{text}"
    );
    assert_eq!(held(&kube, &server, "drain").await.as_deref(), Some("true"));
}

#[tokio::test]
async fn who_is_faster_is_heard_and_overruled_only_elsewhere() {
    let kube = Kube::start().await;
    let server = race("race-x-0", &[]);
    kube.create(&server).await;
    let racing = async |written: Value| {
        let rule = kube.faults.set(Verb::Patch, AGONES, Fault::Hold);
        let command = on(&kube, &["drain", "race-x-0"]);
        let meddle = async {
            eventually("the write is on its way", async || rule.hits(), |hits| *hits == 1).await;
            kube.patch(&server, &json!({ "metadata": { "annotations": written } })).await;
            rule.lift();
        };
        tokio::join!(command, meddle).0
    };
    let text = printed(racing(json!({ "tidegate.dev/weight": "7" })).await);
    assert!(text.ends_with("1 server: 1 changed\n"), "{text}");
    let object = kube.get(&server).await.unwrap();
    assert_eq!(annotation(&object, "drain").as_deref(), Some("true"));
    assert_eq!(annotation(&object, "weight").as_deref(), Some("7"));

    kube.patch(&server, &json!({ "metadata": { "annotations": { "tidegate.dev/drain": null } } })).await;
    let output = racing(json!({ "tidegate.dev/drain": "https://lobby.example.com/" })).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success()
            && text.contains("was changed meanwhile")
            && text.contains("run the command again"),
        "{text}"
    );
    assert_eq!(held(&kube, &server, "drain").await.as_deref(), Some("https://lobby.example.com/"));
}

#[tokio::test]
async fn a_refusal_names_the_object_and_the_right_that_is_missing() {
    let kube = Kube::start().await;
    kube.create(&race("race-x-0", &[])).await;
    for (verb, code, parts) in [
        (
            Verb::Patch,
            403,
            &[
                "0 of 1 objects were written",
                "GameServer NS/race-x-0: ",
                "needs the right `patch` on gameservers.agones.dev",
                "kubectl auth can-i patch gameservers.agones.dev -n NS",
            ][..],
        ),
        (Verb::Patch, 404, &["GameServer NS/race-x-0: ", "it is gone meanwhile"]),
        (Verb::Patch, 422, &["GameServer NS/race-x-0: ", "an admission rule"]),
        (
            Verb::List,
            403,
            &["list gameservers.agones.dev: ", "needs the right `list` on gameservers.agones.dev"],
        ),
        (Verb::List, 401, &["is the kubeconfig's user still good?"]),
    ] {
        let rule = kube.faults.set(verb, AGONES, Fault::Status(code));
        let text = refused(&kube, &["drain", "race-x-0"]).await;
        assert!(parts.iter().all(|part| text.contains(part)), "{code}: {text}");
        rule.lift();
    }
    assert_eq!(held(&kube, &race("race-x-0", &[]), "drain").await, None);
}

#[tokio::test]
async fn a_switch_in_a_cluster_raises_before_it_lowers() {
    let kube = Kube::start().await;
    let old = [sharer("lobby-0", "v1"), sharer("lobby-1", "v1")];
    let new = [sharer("lobby-2", "v2")];
    for object in old.iter().chain(&new) {
        kube.create(object).await;
    }
    said(&kube, &["weight", "lobby-2", "0"]).await;
    kube.faults.journal().clear();
    let text =
        said(&kube, &["switch", "play.example.com", "--to", "version=v2", "--step", "50", "--every", "0s"])
            .await;
    assert_eq!(
        text,
        "share NS/lobby: 0 % of new players go to version=v2 (1 of 3 servers)\nshare NS/lobby: 50 % of new players go to version=v2; written: 3\nshare NS/lobby: 100 % of new players go to version=v2; written: 2\ndone: 100 % of new players go to version=v2\n"
    );
    for object in &old {
        assert_eq!(held(&kube, object, "weight").await.as_deref(), Some("0"));
    }
    assert_eq!(held(&kube, &new[0], "weight").await.as_deref(), Some("100"));
    assert_eq!(held(&kube, &new[0], "version").await.as_deref(), Some("1"));
    let writes = kube.faults.journal().writes();
    let patches: Vec<_> =
        writes.iter().filter(|write| write.verb == Verb::Patch && write.resource == AGONES).collect();
    let is = |at: usize, name: &str| patches[at].path.contains(&format!("/{name}?"));
    assert!(
        is(0, "lobby-2") && patches[0].json()["metadata"]["annotations"]["tidegate.dev/version"] == "1",
        "{patches:?}"
    );
    assert!(is(1, "lobby-2"), "what rises comes first");
    assert_eq!(patches[1].json()["metadata"]["annotations"]["tidegate.dev/weight"], "100");
    assert!(!is(2, "lobby-2") && !is(3, "lobby-2"));

    let rule = kube.faults.set(Verb::Patch, AGONES, Fault::Status(403));
    let text = refused(&kube, &["switch", "play.example.com", "--to", "version=v1", "--every", "0s"]).await;
    assert!(text.contains("needs the right `patch`"), "{text}");
    rule.lift();
}
