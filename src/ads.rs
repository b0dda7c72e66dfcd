//! The gRPC services: delta ADS, and LRS beside it. They move messages between a socket and a
//! [`Session`]; what is said is the session's business.
//!
//! Each stream has its own task. A slow Envoy holds up its own: a response is made when the socket has
//! room for it, of the newest state, so nothing queues.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Buf;
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::LoadReportingServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::envoys::{Envoys, Row, now};
use crate::metrics::{Metrics, TypeLabel};
use crate::owner::Desk;
use crate::session::{Note, Push, Refusal, Request as Asked, Session, Step, World};
use crate::store::Store;

mod lrs;

use lrs::Lrs;

/// Largest request that is read: at a reconnect an Envoy lists all it holds, about 80 bytes a name.
pub const MAX_REQUEST: usize = 64 << 20;

const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Responses that wait for the socket: one being written, one ready behind it.
const OUTBOX: usize = 2;

const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What every stream shares.
#[derive(Clone, Debug)]
pub struct Ads {
    /// What is sent.
    pub store: Arc<Store>,
    /// Where RDS tables are asked for.
    pub desk: Desk,
    /// Where streams say how they are.
    pub envoys: Arc<Envoys>,
    /// Where they count.
    pub metrics: Metrics,
    /// How often an Envoy is to report its live sessions.
    pub report_interval: Duration,
    /// Turns true when the process ends: an ADS stream never ends by itself.
    pub shutdown: watch::Receiver<bool>,
}

impl Ads {
    /// Serves until the shutdown is said.
    pub async fn run(self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        let mut shutdown = self.shutdown.clone();
        let streams = Arc::new(AtomicU64::new(0));
        let lrs = Lrs { ads: self.clone(), streams: streams.clone() };
        let lrs = LoadReportingServiceServer::new(lrs).max_decoding_message_size(MAX_REQUEST);
        let mut routes = Routes::new(AdsService { ads: self, streams }).add_service(lrs);
        let router = std::mem::take(routes.axum_router_mut());
        *routes.axum_router_mut() = router.fallback(async || {
            Status::unimplemented("only ADS is served here: set ads_config with api_type DELTA_GRPC")
                .into_http::<tonic::body::Body>()
        });
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .tcp_nodelay(true)
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
                turned(&mut shutdown).await;
            })
            .await
    }
}

/// The generated server encodes a message type; this one writes frames around bytes that all streams share.
#[derive(Clone)]
struct AdsService {
    ads: Ads,
    streams: Arc<AtomicU64>,
}

impl NamedService for AdsService {
    const NAME: &'static str = SERVICE;
}

type HttpFuture = Pin<Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>>;

impl Service<http::Request<tonic::body::Body>> for AdsService {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != DELTA {
                let why = "state of the world is not served: set api_type DELTA_GRPC in ads_config";
                return Ok(Status::unimplemented(why).into_http());
            }
            let mut grpc = Grpc::new(PushCodec).apply_max_message_size_config(Some(MAX_REQUEST), None);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<Heard> for AdsService {
    type Response = Push;
    type ResponseStream = ReceiverStream<Result<Push, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Heard>>) -> Self::Future {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let peer = request.remote_addr();
        let (outbox, responses) = mpsc::channel(OUTBOX);
        let stream = Stream::new(number, peer, self.ads.clone());
        tokio::spawn(stream.run(request.into_inner(), outbox).instrument(info_span!("ads", stream = number)));
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(responses))) })
    }
}

struct PushCodec;

impl Codec for PushCodec {
    type Encode = Push;
    type Decode = Heard;
    type Encoder = PushEncoder;
    type Decoder = RequestDecoder;

    fn encoder(&mut self) -> PushEncoder {
        PushEncoder
    }

    fn decoder(&mut self) -> RequestDecoder {
        RequestDecoder
    }
}

/// A request, or why it is none: a decoder's own error would end the stream without a word.
type Heard = Result<Asked, Refusal>;

struct RequestDecoder;

impl Decoder for RequestDecoder {
    type Item = Heard;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Heard>, Status> {
        Ok(Some(Asked::decode(buffer.copy_to_bytes(buffer.remaining()))))
    }
}

