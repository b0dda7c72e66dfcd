//! Two control planes behind one DNS name, as behind a headless Service: an Envoy has the one or the other, and when its
//! own dies it moves.
//!
//! The two differ in their address and share a port, as pods do, so this needs a second loopback address: Linux has it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod testkit;

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use testkit::envoy::Envoy;
use testkit::eventually;
use testkit::fleet::{Fleet, server};
use testkit::gate::until;
use testkit::players::{Game, Player};
use testkit::tidegate::{Tidegate, printed, run};
use tokio::net::{TcpListener, UdpSocket};

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];

/// A DNS server that answers each question for an A record with both addresses (RFC 1035, 4.1).
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let query = &buffer[..length];
            // The question: labels to the empty one, then a type and a class of two bytes each.
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_a = query[end - 4..end] == [0, 1, 0, 1];
            let count = if is_a { 2 } else { 0 };
            // Its number; a recursive answer without error; one question, so many answers, nothing more.
            let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]].concat();
            answer.extend_from_slice(&query[12..end]);
            for address in ADDRESSES.iter().filter(|_| is_a) {
                // The name of the question, A, IN, for one second, four bytes.
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend_from_slice(&address.octets());
            }
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    address
}

/// Two control planes of one fleet, on one port of both addresses.
async fn replicas(fleet: &Fleet) -> [Tidegate; 2] {
    loop {
        let one = Tidegate::start(&fleet.path()).await;
        let twin = SocketAddr::from((ADDRESSES[1], one.xds.port()));
        if TcpListener::bind(twin).await.is_ok() {
            return [one, Tidegate::start_at(&fleet.path(), twin).await];
        }
    }
}

/// What `bootstrap` prints for a DNS name, asked of our own name server.
async fn bootstrap(port: u16) -> String {
    let xds = format!("tidegate.tidegate-system.svc:{port}");
    let arguments = ["bootstrap", "--xds", &xds, "--http", "127.0.0.1:0", "--envoy-admin", "127.0.0.1:0"];
    let mut config: Value = serde_saphyr::from_str(&printed(run(&arguments).await)).unwrap();
    let name_server = name_server().await;
    config["static_resources"]["clusters"][0]["typed_dns_resolver_config"] = json!({
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{ "socket_address": {
                "address": name_server.ip(), "port_value": name_server.port(), "protocol": "UDP",
            } }],
            "dns_resolver_options": { "no_default_search_domain": true },
        },
    });
    config.to_string()
}

#[tokio::test]
async fn an_envoy_moves_to_the_other_replica_when_its_own_dies() {
    let game = Game::start("game").await;
    let fleet = Fleet::of(&[server("a", game.port)]);
    let mut replicas = replicas(&fleet).await;
    let mut envoy = Envoy::start(&bootstrap(replicas[0].xds.port()).await).await;
    envoy.ready().await;
    let inside = Player::join(envoy.http, "a.localhost").await;

    for round in 0..4 {
        let streams = async || {
            let [one, other] = &replicas;
            [one.metric("tidegate_streams").await, other.metric("tidegate_streams").await]
        };
        let is_one = |streams: &[u64; 2]| streams.iter().sum::<u64>() == 1;
        let own = usize::from(eventually("one has the Envoy", streams, is_one).await[1] == 1);
        replicas[own].kill().await;
        let other = &replicas[1 - own];
        other.is_served_to(1).await;
        // It knows what the Envoy has, and sends what is new to both.
        let before = other.metric("tidegate_pushed_resources_total").await;
        let name = format!("new{round}");
        fleet.put(&server(&name, game.port));
        until(&envoy, &format!("{name}.localhost"), "/", |answer| answer.status == 200).await;
        assert_eq!(other.metric("tidegate_pushed_resources_total").await, before + 2, "a cluster, a scope");
        inside.plays().await;
        replicas[own].restart().await;
    }
    let record = inside.leave().await;
    assert!(record.is_clean(), "{record:?}");
}
