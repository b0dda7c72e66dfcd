//! Operators' commands on the files of a fleet: what they write, what they refuse, and what players get of it.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::fleet::{Fleet, server, server_with};
use testkit::gate::{Gate, body, get, status_word};
use testkit::players::{Game, Player};
use testkit::tidegate::{BINARY, printed, run};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Runs a command on a fleet directory.
async fn on(fleet: &Fleet, arguments: &[&str]) -> Output {
    run(&[arguments, &["--fleet", fleet.path().to_str().unwrap()]].concat()).await
}

/// What a command on a fleet directory prints, its path left out.
async fn said(fleet: &Fleet, arguments: &[&str]) -> String {
    printed(on(fleet, arguments).await).replace(&format!("{}/", fleet.path().display()), "")
}

/// What a command says when it fails; nothing may be written then.
async fn refused(fleet: &Fleet, arguments: &[&str]) -> String {
    let before = files(fleet);
    let output = on(fleet, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(files(fleet), before, "{arguments:?} wrote something");
    String::from_utf8(output.stderr).unwrap().replace(&format!("{}/", fleet.path().display()), "")
}

/// Every file by its name; drafts, too.
fn files(fleet: &Fleet) -> BTreeMap<String, String> {
    let entries = fs::read_dir(fleet.path()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn read(fleet: &Fleet, file: &str) -> String {
    fs::read_to_string(fleet.path().join(file)).unwrap()
}

/// A server of share `lobby` at `play.localhost`, labelled with its version.
fn sharer(name: &str, version: &str, port: u16) -> Value {
    let mut object = server_with(name, port, &[("host", "play.localhost"), ("share", "lobby")]);
    object["metadata"]["labels"] = json!({ "version": version });
    object
}

fn annotation(fleet: &Fleet, name: &str, key: &str) -> Option<String> {
    let object: Value = serde_json::from_str(&read(fleet, &format!("{name}.json"))).unwrap();
    object["metadata"]["annotations"][format!("tidegate.dev/{key}")].as_str().map(str::to_owned)
}

fn weights(fleet: &Fleet, names: &[&str]) -> Vec<u32> {
    names
        .iter()
        .map(|name| annotation(fleet, name, "weight").map_or(100, |weight| weight.parse().unwrap()))
        .collect()
}

const LOBBY: &str = "# Ours. Ask ops before you change it.
apiVersion: tidegate.dev/v1
kind: Server
metadata:
  name: lobby-0
  labels: { version: v1 }   # the old one
  annotations:
    tidegate.dev/host: lobby<id>.localhost  # where
    # last
spec: { address: 127.0.0.1, port: 7000 }
---
apiVersion: v1
kind: List
items:
- apiVersion: tidegate.dev/v1
  kind: Server
  metadata: { name: lobby-1, labels: { version: v2 }, annotations: { tidegate.dev/host: \"lobby<id>.localhost\" } }
  spec: { address: 127.0.0.1, port: 7001 }
- apiVersion: tidegate.dev/v1
  kind: Server
  metadata:
    name: lobby-2
    namespace: eu
    annotations: { tidegate.dev/host: eu.localhost }
  spec: { address: 127.0.0.1, port: 7002 }
";

fn lobby() -> Fleet {
    let fleet = Fleet::of(&[]);
    fleet.write("lobby.yaml", LOBBY);
    fleet
}

#[tokio::test]
async fn a_drain_writes_one_line_and_its_end_takes_it_away() {
    let fleet = lobby();
    let file = fleet.path().join("lobby.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        said(&fleet, &["drain", "lobby-0"]).await,
        "lobby.yaml:8: Server default/lobby-0 tidegate.dev/drain: none -> \"true\"\n1 server: 1 changed\n"
    );
    let drained = LOBBY.replace("# where\n", "# where\n    tidegate.dev/drain: \"true\"\n");
    assert_eq!(read(&fleet, "lobby.yaml"), drained);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(said(&fleet, &["drain", "lobby-0"]).await, "1 server: all is so already\n");
    let moved = said(&fleet, &["drain", "default/lobby-0", "--redirect", "https://lobby1.localhost/"]).await;
    assert!(moved.starts_with("lobby.yaml:9: Server default/lobby-0 tidegate.dev/drain: \"true\" -> \"https://lobby1.localhost/\"\n"), "{moved}");
    said(&fleet, &["undrain", "lobby-0"]).await;
    assert_eq!(read(&fleet, "lobby.yaml"), LOBBY);
    assert_eq!(files(&fleet).len(), 1, "no draft is left");
}

#[tokio::test]
async fn maintenance_and_weights_are_written_to_all_who_are_meant() {
    let fleet = lobby();
    let text = said(
        &fleet,
        &["maintenance", "--of", "lobby", "-A", "--text", "back at 10", "--paths", "/shop,/rank"],
    )
    .await;
    assert!(text.ends_with("3 servers: 6 changed\n"), "{text}");
    let written = read(&fleet, "lobby.yaml");
    assert!(written.contains("    tidegate.dev/maintenance: \"back at 10\"\n    tidegate.dev/maintenance-paths: \"/shop,/rank\"\n    # last\n"), "{written}");
    assert!(written.contains("annotations: { tidegate.dev/host: eu.localhost, tidegate.dev/maintenance: \"back at 10\", tidegate.dev/maintenance-paths: \"/shop,/rank\" }\n"), "{written}");
    let text = said(&fleet, &["maintenance", "--of", "lobby", "-A", "--off"]).await;
    assert!(text.ends_with("3 servers: 6 changed\n"), "{text}");
    assert_eq!(read(&fleet, "lobby.yaml"), LOBBY);

    let text = said(&fleet, &["weight", "-l", "version in (v2,v3)", "7"]).await;
    assert!(text.contains("lobby.yaml:17: Server default/lobby-1 tidegate.dev/weight: none -> \"7\"\nnote: Server default/lobby-1 is of no share"), "{text}");
    let text = said(&fleet, &["weight", "lobby-0", "eu/lobby-2", "0"]).await;
    assert!(text.ends_with("2 servers: 2 changed\n"), "{text}");
}

#[tokio::test]
async fn a_dry_run_says_it_all_and_writes_nothing() {
    let fleet = lobby();
    let text = said(&fleet, &["drain", "-l", "version", "--dry-run"]).await;
    assert_eq!(
        text,
        "lobby.yaml:8: Server default/lobby-0 tidegate.dev/drain: none -> \"true\"\nlobby.yaml:17: Server default/lobby-1 tidegate.dev/drain: none -> \"true\"\n2 servers: 2 to change; nothing was written\n"
    );
    let lines = said(&fleet, &["drain", "lobby-0", "--dry-run", "-o", "json"]).await;
    let line: Value = serde_json::from_str(&lines).unwrap();
    let wanted = json!({ "kind": "Server", "namespace": "default", "name": "lobby-0", "at": "lobby.yaml:8",
        "annotation": "tidegate.dev/drain", "old": null, "new": "true", "written": false });
    assert_eq!(line, wanted);
    assert_eq!(read(&fleet, "lobby.yaml"), LOBBY);
}

#[tokio::test]
async fn what_can_not_be_done_is_refused_with_a_reason_and_a_remedy() {
    let fleet = lobby();
    let anchored = "apiVersion: tidegate.dev/v1\nkind: Server\nmetadata:\n  name: b-0\n  annotations: &all\n    tidegate.dev/host: b.localhost\nspec: { address: 127.0.0.1, port: 7000 }\n";
    fleet.write("anchor.yaml", anchored);
    for (arguments, parts) in [
        (&["drain", "lobbi-0"][..], &["no server \"lobbi-0\" is in namespace \"default\"", "lobby-0"][..]),
        (&["drain", "lobby-2"], &["there is eu/lobby-2"]),
        (&["drain"], &["nobody is named", "-l version=v1"]),
        (&["drain", "a/b/c"], &["names no server"]),
        (&["drain", "-l", "version=v9"], &["they have version=v1 (1), version=v2 (1)"]),
        (&["drain", "--of", "loby"], &["its fleets are lobby"]),
        (&["drain", "lobby-0", "--redirect", "lobby1"], &["--redirect \"lobby1\" is no URL", "https://"]),
        (&["drain", "lobby-0", "--redirect", "http://lobby0.localhost"], &["leads to lobby0.localhost"]),
        (&["weight", "lobby-0", "-1"], &["\"-1\", the last word, is no weight", "from 0 to 1000"]),
        (&["weight", "lobby-0", "1001"], &["weight 1001 is too much"]),
        (&["weight", "lobby-0"], &["\"lobby-0\", the last word, is no weight"]),
        (&["weight", "lobby-0", "-l", "a", "5"], &["say one or the other"]),
        (
            &["maintenance", "lobby-0", "--text", "x", "--paths", "shop"],
            &["--paths \"shop\" does not begin with /"],
        ),
        (&["drain", "b-0"], &["anchor.yaml:6: ", "behind an anchor"]),
        (&["switch", "lobby<id>.localhost", "--to", "version=v2"], &["is a template", "tidegate check"]),
        (
            &["switch", "nobody.localhost", "--to", "version=v2"],
            &["nobody holds nobody.localhost; the nearest of 4 hosts"],
        ),
        (
            &["switch", "lobby0.localhost", "--to", "version=v2"],
            &["names no share", "write tidegate.dev/share: NAME"],
        ),
    ] {
        let text = refused(&fleet, arguments).await;
        assert!(parts.iter().all(|part| text.contains(part)), "{arguments:?}: {text}");
    }
    let typed = on(&fleet, &["drain", "-l", "a b"]).await;
    let text = String::from_utf8_lossy(&typed.stderr).into_owned();
    assert!(typed.status.code() == Some(2) && text.contains("expected parts such as key=value"), "{text}");
    let both = on(&fleet, &["drain", "lobby-0", "--kube"]).await;
    assert!(String::from_utf8_lossy(&both.stderr).contains("name two places"), "{both:?}");
    let missing = run(&["drain", "a", "--fleet", "/nowhere"]).await;
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--fleet /nowhere: expected a directory"));

    fleet.write("broken.yaml", "a: [\n");
    let text = said(&fleet, &["drain", "lobby-0"]).await;
    assert!(text.contains("1 changed"), "a broken neighbour is in nobody's way: {text}");
    let text = refused(&fleet, &["switch", "play.localhost", "--to", "version=v2"]).await;
    assert!(text.contains("broken.yaml:") && text.contains("a switch needs to see every server"), "{text}");
}

#[tokio::test]
async fn one_line_of_many_changes_and_a_link_stays_one() {
    let fleet = Fleet::of(&[]);
    fleet.put_all("all.ndjson", (0..500).map(|at| server(&format!("game-{at}"), 7000)));
    let real = fleet.elsewhere();
    fs::rename(fleet.path().join("all.ndjson"), &real).unwrap();
    std::os::unix::fs::symlink(&real, fleet.path().join("all.ndjson")).unwrap();
    let before = fs::read_to_string(&real).unwrap();
    let text = said(&fleet, &["drain", "game-250"]).await;
    assert!(text.starts_with("all.ndjson:251: "), "{text}");
    let after = fs::read_to_string(&real).unwrap();
    let differ: Vec<_> = before.lines().zip(after.lines()).filter(|(old, new)| old != new).collect();
    assert_eq!(differ.len(), 1);
    assert!(differ[0].1.contains("\"tidegate.dev/drain\":\"true\""), "{}", differ[0].1);
    assert!(fs::symlink_metadata(fleet.path().join("all.ndjson")).unwrap().is_symlink());
}

#[tokio::test]
async fn objects_of_a_cluster_in_a_file_are_changed_where_their_annotations_go() {
    use cluster::objects::{agones_ready, okg_game_server, okg_pod, okg_set};
    let set = okg_set("arena", 1, &[]);
    let pod = okg_pod(&set, 0);
    let mut game = okg_game_server(&pod);
    game["spec"]["opsState"] = "Maintaining".into();
    game["metadata"]["annotations"]["tidegate.dev/host"] = "arena.localhost".into();
    let mut set = set;
    set["metadata"]["annotations"] = json!({ "tidegate.dev/drain": "true" });
    let agones = agones_ready("race-0", &[("tidegate.dev/host", "race.localhost")], "127.0.0.1", 7000);
    let fleet = Fleet::of(&[]);
    let dump = json!({ "apiVersion": "v1", "kind": "List", "items": [pod, set, game, agones] });
    fleet.write("dump.json", &serde_json::to_string_pretty(&dump).unwrap());

    let text = said(&fleet, &["drain", "--of", "arena"]).await;
    assert!(text.contains("GameServer default/arena-0 tidegate.dev/drain: none -> \"true\""), "{text}");
    let written: Value = serde_json::from_str(&read(&fleet, "dump.json")).unwrap();
    let mut wanted = dump.clone();
    wanted["items"][2]["metadata"]["annotations"]["tidegate.dev/drain"] = "true".into();
    assert_eq!(written, wanted);
    let text = said(&fleet, &["undrain", "arena-0"]).await;
    assert!(text.contains("note: GameServer default/arena-0 is still drained by GameServerSet default/arena: tidegate.dev/drain: \"true\""), "{text}");
    assert!(
        text.contains(
            "note: GameServer default/arena-0 still takes no new players: its spec.opsState is Maintaining"
        ),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Value>(&read(&fleet, "dump.json")).unwrap(), dump);
    let text = said(&fleet, &["drain", "race-0"]).await;
    assert!(text.contains("GameServer default/race-0"), "{text}");
}

#[tokio::test]
async fn players_see_a_drain_a_redirect_and_maintenance() {
    let game = Game::start("game").await;
    let gate = Gate::of(&[server("a", game.port)]).await;
    let inside = Player::join(gate.envoy.http, "a.localhost").await;
    said(&gate.fleet, &["drain", "a"]).await;
    let answer = gate.until_status("a.localhost", 503).await;
    assert_eq!(status_word(&answer), "draining");
    said(&gate.fleet, &["drain", "a", "--redirect", "https://b.example.com/x"]).await;
    let answer = gate.until_status("a.localhost", 307).await;
    assert_eq!(answer.header("location"), Some("https://b.example.com/x"));
    said(&gate.fleet, &["undrain", "a"]).await;
    gate.until_from("a.localhost", "game").await;
    said(&gate.fleet, &["maintenance", "a", "--text", "soon", "--paths", "/shop"]).await;
    let answer = gate.until("a.localhost", "/shop", |answer| answer.status == 503).await;
    assert_eq!(
        (status_word(&answer).as_str(), body(&answer)["message"].as_str()),
        ("maintenance", Some("soon"))
    );
    assert_eq!(gate.get("a.localhost", "/").await.status, 200);
    said(&gate.fleet, &["maintenance", "a", "--off"]).await;
    gate.until("a.localhost", "/shop", |answer| answer.status == 200).await;
    inside.plays().await;
    assert!(inside.leave().await.is_clean());
}

#[tokio::test]
async fn a_drain_among_a_thousand_changes_one_scope_and_nothing_else() {
    let game = Game::start("game").await;
    let servers: Vec<_> = (0..1000).map(|number| server(&format!("a-{number}"), game.port)).collect();
    let gate = Gate::of(&servers).await;
    gate.tidegate.is_served_to(1).await;
    let inside = Player::join(gate.envoy.http, "a-7.localhost").await;
    let sent = async || {
        let kinds = ["clusters", "scopes"].map(|kind| format!("tidegate_pushes_total{{type=\"{kind}\"}}"));
        let names =
            [&kinds[0], &kinds[1], "tidegate_pushed_resources_total", "tidegate_pushed_removals_total"];
        let mut counts = Vec::new();
        for name in names {
            counts.push(gate.tidegate.metric(name).await);
        }
        counts
    };
    let (before, listeners) = (sent().await, gate.envoy.stats("listener_manager").await);
    assert!(!listeners.is_empty());
    said(&gate.fleet, &["drain", "a-7"]).await;
    gate.until_status("a-7.localhost", 503).await;
    gate.tidegate.is_served_to(1).await;
    let added: Vec<u64> = sent().await.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(added, [0, 1, 1, 0], "clusters and scopes pushed, resources and removals in them");
    assert_eq!(gate.envoy.stats("listener_manager").await, listeners);
    assert_eq!(gate.get("a-8.localhost", "/").await.status, 200);
    inside.plays().await;
    assert!(inside.leave().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_moves_new_players_and_those_inside_stay() {
    let mut fleet = Vec::new();
    let mut games = Vec::new();
    for (name, version) in [("old-0", "v1"), ("old-1", "v1"), ("new-0", "v2")] {
        let game = Game::start(name).await;
        fleet.push(sharer(name, version, game.port));
        games.push(game);
    }
    let gate = Gate::of(&fleet).await;
    // A part of them, and back: the share of the new server is what was asked for.
    let text = said(
        &gate.fleet,
        &[
            "switch",
            "play.localhost",
            "--to",
            "version=v2",
            "--percent",
            "20",
            "--step",
            "20",
            "--every",
            "0s",
        ],
    )
    .await;
    assert!(
        text.contains("share default/lobby: 33.3 % of new players go to version=v2 (1 of 3 servers)"),
        "{text}"
    );
    assert!(text.ends_with("done: 20 % of new players go to version=v2\n"), "{text}");
    assert_eq!(weights(&gate.fleet, &["old-0", "old-1", "new-0"]), [100, 100, 50]);
    assert_eq!(annotation(&gate.fleet, "new-0", "version").as_deref(), Some("1"));
    gate.tidegate.is_served_to(1).await;
    let count = async || {
        let answers =
            stream::iter(0..600).map(|_| get(&gate.envoy, "play.localhost", "/")).buffer_unordered(16);
        answers.fold(0, async |count, answer| count + usize::from(body(&answer)["server"] == "new-0")).await
    };
    testkit::eventually("a fifth is new", count, |new| (80..=160).contains(new)).await;
    let inside = Player::join(gate.envoy.http, "play.localhost").await;

    said(&gate.fleet, &["switch", "play.localhost", "--to", "version=v2", "--step", "40", "--every", "0s"])
        .await;
    assert_eq!(weights(&gate.fleet, &["old-0", "old-1", "new-0"]), [0, 0, 100]);
    testkit::eventually("all is new", count, |new| *new == 600).await;
    inside.plays().await;
    assert!(inside.leave().await.is_clean());

    // The other group is the way back, over its version.
    said(&gate.fleet, &["switch", "play.localhost", "--to", "version=v1", "--step", "100", "--every", "0s"])
        .await;
    assert_eq!(weights(&gate.fleet, &["old-0", "old-1", "new-0"]), [100, 100, 0]);
    assert_eq!(annotation(&gate.fleet, "old-1", "version").as_deref(), Some("2"));
    testkit::eventually("nothing is new", count, |new| *new == 0).await;
}

/// A switch to `v2` that waits between its steps, and the lines that it prints.
async fn waiting(
    fleet: &Fleet,
    steps: usize,
    arguments: &[&str],
) -> (Child, Vec<String>, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) {
    let mut child = Command::new(BINARY)
        .args(["switch", "play.localhost", "--to", "version=v2", "--step", "25", "--every", "1h"])
        .args(arguments)
        .arg("--fleet")
        .arg(fleet.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.iter().filter(|line: &&String| line.contains("written: ")).count() < steps {
        seen.push(timeout(testkit::LIMIT, lines.next_line()).await.unwrap().unwrap().expect("it goes on"));
    }
    (child, seen, lines)
}

/// What a switch says at Ctrl-C.
async fn interrupted(
    mut child: Child,
    mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
) -> String {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let status = timeout(testkit::LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    let mut rest = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest.push(line);
    }
    rest.join("\n")
}

#[tokio::test]
async fn the_way_back_from_a_part_is_the_whole_of_the_others() {
    let fleet = Fleet::of(&[sharer("a", "v1", 7000), sharer("b", "v2", 7001)]);
    said(&fleet, &["weight", "b", "0"]).await;
    let reading = ["--host-template", "<name>.localhost", "--ingress-class", "ours"];
    let (child, _, lines) = waiting(&fleet, 1, &[&reading[..], &["--percent", "50"]].concat()).await;
    let rest = interrupted(child, lines).await;
    let place =
        format!("--fleet {} --host-template '<name>.localhost' --ingress-class ours", fleet.path().display());
    let pace = "--step 25 --every 3600s";
    assert!(
        rest.contains(&format!(
            "to go on:   tidegate switch play.localhost --to 'version=v2' --percent 50 {pace} {place}"
        )),
        "{rest}"
    );
    assert!(
        rest.contains(&format!(
            "to go back: tidegate switch play.localhost --to 'version!=v2' {pace} {place}"
        )),
        "{rest}"
    );
    said(&fleet, &["switch", "play.localhost", "--to", "version!=v2", "--every", "0s"]).await;
    assert_eq!(weights(&fleet, &["a", "b"]), [100, 0]);
}

#[tokio::test]
async fn an_interrupted_switch_says_how_to_go_on_and_back() {
    let fleet = Fleet::of(&[sharer("a", "v1", 7000), sharer("b", "v2", 7001)]);
    said(&fleet, &["weight", "b", "0"]).await;
    let (child, seen, lines) = waiting(&fleet, 1, &[]).await;
    assert!(
        seen[0].contains("share default/lobby: 0 % of new players go to version=v2 (1 of 2 servers)"),
        "{seen:?}"
    );
    let rest = interrupted(child, lines).await;
    let fleet_flag = format!("--fleet {}", fleet.path().display());
    assert!(rest.starts_with("stopped: 24.8 % of new players go there"), "{rest}");
    assert!(rest.contains(&format!("to go on:   tidegate switch play.localhost --to 'version=v2' --step 25 --every 3600s {fleet_flag}")), "{rest}");
    assert!(rest.contains(&format!("to go back: tidegate switch play.localhost --to 'version!=v2' --step 25 --every 3600s {fleet_flag}")), "{rest}");
    assert_eq!(weights(&fleet, &["a", "b"]), [100, 33]);

    let text =
        said(&fleet, &["switch", "play.localhost", "--to", "version!=v2", "--every", "0s", "-o", "json"])
            .await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<_> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [80, 90, 100], "{text}");
    assert_eq!(lines.last().unwrap()["done"], 100, "{text}");
    assert_eq!(weights(&fleet, &["a", "b"]), [100, 0]);
}

#[tokio::test]
async fn a_switch_that_was_killed_goes_on_from_what_stands_there() {
    let fleet = Fleet::of(&[sharer("a", "v1", 7000), sharer("b", "v2", 7001), sharer("c", "v2", 7002)]);
    let (mut child, _, _) = waiting(&fleet, 1, &[]).await;
    child.kill().await.unwrap();
    assert_eq!(weights(&fleet, &["a", "b", "c"]), [67, 100, 100], "75 %");
    // As if it had been killed between two files of a step.
    said(&fleet, &["weight", "c", "60"]).await;
    let dry = said(&fleet, &["switch", "play.localhost", "--to", "version=v2", "--dry-run"]).await;
    assert!(dry.contains("share default/lobby: 70.5 % of new players go to version=v2 (2 of 3 servers). Its weights are those of no whole step: one was cut off, or they were set by hand; this goes on from here"), "{dry}");
    assert!(
        dry.contains("[80 %] c.json:1: Server default/c tidegate.dev/weight: \"60\" -> \"100\""),
        "{dry}"
    );
    assert!(dry.ends_with("done: 100 % of new players go to version=v2; nothing was written\n"), "{dry}");
    assert_eq!(weights(&fleet, &["a", "b", "c"]), [67, 100, 60]);
    let text = said(&fleet, &["switch", "play.localhost", "--to", "version=v2", "--every", "0s"]).await;
    assert!(text.ends_with("done: 100 % of new players go to version=v2\n"), "{text}");
    assert_eq!(weights(&fleet, &["a", "b", "c"]), [0, 100, 100]);
    let again = said(&fleet, &["switch", "play.localhost", "--to", "version=v2", "--every", "0s"]).await;
    assert!(!again.contains("written: "), "{again}");
}
