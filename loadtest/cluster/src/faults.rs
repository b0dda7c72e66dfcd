//! A proxy in front of any API server, own or real, that breaks what a test wants broken.
//!
//! It forwards by a `kube::Client`, so a real cluster's TLS and credentials work; who connects to it needs
//! neither. A fault is a [`Rule`]: it holds as long as the value lives, and counts whom it met.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::unfold;
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::journal::{Journal, Write};
use crate::refusal::Refusal;
use crate::route::{Query, Target, Verb};
use crate::serve::{Body, Server, collected, full, refused};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request waits until the rule is lifted, then goes on.
    Hold,
    /// The answer comes this much later.
    Delay(Duration),
    /// The API server is not asked; this is the code. 410 says `Expired`, 403 `Forbidden`, and so on.
    Status(u16),
    /// A list is shown empty, at the resource version it has.
    EmptyList,
    /// Watches say nothing, open ones too, and stay open; what they had to say comes when the rule is lifted.
    Silent,
}

/// A fault in force. Dropping it lifts it.
#[must_use = "a fault ends when its rule is dropped"]
pub struct Rule {
    shared: Arc<Shared>,
    of: Arc<Matcher>,
}

struct Matcher {
    verb: Option<Verb>,
    resource: Option<String>,
    fault: Fault,
    hits: AtomicU64,
}

impl Rule {
    /// How many requests met it.
    pub fn hits(&self) -> u64 {
        self.of.hits.load(Ordering::Relaxed)
    }

    /// Lifts it.
    pub fn lift(self) {}
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.shared.rules.send_modify(|rules| rules.retain(|rule| !Arc::ptr_eq(rule, &self.of)));
    }
}

struct Shared {
    client: kube::Client,
    journal: Journal,
    rules: watch::Sender<Vec<Arc<Matcher>>>,
    /// Open watches; an ended one is found out when it is told something.
    watches: Mutex<Vec<(String, mpsc::UnboundedSender<End>)>>,
}

/// How a watch ends before its time.
#[derive(Clone, Copy)]
enum End {
    /// The connection breaks.
    Cut,
    /// An `ERROR` event says 410.
    Gone,
}

/// A running proxy. Dropping it ends it, with all its connections.
pub struct Faults {
    shared: Arc<Shared>,
    /// `None` while it is away.
    server: Mutex<Option<Server>>,
    address: SocketAddr,
}

impl Faults {
    /// Stands in front of the API server of this client; it should have `kube::Config::default_retry` off, or
    /// a refusal of the real server comes late.
    pub async fn start(client: kube::Client) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            client,
            journal: Journal::default(),
            rules: watch::Sender::new(Vec::new()),
            watches: Mutex::default(),
        });
        let server = listen(&shared, 0).await?;
        let address = server.address;
        Ok(Self { shared, server: Mutex::new(Some(server)), address })
    }

    /// Where it listens, also while it is away.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked through it, and how it was answered.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// Sets a fault for requests of a verb to a resource (`pods`, `gameservers.agones.dev`); `None` is any.
    /// The rule that was set last is asked first.
    pub fn set<'a>(
        &self,
        verb: impl Into<Option<Verb>>,
        resource: impl Into<Option<&'a str>>,
        fault: Fault,
    ) -> Rule {
        let resource = resource.into().map(str::to_owned);
        let of = Arc::new(Matcher { verb: verb.into(), resource, fault, hits: AtomicU64::new(0) });
        self.shared.rules.send_modify(|rules| rules.insert(0, of.clone()));
        Rule { shared: self.shared.clone(), of }
    }

    /// Breaks the connections of open watches of a resource, `None` of all. Returns how many there were.
    pub fn cut_watches<'a>(&self, resource: impl Into<Option<&'a str>>) -> usize {
        self.end(resource.into(), End::Cut)
    }

    /// Ends open watches with an `ERROR` event that says `410 Gone`. Returns how many there were.
    pub fn expire_watches<'a>(&self, resource: impl Into<Option<&'a str>>) -> usize {
        self.end(resource.into(), End::Gone)
    }

    /// How many watches of a resource are open.
    pub fn open_watches<'a>(&self, resource: impl Into<Option<&'a str>>) -> usize {
        let resource = resource.into();
        let mut watches = self.shared.watches();
        watches.retain(|(_, end)| !end.is_closed());
        watches.iter().filter(|(name, _)| resource.is_none_or(|wanted| wanted == name)).count()
    }

    fn end(&self, resource: Option<&str>, how: End) -> usize {
        let mut count = 0;
        self.shared.watches().retain(|(name, end)| {
            let is_meant = resource.is_none_or(|wanted| wanted == name);
            count += usize::from(is_meant && end.send(how).is_ok());
            !is_meant && !end.is_closed()
        });
        count
    }

    /// Is gone from the network: connections break, new ones are refused.
    pub fn away(&self) {
        drop(self.lock().take());
    }

    /// Is back, at the address it had.
    pub async fn back(&self) -> io::Result<()> {
        let server = listen(&self.shared, self.address.port()).await?;
        *self.lock() = Some(server);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(shared: &Arc<Shared>, port: u16) -> io::Result<Server> {
    let shared = shared.clone();
    Server::start(port, move |request| answer(shared.clone(), request)).await
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, Vec<(String, mpsc::UnboundedSender<End>)>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self, asked: &Asked) -> Vec<Arc<Matcher>> {
        self.rules.borrow().iter().filter(|rule| rule.is_about(asked)).cloned().collect()
    }

    /// Returns when no rule of this kind is about the request any more.
    async fn lifted(&self, asked: &Asked, fault: &Fault) {
        let is_in_force = |rule: &Arc<Matcher>| rule.fault == *fault && rule.is_about(asked);
        // The sender lives in `self`: this does not end otherwise.
        let _ = self.rules.subscribe().wait_for(|rules| !rules.iter().any(is_in_force)).await;
    }
}

