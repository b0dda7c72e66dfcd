//! A delta ADS proxy between a real Envoy and a real control plane. It passes everything, except that it spoils the
//! scopes it is told to, so that Envoy refuses them; and it counts. Beside it a pipe that can fall silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteMatch, ScopedRouteConfiguration,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use futures_util::{Stream, StreamExt};
use prost::Message;
use tidegate::translate::SCOPE;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::wire::{MAX_MESSAGE, client};

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A running proxy.
pub struct Proxy {
    /// Where Envoy connects.
    pub address: SocketAddr,
    shared: Shared,
    task: AbortHandle,
}

#[derive(Clone)]
struct Shared {
    upstream: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    spoiled: BTreeSet<String>,
    /// How often a name was in a response, by type.
    sent: BTreeMap<(String, String), usize>,
    responses: usize,
    refusals: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, mut response: DeltaDiscoveryResponse) -> DeltaDiscoveryResponse {
        let mut state = self.state();
        state.responses += 1;
        for resource in &mut response.resources {
            *state.sent.entry((response.type_url.clone(), resource.name.clone())).or_default() += 1;
            if response.type_url == SCOPE
                && state.spoiled.contains(&resource.name)
                && let Some(content) = &mut resource.resource
            {
                content.value = spoil(&content.value);
            }
        }
        response
    }
}

/// A scope with a route in front that no Envoy takes: its regular expression has no end.
fn spoil(scope: &[u8]) -> Vec<u8> {
    let mut scope = ScopedRouteConfiguration::decode(scope).expect("a scope");
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
    scope.route_configuration.as_mut().expect("inline routes").virtual_hosts[0].routes.insert(0, route);
    scope.encode_to_vec()
}

impl Proxy {
    /// Stands before the control plane at `upstream`, and spoils these scopes.
    pub async fn start(upstream: SocketAddr, spoiled: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared { upstream, state: Arc::default() };
        shared.state().spoiled = spoiled.iter().map(|name| (*name).to_owned()).collect();
        let service =
            AggregatedDiscoveryServiceServer::new(shared.clone()).max_decoding_message_size(MAX_MESSAGE);
        let server =
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        Self { address, shared, task: tokio::spawn(server).abort_handle() }
    }

    /// Spoils nothing from now on.
    pub fn heal(&self) {
        self.shared.state().spoiled.clear();
    }

    /// How many responses passed.
    pub fn responses(&self) -> usize {
        self.shared.state().responses
    }

    /// How many responses Envoy refused.
    pub fn refusals(&self) -> usize {
        self.shared.state().refusals
    }

    /// How often this resource was sent.
    pub fn sent(&self, kind: &str, name: &str) -> usize {
        self.shared.state().sent.get(&(kind.to_owned(), name.to_owned())).copied().unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
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
        let shared = self.clone();
        let requests = request.into_inner().filter_map(move |request| {
            let request = request.ok();
            if request.as_ref().is_some_and(|request| request.error_detail.is_some()) {
                shared.state().refusals += 1;
            }
            std::future::ready(request)
        });
        let responses = client(self.upstream).await.delta_aggregated_resources(requests).await?.into_inner();
        let shared = self.clone();
        let passed = responses.map(move |response| response.map(|response| shared.pass(response)));
        Ok(Response::new(Box::pin(passed)))
    }
}

/// A TCP relay that can fall silent: nothing passes any more, and nobody is told, as when a machine loses its network.
pub struct Pipe {
    /// Where Envoy connects.
    pub address: SocketAddr,
    is_open: watch::Sender<bool>,
    task: AbortHandle,
}

impl Pipe {
    /// Stands before the control plane at `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (is_open, opens) = watch::channel(true);
        let serve = async move {
            while let Ok((near, _)) = listener.accept().await {
                let opens = opens.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(upstream).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(relay(near_in, far_out, opens.clone()), relay(far_in, near_out, opens));
                });
            }
        };
        Self { address, is_open, task: tokio::spawn(serve).abort_handle() }
    }

    /// Lets nothing pass, or everything again.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut opens: watch::Receiver<bool>,
) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if opens.wait_for(|is_open| *is_open).await.is_err() || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
    // An end is passed on as anything else.
    if opens.wait_for(|is_open| *is_open).await.is_ok() {
        _ = to.shutdown().await;
    }
}
