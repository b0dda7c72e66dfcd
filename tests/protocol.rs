//! What the xDS port makes of peers that are no Envoy as we know it: each of them harms nobody but itself.
#![allow(clippy::unwrap_used)]

mod testkit;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use testkit::eventually;
use testkit::fleet::{Fleet, annotated, server};
use testkit::tidegate::Tidegate;
use testkit::wire::{UNSERVED, Wire, client, names};
use tidegate::translate::{CLUSTER, ROUTES, SCOPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};

/// A control plane with one server, and an Envoy at it that has taken it.
async fn peaceful() -> (Fleet, Tidegate, Wire) {
    let fleet = Fleet::of(&[server("game", 7000)]);
    let tidegate = Tidegate::start(&fleet.path()).await;
    let witness = Wire::synced(tidegate.xds, "witness", "default").await;
    (fleet, tidegate, witness)
}

/// The witness is well: a change reaches it, alone.
async fn is_unaffected(fleet: &Fleet, witness: &mut Wire, round: usize) {
    fleet.put(&server(&format!("proof-{round}"), 7001));
    assert_eq!(names(&witness.take(CLUSTER).await), [format!("gs/files/default/proof-{round}")]);
    assert_eq!(names(&witness.take(SCOPE).await), [format!("proof-{round}.localhost")]);
}