struct PushEncoder;

impl Encoder for PushEncoder {
    type Item = Push;
    type Error = Status;

    fn encode(&mut self, push: Push, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(push.size());
        push.encode(buffer);
        Ok(())
    }
}

/// One Envoy's stream.
struct Stream {
    number: u64,
    peer: String,
    since: u64,
    ads: Ads,
    session: Session,
    /// Where it says how it is, once it is known who it is.
    row: Option<Arc<Row>>,
    /// The first commit since there was nothing to say.
    behind: Option<Instant>,
    /// When responses went, until they are answered.
    sent: VecDeque<(u64, Instant)>,
}

impl Stream {
    fn new(number: u64, peer: Option<SocketAddr>, ads: Ads) -> Self {
        // Microseconds since 1970: another one for each stream of an Envoy, whichever replica it is with.
        let time =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_micros());
        Self {
            number,
            peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            since: now(),
            ads,
            session: Session::new(u64::try_from(time).unwrap_or(u64::MAX)),
            row: None,
            behind: None,
            sent: VecDeque::new(),
        }
    }

    async fn run(mut self, mut requests: Streaming<Heard>, outbox: mpsc::Sender<Result<Push, Status>>) {
        self.ads.metrics.streams.inc();
        if let Err(status) = self.converse(&mut requests, &outbox).await {
            self.ads.metrics.refused_streams.inc();
            warn!(peer = self.peer, reason = status.message(), "stream refused");
            // If the peer reads nothing, it learns of it by the end of the stream.
            _ = outbox.try_send(Err(status));
        }
        self.ads.envoys.remove(self.number);
        self.ads.metrics.streams.dec();
        if let Some(node) = self.session.node() {
            info!(envoy = node.id, gateway = &*node.gateway.0, "envoy left");
        }
    }

    async fn converse(
        &mut self,
        requests: &mut Streaming<Heard>,
        outbox: &mpsc::Sender<Result<Push, Status>>,
    ) -> Result<(), Status> {
        let mut shutdown = self.ads.shutdown.clone();
        let mut revisions = self.ads.store.revisions();
        let mut synced = self.ads.store.synced();
        // Never wipe: an Envoy that is told of a fleet before it is known would drop all it has.
        tokio::select! {
            () = turned(&mut synced) => {}
            () = turned(&mut shutdown) => return Ok(()),
            () = outbox.closed() => return Ok(()),
        }
        let mut eager = false;
        loop {
            tokio::select! {
                // All that was asked is read before anything is said: at a reconnect Envoy states its
                // types in messages of their own, and they are answered together.
                biased;
                () = turned(&mut shutdown) => return Ok(()),
                request = requests.message() => match request {
                    Ok(Some(request)) => self.hear(request)?,
                    // A peer that vanished is no fault of ours, nor a reason to say so twice.
                    Ok(None) | Err(_) => return Ok(()),
                },
                permit = outbox.reserve(), if eager => {
                    let Ok(permit) = permit else { return Ok(()) };
                    match self.speak().await? {
                        Step::Say(push) => permit.send(Ok(push)),
                        // Once round the loop: whoever waits for the snapshot, or for this thread, is let in.
                        Step::Again => tokio::task::yield_now().await,
                        Step::Idle => (eager, self.behind) = (false, None),
                    }
                    continue;
                }
                _ = revisions.changed() => {
                    self.behind.get_or_insert_with(|| self.ads.store.committed());
                }
            }
            eager = true;
        }
    }

    fn hear(&mut self, request: Heard) -> Result<(), Status> {
        let request = request.map_err(|refusal| status(&refusal))?;
        if self.session.node().is_none()
            && let Some(node) = &request.node
            && self.ads.envoys.is_suspect(&node.id)
        {
            self.session.suspect();
        }
        let notes = self
            .ads
            .store
            .read(|snapshot| self.session.on_request(request, snapshot))
            .map_err(|r| status(&r))?;
        for note in notes {
            self.note(note);
        }
        self.publish();
        Ok(())
    }

    /// The next response, of the newest state.
    async fn speak(&mut self) -> Result<Step, Status> {
        let table = if self.session.wants_table() { self.table().await } else { None };
        let whole = self.ads.store.is_whole();
        let step = self
            .ads
            .store
            .read(|snapshot| self.session.step(World { snapshot, table: table.as_ref(), whole }))
            .map_err(|refusal| status(&refusal))?;
        if let Step::Say(push) = &step {
            let (metrics, label) = (&self.ads.metrics, TypeLabel::from(push.kind));
            metrics.pushes.get_or_create(&label).inc();
            metrics.pushed_resources.get_or_create(&label).inc_by(push.resources.len() as u64);
            metrics.pushed_removals.get_or_create(&label).inc_by(push.removed.len() as u64);
            metrics.pushed_bytes.get_or_create(&label).inc_by(push.size() as u64);
            if let Some(committed) = self.behind {
                metrics.push_seconds.observe(committed.elapsed().as_secs_f64());
            }
            if push.kind.is_some() {
                self.sent.push_back((push.nonce, Instant::now()));
            }
            debug!(kind = ?push.kind, nonce = push.nonce, resources = push.resources.len(), removed = push.removed.len(), "push");
        }
        self.publish();
        Ok(step)
    }

    async fn table(&self) -> Option<(u64, crate::snapshot::Resource)> {
        let gateway = self.session.node()?.gateway.clone();
        let store = self.ads.store.clone();
        // Asked of the engine's task, which commits: so its revision is that of the store.
        self.ads.desk.ask(move |engine| (store.revision(), engine.table(&gateway))).await
    }

    fn note(&mut self, note: Note) {
        let metrics = &self.ads.metrics;
        match note {
            Note::Connected(node) => {
                self.row =
                    Some(self.ads.envoys.join(self.number, node.clone(), self.peer.clone(), self.since));
                info!(
                    envoy = node.id,
                    gateway = &*node.gateway.0,
                    version = node.version,
                    peer = self.peer,
                    "envoy connected"
                );
            }
            Note::Acked { kind, nonce } => {
                let label = TypeLabel::from(Some(kind));
                metrics.acks.get_or_create(&label).inc();
                if let Some(at) = self.sent.iter().position(|(sent, _)| *sent == nonce)
                    && let Some((_, sent)) = self.sent.remove(at)
                {
                    metrics.ack_seconds.get_or_create(&label).observe(sent.elapsed().as_secs_f64());
                }
            }
            Note::Nacked { kind, nonce, resources, reason } => {
                metrics.nacks.get_or_create(&TypeLabel::from(Some(kind))).inc();
                self.sent.retain(|(sent, _)| *sent != nonce);
                if let Some(node) = self.session.node() {
                    self.ads.envoys.suspect(&node.id);
                    debug!(envoy = node.id, ?kind, nonce, resources, reason, "response refused");
                }
            }
            Note::Quarantined { kind, name, version, reason } => {
                metrics.quarantines.get_or_create(&TypeLabel::from(Some(kind))).inc();
                if self.ads.envoys.is_news(kind, &name, version) {
                    let envoy = self.session.node().map(|node| node.id.as_str());
                    warn!(envoy, ?kind, %name, reason, "envoy refuses a resource, it is not sent again until it changes");
                }
            }
            Note::StaleNonce => debug!("stale nonce"),
            Note::UnknownType(url) => debug!(url, "type is not served"),
        }
    }

    fn publish(&self) {
        if let Some(row) = &self.row {
            row.publish(self.session.settled(), self.session.status());
        }
    }
}

/// Returns when a switch is on, or its owner is gone.
async fn turned(switch: &mut watch::Receiver<bool>) {
    _ = switch.wait_for(|on| *on).await;
}

fn status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NoNode | Refusal::BadGateway(_) | Refusal::LongName(_) | Refusal::Malformed => {
            Status::invalid_argument(refusal.to_string())
        }
        Refusal::TooManyNames | Refusal::TooManyClaims => Status::resource_exhausted(refusal.to_string()),
        Refusal::FellBehind => Status::aborted(refusal.to_string()),
    }
}
