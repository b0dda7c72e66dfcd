//! The floor: a delta xDS server with nothing in it. It is handed whole messages on its standard input and
//! writes them to every stream that asked for their type; no engine, no order, no ACK that is waited for.
//!
//! It is this program once more, as a child, so that its CPU and memory can be told from the harness's. It
//! ends when its input does.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use crate::messages::{Asked, Label, Raw, Told};

/// What a frame on the standard input asks for; behind it stand the length, in four bytes, and a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To be sent to each stream when it asks for the type.
    First = 1,
    /// To be sent to all streams that asked for the type.
    Now = 2,
    /// Its resources are sent one by one, to streams that subscribe them by name.
    ByName = 3,
}

impl Order {
    fn of(byte: u8) -> Option<Self> {
        [Self::First, Self::Now, Self::ByName].into_iter().find(|order| *order as u8 == byte)
    }
}

/// Messages that a stream may be behind; those of a wave come at once.
const BEHIND: usize = 4096;
/// Requests at a reconnect are as large as with the real one.
const MAX_REQUEST: usize = 64 << 20;

/// What every stream sends, by type.
#[derive(Debug, Default)]
struct Shelf {
    first: HashMap<String, Vec<Bytes>>,
    by_name: BTreeMap<String, Bytes>,
}

type News = (Arc<str>, Bytes);

/// Serves on a free port, which it prints, until its input ends.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let shelf = Arc::new(RwLock::new(Shelf::default()));
    let (news, _) = broadcast::channel(BEHIND);
    let service = Bare { shelf: shelf.clone(), news: news.clone() };
    let serve = Server::builder()
        .tcp_nodelay(true)
        .add_routes(Routes::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: it waits for its input for ever, which no task may.
    std::thread::spawn(move || _ = ended.send(take_orders(&shelf, &news)));
    tokio::select! {
        served = serve => Ok(served?),
        orders = end => orders?,
    }
}

fn take_orders(shelf: &RwLock<Shelf>, news: &broadcast::Sender<News>) -> anyhow::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut head = [0; 5];
    while input.read_exact(&mut head).is_ok() {
        let [order, length @ ..] = head;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut message)?;
        let message = Bytes::from(message);
        let told = Told::decode(message.clone())?;
        let mut shelf = shelf.write().unwrap_or_else(PoisonError::into_inner);
        match Order::of(order) {
            Some(Order::First) => {
                shelf.first.entry(told.type_url).or_default().push(message);
                // Said, for a stream that asked before it would wait for ever.
                println!("taken");
            }
            // Without a stream there is nobody to tell.
            Some(Order::Now) => _ = news.send((told.type_url.into(), message)),
            Some(Order::ByName) => {
                for resource in told.resources {
                    let name = Label::decode(resource.clone())?.name;
                    let alone = Told {
                        resources: vec![resource],
                        type_url: told.type_url.clone(),
                        nonce: "1".into(),
                        removed: Vec::new(),
                    };
                    shelf.by_name.insert(name, alone.encode_to_vec().into());
                }
            }
            None => anyhow::bail!("an order that is none: {order}"),
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Bare {
    shelf: Arc<RwLock<Shelf>>,
    news: broadcast::Sender<News>,
}

impl NamedService for Bare {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<tonic::body::Body>> for Bare {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc =
                Grpc::new(Raw::<Asked>::default()).apply_max_message_size_config(Some(MAX_REQUEST), None);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<Asked> for Bare {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Asked>>) -> Self::Future {
        let (outbox, responses) = mpsc::channel(2);
        let (shelf, news) = (self.shelf.clone(), self.news.subscribe());
        tokio::spawn(converse(request.into_inner(), outbox, shelf, news));
        Box::pin(async move { Ok(Response::new(ReceiverStream::new(responses))) })
    }
}

async fn converse(
    mut requests: Streaming<Asked>,
    outbox: mpsc::Sender<Result<Bytes, Status>>,
    shelf: Arc<RwLock<Shelf>>,
    mut news: broadcast::Receiver<News>,
) {
    let mut types = Vec::new();
    loop {
        let messages = tokio::select! {
            request = requests.message() => {
                let Ok(Some(asked)) = request else { return };
                let shelf = shelf.read().unwrap_or_else(PoisonError::into_inner);
                let named = asked.subscribe.iter().filter_map(|name| shelf.by_name.get(name).cloned());
                let mut messages: Vec<_> = named.collect();
                if !types.contains(&asked.type_url) {
                    messages.extend(shelf.first.get(&asked.type_url).into_iter().flatten().cloned());
                    types.push(asked.type_url);
                }
                messages
            }
            message = news.recv() => match message {
                Ok((type_url, message)) if types.iter().any(|asked| **asked == *type_url) => vec![message],
                Ok(_) => continue,
                Err(_) => return,
            },
        };
        for message in messages {
            if outbox.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
}
