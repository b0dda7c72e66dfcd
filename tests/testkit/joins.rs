//! Players with a cookie jar: where they land when they join, and how many of many land where.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};

use super::players::Socket;
use super::{LIMIT, eventually};

/// Joins that one count is made of.
pub const JOINS: usize = 2_000;
/// Counts that are added up before a split that is not as it should be is believed. Of 10,000 joins one half is
/// within 3 points of itself but once in a thousand million runs; of 2,000, once in 140.
const COUNTS: usize = 5;

/// Someone who keeps cookies.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    /// What stands in the header `cookie`; empty: nothing.
    pub cookie: String,
}

/// How a join ended.
#[derive(Debug)]
pub struct Joined {
    /// The server, or the status and the body of a refusal.
    pub at: Result<String, (u16, String)>,
    /// The cookies that came with it.
    pub set: Vec<String>,
    /// The way in.
    pub socket: Option<Socket>,
}

impl Joined {
    /// The server that was joined; the test fails if the door is shut.
    #[track_caller]
    pub fn server(&self) -> &str {
        self.at.as_ref().unwrap_or_else(|refusal| panic!("shut: {refusal:?}"))
    }
}

impl Jar {
    /// One with this cookie of ours in it.
    pub fn with(value: &str) -> Self {
        Self { cookie: format!("tidegate={value}") }
    }

    /// The value of our cookie.
    pub fn value(&self) -> &str {
        self.cookie.strip_prefix("tidegate=").unwrap_or_default()
    }

    /// Opens a WebSocket, and keeps the cookie that comes with it.
    pub async fn join(&mut self, envoy: SocketAddr, host: &str, path: &str) -> Joined {
        let stream = TcpStream::connect(envoy).await.expect("Envoy listens");
        let mut request = format!("ws://{host}{path}").into_client_request().expect("a request");
        if !self.cookie.is_empty() {
            let value = HeaderValue::from_str(&self.cookie).expect("a header's value");
            request.headers_mut().insert("cookie", value);
        }
        let hello = timeout(LIMIT, client_async(request, stream)).await.expect("an answer in time");
        let (at, headers, socket) = match hello {
            Ok((socket, answer)) => {
                let server = answer.headers()["x-server"].to_str().expect("a name").to_owned();
                (Ok(server), answer.headers().clone(), Some(socket))
            }
            Err(Error::Http(answer)) => {
                let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
                (Err((answer.status().as_u16(), body)), answer.headers().clone(), None)
            }
            Err(error) => panic!("{host}{path}: {error}"),
        };
        let set = cookies(&headers);
        if let Some((pair, _)) = set.iter().rev().find_map(|cookie| cookie.split_once(';')) {
            pair.clone_into(&mut self.cookie);
        }
        Joined { at, set, socket }
    }

    /// Joins, with the jar as it is each time, until it lands there.
    pub async fn until(&self, envoy: SocketAddr, host: &str, server: &str) {
        let ask = async || self.clone().join(envoy, host, "/").await.at;
        _ = eventually(&format!("a player lands at {server}"), ask, |at| at.as_deref() == Ok(server)).await;
    }
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    texts.filter(|text| text.starts_with("tidegate=")).map(str::to_owned).collect()
}

/// Where players land who were never here before, by server; refusals count as "refused".
pub async fn landings(envoy: SocketAddr, host: &str, joins: usize) -> BTreeMap<String, usize> {
    let joined = stream::iter(0..joins).map(|_| async move {
        let joined = Jar::default().join(envoy, host, "/").await;
        joined.at.unwrap_or_else(|_| "refused".to_owned())
    });
    let count = async |mut counts: BTreeMap<String, usize>, server| {
        *counts.entry(server).or_default() += 1;
        counts
    };
    joined.buffer_unordered(32).fold(BTreeMap::new(), count).await
}

/// Waits until new players land as they should: each server's part is within 3 points of these per cent, and nobody
/// lands elsewhere. Returns what was counted.
pub async fn split(envoy: SocketAddr, host: &str, expected: &[(&str, u32)]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..COUNTS {
        for (server, landed) in landings(envoy, host, JOINS).await {
            *counts.entry(server).or_default() += landed;
        }
        let total: usize = counts.values().sum();
        let part = |server: &str| 100.0 * part_of(counts.get(server).copied().unwrap_or(0), total);
        let known =
            counts.keys().all(|server| expected.iter().any(|(name, part)| name == server && *part > 0));
        if known && expected.iter().all(|(server, points)| (part(server) - f64::from(*points)).abs() <= 3.0) {
            return counts;
        }
    }
    panic!("expected {expected:?} within 3 points, not {counts:?}");
}

fn part_of(some: usize, all: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).expect("few joins"));
    number(some) / number(all)
}
