//! Live sessions of the servers that somebody asks for by name, and the wait for another answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use super::{Admin, gone, problem};
use crate::envoys::{Coverage, Sessions};
use crate::model::Server;
use crate::snapshot::{Kind, Revision};
use crate::translate;

/// Most servers of one question.
const MAX_SERVERS: usize = 10_000;
/// Longest wait, in seconds.
const MAX_WAIT: u64 = 60;
/// Most Envoys that a row names.
const MAX_NAMED: usize = 100;
/// Servers that the engine is asked for at once: it commits nothing meanwhile.
const SLICE: usize = 256;
/// What comes meanwhile is looked at together: a thousand Envoys report two hundred times a second.
const PAUSE: Duration = Duration::from_millis(100);

/// Which servers, and what is known of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Question {
    /// `source/namespace/name`, which costs a lookup; `namespace/name` or `name`, which cost a walk through the fleet.
    of: Vec<String>,
    /// `namespace/fleet` or `fleet`: a walk.
    fleets: Vec<String>,
    /// The `tag` of an answer: this one waits until it would be another.
    unlike: Option<String>,
    /// For so many seconds at most.
    wait: u64,
    /// A `revision` of this `process`: Envoys that have not taken everything up to it are named.
    behind: Option<Revision>,
}

/// A server, by what whoever waits for it needs.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    fleet: String,
    mode: &'static str,
    #[serde(flatten)]
    sessions: Sessions,
    /// Envoys of its gateways that have not acknowledged all that was asked for by `behind`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_taken_by: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Rows {
    servers: Vec<Row>,
    /// What was asked for and is not there.
    unknown: Vec<String>,
    /// The Envoys that report here: those of other replicas are theirs to count.
    reporting: Vec<Arc<str>>,
    /// How often they report: who came behind the last report is not known before the next.
    report_interval_seconds: f64,
}

impl Admin {
    /// What is known of a server's sessions.
    pub(super) fn sessions(&self, server: &Server, cluster: &str, coverage: &Coverage) -> Sessions {
        let revision = self.store.read(|snapshot| snapshot.revision_of(Kind::Cluster, cluster));
        self.envoys.sessions(server, cluster, revision, coverage)
    }

    /// The servers of these names, each once, and the names of which there is none. `None` at the end of the process.
    async fn named(&self, question: &Question) -> Option<(Vec<Arc<Server>>, Vec<String>)> {
        let (mut found, mut unknown, mut vague) = (Vec::new(), Vec::new(), Vec::new());
        let whole: Vec<String> = question.of.iter().filter(|name| is_whole(name)).cloned().collect();
        vague.extend(question.of.iter().filter(|name| !is_whole(name)).cloned().map(Wanted::Server));
        vague.extend(question.fleets.iter().cloned().map(Wanted::Fleet));
        for names in whole.chunks(SLICE) {
            let names = names.to_vec();
            let lookup = move |engine: &mut crate::engine::Engine| {
                let servers = names.into_iter().map(|name| {
                    let mut parts = name.splitn(3, '/');
                    let server = match (parts.next(), parts.next(), parts.next()) {
                        (Some(source), Some(namespace), Some(name)) => engine.named(source, namespace, name),
                        _ => None,
                    };
                    server.cloned().ok_or(name)
                });
                servers.collect::<Vec<_>>()
            };
            for server in self.desk.ask(lookup).await? {
                match server {
                    Ok(server) => found.push(server),
                    Err(name) => unknown.push(name),
                }
            }
        }
        if !vague.is_empty() {
            // The engine gives its handles away; they are looked through where no stream waits for the thread.
            let all = self.desk.ask(|engine| engine.servers().cloned().collect::<Vec<_>>()).await?;
            let walk = move || {
                let mut answers = Vec::new();
                for wanted in vague {
                    let before = answers.len();
                    answers.extend(all.iter().filter(|server| wanted.is(server)).cloned().map(Ok));
                    if answers.len() == before {
                        answers.push(Err(wanted.into_text()));
                    }
                }
                answers
            };
            for answer in tokio::task::spawn_blocking(walk).await.ok()? {
                match answer {
                    Ok(server) => found.push(server),
                    Err(name) => unknown.push(name),
                }
            }
        }
        found.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        found.dedup_by(|one, other| one.id == other.id);
        Some((found, unknown))
    }

