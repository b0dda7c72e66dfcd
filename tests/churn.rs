//! A fleet that changes without pause, by chance, through crashes of the control plane: in the end a real Envoy answers
//! each request as a second, simple reading of the fleet says, it refused nothing, and whoever played plays on.
//!
//! A run that fails prints its seed; `TIDEGATE_SEED` gives it back.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use testkit::envoy::Answer;
use testkit::eventually;
use testkit::fleet::{annotated, in_state, made_at, server, server_with};
use testkit::gate::{Gate, body, status_word};
use testkit::players::{Game, Player};

const SERVERS: usize = 12;
const HOSTS: [&str; 6] = ["a.localhost", "b.localhost", "x.w.localhost", "*.w.localhost", "*.localhost", "*"];
const PATHS: [&str; 6] = ["/", "/p", "/p/q", "/p/q/r", "/p2", "/z"];

/// What a server should be, as the second reading knows it.
#[derive(Clone, Debug)]
struct Wanted {
    hosts: Vec<&'static str>,
    path: &'static str,
    /// What it answers: its name, or the word of a shut door.
    answers: String,
}

fn wanted(random: &mut fastrand::Rng, name: &str) -> Wanted {
    let door = ["draining", "starting", "maintenance", "draining by state"];
    let is_open = random.u8(..3) > 0;
    let mut hosts = vec![HOSTS[random.usize(..HOSTS.len())]];
    hosts.extend(random.bool().then(|| HOSTS[random.usize(..HOSTS.len())]));
    Wanted {
        hosts,
        path: PATHS[random.usize(..PATHS.len())],
        answers: if is_open { name.to_owned() } else { door[random.usize(..door.len())].to_owned() },
    }
}

fn object(name: &str, age: usize, port: u16, wanted: &Wanted) -> Value {
    let object = server_with(name, port, &[("host", &wanted.hosts.join(",")), ("path", wanted.path)]);
    let object = made_at(&object, &format!("10:00:{age:02}"));
    match wanted.answers.as_str() {
        "draining" => annotated(&object, "drain", "true"),
        "maintenance" => annotated(&object, "maintenance", "soon"),
        "starting" => in_state(&object, "Starting"),
        "draining by state" => in_state(&object, "Draining"),
        _ => object,
    }
}

/// The second reading: the nearest host that has a prefix of the path, the longest such prefix, its oldest server.
fn expected(fleet: &BTreeMap<usize, Wanted>, host: &str, path: &str) -> String {
    let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}")).unwrap_or_default();
    for rung in [host, &parent, "*"] {
        let claims = fleet.iter().filter(|(_, wanted)| wanted.hosts.contains(&rung));
        let fits = |prefix: &str| prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
        let longest = claims.filter(|(_, wanted)| fits(wanted.path)).max_by_key(|(age, wanted)| {
            (if wanted.path == "/" { 0 } else { wanted.path.len() }, std::cmp::Reverse(**age))
        });
        if let Some((_, wanted)) = longest {
            return wanted.answers.split(' ').next().unwrap().to_owned();
        }
    }
    "unknown".to_owned()
}

fn told(answer: &Answer) -> String {
    match body(answer)["server"].as_str() {
        Some(server) => server.to_owned(),
        None => status_word(answer),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_churn_envoy_answers_as_the_fleet_reads() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    let random = &mut fastrand::Rng::with_seed(seed);
    let mut games = Vec::new();
    for n in 0..SERVERS {
        games.push(Game::start(&format!("s{n}")).await);
    }
    let rock = Game::start("rock").await;
    let mut gate = Gate::of(&[server("rock", rock.port)]).await;
    let player = Player::join(gate.envoy.http, "rock.localhost").await;

    let mut fleet = BTreeMap::<usize, Wanted>::new();
    for round in 0..6 {
        for step in 0..60 {
            let n = random.usize(..SERVERS);
            let (name, file) = (format!("s{n}"), format!("s{n}.json"));
            if random.u8(..4) == 0 {
                if fleet.remove(&n).is_some() {
                    gate.fleet.delete(&file);
                }
            } else {
                let wanted = wanted(random, &name);
                let text = object(&name, n, games[n].port, &wanted).to_string();
                fleet.insert(n, wanted);
                // Whole and into place, or as careless editors do.
                if random.bool() {
                    gate.fleet.write(&file, &text);
                } else {
                    fs::write(gate.fleet.path().join(file), text).unwrap();
                }
            }
            if random.u8(..8) == 0 {
                tokio::task::yield_now().await;
                gate.get("a.localhost", "/").await;
            }
            if round % 2 == 1 && step == 30 {
                gate.tidegate.kill().await;
            }
        }
        if round % 2 == 1 {
            gate.tidegate.restart().await;
        }
        let wrong = async || {
            let mut wrong = Vec::new();
            for host in
                ["a.localhost", "b.localhost", "x.w.localhost", "y.w.localhost", "n.localhost", "other.net"]
            {
                for path in ["/", "/p", "/p/x", "/p/q", "/p/q/r/s", "/p2/", "/pp", "/z/p"] {
                    let (expected, told) = (expected(&fleet, host, path), told(&gate.get(host, path).await));
                    if told != expected {
                        wrong.push(format!("{host}{path}: {told} and not {expected}"));
                    }
                }
            }
            wrong
        };
        eventually(&format!("seed {seed}, round {round}: {fleet:#?}"), wrong, Vec::is_empty).await;
        gate.tidegate.is_served_to(1).await;
        assert_eq!(
            gate.tidegate.metric("tidegate_nacks_total").await,
            0,
            "seed {seed}: Envoy refused something"
        );
    }
    player.plays().await;
    let record = player.leave().await;
    assert!(record.is_clean(), "{record:?}");
}
