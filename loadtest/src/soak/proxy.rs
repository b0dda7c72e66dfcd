//! A delta ADS proxy between Envoy and a control plane, which breaks what it is told to break: the control plane may be
//! gone or another one, streams end or stand still, and scopes are spoiled so that Envoy must refuse them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteMatch, ScopedRouteConfiguration,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use futures_util::Stream;
use prost::Message;
use tidegate::translate::SCOPE;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Nonces of the responses of a stream that were spoiled.
type Nonces = Arc<Mutex<BTreeSet<String>>>;

/// The largest message that passes.
const MAX_MESSAGE: usize = 64 << 20;

/// A running proxy.
pub(super) struct Proxy {
    /// Where Envoy connects.
    pub(super) address: SocketAddr,
    shared: Shared,
    task: AbortHandle,
}

#[derive(Clone)]
struct Shared {
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    /// Counts what should end all streams.
    reset: watch::Sender<u64>,
    is_paused: watch::Sender<bool>,
    spoiling: Arc<Mutex<Spoiling>>,
}

#[derive(Default)]
struct Spoiling {
    /// So many responses with scopes will have a bad one.
    left: u32,
    random: fastrand::Rng,
    spoiled: BTreeSet<String>,
    /// Counts of all time.
    spoilt: u64,
    refusals: u64,
    /// What Envoy said to those of them that it was not made to refuse, until it is told of.
    unprovoked: Vec<String>,
    streams: u32,
}

impl Proxy {
    /// Stands before nobody yet.
    pub(super) async fn start(seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the xDS proxy")?;
        let address = listener.local_addr()?;
        let spoiling = Spoiling { random: fastrand::Rng::with_seed(seed), ..Spoiling::default() };
        let shared = Shared {
            upstream: Arc::default(),
            reset: watch::Sender::new(0),
            is_paused: watch::Sender::new(false),
            spoiling: Arc::new(Mutex::new(spoiling)),
        };
        let service =
            AggregatedDiscoveryServiceServer::new(shared.clone()).max_decoding_message_size(MAX_MESSAGE);
        let server =
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        Ok(Self { address, shared, task: tokio::spawn(server).abort_handle() })
    }

    /// The control plane is there, or gone. Streams to the former end by themselves.
    pub(super) fn lead_to(&self, upstream: Option<SocketAddr>) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Ends every stream with an error.
    pub(super) fn reset(&self) {
        self.shared.reset.send_modify(|count| *count += 1);
    }

    /// Nothing passes from now on, or everything again.
    pub(super) fn pause(&self, is_paused: bool) {
        self.shared.is_paused.send_replace(is_paused);
    }

    /// The next responses with scopes have a bad one each.
    pub(super) fn spoil(&self, responses: u32) {
        self.shared.spoiling().left = responses;
    }

    /// Whether there was one to spoil.
    pub(super) fn has_spoiled(&self) -> bool {
        !self.shared.spoiling().spoiled.is_empty()
    }

    /// The names of the scopes that were spoiled since; none will be from now on.
    pub(super) fn heal(&self) -> BTreeSet<String> {
        let mut spoiling = self.shared.spoiling();
        spoiling.left = 0;
        std::mem::take(&mut spoiling.spoiled)
    }

    /// How many responses Envoy refused.
    pub(super) fn refusals(&self) -> u64 {
        self.shared.spoiling().refusals
    }

    /// What Envoy said to responses that it refused though nobody had spoiled them, since it was asked for last.
    pub(super) fn take_unprovoked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.spoiling().unprovoked)
    }

    /// How many responses were made for Envoy to refuse.
    pub(super) fn spoilt(&self) -> u64 {
        self.shared.spoiling().spoilt
    }

    /// Whether Envoy has a stream here.
    pub(super) fn is_used(&self) -> bool {
        self.shared.spoiling().streams > 0
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An open stream, counted.
struct Counted(Shared);

impl Counted {
    fn new(shared: Shared) -> Self {
        shared.spoiling().streams += 1;
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.spoiling().streams -= 1;
    }
}

impl Shared {
    fn spoiling(&self) -> MutexGuard<'_, Spoiling> {
        self.spoiling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, mut response: DeltaDiscoveryResponse, spoiled: &Nonces) -> DeltaDiscoveryResponse {
        let mut spoiling = self.spoiling();
        if spoiling.left > 0 && response.type_url == SCOPE && !response.resources.is_empty() {
            let one = spoiling.random.usize(..response.resources.len());
            let resource = &mut response.resources[one];
            // Only a server's own host can be told to whom it belongs.
            if super::world::server_of(&resource.name).is_some()
                && let Some(content) = &mut resource.resource
                && let Some(bad) = spoil(&content.value)
            {
                content.value = bad;
                spoiled.lock().unwrap_or_else(PoisonError::into_inner).insert(response.nonce.clone());
                spoiling.left -= 1;
                spoiling.spoilt += 1;
                spoiling.spoiled.insert(resource.name.clone());
            }
        }
        response
    }

    /// Counts a refusal, and keeps what is said to a response that nobody spoiled.
    fn judge(&self, request: &DeltaDiscoveryRequest, spoiled: &Nonces) {
        let Some(error) = &request.error_detail else { return };
        let nonce = &request.response_nonce;
        let is_provoked = spoiled.lock().unwrap_or_else(PoisonError::into_inner).contains(nonce);
        let mut spoiling = self.spoiling();
        spoiling.refusals += 1;
        if !is_provoked {
            spoiling.unprovoked.push(format!("{}: {}", request.type_url, error.message));
        }
    }

    async fn passing(&self) {
        _ = self.is_paused.subscribe().wait_for(|is_paused| !is_paused).await;
    }

    /// Passes requests on until either side has enough.
    async fn ask(
        self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        out: mpsc::Sender<DeltaDiscoveryRequest>,
        spoiled: Nonces,
    ) {
        while let Ok(Some(request)) = requests.message().await {
            self.passing().await;
            self.judge(&request, &spoiled);
            if out.send(request).await.is_err() {
                return;
            }
        }
    }

    /// Passes responses on until either side has enough.
    async fn carry(
        self,
        mut responses: Streaming<DeltaDiscoveryResponse>,
        out: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
        spoiled: Nonces,
    ) {
        let _counted = Counted::new(self.clone());
        let mut reset = self.reset.subscribe();
        reset.mark_unchanged();
        loop {
            let next = tokio::select! {
                _ = reset.changed() => Err(Status::unavailable("the stream was reset")),
                () = out.closed() => return,
                response = responses.message() => match response {
                    Ok(Some(response)) => Ok(response),
                    Ok(None) => return,
                    Err(status) => Err(status),
                },
            };
            self.passing().await;
            let is_over = next.is_err();
            if out.send(next.map(|response| self.pass(response, &spoiled))).await.is_err() || is_over {
                return;
            }
        }
    }
}

