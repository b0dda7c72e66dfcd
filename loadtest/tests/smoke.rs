//! The harness itself, on fleets of twenty servers: does it run to its end, count what it should, and leave
//! nothing behind? What its times are is no matter here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");
const LIMIT: Duration = Duration::from_secs(90);

/// Runs it with these words; its JSON.
async fn run(words: &[&str]) -> Value {
    let tidegate = Path::new(LOADTEST).with_file_name("tidegate");
    assert!(tidegate.is_file(), "{}: `cargo build --bin tidegate` comes first", tidegate.display());
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.json");
    let mut command = Command::new(LOADTEST);
    command.args(words).arg("--json").arg(&json);
    // Figures of a cluster are no lines over anything.
    if words[0] != "kube" {
        command.arg("--svg").arg(folder.path());
    }
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, run).await.expect("it ends in time").unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("a smoke run"), "{table}");
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

/// The one figure of this place and name.
fn figure<'a>(report: &'a Value, scenario: &str, place: &str, name: &str) -> &'a Value {
    let all = report["figures"].as_array().unwrap();
    let of = |figure: &&Value| {
        let streams = figure["streams"].as_u64().map(|count| count.to_string());
        let at = figure["layout"].as_str().map(str::to_owned).or(streams).unwrap_or_default();
        figure["scenario"] == scenario && at == place && figure["name"] == name
    };
    let found: Vec<_> = all.iter().filter(of).collect();
    assert_eq!(found.len(), 1, "{scenario}, {place}, {name}: {all:#?}");
    found[0]
}

/// What is true of every report.
fn is_whole(report: &Value) {
    assert_eq!(report["smoke"], true);
    assert!(report["command"].as_str().unwrap().starts_with("loadtest "), "{report:#}");
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    for figure in report["figures"].as_array().unwrap() {
        let [least, p50, p99, most] = ["least", "p50", "p99", "most"].map(|of| figure[of].as_f64().unwrap());
        assert!(least <= p50 && p50 <= p99 && p99 <= most, "{figure:#}");
        assert!(figure["count"].as_u64().unwrap() > 0 && figure["servers"] == 20, "{figure:#}");
        assert!(
            figure["target"].is_null() || figure["target"]["met"].is_null(),
            "nothing is judged: {figure:#}"
        );
    }
}

#[tokio::test]
async fn delta_measures_every_layout_and_source_beside_its_floor() {
    let report = run(&["delta", "--smoke"]).await;
    is_whole(&report);
    for layout in ["scoped", "table", "path"] {
        let one = figure(&report, "engine", layout, "one change, apply + commit");
        assert_eq!(one["count"], if layout == "table" { 3 } else { 60 });
        let bytes = figure(&report, "engine", layout, "one change, on the wire");
        assert!(
            bytes["most"].as_f64().unwrap() > 200.0,
            "a server that comes is a cluster and a route: {bytes}"
        );
        assert!(figure(&report, "engine", layout, "one change, allocations")["p50"].as_f64().unwrap() > 1.0);
        for (source, floor) in [("file", true), ("event", true)] {
            let one = figure(&report, "envoy", layout, &format!("one change to first 200, by {source}"));
            assert_eq!((&one["count"], one["floor"].is_object()), (&3.into(), floor));
            assert_eq!(one["floor"]["count"], 3);
            figure(&report, "envoy", layout, &format!("burst of 100 to last 200, by {source}"));
            figure(&report, "envoy", layout, &format!("wave of 10 % to last 200, by {source}"));
        }
        figure(&report, "envoy", layout, "a request alone, through Envoy");
    }
    // The same servers as scopes and as one table: a change of the table is all of it.
    let bytes =
        |layout| figure(&report, "engine", layout, "one change, on the wire")["p50"].as_f64().unwrap();
    assert!(bytes("table") > 4.0 * bytes("scoped"), "{} and {}", bytes("table"), bytes("scoped"));
    assert!(figure(&report, "cold start", "scoped", "start of Envoy to first 200")["floor"].is_object());
}

