//! Health, metrics and the JSON API over HTTP. Reads only: nothing here changes what Envoys are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::envoys::Envoys;
use crate::metrics::{self, Metrics, ProblemLabel};
use crate::model::{Gateway, Host, Source};
use crate::owner::Desk;
use crate::report::{self, RouteRow, ServerRow};
use crate::session::{DEFAULT_GATEWAY, Type};
use crate::snapshot::Kind;
use crate::sources::{files, kube};
use crate::store::Store;

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

    fn with_sessions(&self, row: ServerRow) -> ServerAnswer {
        ServerAnswer { sessions: self.envoys.sessions(&row.cluster), row }
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
     /api/routes?q=TEXT    hosts and paths, who holds them, which Envoys took or refused them\n\
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
    for (kind, count) in problems {
        admin
            .metrics
            .problems
            .get_or_create(&ProblemLabel::from(kind))
            .set(count.try_into().unwrap_or(i64::MAX));
    }
    admin.metrics.held.set(held.into());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics::text(&admin.registry)).into_response()
}

#[derive(Deserialize)]
struct Filter {
    #[serde(default)]
    q: String,
}

#[derive(Serialize)]
struct ServerAnswer {
    #[serde(flatten)]
    row: ServerRow,
    sessions: u64,
}

async fn servers(State(admin): State<Admin>, Query(filter): Query<Filter>) -> Response {
    let Some(rows) = admin.desk.ask(move |engine| report::servers(engine, &filter.q)).await else {
        return gone();
    };
    let servers: Vec<_> = rows.into_iter().map(|row| admin.with_sessions(row)).collect();
    Json(json!({ "servers": servers, "sources": admin.sources() })).into_response()
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
    let Some(rows) = admin.desk.ask(move |engine| report::routes(engine, &filter.q)).await else {
        return gone();
    };
    let (refusals, acknowledged_by) = (admin.envoys.refusals(), admin.envoys.acknowledged());
    let mut named: BTreeMap<(Host, crate::model::PathPrefix), BTreeSet<String>> = BTreeMap::new();
    for row in &rows {
        let gateways = named.entry((row.host.clone(), row.path.clone())).or_default();
        gateways.extend(row.gateway.as_ref().map(|gateway| gateway.0.to_string()));
    }
    let routes: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let revision = admin
                .store
                .read(|snapshot| snapshot.revision_of(Kind::Scope, &row.scope))
                .unwrap_or_default();
            let gateway = row.gateway.as_ref().map(|gateway| &*gateway.0);
            let others = &named[&(row.host.clone(), row.path.clone())];
            let (envoys, acknowledged) = acknowledged_by.of(gateway, others, revision);
            let scope = (Type::Scopes, row.scope.as_str().into());
            let clusters = row
                .holders
                .iter()
                .map(|id| (Type::Clusters, format!("{}{id}", crate::translate::CLUSTER_PREFIX).into()));
            let refused =
                [scope].into_iter().chain(clusters).filter_map(|name| refusals.get(&name)).flatten();
            let refused = refused.map(|(envoy, why)| (envoy.clone(), why.clone())).collect();
            RouteAnswer { row, envoys, acknowledged, refused }
        })
        .collect();
    Json(json!({ "routes": routes })).into_response()
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
    let servers: Vec<_> = servers.into_iter().map(|row| admin.with_sessions(row)).collect();
    Json(json!({ "verdict": verdict, "tried": tried, "route": route, "servers": servers })).into_response()
}
