//! The gRPC services: delta ADS, and LRS beside it. They move messages between a socket and a
//! [`Session`]; what is said is the session's business.
//!
//! A stream has no task of its own: it is the body of its HTTP/2 response, and is asked for the next message when
//! the last has gone. At most one is made ahead of the room for it, so nothing queues, what is sent is of the newest
//! state, and a slow Envoy holds up nobody but itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Buf;
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::LoadReportingServiceServer;
use futures_util::stream::{Stream as Messages, unfold};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service;
use tracing::{Span, debug, info, info_span, warn};

use crate::envoys::{Envoys, Row, now};
use crate::metrics::{Metrics, TypeLabel};
use crate::owner::Desk;
use crate::session::{Node, Note, Push, Refusal, Request as Asked, Session, Step, World};
use crate::snapshot::Revision;
use crate::store::Store;

mod lrs;

use lrs::Lrs;

/// Largest request that is read: at a reconnect an Envoy lists all it holds, about 80 bytes a name.
pub const MAX_REQUEST: usize = 64 << 20;

const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

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
    type ResponseStream = Pin<Box<dyn Messages<Item = Result<Push, Status>> + Send>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Heard>>) -> Self::Future {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let peer = request.remote_addr();
        let stream = Stream::new(number, peer, self.ads.clone(), request.into_inner());
        Box::pin(async move { Ok(Response::new(stream.responses())) })
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

/// One Envoy's stream; it ends when it is dropped, which is what HTTP/2 does when the Envoy has gone.
struct Stream {
    number: u64,
    peer: String,
    since: u64,
    span: Span,
    ads: Ads,
    requests: Streaming<Heard>,
    revisions: watch::Receiver<Revision>,
    shutdown: watch::Receiver<bool>,
    session: Session,
    /// Where it says how it is, once it is known who it is.
    row: Option<Arc<Row>>,
    /// There may be something to say.
    is_eager: bool,
    /// When responses went, until they are answered.
    sent: VecDeque<(u64, Instant)>,
}

impl Stream {
    fn new(number: u64, peer: Option<SocketAddr>, ads: Ads, requests: Streaming<Heard>) -> Self {
        // Microseconds since 1970: another one for each stream of an Envoy, whichever replica it is with.
        let time =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_micros());
        ads.metrics.streams.inc();
        Self {
            number,
            peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            since: now(),
            // Entered by nobody: a span costs at each of a task's turns, and what is logged names it.
            span: info_span!("ads", stream = number),
            requests,
            revisions: ads.store.revisions(),
            shutdown: ads.shutdown.clone(),
            ads,
            session: Session::new(u64::try_from(time).unwrap_or(u64::MAX)),
            row: None,
            is_eager: false,
            sent: VecDeque::new(),
        }
    }

    /// All that it says.
    fn responses(self) -> Pin<Box<dyn Messages<Item = Result<Push, Status>> + Send>> {
        // In a box, for it is handed on with each response.
        Box::pin(unfold(Some(Box::new(self)), async |stream| {
            let mut stream = stream?;
            match stream.next().await {
                Ok(push) => Some((Ok(push?), Some(stream))),
                Err(status) => {
                    stream.ads.metrics.refused_streams.inc();
                    let (span, peer) = (&stream.span, &stream.peer);
                    warn!(parent: span, peer, reason = status.message(), "stream refused");
                    Some((Err(status), None))
                }
            }
        }))
    }

    /// The next response, as soon as there is one; none when the stream is over.
    async fn next(&mut self) -> Result<Option<Push>, Status> {
        // Never wipe: an Envoy that is told of a fleet before it is known would drop all it has.
        if !self.ads.store.is_synced() {
            let mut synced = self.ads.store.synced();
            tokio::select! {
                () = turned(&mut synced) => {}
                () = turned(&mut self.shutdown) => return Ok(None),
            }
        }
        if *self.shutdown.borrow() {
            return Ok(None);
        }
        loop {
            tokio::select! {
                // All that was asked is read before anything is said: at a reconnect Envoy states its
                // types in messages of their own, and they are answered together.
                biased;
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.hear(request)?,
                    // It is never decoded, so that it can't say itself what it has too much of.
                    Err(status) if status.code() == Code::OutOfRange => {
                        return Err(Status::resource_exhausted(format!(
                            "a request of more than {MAX_REQUEST} bytes: give this gateway fewer servers; {}",
                            status.message()
                        )));
                    }
                    // A peer that vanished is no fault of ours, nor a reason to say so twice.
                    Ok(None) | Err(_) => return Ok(None),
                },
                () = ready(()), if self.is_eager => {
                    match self.speak().await? {
                        Step::Say(push) => return Ok(Some(push)),
                        // Once round the loop: whoever waits for the snapshot, or for this thread, is let in.
                        Step::Again => tokio::task::yield_now().await,
                        Step::Idle => self.is_eager = false,
                    }
                    continue;
                }
                _ = self.revisions.changed() => {}
                () = turned(&mut self.shutdown) => return Ok(None),
            }
            self.is_eager = true;
        }
    }

    fn hear(&mut self, request: Heard) -> Result<(), Status> {
        let request = request.map_err(|refusal| status(&refusal))?;
        if self.session.node().is_none()
            && let Some(node) = &request.node
            // As it is kept, so cut to length; a bad one is refused below.
            && let Ok(node) = Node::read(node)
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
        // How it is now is published behind the next step, which always follows.
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
            if push.behind > 0
                && let Some(committed) = self.ads.store.committed_behind(push.behind)
            {
                metrics.push_seconds.observe(committed.elapsed().as_secs_f64());
            }
            if push.kind.is_some() {
                self.sent.push_back((push.nonce, Instant::now()));
            }
            debug!(parent: &self.span, kind = ?push.kind, nonce = push.nonce, resources = push.resources.len(), removed = push.removed.len(), "push");
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
                    parent: &self.span,
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
                    debug!(parent: &self.span, envoy = node.id, ?kind, nonce, resources, reason, "response refused");
                }
            }
            Note::Quarantined { kind, name, version, reason } => {
                metrics.quarantines.get_or_create(&TypeLabel::from(Some(kind))).inc();
                if self.ads.envoys.is_news(kind, &name, version) {
                    let envoy = self.session.node().map(|node| node.id.as_str());
                    warn!(parent: &self.span, envoy, ?kind, %name, reason, "envoy refuses a resource, it is not sent again until it changes");
                }
            }
            Note::StaleNonce => debug!(parent: &self.span, "stale nonce"),
            Note::UnknownType(url) => debug!(parent: &self.span, url, "type is not served"),
        }
    }

    fn publish(&self) {
        if let Some(row) = &self.row {
            row.publish(self.session.settled(), |types| self.session.status(types));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ads.envoys.remove(self.number);
        self.ads.metrics.streams.dec();
        if let Some(node) = self.session.node() {
            info!(parent: &self.span, envoy = node.id, gateway = &*node.gateway.0, "envoy left");
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
