//! Empties an Envoy before it ends. Kubernetes runs it as a preStop hook, in Envoy's own container.
//!
//! Envoy cuts every WebSocket when it is told to end. So it is told something milder first: to close each connection at
//! the end of its request. Players finish their game, their next connection goes elsewhere, and Envoy ends empty.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::DrainEnvoy;

/// How often Envoy is asked who is left.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one answer of the admin page may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Unanswered requests in a row after which Envoy is taken for dead: a busy one answers within some of them.
const SILENCES: u32 = 5;
/// Largest answer that is read; that of one stat is a few hundred bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Requests under way, WebSockets among them, in each of Envoy's HTTP listeners; its admin page counts itself.
const ACTIVE: &str = "/stats?format=json&filter=^http%5C..*%5C.downstream_rq_active$";
const ADMIN: &str = "http.admin.";

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nobody is left.
    Empty,
    /// The time is over, and so many requests and WebSockets are not.
    Left(u64),
}

/// Returns when no request and no WebSocket is left, or the time is over.
pub async fn drain(config: DrainEnvoy) -> anyhow::Result<Drained> {
    let DrainEnvoy { envoy_admin, at_least, at_most } = config;
    let start = Instant::now();
    tell(envoy_admin).await?;
    let mut silences = 0;
    loop {
        match active(envoy_admin).await {
            Ok(0) if start.elapsed() >= at_least => return Ok(Drained::Empty),
            Ok(left) if start.elapsed() >= at_most => return Ok(Drained::Left(left)),
            Ok(_) => silences = 0,
            Err(error) if silences == SILENCES => return Err(error),
            Err(_) => silences += 1,
        }
        sleep(PAUSE).await;
    }
}

/// Tells Envoy to close each connection at the end of its request. An Envoy that did hear it is told nothing new, so it
/// is said until there is an answer.
async fn tell(admin: SocketAddr) -> anyhow::Result<()> {
    let mut silences = 0;
    while let Err(error) = ask(admin, Method::POST, "/healthcheck/fail").await {
        if silences == SILENCES || is_nobody(&error) {
            return Err(error);
        }
        silences += 1;
        sleep(PAUSE).await;
    }
    Ok(())
}

/// True when nobody listens at that address, which no busy Envoy is the reason for.
fn is_nobody(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

async fn active(admin: SocketAddr) -> anyhow::Result<u64> {
    let page = ask(admin, Method::GET, ACTIVE).await?;
    count(&page).with_context(|| format!("Envoy's admin page at {admin}: {ACTIVE} answered {page:?}"))
}

/// The sum over the listeners; an answer without any is no zero.
fn count(page: &str) -> anyhow::Result<u64> {
    let page: Value = serde_json::from_str(page).context("expected JSON")?;
    let stats = page["stats"].as_array().context("expected a list, `stats`")?;
    let players =
        stats.iter().filter(|stat| stat["name"].as_str().is_some_and(|name| !name.starts_with(ADMIN)));
    let values: Vec<u64> = players.filter_map(|stat| stat["value"].as_u64()).collect();
    if values.is_empty() {
        bail!("expected the stat downstream_rq_active of a listener for players");
    }
    Ok(values.into_iter().sum())
}

async fn ask(admin: SocketAddr, method: Method, path: &str) -> anyhow::Result<String> {
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder().method(method).uri(format!("http://{admin}{path}")).body(Empty::new())?;
    let exchange = async {
        let response = client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status != StatusCode::OK {
            bail!("{path} answered {status}: {body}");
        }
        Ok(body)
    };
    let answer = timeout(PATIENCE, exchange).await.with_context(|| format!("no answer in {PATIENCE:?}"));
    answer.and_then(|answer| answer).with_context(|| {
        format!(
            "Envoy's admin page at {admin} does not answer; name the address of `bootstrap --envoy-admin`"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn everybody_counts_but_the_admin_page() {
        let page = r#"{"stats":[{"name":"http.admin.downstream_rq_active","value":1},
            {"name":"http.http.downstream_rq_active","value":2},{"name":"http.more.downstream_rq_active","value":5}]}"#;
        assert_eq!(count(page).unwrap(), 7);
    }

    #[test]
    fn what_is_not_understood_is_not_empty() {
        for page in [
            "",
            "http.http.downstream_rq_active: 0",
            "{}",
            r#"{"stats":[]}"#,
            r#"{"stats":[{"name":"http.admin.downstream_rq_active","value":0}]}"#,
            r#"{"stats":[{"name":"http.http.downstream_rq_active","value":"0"}]}"#,
            r#"{"stats":[{"value":0}]}"#,
        ] {
            assert!(count(page).is_err(), "{page}");
        }
    }
}
