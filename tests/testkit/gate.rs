//! The whole: a fleet directory, the control plane that watches it, and a real Envoy in front of the servers.

use serde_json::Value;

use super::envoy::{Answer, Envoy, exchange};
use super::eventually;
use super::fleet::Fleet;
use super::tidegate::{Tidegate, printed, run};

/// All that stands between players and game servers.
pub struct Gate {
    /// The servers.
    pub fleet: Fleet,
    /// The control plane.
    pub tidegate: Tidegate,
    /// The data plane.
    pub envoy: Envoy,
}

impl Gate {
    /// Serves these servers.
    pub async fn of(servers: &[Value]) -> Self {
        Self::with(servers, &[]).await
    }

    /// Serves these servers to an Envoy with more arguments for its bootstrap.
    pub async fn with(servers: &[Value], arguments: &[&str]) -> Self {
        let fleet = Fleet::of(servers);
        let tidegate = Tidegate::start(&fleet.path()).await;
        let mut envoy = envoy(&tidegate.xds.to_string(), arguments).await;
        envoy.ready().await;
        Self { fleet, tidegate, envoy }
    }

    /// One plain request, on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Answer {
        get(&self.envoy, host, path).await
    }

    /// Asks until the answer is right.
    pub async fn until(&self, host: &str, path: &str, is_right: impl Fn(&Answer) -> bool) -> Answer {
        until(&self.envoy, host, path, is_right).await
    }

    /// Asks until this server answers.
    pub async fn until_from(&self, host: &str, name: &str) -> Answer {
        self.until(host, "/", |answer| comes_from(answer, name)).await
    }

    /// Asks until there is this status.
    pub async fn until_status(&self, host: &str, status: u16) -> Answer {
        self.until(host, "/", |answer| answer.status == status).await
    }
}

/// Starts an Envoy on what the real binary prints.
pub async fn envoy(xds: &str, arguments: &[&str]) -> Envoy {
    let anywhere = ["bootstrap", "--xds", xds, "--http", "127.0.0.1:0", "--envoy-admin", "127.0.0.1:0"];
    Envoy::start(&printed(run(&[&anywhere, arguments].concat()).await)).await
}

/// One plain request.
pub async fn get(envoy: &Envoy, host: &str, path: &str) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    exchange(envoy.http, head.as_bytes()).await.expect("Envoy answers")
}

/// Asks until the answer is right.
pub async fn until(envoy: &Envoy, host: &str, path: &str, is_right: impl Fn(&Answer) -> bool) -> Answer {
    eventually(&format!("{host}{path}"), async || get(envoy, host, path).await, is_right).await
}

/// True for an answer of this game server.
pub fn comes_from(answer: &Answer, name: &str) -> bool {
    answer.status == 200 && body(answer)["server"] == name
}

/// The JSON in an answer; null if there is none.
pub fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

/// The word by which Tidegate and its listener say why nobody is let in.
pub fn status_word(answer: &Answer) -> String {
    body(answer)["status"].as_str().unwrap_or_default().to_owned()
}
