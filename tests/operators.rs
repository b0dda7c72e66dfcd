//! What the people see who run it: pages, commands, exit codes.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::fleet::{Fleet, annotated, made_at, server, server_with};
use testkit::gate::Gate;
use testkit::players::{Game, Player};
use testkit::tidegate::{Tidegate, printed, run};
use tokio::net::TcpListener;

#[tokio::test]
async fn health_readiness_and_an_unknown_page() {
    let fleet = Fleet::of(&[server("game", 7000)]);
    let tidegate = Tidegate::start(&fleet.path()).await;
    assert_eq!(tidegate.get("/healthz").await.body, "ok\n");
    let ready =
        testkit::eventually("ready", async || tidegate.get("/readyz").await, |answer| answer.status == 200)
            .await;
    let ready: Value = serde_json::from_str(&ready.body).unwrap();
    assert_eq!((&ready["ready"], &ready["awaited"]), (&json!(true), &json!([])));
    assert_eq!(ready["sources"]["files"]["listed"], true);
    for path in ["/nowhere", "/api", "/api/", "/api/routes/x", "/%00", "/..%2f"] {
        let answer = tidegate.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")), "{path}");
        assert!(answer.body.contains("no such page"), "{path}: {answer:?}");
    }
    let bad = tidegate.get("/api/explain?host=no..host").await;
    assert_eq!(bad.status, 400, "{bad:?}");
    assert!(tidegate.get_json("/api/explain?host=a..b").await["error"].as_str().unwrap().contains("a..b"));
}

#[tokio::test]
async fn a_long_list_comes_whole_or_in_pages() {
    let fleet = Fleet::of(&[]);
    let names = (0..700).map(|n| format!("game-{n}"));
    fleet.put_all(
        "fleet.ndjson",
        names.map(|name| server_with(&name, 7000, &[("host", "one.localhost"), ("path", "/<name>")])),
    );
    let tidegate = Tidegate::start(&fleet.path()).await;
    testkit::eventually("ready", async || tidegate.get("/readyz").await.status, |status| *status == 200)
        .await;
    for (list, key) in [("servers", "id"), ("routes", "path")] {
        let ids = |page: &Value| -> Vec<String> {
            page[list].as_array().unwrap().iter().map(|row| row[key].as_str().unwrap().to_owned()).collect()
        };
        let whole = tidegate.get_json(&format!("/api/{list}")).await;
        assert_eq!((ids(&whole).len(), &whole["next"]), (700, &Value::Null));
        let (mut paged, mut after) = (Vec::new(), String::new());
        loop {
            let page = tidegate.get_json(&format!("/api/{list}?limit=300&after={after}")).await;
            paged.extend(ids(&page));
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!(ids(&page).len(), 300);
            after = next.to_owned();
        }
        assert_eq!(paged, ids(&whole));
        let few = tidegate.get_json(&format!("/api/{list}?q=game-69&limit=0")).await;
        assert_eq!(ids(&few).len(), 1, "a page is never empty while there is more: {few}");
        assert_eq!(ids(&tidegate.get_json(&format!("/api/{list}?q=game-69")).await).len(), 11);
    }
    let bad = tidegate.get("/api/routes?after=no..host").await;
    assert_eq!(bad.status, 400, "{bad:?}");
    assert!(bad.body.contains("no..host"), "{bad:?}");
}

