//! A Kubernetes cluster: watches the pods and GameServers of OpenKruiseGame and the GameServers of Agones.
//!
//! - One watch a kind and namespace, each with its own back-off; what they hear meets in one task that owns
//!   the objects (`kinds::Fleet`) and reports servers that really changed.
//! - Nothing is reported before every watch of a manager has listed once. A relist is a set difference.
//! - **An API server never takes a route away by failing.** One that is away, refuses (403), does not know a
//!   kind any more (404), or lists nothing where there was something, changes nothing: what was known is
//!   kept, and `/readyz` and `tidegate_removals_held` say so.
//! - An object that can't be read leaves its last version standing, and is reported.

use std::collections::BTreeSet;
use std::time::Duration;

use ::kube::{Client, Config};
use anyhow::Context;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::kinds::{Key, Manager, Rules, Subject};
use crate::metrics::Metrics;
use crate::model::{Problem, Source};
use crate::owner::Burst;

mod adapter;
mod discovery;
mod object;
mod watcher;

/// OpenKruiseGame's pods.
pub const OKG: Source = Source("okg");
/// Agones' GameServers.
pub const AGONES: Source = Source("agones");

/// What a manager's servers are reported by.
pub fn source(manager: Manager) -> Source {
    match manager {
        Manager::Okg => OKG,
        Manager::Agones => AGONES,
    }
}

/// An API server that says nothing for so long, with a request open, is not there any more. A watch may be silent until
/// the API server ends it.
const SILENCE: Duration = Duration::from_secs(watcher::WATCH_SECONDS as u64 + 15);

/// What to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// The managers; one that is not installed has no servers.
    pub managers: BTreeSet<Manager>,
    /// The namespaces; none: all.
    pub namespaces: BTreeSet<String>,
    /// A label selector for OpenKruiseGame's pods and for Agones' GameServers; empty: all.
    pub selector: String,
    /// How objects are read.
    pub rules: Rules,
}

/// How a watch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchState {
    /// It has not listed yet.
    Listing,
    /// It hears every change.
    Watching,
    /// It tries again; what it knew is kept.
    Failing,
    /// It listed nothing where there was something: that is kept until a list has something in it.
    Held,
}

/// One watch, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchRow {
    /// `apiVersion` and kind.
    pub kind: String,
    /// Its namespace; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How it is.
    pub state: WatchState,
    /// Objects that it knows.
    pub objects: usize,
    /// The API server's words, while it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How the cluster fares: what belongs to watches and not to servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// True once every manager that is installed has listed.
    pub listed: bool,
    /// Managers that the API server does not know.
    pub not_installed: Vec<Manager>,
    /// Every watch.
    pub watches: Vec<WatchRow>,
    /// Why servers are kept that no list shows any more.
    pub held: Option<String>,
    /// Objects that could not be read, by `kind namespace/name`; a thousand at most.
    pub problems: Vec<Problem>,
    /// Failures of lists and watches so far.
    pub errors: u64,
}

/// Game servers whose objects changed, with what they come to: for whoever writes to them.
pub type Touched = Vec<(Key, Option<Subject>)>;

/// Where the adapter speaks to.
#[derive(Debug)]
pub struct Outlets {
    /// To the engine.
    pub events: mpsc::Sender<Burst>,
    /// To people.
    pub report: watch::Sender<Report>,
    /// To whoever writes to objects, if anybody does.
    pub touched: Option<mpsc::Sender<Touched>>,
    /// To metrics.
    pub metrics: Metrics,
}

/// Watches the cluster until `events` is closed.
pub async fn run(client: ::kube::Client, options: Options, outlets: Outlets) -> anyhow::Result<()> {
    adapter::run(client, options, outlets).await
}

/// The cluster that `KUBECONFIG` names, or that this pod runs in; and the namespace that goes with it.
pub async fn connect() -> anyhow::Result<(Client, String)> {
    let hint = "set KUBECONFIG to a kubeconfig file, or run in a pod with a service account";
    let config = Config::infer().await.with_context(|| format!("--kube finds no cluster; {hint}"))?;
    let namespace = config.default_namespace.clone();
    Ok((client(config, SILENCE)?, namespace))
}

/// A client whose every request ends: lists, watches, writes, those of the Lease.
fn client(mut config: Config, silence: Duration) -> anyhow::Result<Client> {
    // A refusal is said at once, and tried again by who asked: kube's own repeats take a quarter of an hour.
    config.default_retry = false;
    // A machine that vanished closes no connection. The time begins when a request is sent, not when its connection
    // came to rest.
    (config.read_timeout, config.reset_reader_on_write) = (Some(silence), true);
    Client::try_from(config).context("--kube: the cluster's settings can't be used")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_request_to_an_api_server_that_vanished_has_an_end() {
        // The kernel takes the connection and the request; nobody answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = client(Config::new(url), Duration::from_millis(50)).unwrap();
        let answer = timeout(Duration::from_secs(20), client.list_api_groups()).await;
        assert!(answer.expect("it ends").is_err());
    }
}
