//! A delta ADS client that says what it is told to: for what no real Envoy would say, or can be seen to be told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use tidegate::translate::{CLUSTER, SCOPE};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::LIMIT;

/// Largest message that goes either way.
pub const MAX_MESSAGE: usize = 64 << 20;
/// A type that nobody serves.
pub const UNSERVED: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// A client of the ADS service.
pub async fn client(xds: SocketAddr) -> AggregatedDiscoveryServiceClient<Channel> {
    // A window that holds next to nothing: what is not read is not sent.
    let endpoint =
        Endpoint::from_shared(format!("http://{xds}")).expect("a URI").initial_stream_window_size(1024);
    let channel = endpoint.connect().await.expect("the xDS address answers");
    AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// A stream to a control plane.
pub struct Wire {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// What it was told so far and has not been told to be gone: versions by type and name.
    pub held: HashMap<String, BTreeMap<String, String>>,
    node: Option<Node>,
}

impl Wire {
    /// Opens a stream as a node of this id and gateway. Nothing is said yet.
    pub async fn open(xds: SocketAddr, id: &str, gateway: &str) -> Self {
        let node = Node { id: id.into(), cluster: gateway.into(), ..Default::default() };
        Self::open_as(xds, Some(node)).await
    }

    /// Opens a stream as anybody, or nobody.
    pub async fn open_as(xds: SocketAddr, node: Option<Node>) -> Self {
        let (requests, outbox) = mpsc::channel(64);
        let mut client = client(xds).await;
        let opening = client.delta_aggregated_resources(ReceiverStream::new(outbox));
        let responses =
            timeout(LIMIT, opening).await.expect("headers in time").expect("a stream").into_inner();
        Self { requests, responses, held: HashMap::new(), node }
    }

    /// Opens a stream, subscribes clusters and scopes, and takes all there is.
    pub async fn synced(xds: SocketAddr, id: &str, gateway: &str) -> Self {
        let mut wire = Self::open(xds, id, gateway).await;
        wire.subscribe_all().await;
        wire.take(CLUSTER).await;
        wire.take(SCOPE).await;
        wire
    }

    /// Says anything; the first message gets the node.
    pub async fn say(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = self.node.take();
        self.requests.send(request).await.expect("the stream is open");
    }

    /// Subscribes clusters and scopes as Envoy does; after a reconnect, with what it holds.
    pub async fn subscribe_all(&mut self) {
        for kind in [CLUSTER, SCOPE] {
            let initial_resource_versions =
                self.held.get(kind).cloned().unwrap_or_default().into_iter().collect();
            let type_url = kind.to_owned();
            self.say(DeltaDiscoveryRequest { type_url, initial_resource_versions, ..Default::default() })
                .await;
        }
    }

    /// Subscribes names of a type.
    pub async fn subscribe(&mut self, kind: &str, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let type_url = kind.to_owned();
        self.say(DeltaDiscoveryRequest { type_url, resource_names_subscribe: names, ..Default::default() })
            .await;
    }

    /// Accepts a response.
    pub async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None).await;
    }

    /// Refuses a response.
    pub async fn nack(&mut self, response: &DeltaDiscoveryResponse, why: &str) {
        self.answer(response, Some(RpcStatus { code: 13, message: why.into(), ..Default::default() })).await;
    }

    async fn answer(&mut self, response: &DeltaDiscoveryResponse, error_detail: Option<RpcStatus>) {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.say(DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() })
            .await;
    }

    /// The next response, or why there will be none: `None` when the stream ended well.
    pub async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        timeout(LIMIT, self.responses.message()).await.expect("a response in time")
    }

    /// The next response, which has to be of this type; it is accepted.
    pub async fn take(&mut self, kind: &str) -> DeltaDiscoveryResponse {
        let response = self.take_any().await;
        assert_eq!(response.type_url, kind, "{response:?}");
        response
    }

    /// The next response; it is accepted.
    pub async fn take_any(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next().await.expect("the stream is well").expect("the stream goes on");
        let held = self.held.entry(response.type_url.clone()).or_default();
        for resource in &response.resources {
            held.insert(resource.name.clone(), resource.version.clone());
        }
        for name in &response.removed_resources {
            held.remove(name);
        }
        self.ack(&response).await;
        response
    }

    /// Everything that the control plane has to say at this moment. Two types that nobody serves are asked
    /// for: the answer to the second comes behind all that was ready when the first one was answered.
    pub async fn take_rest(&mut self) -> Vec<DeltaDiscoveryResponse> {
        let mut rest = Vec::new();
        for round in ["1", "2"] {
            self.subscribe(UNSERVED, &[round]).await;
            loop {
                let response = self.take_any().await;
                if response.type_url == UNSERVED {
                    break;
                }
                rest.push(response);
            }
        }
        rest
    }
}

/// The names in a response, sorted.
pub fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let mut names: Vec<_> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    names.sort_unstable();
    names
}
