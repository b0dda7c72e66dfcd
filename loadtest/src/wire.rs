//! Envoys without Envoy: many delta ADS streams that take what they are told, acknowledge it, and say when
//! it came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tidegate::session::DEFAULT_GATEWAY;
use tidegate::translate::{CLUSTER, SCOPE};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::messages::{DELTA, Label, Raw, Told};

/// How long any answer may take: a hundred streams that ask for a large fleet at once wait for each other.
const LIMIT: Duration = Duration::from_mins(3);
/// Streams that are opened at once, where it is not a storm: what opening costs should not be held in memory
/// for all of them together.
const OPENING: usize = 4;
/// Receipts that wait to be read; a stream that finds it full waits.
const RECEIPTS: usize = 16_384;

/// The first requests of a stream: clusters, then scopes.
#[derive(Clone, Debug)]
pub(crate) struct First([Bytes; 2]);

impl First {
    /// Of an Envoy that knows nothing.
    pub(crate) fn fresh() -> Self {
        Self::knowing([HashMap::new(), HashMap::new()])
    }

    /// Of an Envoy that comes back with these versions by name.
    fn knowing(versions: [HashMap<String, String>; 2]) -> Self {
        let mut requests = versions.into_iter().zip([CLUSTER, SCOPE]).map(|(versions, type_url)| {
            let node = Node { id: "loadtest".into(), cluster: DEFAULT_GATEWAY.into(), ..Default::default() };
            let request = DeltaDiscoveryRequest {
                node: Some(node),
                type_url: type_url.into(),
                initial_resource_versions: versions,
                ..Default::default()
            };
            Bytes::from(request.encode_to_vec())
        });
        Self([requests.next().unwrap_or_default(), requests.next().unwrap_or_default()])
    }
}

/// One stream.
pub(crate) struct Link {
    requests: mpsc::Sender<Bytes>,
    responses: Streaming<Told>,
}

impl Link {
    /// Opens a stream and says the first requests.
    pub(crate) async fn open(channel: Channel, first: &First) -> anyhow::Result<Self> {
        let (requests, outbox) = mpsc::channel(16);
        for request in first.0.clone() {
            requests.send(request).await?;
        }
        let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
        grpc.ready().await.context("the xDS address")?;
        let path = PathAndQuery::from_static(DELTA);
        let request = tonic::Request::new(ReceiverStream::new(outbox));
        let opening = grpc.streaming(request, path, Raw::<Told>::default());
        let responses = timeout(LIMIT, opening).await.context("a stream in time")??.into_inner();
        Ok(Self { requests, responses })
    }

    /// The next response, acknowledged.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Told> {
        let told = self.responses.message().await?.context("the control plane ended a stream")?;
        self.requests.send(told.ack()).await.context("the control plane ended a stream")?;
        Ok(told)
    }

    /// Takes the first answer of each type; how many resources were in them.
    async fn begin(&mut self) -> anyhow::Result<usize> {
        let (mut clusters, mut scopes, mut resources) = (false, false, 0);
        while !(clusters && scopes) {
            let told = timeout(LIMIT, self.next()).await.context("a first answer in time")??;
            clusters |= told.type_url == CLUSTER;
            scopes |= told.type_url == SCOPE;
            resources += told.resources.len();
        }
        Ok(resources)
    }
}

/// A connection of its own. A window of 65,535 bytes, HTTP/2's own, is what a stream that is not read holds.
pub(crate) async fn connect(xds: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{xds}"))?.tcp_nodelay(true);
    endpoint.connect().await.context("the xDS address answers")
}

/// Takes a whole fleet on a stream that is closed then; the first requests of an Envoy that has it.
pub(crate) async fn learn(xds: SocketAddr, servers: usize) -> anyhow::Result<First> {
    let mut link = Link::open(connect(xds).await?, &First::fresh()).await?;
    let mut held = [HashMap::new(), HashMap::new()];
    while held.iter().any(|held| held.len() < servers) {
        let told = timeout(LIMIT, link.next()).await.context("the fleet in time")??;
        let held = &mut held[usize::from(told.type_url == SCOPE)];
        for resource in told.resources {
            let label = Label::decode(resource)?;
            held.insert(label.name, label.version);
        }
    }
    Ok(First::knowing(held))
}

/// That a stream took a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    pub(crate) at: Instant,
    pub(crate) is_scopes: bool,
    pub(crate) resources: usize,
}

/// Streams that listen.
pub(crate) struct Crowd {
    xds: SocketAddr,
    /// A connection each, or so many that they share.
    connections: Option<usize>,
    channels: Vec<Channel>,
    streams: JoinSet<anyhow::Result<()>>,
    receipts: mpsc::Receiver<Receipt>,
    receipt: mpsc::Sender<Receipt>,
}

impl Crowd {
    pub(crate) fn new(xds: SocketAddr, connections: Option<usize>) -> Self {
        let (receipt, receipts) = mpsc::channel(RECEIPTS);
        Self { xds, connections, channels: Vec::new(), streams: JoinSet::new(), receipts, receipt }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Opens streams until there are `count`, a few at a time or all at once. Returns when each has its first
    /// answers: how many resources they had together.
    pub(crate) async fn grow(&mut self, count: usize, first: &First, at_once: bool) -> anyhow::Result<usize> {
        let mut opening = JoinSet::new();
        let (mut open, mut resources) = (self.streams.len(), 0);
        let most = if at_once { usize::MAX } else { OPENING };
        while open < count || !opening.is_empty() {
            if open < count && opening.len() < most {
                let (channel, first) = (self.channel(open).await?, first.clone());
                open += 1;
                opening.spawn(async move {
                    let mut link = Link::open(channel, &first).await?;
                    let resources = link.begin().await?;
                    anyhow::Ok((link, resources))
                });
                continue;
            }
            let (link, sent) = opening.join_next().await.context("a stream")???;
            resources += sent;
            self.streams.spawn(listen(link, self.receipt.clone()));
        }
        Ok(resources)
    }

    /// The connection of the stream of this number.
    async fn channel(&mut self, number: usize) -> anyhow::Result<Channel> {
        let Some(connections) = self.connections else { return connect(self.xds).await };
        if self.channels.len() < connections {
            self.channels.push(connect(self.xds).await?);
        }
        Ok(self.channels[number % self.channels.len()].clone())
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&mut self) {
        while self.receipts.try_recv().is_ok() {}
    }

    /// When each stream took the scope of a change.
    pub(crate) async fn receive(&mut self) -> anyhow::Result<Vec<Instant>> {
        let mut times = Vec::with_capacity(self.len());
        while times.len() < self.len() {
            tokio::select! {
                receipt = timeout(LIMIT, self.receipts.recv()) => {
                    let receipt = receipt.context("a change in time")?.context("a stream")?;
                    if receipt.is_scopes && receipt.resources > 0 {
                        times.push(receipt.at);
                    }
                }
                Some(ended) = self.streams.join_next() => {
                    ended??;
                    bail!("a stream ended");
                }
            }
        }
        Ok(times)
    }
}

async fn listen(mut link: Link, receipts: mpsc::Sender<Receipt>) -> anyhow::Result<()> {
    loop {
        let told = link.next().await?;
        let (at, is_scopes) = (Instant::now(), told.type_url == SCOPE);
        receipts.send(Receipt { at, is_scopes, resources: told.resources.len() }).await?;
    }
}