async fn end_of(wire: &mut Wire) -> Status {
    loop {
        match wire.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn state_of_the_world_is_answered_with_the_setting_to_change() {
    let (fleet, tidegate, mut witness) = peaceful().await;
    let mut client = client(tidegate.xds).await;
    let request = DiscoveryRequest { type_url: CLUSTER.into(), ..Default::default() };
    let refused = client.stream_aggregated_resources(tokio_stream::once(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("api_type DELTA_GRPC"), "{refused:?}");
    is_unaffected(&fleet, &mut witness, 0).await;
}

#[tokio::test]
async fn a_type_that_is_not_served_is_answered_as_empty() {
    let (fleet, _tidegate, mut witness) = peaceful().await;
    witness.subscribe(UNSERVED, &["one", "two"]).await;
    let response = witness.take(UNSERVED).await;
    assert!(response.resources.is_empty());
    assert_eq!(response.removed_resources, ["one", "two"]);
    witness.subscribe("type.googleapis.com/no.such.Type", &["x"]).await;
    assert_eq!(witness.take("type.googleapis.com/no.such.Type").await.removed_resources, ["x"]);
    is_unaffected(&fleet, &mut witness, 0).await;
}

#[tokio::test]
async fn a_table_that_is_not_ours_is_answered_as_gone_and_ours_is_not() {
    let (_fleet, _tidegate, mut witness) = peaceful().await;
    witness.subscribe(ROUTES, &["stranger", "tidegate"]).await;
    let gone = witness.take(ROUTES).await;
    assert_eq!((names(&gone).len(), &*gone.removed_resources), (0, &["stranger".to_owned()][..]));
    let sent = witness.take(ROUTES).await;
    assert_eq!((names(&sent), sent.removed_resources.len()), (vec!["tidegate"], 0));
}

#[tokio::test]
async fn a_bad_first_request_ends_its_own_stream_with_the_reason() {
    let (fleet, tidegate, mut witness) = peaceful().await;
    let cluster = |cluster: &str| Node { id: "x".into(), cluster: cluster.into(), ..Default::default() };
    let long = "x".repeat(2000);
    for (round, (node, name, code, word)) in [
        (None, "", Code::InvalidArgument, "node"),
        (Some(cluster("no/gateway")), "", Code::InvalidArgument, "node.cluster"),
        (Some(cluster("default")), long.as_str(), Code::InvalidArgument, "2000 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = Wire::open_as(tidegate.xds, node).await;
        wire.subscribe(CLUSTER, &[name]).await;
        let status = end_of(&mut wire).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(word), "{status:?}");
        is_unaffected(&fleet, &mut witness, round).await;
    }
    let refused = async || tidegate.metric("tidegate_streams_refused_total").await;
    eventually("three streams were refused", refused, |refused| *refused == 3).await;
    assert_eq!(tidegate.logged("stream refused").len(), 3);
    let streams = async || tidegate.metric("tidegate_streams").await;
    eventually("one stream is left", streams, |streams| *streams == 1).await;
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let (fleet, tidegate, mut witness) = peaceful().await;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let noise: Vec<u8> = (0..100_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let framed = [preface, &[0xff; 64]].concat();
    let headers = [preface, b"\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01garbg"].concat();
    let tls: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let http: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut open = Vec::new();
    for (round, bytes) in [&noise, &framed, &headers, tls, http, &preface[..7], b"\0"].into_iter().enumerate()
    {
        let mut stream = TcpStream::connect(tidegate.xds).await.unwrap();
        // The other side may hang up before it has read everything.
        _ = stream.write_all(bytes).await;
        is_unaffected(&fleet, &mut witness, round).await;
        if round < 3 {
            let mut answer = Vec::new();
            let end = timeout(testkit::LIMIT, stream.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "it is hung up on");
        } else {
            open.push(stream);
        }
    }
    assert_eq!(tidegate.metric("tidegate_streams").await, 1);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_told_so() {
    let (fleet, tidegate, mut witness) = peaceful().await;
    let node = Node { id: "x".into(), cluster: "default".into(), ..Default::default() };
    let mut wire = Wire::open_as(tidegate.xds, Some(node)).await;
    wire.subscribe(CLUSTER, &["x".repeat(65 << 20).as_str()]).await;
    // Which status it hears, a client that is still writing leaves to chance: the log has the reason.
    end_of(&mut wire).await;
    let refused = async || tidegate.metric("tidegate_streams_refused_total").await;
    eventually("the stream was refused", refused, |refused| *refused == 1).await;
    let lines = tidegate.logged("stream refused");
    assert!(lines.len() == 1 && format!("{:?}", lines[0]).contains("fewer servers"), "{lines:?}");
    is_unaffected(&fleet, &mut witness, 0).await;
}

/// A message of another type on the right method: its first field is a text, and should be a node.
#[tokio::test]
async fn a_message_that_can_not_be_read_ends_its_own_stream() {
    let (fleet, tidegate, mut witness) = peaceful().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", tidegate.xds)).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path =
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources".parse().unwrap();
    let messages = tokio_stream::once(Any { type_url: "\u{1}\u{7f}not a node".into(), ..Any::default() });
    let codec = tonic_prost::ProstCodec::<Any, DeltaDiscoveryResponse>::default();
    let opened = grpc.streaming(tonic::Request::new(messages), path, codec).await;
    let end = match opened {
        Ok(response) => timeout(testkit::LIMIT, response.into_inner().message()).await.unwrap(),
        Err(status) => Err(status),
    };
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    is_unaffected(&fleet, &mut witness, 0).await;
}

#[tokio::test]
async fn a_reconnect_that_lists_sixty_thousand_names_is_read() {
    let (fleet, tidegate, mut witness) = peaceful().await;
    let mut wire = Wire::open(tidegate.xds, "big", "default").await;
    let claimed = |n: usize| (format!("gs/files/default/{n:0>100}"), "0123456789abcdef".to_owned());
    let request = DeltaDiscoveryRequest {
        type_url: CLUSTER.into(),
        initial_resource_versions: (0..60_000).map(claimed).collect(),
        ..Default::default()
    };
    assert!(request.encoded_len() > 8 << 20, "{}", request.encoded_len());
    wire.say(request).await;
    wire.say(DeltaDiscoveryRequest { type_url: SCOPE.into(), ..Default::default() }).await;
    // All of them are gone, and the Envoy is told: as soon as it has said that no scope of it needs them.
    let (mut sent, mut removed) = (Vec::new(), 0);
    while removed < 60_000 {
        let response = wire.take_any().await;
        sent.extend(response.resources.into_iter().map(|resource| resource.name));
        removed += response.removed_resources.len();
    }
    sent.sort();
    assert_eq!((sent, removed), (vec!["game.localhost".into(), "gs/files/default/game".into()], 60_000));
    is_unaffected(&fleet, &mut witness, 0).await;
}

/// The port that a cluster was last said to have.
fn port(response: &DeltaDiscoveryResponse) -> Option<u32> {
    let any = response.resources.last()?.resource.as_ref()?;
    let cluster = Cluster::decode(&*any.value).ok()?;
    let endpoint = cluster.load_assignment?.endpoints.into_iter().next()?.lb_endpoints.into_iter().next()?;
    let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else { return None };
    match endpoint.address?.address? {
        Address::SocketAddress(address) => match address.port_specifier? {
            PortSpecifier::PortValue(port) => Some(port),
            PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_reads_nothing_holds_up_nobody_and_then_gets_the_newest_state_once() {
    const COMMITS: u16 = 200;
    let (fleet, tidegate, mut witness) = peaceful().await;
    let mut slow = Wire::synced(tidegate.xds, "slow", "default").await;
    for n in 0..COMMITS {
        let server = annotated(&server("game", 20_000 + n), "idle-timeout", &format!("{}s", 100 + n));
        fleet.put(&server);
        // Each is a commit of its own: the fast one has seen it before the next is made.
        assert_eq!(port(&witness.take(CLUSTER).await), Some(u32::from(20_000 + n)));
        assert_eq!(names(&witness.take(SCOPE).await), ["game.localhost"]);
    }
    let (mut ports, mut responses) = (Vec::new(), 0);
    while slow.held[CLUSTER] != witness.held[CLUSTER] || slow.held[SCOPE] != witness.held[SCOPE] {
        let response = slow.take_any().await;
        responses += 1;
        ports.extend(port(&response));
    }
    assert!(responses <= 12, "{responses} responses for {COMMITS} commits");
    let newest = u32::from(20_000 + COMMITS - 1);
    assert_eq!(ports.iter().filter(|port| **port == newest).count(), 1, "{ports:?}");
    assert_eq!(ports.last(), Some(&newest));
    is_unaffected(&fleet, &mut slow, 0).await;
}

/// It is told everything in halves, down to each alone, and then nothing until there is news.
#[tokio::test]
async fn a_client_that_refuses_everything_is_not_told_it_for_ever() {
    const RESPONSES: usize = 1 + 2 + 4 + 8;
    let (fleet, tidegate, mut witness) = peaceful().await;
    fleet.put_all("more.ndjson", (0..7).map(|n| server(&format!("more{n}"), 7100 + n)));
    witness.take(CLUSTER).await;
    let mut wire = Wire::open(tidegate.xds, "grump", "default").await;
    wire.subscribe(SCOPE, &["*"]).await;
    for _ in 0..RESPONSES {
        let response = wire.next().await.unwrap().unwrap();
        wire.nack(&response, "no").await;
    }
    let quarantined = async || tidegate.metric("tidegate_quarantines_total").await;
    eventually("8 are known to be refused", quarantined, |count| *count == 8).await;
    assert!(wire.take_rest().await.is_empty());
    fleet.put(&server("news", 7002));
    assert_eq!(names(&wire.take(SCOPE).await), ["news.localhost"]);
}
