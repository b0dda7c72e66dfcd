//! Health, metrics and the JSON API over HTTP. Reads only: nothing here changes what Envoys are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::envoys::{Acknowledged, Coverage, Envoys, Sessions};
use crate::metrics::{self, Metrics, ProblemLabel};
use crate::model::{Gateway, Host, PathPrefix, ProblemKind, RouteKey, Server, Source};
use crate::owner::Desk;
use crate::report::{self, RouteRow, ServerRow};
use crate::session::{DEFAULT_GATEWAY, Type};
use crate::snapshot::{Kind, Name};
use crate::sources::{files, kube};
use crate::store::Store;
use crate::translate::CLUSTER_PREFIX;

mod listing;
mod live;
mod sessions;

use listing::Listing;
pub use live::Live;

/// What the pages read.
#[derive(Clone)]
pub struct Admin {
    /// The snapshot.
    pub store: Arc<Store>,
    /// The engine.
    pub desk: Desk,
    /// The streams.
    pub envoys: Arc<Envoys>,
    /// The families, some of which are set when they are read.
    pub metrics: Metrics,
    /// What prints them.
    pub registry: Arc<Registry>,
    /// How often Envoys report their live sessions.
    pub report_interval: Duration,
    /// When this process began, in microseconds since 1970: its revisions are no other's.
    pub process: u64,
    /// How the fleet directory is, if one is read.
    pub files: Option<watch::Receiver<files::Report>>,
    /// How the cluster is, if one is watched.
    pub kube: Option<watch::Receiver<kube::Report>>,
    /// Turns true when the process ends.
    pub shutdown: watch::Receiver<bool>,
}

impl Admin {
    /// How each source is.
    fn sources(&self) -> Value {
        let mut sources = serde_json::Map::new();
        if let Some(files) = &self.files {
            sources.insert("files".into(), json!(*files.borrow()));
        }
        if let Some(kube) = &self.kube {
            sources.insert("kube".into(), json!(*kube.borrow()));
        }
        Value::Object(sources)
    }

    fn with_sessions(&self, row: ServerRow, coverage: &Coverage) -> ServerAnswer {
        ServerAnswer { sessions: self.sessions(&row.server, &row.cluster, coverage), row }
    }

    fn route_answers(
        &self,
        rows: Vec<RouteRow>,
        refusals: &BTreeMap<(Type, Name), BTreeMap<String, String>>,
        acknowledged: &Acknowledged,
    ) -> Vec<RouteAnswer> {
        let mut named: BTreeMap<RouteKey, BTreeSet<String>> = BTreeMap::new();
        for row in &rows {
            let gateways = named.entry(row.key()).or_default();
            gateways.extend(row.gateway.as_ref().map(|gateway| gateway.0.to_string()));
        }
        let answer = |row: RouteRow| {
            let revision = self.store.read(|snapshot| snapshot.revision_of(Kind::Scope, &row.scope));
            let gateway = row.gateway.as_ref().map(|gateway| &*gateway.0);
            let (envoys, acknowledged) =
                acknowledged.of(gateway, &named[&row.key()], revision.unwrap_or_default());
            let scope = (Type::Scopes, row.scope.as_str().into());
            let clusters =
                row.holders.iter().map(|id| (Type::Clusters, format!("{CLUSTER_PREFIX}{id}").into()));
            let refused =
                [scope].into_iter().chain(clusters).filter_map(|name| refusals.get(&name)).flatten();
            let refused = refused.map(|(envoy, why)| (envoy.clone(), why.clone())).collect();
            RouteAnswer { row, envoys, acknowledged, refused }
        };
        rows.into_iter().map(answer).collect()
    }