/// Every line is a comment that we know or a sample with a number, and every family says what it is.
#[tokio::test]
async fn metrics_can_be_parsed_and_say_what_is_there() {
    let game = Game::start("game").await;
    let bad = annotated(&server("bad", game.port), "weight", "heavy");
    let gate = Gate::of(&[server("game", game.port), bad]).await;
    gate.tidegate.is_served_to(1).await;
    let answer = gate.tidegate.get("/metrics").await;
    assert!(
        answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    let (mut families, mut helped, mut samples) = (BTreeMap::new(), Vec::new(), 0);
    for line in answer.body.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", "TYPE", name, kind] => assert_eq!(families.insert(name, kind), None, "{name} comes twice"),
            ["#", "HELP", name, _, ..] => helped.push(name),
            ["#", "UNIT", name, unit] => assert!(name.ends_with(unit), "{line}"),
            ["#", "EOF"] => assert!(answer.body.ends_with("# EOF\n")),
            [name, value] => {
                let name = name.split('{').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(families.keys().any(|family| name.starts_with(family)), "{line}");
                samples += 1;
            }
            _ => panic!("{line:?}"),
        }
    }
    assert!(samples > 20 && families.len() > 15, "{samples} samples of {} families", families.len());
    assert_eq!(families.keys().copied().collect::<Vec<_>>().len(), helped.len(), "each has a help");
    assert!(families.keys().all(|name| name.starts_with("tidegate_")));
    for (name, value) in [
        ("tidegate_servers", 2),
        ("tidegate_resources", 4),
        ("tidegate_pushed_resources_total", 4),
        ("tidegate_problems", 1),
        ("tidegate_streams", 1),
        ("tidegate_synced", 1),
        ("tidegate_nacks_total", 0),
    ] {
        assert_eq!(gate.tidegate.metric(name).await, value, "{name}\n{}", answer.body);
    }
}

#[tokio::test]
async fn a_mended_problem_is_told_no_more() {
    let fleet = Fleet::of(&[server("game", 7000)]);
    let tidegate = Tidegate::start(&fleet.path()).await;
    fleet.write("broken.yaml", "a: [\n");
    let unparsable = async || {
        let page = tidegate.get("/metrics").await.body;
        page.lines()
            .find_map(|line| line.strip_prefix("tidegate_problems{kind=\"unparsable\"} "))
            .map(str::to_owned)
    };
    testkit::eventually("it is told", unparsable, |count| count.as_deref() == Some("1")).await;
    fleet.delete("broken.yaml");
    testkit::eventually("it is told no more", unparsable, |count| count.as_deref() == Some("0")).await;
}