#[tokio::test]
async fn fanout_counts_every_stream_and_sends_nothing_to_those_that_come_back() {
    let report = run(&["fanout", "--smoke", "--connections", "2"]).await;
    is_whole(&report);
    for streams in [1, 4] {
        let place = streams.to_string();
        let of = |name: &str| figure(&report, "fan-out", &place, name);
        assert_eq!(of("one change to the last stream, by file")["count"], 3);
        assert_eq!(of("one change to any stream, by file")["count"], 3 * streams);
        assert_eq!(of("one change to any stream, by file")["floor"]["count"], 3 * streams);
        assert!(of("CPU a change and stream")["p50"].as_f64().unwrap() > 0.0);
        assert!(of("memory a converged stream")["floor"].is_object());
    }
    assert_eq!(figure(&report, "reconnect storm", "4", "resources sent")["most"], 0.0);
    let stalled = |name: &str| figure(&report, "a stalled stream", "4", name)["p50"].as_f64().unwrap();
    assert!((stalled("changes it missed") - 3.0).abs() < 0.1);
    // A cluster and a scope a change, each once.
    assert!((stalled("resources until it has caught up") - 6.0).abs() < 0.1);
}

#[tokio::test]
async fn kube_counts_what_is_heard_told_and_written() {
    let report = run(&["kube", "--smoke"]).await;
    is_whole(&report);
    let of = |scenario, layout, name: &str| {
        figure(&report, scenario, layout, name)["p50"].as_f64().expect("a number")
    };
    let is = |value: f64, wanted: f64| (value - wanted).abs() < 1e-6;
    let noise = |name| of("cluster noise", "agones", name);
    // Twenty servers, two rounds: all of it heard, none of it told to the engine or to Envoy.
    assert!(noise("news heard") >= 40.0);
    for nothing in ["events told to the engine", "pushes to Envoy", "lists and watches that failed"] {
        assert!(is(noise(nothing), 0.0), "{nothing}");
    }
    assert!(noise("the same, a write; floor: bytes") > 0.0);
    for what in ["a server made to first 200", "a server annotated to first 200"] {
        let samples = figure(&report, "cluster change", "agones", what);
        assert_eq!((&samples["count"], samples["floor"].is_object()), (&4.into(), true), "{what}");
    }
    // A cluster and a scope; a new host is a scope alone, and another's removal.
    assert!(is(of("cluster change", "agones", "made: responses to Envoy, mean"), 2.0));
    assert!(of("cluster change", "agones", "annotated: heard to committed, mean") > 0.0);
    for (bare, writes) in [("agones", "agones, write-back"), ("okg", "okg, write-back")] {
        for layout in [bare, writes] {
            figure(&report, "cluster burst", layout, "first write to last 200; floor: asking all");
        }
        assert!(is(of("cluster burst", bare, "other requests to the API server"), 0.0), "{bare}");
        assert!(is(of("cluster burst", writes, "patches a server"), 1.0), "{writes}");
        figure(&report, "cluster burst", writes, "first write to last mark; floor: their pace");
    }
}