    /// Serves until the shutdown is said.
    pub async fn run(self, listener: TcpListener) -> std::io::Result<()> {
        let mut shutdown = self.shutdown.clone();
        let router = Router::new()
            .route("/", get(index))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(scrape))
            .route("/api/servers", get(servers))
            .route("/api/sessions", post(sessions::sessions))
            .route("/api/routes", get(routes))
            .route("/api/envoys", get(envoys))
            .route("/api/explain", get(explain))
            .fallback(async || problem(StatusCode::NOT_FOUND, "no such page; / lists them"))
            .with_state(self);
        let end = async move { _ = shutdown.wait_for(|end| *end).await };
        axum::serve(listener, router).with_graceful_shutdown(end).await
    }
}

async fn index() -> &'static str {
    "tidegate\n\n\
     /healthz              the process runs\n\
     /readyz               every source has listed, so that Envoys are answered\n\
     /metrics              Prometheus\n\
     /api/servers?q=TEXT   servers, what they claim, what is wrong with them\n\
     /api/sessions         POST {\"of\":[\"NAMESPACE/NAME\"],\"fleets\":[\"NAME\"]}: live sessions of these servers\n\
     /api/routes?q=TEXT    hosts and paths, who holds them, which Envoys took or refused them\n\
     ...&limit=N&after=X   a page of either; it names the X of the one behind it as next\n\
     /api/envoys           Envoys and their streams\n\
     /api/explain?host=HOST&path=/PATH&gateway=NAME   why a request ends where it does\n"
}

fn problem(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(json!({ "error": why.into() }))).into_response()
}

fn gone() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the control plane is ending")
}

async fn ready(State(admin): State<Admin>) -> Response {
    let Some(awaited) = admin.desk.ask(|engine| engine.awaited().collect::<Vec<Source>>()).await else {
        return gone();
    };
    let status = if awaited.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": awaited.is_empty(), "awaited": awaited, "sources": admin.sources() });
    (status, Json(body)).into_response()
}

async fn scrape(State(admin): State<Admin>) -> Response {
    let Some(mut problems) = admin.desk.ask(|engine| engine.counts().problems.clone()).await else {
        return gone();
    };
    let mut held = !admin.store.is_whole();
    if let Some(files) = &admin.files {
        let files = files.borrow();
        held |= files.held.is_some();
        for found in &files.problems {
            *problems.entry(found.kind).or_default() += 1;
        }
    }
    if let Some(kube) = &admin.kube {
        let kube = kube.borrow();
        held |= kube.held.is_some();
        for found in &kube.problems {
            *problems.entry(found.kind).or_default() += 1;
        }
    }
    // Of every kind, or what was mended would be told for ever.
    for kind in ProblemKind::ALL {
        let count = problems.get(&kind).copied().unwrap_or_default();
        admin
            .metrics
            .problems
            .get_or_create(&ProblemLabel::from(kind))
            .set(count.try_into().unwrap_or(i64::MAX));
    }
    admin.metrics.held.set(held.into());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = metrics::text(&admin.registry);
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Which rows of a long list.
#[derive(Deserialize)]
struct Filter {
    /// Only those that contain this.
    #[serde(default)]
    q: String,
    /// So many, or all.
    limit: Option<usize>,
    /// Only those behind this one, which the page before named as `next`.
    #[serde(default)]
    after: String,
}

#[derive(Serialize)]
struct ServerAnswer {
    #[serde(flatten)]
    row: ServerRow,
    #[serde(flatten)]
    sessions: Sessions,
}

async fn servers(State(admin): State<Admin>, Query(filter): Query<Filter>) -> Response {
    // The engine gives its handles away, and is asked again for a slice of rows at a time.
    let all = admin.desk.ask(|engine| engine.servers().cloned().collect::<Vec<_>>());
    let Some(all) = all.await else { return gone() };
    let Filter { q, limit, after } = filter;
    let keys = off_task(move || report::sorted(all, &q, &after).into_iter().map(ServerKey).collect()).await;
    let also = Some(("sources", admin.sources()));
    let coverage = Arc::new(admin.envoys.coverage());
    Listing { name: "servers", keys, limit, also }.answer(move |slice: Vec<ServerKey>| {
        let (admin, coverage) = (admin.clone(), coverage.clone());
        async move {
            let servers: Vec<_> = slice.into_iter().map(|ServerKey(server)| server).collect();
            let rows = admin.desk.ask(move |engine| report::servers(engine, &servers)).await?;
            Some(rows.into_iter().map(|row| admin.with_sessions(row, &coverage)).collect::<Vec<_>>())
        }
    })
}

/// A server in a list, by its id.
#[derive(Clone)]
struct ServerKey(Arc<Server>);

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.id.fmt(f)
    }
}