impl Matcher {
    fn is_about(&self, asked: &Asked) -> bool {
        self.verb.is_none_or(|verb| verb == asked.verb)
            && self.resource.as_ref().is_none_or(|name| *name == asked.resource)
    }
}

/// What a request asks, for rules and the journal.
struct Asked {
    verb: Verb,
    resource: String,
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = match collected(body).await {
        Ok(body) => body,
        Err(refusal) => return refused(&refusal),
    };
    let query = Query::of(parts.uri.query());
    let asked = Target::of(parts.uri.path()).and_then(|target| {
        let verb = target.verb(&parts.method, &query)?;
        Some(Asked { verb, resource: target.resource() })
    });
    let uri = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let mut onward = Request::builder().method(parts.method.clone()).uri(&uri);
    // Host, credentials and encodings are between the client and the real server.
    for name in [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let Ok(onward) = onward.body(kube::client::Body::from(body.clone())) else {
        return refused(&Refusal::of(400, "the request can't be forwarded"));
    };
    let Some(asked) = asked else { return forward(&shared, onward).await };
    let (verb, resource) = (asked.verb, asked.resource.clone());
    let answer = of_resource(&shared, asked, onward).await;
    let code = answer.status().as_u16();
    shared.journal.count(verb, &resource, code);
    if verb.writes() {
        shared.journal.keep(Write { method: parts.method, path: uri, resource, verb, code, body });
    }
    answer
}

async fn of_resource(
    shared: &Arc<Shared>,
    asked: Asked,
    onward: Request<kube::client::Body>,
) -> Response<Body> {
    let mut shows_nothing = false;
    for rule in shared.rules(&asked) {
        rule.hits.fetch_add(1, Ordering::Relaxed);
        match &rule.fault {
            Fault::Hold => shared.lifted(&asked, &Fault::Hold).await,
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::Status(code) => {
                return refused(&Refusal::of(
                    *code,
                    format!("{} {:?} fails for a test", asked.resource, asked.verb),
                ));
            }
            Fault::EmptyList => shows_nothing = asked.verb == Verb::List,
            Fault::Silent => {}
        }
    }
    let answer = forward(shared, onward).await;
    if asked.verb == Verb::Watch && answer.status().is_success() {
        return watched(shared, asked, answer);
    }
    if shows_nothing { emptied(answer).await } else { answer }
}

async fn forward(shared: &Shared, onward: Request<kube::client::Body>) -> Response<Body> {
    match shared.client.send(onward).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            // The length of the body may change, and its framing is between this hop's ends.
            for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
                parts.headers.remove(name);
            }
            Response::from_parts(parts, body.map_err(io::Error::other).boxed_unsync())
        }
        Err(error) => refused(&Refusal::of(503, format!("the API server behind the proxy: {error}"))),
    }
}

async fn emptied(answer: Response<Body>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let Ok(body) = body.collect().await else {
        return refused(&Refusal::of(503, "the list ended before it was whole"));
    };
    let mut list: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    list["items"] = Value::Array(Vec::new());
    if let Some(metadata) = list["metadata"].as_object_mut() {
        metadata.remove("continue");
        metadata.remove("remainingItemCount");
    }
    Response::from_parts(parts, full(list.to_string().into()))
}

/// A watch that can be silenced, cut and ended.
fn watched(shared: &Arc<Shared>, asked: Asked, answer: Response<Body>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let (end, ends) = mpsc::unbounded_channel();
    shared.watches().push((asked.resource.clone(), end));
    let shared = shared.clone();
    let stream = unfold(Some((body.into_data_stream(), ends)), move |state| {
        let (shared, asked) = (shared.clone(), Asked { verb: asked.verb, resource: asked.resource.clone() });
        async move {
            let (mut body, mut ends) = state?;
            let told = {
                let frame = pin!(async {
                    let frame = body.next().await;
                    // Held back here, so that what was under way is silent too.
                    shared.lifted(&asked, &Fault::Silent).await;
                    frame
                });
                match select(pin!(ends.recv()), frame).await {
                    Either::Left((told, _)) => Err(told),
                    Either::Right((frame, _)) => Ok(frame),
                }
            };
            match told {
                Ok(Some(Ok(bytes))) => Some((Ok(Frame::data(bytes)), Some((body, ends)))),
                Ok(Some(Err(error))) => Some((Err(error), None)),
                Ok(None) => None,
                Err(Some(End::Gone)) => {
                    let gone = Refusal::of(410, "too old resource version: expired for a test");
                    Some((Ok(Frame::data(crate::watch::error(&gone))), None))
                }
                Err(_) => Some((Err(io::Error::other("cut for a test")), None)),
            }
        }
    });
    Response::from_parts(parts, StreamBody::new(stream).boxed_unsync())
}
