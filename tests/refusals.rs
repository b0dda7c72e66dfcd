//! A resource that a real Envoy refuses costs its own players their host, and nobody else anything.
#![allow(clippy::unwrap_used)]

mod testkit;

use serde_json::Value;
use testkit::eventually;
use testkit::fleet::{Fleet, annotated, server};
use testkit::gate::{comes_from, envoy, get, until};
use testkit::players::{Game, Player};
use testkit::proxy::Proxy;
use testkit::tidegate::{Tidegate, printed};
use tidegate::translate::SCOPE;

const CULPRIT: &str = "game7.localhost";
const WARNING: &str = "envoy refuses a resource, it is not sent again until it changes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_envoy_refuses_is_named_once_and_left_out_until_it_changes() {
    let game = Game::start("game").await;
    let fleet = Fleet::of(&[]);
    let servers: Vec<_> = (0..50).map(|n| server(&format!("game{n}"), game.port)).collect();
    fleet.put_all(
        "fleet.ndjson",
        servers.iter().filter(|server| server["metadata"]["name"] != "game7").cloned(),
    );
    fleet.put(&servers[7]);
    let tidegate = Tidegate::start(&fleet.path()).await;
    let proxy = Proxy::start(tidegate.xds, &[CULPRIT]).await;
    let mut envoy = envoy(&proxy.address.to_string(), &["--no-load-reports", "--node-id", "edge-1"]).await;
    envoy.ready().await;

    // The 49 others come through, however the culprit stood among them.
    for n in (0..50).filter(|n| *n != 7) {
        until(&envoy, &format!("game{n}.localhost"), "/", |answer| comes_from(answer, "game")).await;
    }
    assert_eq!(get(&envoy, CULPRIT, "/").await.status, 404);
    let player = Player::join(envoy.http, "game8.localhost").await;

    // It is named: to programs, to people, and in the log.
    let row = async || tidegate.get_json(&format!("/api/routes?q={CULPRIT}")).await["routes"][0].clone();
    let is_refused = |row: &Value| row["refused"]["edge-1"].is_string();
    eventually("the culprit is named", row, is_refused).await;
    let page = tidegate.get_json("/api/routes").await;
    assert_eq!(page["routes"].as_array().unwrap().iter().filter(|row| is_refused(row)).count(), 1);
    let table = printed(tidegate.asked(&["routes", CULPRIT]).await);
    assert!(table.contains("edge-1: "), "{table}");
    let table = printed(tidegate.asked(&["envoys"]).await);
    assert!(table.contains(CULPRIT), "{table}");
    assert_eq!(tidegate.metric("tidegate_quarantines_total").await, 1);
    assert!(proxy.refusals() <= 8, "50 scopes are halved 6 times: {}", proxy.refusals());

    // The others' changes go on, each in one scope response, and the culprit is in none of them.
    tidegate.is_served_to(1).await;
    let (refusals, culprits, before) = (proxy.refusals(), proxy.sent(SCOPE, CULPRIT), proxy.responses());
    for n in 0..20 {
        fleet.put(&server(&format!("late{n}"), game.port));
        until(&envoy, &format!("late{n}.localhost"), "/", |answer| comes_from(answer, "game")).await;
    }
    tidegate.is_served_to(1).await;
    assert_eq!((proxy.refusals(), proxy.sent(SCOPE, CULPRIT)), (refusals, culprits));
    assert_eq!(proxy.responses() - before, 40, "a cluster and a scope for each of 20");
    assert_eq!(tidegate.logged(WARNING).len(), 1);
    let line = &tidegate.logged(WARNING)[0];
    assert_eq!(
        (&line["level"], &line["name"], &line["envoy"]),
        (&"WARN".into(), &CULPRIT.into(), &"edge-1".into())
    );

    // It is as bad when it changes: refused once more, and named once more.
    fleet.put(&annotated(&servers[7], "idle-timeout", "2h"));
    let refused = async || tidegate.metric("tidegate_quarantines_total").await;
    eventually("the change is refused", refused, |refused| *refused == 2).await;
    assert_eq!(get(&envoy, "game8.localhost", "/").await.status, 200);

    // It is well when it changes: it lives.
    proxy.heal();
    fleet.put(&annotated(&servers[7], "idle-timeout", "3h"));
    until(&envoy, CULPRIT, "/", |answer| comes_from(answer, "game")).await;
    let row = eventually("nothing is refused", row, |row| !is_refused(row)).await;
    assert_eq!(row["refused"], serde_json::json!({}));
    assert_eq!(tidegate.logged(WARNING).len(), 2);
    player.plays().await;
    let record = player.leave().await;
    assert!(record.is_clean(), "{record:?}");
}
