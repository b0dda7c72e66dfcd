//! A Kubernetes API server in memory, and a proxy that makes any API server fail.
//!
//! [`Cluster`] answers over plain HTTP on a loopback port what a control plane asks of the real one: objects
//! of any kind it was told of, with resource versions, conflicts, selectors, pages, watches, bookmarks,
//! `410 Gone`, status subresources, finalizers and server-side apply. No controller runs in it: a Pod becomes
//! what the test makes of it. [`Faults`] stands in front of it, or of a real cluster, and breaks what a test
//! wants broken. [`objects`] makes what OpenKruiseGame and Agones would.
//!
//! ```text
//!  4  Cluster  faults                        handles; the proxy
//!  3  http  discovery                        a request to its answer
//!  2  write  delete  list  watch             what the API allows, shows and streams
//!  1  store  owners  patch  selector         versions in order; who wrote what
//!  0  kinds  refusal  route  journal  stamp  words of the API; what was asked
//!     serve                                  a listener
//! ```

mod delete;
mod discovery;
mod faults;
mod http;
mod journal;
mod kinds;
mod list;
/// What OpenKruiseGame and Agones make, and how it lives.
pub mod objects;
mod owners;
mod patch;
mod refusal;
mod route;
mod selector;
mod serve;
mod stamp;
mod store;
mod watch;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

pub use faults::{Fault, Faults, Rule};
pub use journal::{Journal, Write};
pub use kinds::{Resource, agones, built_in, okg};
pub use refusal::Refusal;
pub use route::{Query, Target, Verb};

use crate::patch::Patch;
use crate::selector::Selection;
use crate::serve::Server;
use crate::store::{Key, Store};
use crate::write::Writer;

/// How a watch from a forgotten resource version is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// `200`, then an `ERROR` event with code 410: what a real server does today.
    Event,
    /// HTTP `410`: what older servers did, and proxies may.
    Status,
}

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kinds it serves, beside [`built_in`]. Of others it says 404.
    pub resources: Vec<Resource>,
    /// How many changes of a kind are remembered; a watch that is further behind meets `410`.
    pub history: usize,
    /// How often a watch that allows it gets a bookmark.
    pub bookmark_every: Duration,
    /// How a watch is told that its resource version is forgotten.
    pub gone: Gone,
}

impl Default for Options {
    /// A cluster with both OpenKruiseGame and Agones.
    fn default() -> Self {
        Self {
            resources: [okg(), agones()].concat(),
            history: 20_000,
            bookmark_every: Duration::from_mins(1),
            gone: Gone::Event,
        }
    }
}

/// A running API server. Dropping it ends it, with all its connections.
///
/// Its methods write past HTTP, at once and without the journal: for what a test or a load does to the
/// cluster, while the control plane under test comes over HTTP. Resources are named as `kubectl` does:
/// `pods`, `gameservers.agones.dev`. Outside namespaces the namespace is `""`.
pub struct Cluster {
    store: Arc<Store>,
    journal: Arc<Journal>,
    server: Server,
}

impl Cluster {
    /// Starts a cluster with OpenKruiseGame and Agones.
    pub async fn start() -> io::Result<Self> {
        Self::with(Options::default()).await
    }

