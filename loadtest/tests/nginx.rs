//! The nginx lane from end to end, on a few servers: a real nginx is reloaded by the churn, and the players that it drops
//! are seen, told of, and fail nothing. It fails where there is no nginx: a comparison that is skipped proves nothing.
#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(90);
const WORK: [&str; 20] = [
    "soak",
    "--lanes",
    "nginx",
    "--seed",
    "3",
    "--servers",
    "6",
    "--players",
    "12",
    "--rate",
    "5",
    "--changes",
    "600",
    "--quiet",
    "1s",
    "--churn",
    "6s",
    "--nginx-servers",
    "20",
    "--worker-shutdown-timeout",
];

async fn run(words: &[&str], nginx: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(WORK).args(words).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(nginx) = nginx {
        command.env("NGINX", nginx);
    }
    tokio::time::timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap()
}

#[tokio::test]
async fn reloads_drop_players_whose_servers_live_and_the_page_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, html, svg) = (file("run.json"), file("pages/run.html"), file("pictures"));
    let output = run(&["1s", "--json", &json, "--html", &html, "--svg", &svg], None).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "with loadtest/get-nginx there is an nginx; else it says what to do: {said}"
    );

    let run: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let lane = &run["lanes"][0];
    assert_eq!(lane["name"], "nginx, 1 s");
    let samples = lane["samples"].as_array().unwrap();
    let sum = |of: &str| samples.iter().map(|sample| sample[of].as_u64().unwrap()).sum::<u64>();
    let (reloads, dropped) = (sum("pushes"), sum("unexpected_drops"));
    assert!(reloads >= 1 && dropped >= 1, "{reloads} reloads, {dropped} drops: {lane:#}");
    // Who was inside at a reload is dropped, and the quiet before the churn has none.
    let first = |of: &str| {
        let found = samples.iter().find(|sample| sample[of].as_u64() > Some(0)).unwrap();
        found["at_ms"].as_u64().unwrap()
    };
    assert!(first("pushes") < first("unexpected_drops"), "{samples:#?}");
    let drops = lane["drops"].as_array().unwrap();
    let unexpected = drops.iter().filter(|drop| drop["expected"] == false).count();
    assert_eq!(dropped, unexpected as u64, "samples add up to what was recorded");
    assert!(lane["facts"].to_string().contains("worker_shutdown_timeout"), "{lane:#}");

    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains(&format!("<td class=\"bad\">{dropped}</td>")), "{dropped} on the page");
    for name in ["soak-drops.svg", "soak-new-server.svg"] {
        let text = std::fs::read_to_string(folder.path().join("pictures").join(name)).unwrap();
        assert!(text.contains("nginx, 1 s"), "{text}");
    }
}

#[tokio::test]
async fn without_nginx_it_says_what_to_do() {
    let output = run(&["1s"], Some("/nonexistent/nginx")).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("/nonexistent/nginx"), "{said}");
    assert!(said.contains("--nginx"), "{said}");
    let output = run(&["0s"], None).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("such as 240s"), "{said}");
}