    fn rows(&self, question: &Question, found: &[Arc<Server>], unknown: Vec<String>) -> Rows {
        let coverage = self.envoys.coverage();
        let behind = question.behind.map(|revision| self.envoys.behind(revision)).unwrap_or_default();
        let rows = found.iter().map(|server| Row {
            id: server.id.to_string(),
            fleet: server.fleet().to_owned(),
            mode: server.desired.mode.word(),
            sessions: self.sessions(server, &translate::cluster_name(&server.id), &coverage),
            not_taken_by: {
                let gateways = &server.desired.gateways;
                let late = behind.iter().filter(|node| gateways.include(Some(&node.gateway)));
                late.map(|node| node.id.clone()).take(MAX_NAMED).collect()
            },
        });
        let servers = rows.collect();
        let report_interval_seconds = self.report_interval.as_secs_f64();
        Rows { servers, unknown, reporting: coverage.reporting, report_interval_seconds }
    }
}

enum Wanted {
    Server(String),
    Fleet(String),
}

impl Wanted {
    fn is(&self, server: &Server) -> bool {
        let (Self::Server(text) | Self::Fleet(text)) = self;
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text.as_str()),
        };
        if namespace.is_some_and(|namespace| namespace != server.id.namespace()) {
            return false;
        }
        match self {
            // A game server has a server a port; the second one's name says which.
            Self::Server(_) => {
                let own = server.id.name();
                own == name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
            }
            Self::Fleet(_) => server.fleet() == name,
        }
    }

    fn into_text(self) -> String {
        match self {
            Self::Server(text) => text,
            Self::Fleet(text) => format!("fleet {text}"),
        }
    }
}

fn is_whole(name: &str) -> bool {
    name.matches('/').count() == 2
}

/// Answers at once, or when the answer is no longer the one that is known.
pub(super) async fn sessions(State(admin): State<Admin>, Json(question): Json<Question>) -> Response {
    if question.of.len() + question.fleets.len() > MAX_SERVERS || question.wait > MAX_WAIT {
        let why = format!(
            "{} names and a wait of {} seconds; expected at most {MAX_SERVERS} names and {MAX_WAIT} seconds",
            question.of.len() + question.fleets.len(),
            question.wait
        );
        return problem(StatusCode::BAD_REQUEST, why);
    }
    // A fleet that is not known yet is no fleet that is gone.
    if !*admin.store.synced().borrow() {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "not every source has listed its servers; see /readyz",
        );
    }
    let until = Instant::now() + Duration::from_secs(question.wait);
    let (mut reports, mut revisions) = (admin.envoys.reports(), admin.store.revisions());
    let mut shutdown = admin.shutdown.clone();
    loop {
        let Some((found, unknown)) = admin.named(&question).await else { return gone() };
        if found.len() > MAX_SERVERS {
            let why = format!(
                "{} servers are meant; expected at most {MAX_SERVERS}: ask for parts of them",
                found.len()
            );
            return problem(StatusCode::BAD_REQUEST, why);
        }
        // Before the rows: what they tell is not older.
        let revision = admin.store.revision();
        let Ok(mut answer) = serde_json::to_value(admin.rows(&question, &found, unknown)) else {
            return gone();
        };
        let tag = format!("{:016x}", xxh3_64(answer.to_string().as_bytes()));
        if question.unlike.as_ref() != Some(&tag) || Instant::now() >= until {
            answer["tag"] = tag.into();
            // No part of the tag: they alone are no other answer.
            answer["revision"] = revision.into();
            answer["process"] = admin.process.into();
            return Json(answer).into_response();
        }
        let news = async {
            tokio::select! {
                _ = reports.changed() => {}
                _ = revisions.changed() => {}
            }
        };
        tokio::select! {
            _ = shutdown.wait_for(|end| *end) => return gone(),
            // When the time is over it is looked at once more, and answered.
            _ = timeout_at(until, news) => {}
        }
        sleep(PAUSE).await;
    }
}