    /// Starts a cluster.
    pub async fn with(options: Options) -> io::Result<Self> {
        let resources = [built_in(), options.resources.clone()].concat();
        let store = Arc::new(Store::new(resources, options.history));
        for namespace in ["default", "kube-system"] {
            write::namespace_exists(&mut store.lock(), namespace);
        }
        let journal = Arc::new(Journal::default());
        let api = http::Api { store: store.clone(), journal: journal.clone(), options: Arc::new(options) };
        let server = Server::start(0, move |request| api.clone().answer(request)).await?;
        Ok(Self { store, journal, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// A client for it.
    ///
    /// # Errors
    ///
    /// As `kube::Client` says.
    pub fn client(&self) -> kube::Result<kube::Client> {
        client(self.address())
    }

    /// What was asked of it over HTTP.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.store.lock().revision
    }

    /// Stores an object as it is, status and all, in place of what is there; the namespace is made if it must.
    /// Uid and creation time are kept, or made. Returns the object's revision: that of before, if nothing differs.
    ///
    /// # Errors
    ///
    /// When the kind is not known or the object has no name.
    pub fn put(&self, object: Value) -> Result<u64, Refusal> {
        let at = self.of_object(&object)?;
        Ok(write::put(&mut self.store.lock(), at, object)?.revision)
    }

    /// An object, if it is there.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let at = self.of_name(resource).ok()?;
        let state = self.store.lock();
        Some(state.entry(at, &key(namespace, name)).ok()?.object.clone())
    }

    /// All objects of a kind that a label selector selects; `""` selects all.
    ///
    /// # Errors
    ///
    /// When the kind is not known or the selector can't be read.
    pub fn list(&self, resource: &str, labels: &str) -> Result<Vec<Value>, Refusal> {
        let at = self.of_name(resource)?;
        let selection = Selection::parse(None, Some(labels), None)?;
        let selected = self.store.lock().collections[at].selected(&selection);
        Ok(selected.iter().map(|version| version.object()).collect())
    }

    /// Merges a patch into an object, the whole of it: here there are no subresources. Returns its revision.
    ///
    /// # Errors
    ///
    /// When it is not there, or `metadata.resourceVersion` or `metadata.uid` of the patch are another's.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> Result<u64, Refusal> {
        let at = self.of_name(resource)?;
        let key = key(namespace, name);
        let mut state = self.store.lock();
        let held = state.resource(at).status;
        let writer = Writer { manager: "cluster", status: false, force: false };
        // A kind with a status subresource has two halves; a patch is most often of one.
        let mut rest = patch.clone();
        let status = rest.as_object_mut().filter(|_| held).and_then(|fields| fields.remove("status"));
        let is_status_alone = status.is_some() && rest.as_object().is_some_and(serde_json::Map::is_empty);
        if !is_status_alone {
            let outcome = write::patch(&mut state, at, &key, &Patch::Merge(rest), writer)?;
            if status.is_none() || matches!(outcome, write::Outcome::Gone(_)) {
                return Ok(outcome.version().revision);
            }
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let outcome = write::patch(&mut state, at, &key, &patch, Writer { status: true, ..writer })?;
        Ok(outcome.version().revision)
    }

    /// Deletes an object as `kubectl delete` does: a Pod that runs, or what has finalizers, stays for now.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<(), Refusal> {
        let at = self.of_name(resource)?;
        let options = delete::Options::default();
        delete::delete(&mut self.store.lock(), at, &key(namespace, name), &options).map(drop)
    }

    /// Takes an object away, whatever holds it: what kubelet and controllers do in the end.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn finish_deletion(&self, resource: &str, namespace: &str, name: &str) -> Result<(), Refusal> {
        let at = self.of_name(resource)?;
        delete::finish(&mut self.store.lock(), at, &key(namespace, name)).map(drop)
    }

    /// Gives a Pod to a node.
    ///
    /// # Errors
    ///
    /// When it is not there or has a node.
    pub fn bind(&self, namespace: &str, name: &str, node: &str) -> Result<(), Refusal> {
        let at = self.of_name("pods")?;
        http::bind(&mut self.store.lock(), at, &key(namespace, name), &json!({ "target": { "name": node } }))
    }

    /// Forgets all history: lists in pages and watches that begin at an older resource version meet `410`.
    pub fn compact(&self) {
        self.store.lock().compact();
    }

    /// Sends a bookmark to every watch that allows it, now.
    pub fn bookmark(&self) {
        self.store.marks.send_modify(|marks| *marks += 1);
    }

    fn of_object(&self, object: &Value) -> Result<usize, Refusal> {
        let state = self.store.lock();
        let (api, kind) = (&object["apiVersion"], &object["kind"]);
        let is = |of: &Resource| *kind == *of.kind && *api == of.api_version();
        let found = state.collections.iter().position(|held| is(&held.resource));
        found
            .ok_or_else(|| Refusal::of(404, format!("no kind {kind} in {api}; add it to Options::resources")))
    }

    fn of_name(&self, resource: &str) -> Result<usize, Refusal> {
        let state = self.store.lock();
        let found = state.collections.iter().position(|held| held.resource.name() == resource);
        found.ok_or_else(|| {
            Refusal::of(
                404,
                format!("no resource {resource:?}; expected one like pods or gameservers.agones.dev"),
            )
        })
    }
}

/// A client for an API server over plain HTTP. It does not ask again after a refusal: by default `kube` does
/// so fifteen times after 429, 503 and 504, with pauses of minutes in the end.
///
/// # Errors
///
/// As `kube::Client` says.
pub fn client(address: SocketAddr) -> kube::Result<kube::Client> {
    let url = format!("http://{address}").parse().map_err(|error| kube::Error::Service(Box::new(error)))?;
    let mut config = kube::Config::new(url);
    config.default_retry = false;
    kube::Client::try_from(config)
}

/// A kubeconfig for an API server over plain HTTP: the text of a file.
pub fn kubeconfig(address: SocketAddr, namespace: &str) -> String {
    let server = format!("http://{address}");
    let context = json!({ "cluster": "test", "user": "test", "namespace": namespace });
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": { "server": server } }],
        "users": [{ "name": "test", "user": {} }],
        "contexts": [{ "name": "test", "context": context }],
        "current-context": "test",
    });
    format!("{config:#}\n")
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.into(), name.into())
}