/// A scope with a route in front that no Envoy takes: its regular expression has no end.
fn spoil(scope: &[u8]) -> Option<Vec<u8>> {
    let mut scope = ScopedRouteConfiguration::decode(scope).ok()?;
    let endless = RegexMatcher { regex: "(".into(), ..Default::default() };
    let route = Route {
        name: "spoiled".into(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::SafeRegex(endless)),
            ..Default::default()
        }),
        action: Some(Action::DirectResponse(DirectResponseAction { status: 200, ..Default::default() })),
        ..Default::default()
    };
    scope.route_configuration.as_mut()?.virtual_hosts.first_mut()?.routes.insert(0, route);
    Some(scope.encode_to_vec())
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Shared {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let upstream = *self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || Status::unavailable("the control plane is gone");
        let endpoint = upstream.and_then(|upstream| Endpoint::from_shared(format!("http://{upstream}")).ok());
        let channel = endpoint.ok_or_else(gone)?.tcp_nodelay(true).connect().await.map_err(|_| gone())?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (asked, requests) = mpsc::channel(4);
        let spoiled = Nonces::default();
        tokio::spawn(self.clone().ask(request.into_inner(), asked, spoiled.clone()));
        let requests = ReceiverStream::new(requests);
        let responses = client.delta_aggregated_resources(requests).await?.into_inner();
        let (out, passed) = mpsc::channel(4);
        tokio::spawn(self.clone().carry(responses, out, spoiled));
        Ok(Response::new(Box::pin(ReceiverStream::new(passed))))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use envoy_types::pb::envoy::service::discovery::v3::Resource;
    use envoy_types::pb::google::protobuf::Any;
    use envoy_types::pb::google::rpc;

    use super::*;

    fn response(nonce: &str) -> DeltaDiscoveryResponse {
        let routes = RouteConfiguration { virtual_hosts: vec![VirtualHost::default()], ..Default::default() };
        let scope = ScopedRouteConfiguration { route_configuration: Some(routes), ..Default::default() };
        let content = Any { type_url: SCOPE.to_owned(), value: scope.encode_to_vec() };
        let name = "game-1.soak.localhost".to_owned();
        let resource = Resource { name, resource: Some(content), ..Default::default() };
        DeltaDiscoveryResponse {
            type_url: SCOPE.to_owned(),
            nonce: nonce.to_owned(),
            resources: vec![resource],
            ..Default::default()
        }
    }

    fn refusal(nonce: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: SCOPE.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: Some(rpc::Status { message: format!("not {nonce}"), ..Default::default() }),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_refusal_is_excused_by_its_own_response_alone() {
        let proxy = Proxy::start(0).await.unwrap();
        let (shared, spoiled) = (&proxy.shared, Nonces::default());
        proxy.spoil(1);
        assert_ne!(shared.pass(response("1"), &spoiled), response("1"));
        assert_eq!(shared.pass(response("2"), &spoiled), response("2"));
        shared.judge(&refusal("1"), &spoiled);
        assert_eq!(proxy.take_unprovoked(), Vec::<String>::new());
        shared.judge(&refusal("2"), &spoiled);
        // Another stream counts its nonces for itself.
        shared.judge(&refusal("1"), &Nonces::default());
        shared.judge(&DeltaDiscoveryRequest { error_detail: None, ..refusal("2") }, &spoiled);
        assert_eq!((proxy.refusals(), proxy.spoilt()), (3, 1));
        assert_eq!(proxy.take_unprovoked(), [format!("{SCOPE}: not 2"), format!("{SCOPE}: not 1")]);
        assert_eq!(proxy.take_unprovoked(), Vec::<String>::new());
    }
}