/// Sorts and filters where no stream waits for the thread.
async fn off_task<T: Send + 'static>(work: impl FnOnce() -> Vec<T> + Send + 'static) -> Vec<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

#[derive(Serialize)]
struct RouteAnswer {
    #[serde(flatten)]
    row: RouteRow,
    /// Envoys that should have it, and those that acknowledged its last change.
    envoys: usize,
    acknowledged: usize,
    /// Envoys that refuse its scope or a cluster of it, and their words.
    refused: BTreeMap<String, String>,
}

async fn routes(State(admin): State<Admin>, Query(filter): Query<Filter>) -> Response {
    let Some(all) = admin.desk.ask(|engine| report::keys(engine)).await else { return gone() };
    let Filter { q, limit, after } = filter;
    let Ok(after) = route_key(&after) else {
        let why = format!("after {after:?} is no route; expected what a page named as next");
        return problem(StatusCode::BAD_REQUEST, why);
    };
    let keys = off_task(move || report::sorted_keys(all, &q, after.as_ref())).await;
    let seen = Arc::new((admin.envoys.refusals(), admin.envoys.acknowledged()));
    Listing { name: "routes", keys, limit, also: None }.answer(move |slice: Vec<RouteKey>| {
        let (admin, seen) = (admin.clone(), seen.clone());
        async move {
            let rows = admin.desk.ask(move |engine| report::routes(engine, &slice)).await?;
            Some(admin.route_answers(rows, &seen.0, &seen.1))
        }
    })
}

/// A route as it is printed; none of nothing.
fn route_key(text: &str) -> Result<Option<RouteKey>, ()> {
    if text.is_empty() {
        return Ok(None);
    }
    let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let path = if path.is_empty() { Ok(PathPrefix::root()) } else { PathPrefix::parse(path) };
    let (Ok(host), Ok(path)) = (Host::parse(host), path) else { return Err(()) };
    Ok(Some(RouteKey { host, path }))
}

async fn envoys(State(admin): State<Admin>) -> Json<Value> {
    Json(json!({ "revision": admin.store.revision(), "envoys": admin.envoys.list() }))
}

#[derive(Deserialize)]
struct Asked {
    host: String,
    #[serde(default)]
    path: String,
    gateway: Option<String>,
}

async fn explain(State(admin): State<Admin>, Query(asked): Query<Asked>) -> Response {
    // A port belongs to a request, so people paste it.
    let bare = asked.host.split_once(':').map_or(asked.host.as_str(), |(host, _)| host);
    let host = match Host::parse(bare) {
        Ok(host) => host,
        Err(why) => return problem(StatusCode::BAD_REQUEST, format!("host {:?} {why}", asked.host)),
    };
    let path = if asked.path.is_empty() { "/".to_owned() } else { asked.path };
    let gateway = Gateway(asked.gateway.as_deref().unwrap_or(DEFAULT_GATEWAY).into());
    let store = admin.store.clone();
    let question = move |engine: &mut crate::engine::Engine| {
        store.read(|snapshot| report::explain(engine, snapshot, &host, &path, &gateway))
    };
    let Some(explanation) = admin.desk.ask(question).await else { return gone() };
    let report::Explanation { tried, route, verdict, servers } = explanation;
    let coverage = admin.envoys.coverage();
    let servers: Vec<_> = servers.into_iter().map(|row| admin.with_sessions(row, &coverage)).collect();
    Json(json!({ "verdict": verdict, "tried": tried, "route": route, "servers": servers })).into_response()
}