#[tokio::test]
async fn the_commands_say_what_is_there_to_people_and_to_programs() {
    let game = Game::start("game").await;
    let drained = annotated(&server("shut", game.port), "drain", "true");
    let loser = made_at(
        &server_with("loser", game.port, &[("host", "game.localhost"), ("weight", "heavy")]),
        "12:00:00",
    );
    let gate = Gate::with(
        &[made_at(&server("game", game.port), "11:00:00"), drained, loser],
        &["--node-id", "edge-1"],
    )
    .await;
    gate.tidegate.is_served_to(1).await;
    let table = async |arguments: &[&str]| printed(gate.tidegate.asked(arguments).await);
    let program = async |arguments: &[&str]| -> Value {
        serde_json::from_str(&table(&[arguments, &["-o", "json"]].concat()).await).unwrap()
    };
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();

    let routes = table(&["routes"]).await;
    assert_eq!(routes.lines().count(), 3, "{routes}");
    assert_eq!(
        words(routes.lines().nth(1).unwrap()),
        ["game.localhost", "open", "1/1", "files/default/game", "files/default/loser"]
    );
    assert_eq!(
        words(routes.lines().nth(2).unwrap()),
        ["shut.localhost", "draining", "1/1", "files/default/shut"]
    );
    assert_eq!(table(&["routes", "shut"]).await.lines().count(), 2);
    assert_eq!(table(&["routes", "nothing"]).await, "no routes\n");
    let rows = program(&["routes", "game"]).await;
    let row = &rows["routes"][0];
    assert_eq!(
        (&row["host"], &row["path"], &row["state"]),
        (&json!("game.localhost"), &json!("/"), &json!("open"))
    );
    assert_eq!((&row["envoys"], &row["acknowledged"], &row["refused"]), (&json!(1), &json!(1), &json!({})));

    let servers = table(&["servers"]).await;
    let line = |name: &str| {
        servers.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{servers}")).to_owned()
    };
    let endpoint = format!("127.0.0.1:{}", game.port);
    // Its sessions are not known before the Envoy has reported.
    let [id, mode, at, sessions, routes] = words(&line("files/default/game")).try_into().unwrap();
    assert_eq!([&*id, &*mode, &*at, &*routes], ["files/default/game", "open", &endpoint, "game.localhost"]);
    assert!(["?", "0"].contains(&&*sessions), "{sessions}");
    assert_eq!(words(&line("files/default/shut"))[1], "draining");
    let loser = line("files/default/loser");
    assert!(
        loser.contains("tidegate.dev/weight")
            && loser.contains("game.localhost is held by files/default/game"),
        "{loser}"
    );
    let rows = program(&["servers", "loser"]).await;
    assert_eq!(rows["servers"].as_array().unwrap().len(), 1);
    let problem = &rows["servers"][0]["problems"][0];
    assert_eq!(problem["field"], "metadata.annotations[\"tidegate.dev/weight\"]", "{rows:#}");

    let envoys = table(&["envoys"]).await;
    let row = words(envoys.lines().nth(1).unwrap());
    assert_eq!((row[0].as_str(), row[1].as_str(), row[4].as_str()), ("edge-1", "default", "0"), "{envoys}");
    assert!(row[2].contains("1."), "its version: {envoys}");
    let rows = program(&["envoys"]).await;
    assert_eq!((&rows["envoys"][0]["id"], rows["envoys"].as_array().unwrap().len()), (&json!("edge-1"), 1));

    let explained = table(&["explain", "game.localhost/x?y"]).await;
    assert!(explained.starts_with("game.localhost is open: files/default/game\n"), "{explained}");
    let explained = table(&["explain", "http://shut.localhost:10000/"]).await;
    assert!(explained.starts_with("503: shut.localhost is draining"), "{explained}");
    let explained = table(&["explain", "nobody.localhost"]).await;
    assert!(explained.starts_with("404: no server is known at nobody.localhost/"), "{explained}");
    assert!(explained.contains("scope *.localhost"), "{explained}");
    let explained = program(&["explain", "game.localhost"]).await;
    assert_eq!(explained["tried"], json!([{ "scope": "game.localhost", "found": true }]));
    let wrong = gate.tidegate.asked(&["explain", "no..host"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no..host"), "{wrong:?}");
}

#[tokio::test]
async fn without_a_control_plane_a_command_says_so_and_exits_with_1() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    for command in ["routes", "servers", "envoys"] {
        let output = run(&[command, "--admin", &url]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains(&format!("no control plane answers at {url}")) && said.contains("tidegate serve"),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
    let output = run(&["routes", "--admin", "nonsense"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a URL"), "{output:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_with_its_flag() {
    let fleet = Fleet::of(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = fleet.path();
    let output =
        run(&["serve", "--fleet", path.to_str().unwrap(), "--xds", &address, "--admin", "127.0.0.1:0"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("--xds {address}")) && said.contains("in use"), "{said}");
}

#[tokio::test]
async fn it_ends_in_time_when_it_is_asked_and_envoy_plays_on() {
    let game = Game::start("game").await;
    let mut gate = Gate::of(&[server("game", game.port)]).await;
    gate.tidegate.is_served_to(1).await;
    let player = Player::join(gate.envoy.http, "game.localhost").await;
    let start = Instant::now();
    let status = gate.tidegate.stop().await;
    assert_eq!(status.code(), Some(0), "{:?}", gate.tidegate.log());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(gate.tidegate.logged("streams did not end in time"), [] as [Value; 0]);
    player.plays().await;
    assert_eq!(gate.get("game.localhost", "/").await.status, 200);
    assert!(player.leave().await.is_clean());
}