/// What a soak that ends well writes of itself, into a folder that it makes.
async fn recorded(words: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("not/there/yet/run.json");
    let (is_well, out) = soak(words, &[OsStr::new("--json"), json.as_os_str()]).await;
    assert!(is_well, "{out}");
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

#[tokio::test]
async fn soak_drops_nobody_but_with_his_own_server_through_churn_and_crashes() {
    let words = "soak --servers 12 --players 30 --rate 5 --changes 900 --quiet 1s --churn 10s --kill-every 4s --seed 4";
    let run = recorded(words).await;
    assert_eq!(run["seed"], 4);
    let lane = &run["lanes"][0];
    let list = |name: &str| lane[name].as_array().unwrap().clone();
    // The seed's schedule: servers come, one is stopped under its players, and each fault is there.
    assert!(list("new_servers").iter().any(|new| new["took_ms"].is_f64()), "{lane:#}");
    assert!(
        !list("drops").is_empty() && list("drops").iter().all(|drop| drop["expected"] == true),
        "{lane:#}"
    );
    let marks = list("marks");
    for word in
        ["kill -9: both", "takeover: kill -9", "reset:", "pause: over", "away: it is back", "nack: over"]
    {
        let is_there = |mark: &Value| mark["what"].as_str().unwrap().starts_with(word);
        assert!(marks.iter().any(is_there), "{word}: {marks:#?}");
    }
    let sum = |name: &str| list("samples").iter().map(|sample| sample[name].as_u64().unwrap()).sum::<u64>();
    assert!(sum("messages") > 1_000 && sum("pushes") > 20);
    assert_eq!((sum("unexpected_drops"), sum("lost")), (0, 0));
    assert_eq!(sum("expected_drops"), list("drops").len() as u64);
}

#[tokio::test]
async fn soak_is_quiet_again_before_each_round_of_a_longer_churn() {
    let words = "soak --servers 4 --players 10 --rate 5 --changes 600 --quiet 2s --churn 4s --round 2s --faults kill --kill-every 1s --seed 4";
    let run = recorded(words).await;
    let marks = run["lanes"][0]["marks"].as_array().unwrap();
    let of = |kind: &'static str| marks.iter().filter(move |mark| mark["kind"] == kind);
    let (at, what) = (|mark: &Value| mark["at_ms"].as_u64().unwrap(), |mark: &Value| mark["what"].clone());
    let phases = ["quiet", "in-place", "churn", "a rest", "quiet", "churn", "the end"];
    assert_eq!(of("phase").count(), phases.len(), "{marks:#?}");
    for (mark, phase) in of("phase").zip(phases) {
        assert!(what(mark).as_str().unwrap().starts_with(phase), "{mark} for {phase}");
    }
    // A control plane is killed in each round, and nothing at all is done while it is quiet.
    assert_eq!(
        of("fault").filter(|mark| what(mark) == "kill -9: both control planes").count(),
        2,
        "{marks:#?}"
    );
    let quiet: Vec<_> = marks
        .windows(2)
        .filter(|pair| what(&pair[0]) == "quiet")
        .map(|pair| (what(&pair[1]), at(&pair[1]) - at(&pair[0])))
        .collect();
    assert!(quiet.len() == 2 && quiet.iter().all(|(_, lasted)| *lasted >= 1_900), "{quiet:?}");
    for phase in ["quiet", "churn"] {
        let samples = run["lanes"][0]["samples"].as_array().unwrap();
        assert!(samples.iter().any(|sample| sample["phase"] == phase), "{phase}: {samples:#?}");
    }
}

#[tokio::test]
async fn soak_notices_every_player_who_is_cut_and_every_message_that_is_spoiled() {
    let (is_well, out) = soak("soak --self-test", &[]).await;
    assert!(is_well && out.ends_with("self-test: caught\n") && !out.contains("NOT CAUGHT"), "{out}");
    for what in ["lost", "repeated", "out of order", "answered by another server", "cut by a change"] {
        assert!(out.contains(what), "{what}: {out}");
    }
}

#[tokio::test]
async fn soak_tells_of_a_lane_that_breaks_off_with_what_was_seen_until_then() {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let words = format!(
        "soak --servers 1 --players 1 --quiet 1s --churn 1s --seed 1 --url {}",
        front.local_addr().unwrap()
    );
    let folder = tempfile::tempdir().unwrap();
    let (fleet, json) = (folder.path().join("fleet"), folder.path().join("run.json"));
    std::fs::create_dir(&fleet).unwrap();
    let gone = fleet.clone();
    let attending = tokio::spawn(async move {
        let (stream, _) = front.accept().await.unwrap();
        let mut player = tokio_tungstenite::accept_async(stream).await.unwrap();
        // With a player inside: the first file that changes can't be written.
        std::fs::remove_dir_all(gone).unwrap();
        while let Some(Ok(_)) = player.next().await {}
    });
    let more = [OsStr::new("--fleet"), fleet.as_os_str(), OsStr::new("--json"), json.as_os_str()];
    let (is_well, out) = soak(&words, &more).await;
    attending.await.unwrap();
    assert!(!is_well && out.contains("tidegate: broke off: "), "{out}");
    assert!(out.contains("the front itself at ") && out.contains("the lane broke off"), "{out}");
    let run: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let lane = &run["lanes"][0];
    assert!(lane["facts"].to_string().contains("broke off"), "{lane:#}");
    assert!(!lane["marks"].as_array().unwrap().is_empty(), "{lane:#}");
}

/// Whether it went well, and what it said.
async fn soak(words: &str, more: &[&OsStr]) -> (bool, String) {
    let mut command = Command::new(LOADTEST);
    command.args(words.split(' ')).args(more).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap();
    let text = [output.stderr, output.stdout].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn what_it_cannot_do_it_says_before_it_begins() {
    for (words, why) in [
        (&["fanout", "--smoke", "--tidegate", "/nonexistent"][..], "--tidegate"),
        (&["delta", "--smoke", "--parts", "cold", "--envoy", "/nonexistent"][..], "/nonexistent"),
        (&["delta", "--sizes", "3"][..], "--sizes"),
        (&["soak", "--tidegate", "/nonexistent"][..], "--tidegate"),
        (&["soak", "--envoy", "/nonexistent"][..], "by --envoy"),
        (&["soak", "--lanes", "tidegate,nginx", "--nginx", "/nonexistent"][..], "--nginx"),
        (&["soak", "--faults", "rain"][..], "takeover"),
        (&["soak", "--churn", "5m", "--kill-every", "4s"][..], "--kill-every 12s"),
        (&["soak", "--players", "50000", "--servers", "20000"][..], "--players"),
        (&["soak", "--url", "127.0.0.1:1", "--fleet", "/nonexistent"][..], "--fleet"),
    ] {
        let run = Command::new(LOADTEST).args(words).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(LIMIT, run).await.expect("it ends in time").unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(why), "{words:?}: {text}");
    }
}

#[tokio::test]
async fn an_interrupted_run_leaves_no_process_behind() {
    // The bare server, the control plane, and an Envoy at each of three.
    let delta = "delta --sizes 20 --layouts scoped --parts envoy --changes 10000";
    interrupted(delta, "Envoy, 20 servers", 5, "-INT").await;
    // Two control planes and an Envoy; by its terminal's end, and by a key.
    for signal in ["-HUP", "-QUIT"] {
        interrupted("soak --servers 10 --players 10 --seed 1", "seed 1", 3, signal).await;
    }
}

async fn interrupted(words: &str, first: &str, count: usize, signal: &str) {
    // As in a terminal, though the tests themselves may run under nohup.
    let mut run = Command::new("env")
        .args(["--default-signal=HUP,QUIT", LOADTEST])
        .args(words.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let own = run.id().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    assert!(timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap().contains(first));
    let children = until(|| Some(children(own)).filter(|children| children.len() >= count)).await;
    let sent = Command::new("kill").args([signal, &own.to_string()]).status().await.unwrap();
    assert!(sent.success());
    let ended = timeout(LIMIT, run.wait()).await.expect("it ends").unwrap();
    assert!(!ended.success());
    until(|| children.iter().all(|pid| !is_alive(*pid)).then_some(())).await;
}

/// The processes whose parent is this one.
fn children(parent: u32) -> BTreeSet<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fields(*pid).is_some_and(|fields| fields[1] == parent.to_string())).collect()
}

/// Not even a zombie counts as alive.
fn is_alive(pid: u32) -> bool {
    fields(pid).is_some_and(|fields| fields[0] != "Z")
}

/// State and parent of a process, and what follows in `/proc/PID/stat`.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
