//! A cluster for tests: one of our own in memory, or a real one that `TIDEGATE_TEST_KUBECONFIG` names, and
//! always the proxy that breaks it in front. The control plane goes through the proxy, the test past it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::objects::{Step, name_of};
use cluster::{Cluster, Faults, Options, Resource};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually;

/// Names the kubeconfig of a real cluster that tests may use.
const REAL: &str = "TIDEGATE_TEST_KUBECONFIG";

/// Names a folder of CRDs to install there instead of ours, which take anything.
const CRDS: &str = "TIDEGATE_TEST_CRDS";

const OUR_CRDS: [&str; 4] = [
    include_str!("crds/agones.dev_fleets.yaml"),
    include_str!("crds/agones.dev_gameservers.yaml"),
    include_str!("crds/game.kruise.io_gameservers.yaml"),
    include_str!("crds/game.kruise.io_gameserversets.yaml"),
];

/// A cluster, a namespace of the test's own in it, and the proxy in front.
pub struct Kube {
    /// The cluster, if it is our own: for what only that can do.
    pub own: Option<Cluster>,
    /// What the control plane connects to.
    pub faults: Faults,
    /// The namespace that `create` and the others use.
    pub namespace: String,
    client: kube::Client,
    folder: TempDir,
}

impl Kube {
    /// A cluster with OpenKruiseGame's and Agones' kinds.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A cluster like this; a real one has every kind all the same.
    pub async fn with(options: Options) -> Self {
        let (own, client) = if let Some(kubeconfig) = real() {
            let client = client_of(&kubeconfig).await;
            install_crds(&client).await;
            (None, client)
        } else {
            let cluster = Cluster::with(options).await.expect("a free port");
            let client = cluster.client().expect("a client for loopback");
            (Some(cluster), client)
        };
        let faults = Faults::start(client.clone()).await.expect("a free port");
        let namespace = format!("tidegate-test-{:08x}", fastrand::u32(..));
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let kube = Self { own, faults, namespace, client, folder };
        let text = cluster::kubeconfig(kube.faults.address(), &kube.namespace);
        fs::write(kube.kubeconfig(), text).expect("the kubeconfig is written");
        kube.create(
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": kube.namespace } }),
        )
        .await;
        kube
    }

    /// A kubeconfig that leads to the proxy: the value of `KUBECONFIG` for the control plane.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A client past the proxy.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Asks the API server past the proxy.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> kube::Result<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.client.request(request.body(body).expect("a path of a resource")).await
    }

    /// Makes an object, in the namespace of the test. Returns it as it is stored.
    pub async fn create(&self, object: &Value) -> Value {
        let path = self.collection(object);
        // A new namespace of a real cluster refuses Pods until it has its service account.
        let made = eventually(
            "the object is made",
            async || self.ask(Method::POST, &path, "application/json", object).await,
            |made| !matches!(made, Err(kube::Error::Api(status)) if status.code == 403),
        )
        .await;
        made.unwrap_or_else(|error| panic!("{path}: {error}: {object:#}"))
    }

    /// Merges a patch into an object; `object` is any that has its kind and name.
    pub async fn patch(&self, object: &Value, patch: &Value) -> Value {
        let path = self.path(object);
        let patched = self.ask(Method::PATCH, &path, "application/merge-patch+json", patch).await;
        patched.unwrap_or_else(|error| panic!("{path}: {error}: {patch:#}"))
    }

    /// Merges a patch into an object's `/status`.
    pub async fn patch_status(&self, object: &Value, patch: &Value) -> Value {
        let path = format!("{}/status", self.path(object));
        let patched = self.ask(Method::PATCH, &path, "application/merge-patch+json", patch).await;
        patched.unwrap_or_else(|error| panic!("{path}: {error}: {patch:#}"))
    }

    /// Goes one step of a life.
    pub async fn step(&self, object: &Value, step: &Step) {
        if !step.object.is_null() {
            self.patch(object, &step.object).await;
        }
        if !step.status.is_null() {
            self.patch_status(object, &step.status).await;
        }
    }

    /// Gives a Pod to a node that there need not be: it is never run, and from now on deleted in two steps.
    pub async fn bind(&self, pod: &Value, node: &str) {
        let target = json!({ "apiVersion": "v1", "kind": "Node", "name": node });
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": name_of(pod) },
            "target": target,
        });
        let path = format!("{}/binding", self.path(pod));
        let bound = self.ask(Method::POST, &path, "application/json", &binding).await;
        bound.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Deletes an object as `kubectl delete` does, but waits for nothing: a Pod on a node, or what has
    /// finalizers, is terminating from now on.
    pub async fn delete(&self, object: &Value) {
        let path = self.path(object);
        let deleted = self.ask(Method::DELETE, &path, "application/json", &Value::Null).await;
        deleted.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Takes an object away at once, whatever holds it; it may be gone already.
    pub async fn delete_now(&self, object: &Value) {
        let path = self.path(object);
        let off = json!({ "metadata": { "finalizers": null } });
        let now = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
        for (method, content_type, body) in [
            (Method::PATCH, "application/merge-patch+json", &off),
            (Method::DELETE, "application/json", &now),
        ] {
            match self.ask(method, &path, content_type, body).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.unwrap_or_else(|error| panic!("{path}: {error}"))),
            }
        }
    }

    /// An object, if it is there.
    pub async fn get(&self, object: &Value) -> Option<Value> {
        let path = self.path(object);
        match self.ask(Method::GET, &path, "application/json", &Value::Null).await {
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            other => Some(other.unwrap_or_else(|error| panic!("{path}: {error}"))),
        }
    }

    /// All objects in the namespace of a kind, `("agones.dev/v1", "GameServer")`.
    pub async fn list(&self, api_version: &str, kind: &str) -> Vec<Value> {
        let path = self.collection(&json!({ "apiVersion": api_version, "kind": kind }));
        let listed = self.ask(Method::GET, &path, "application/json", &Value::Null).await;
        let list = listed.unwrap_or_else(|error| panic!("{path}: {error}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until an object is as it should be; `Null` stands for one that is not there.
    pub async fn wait(&self, what: &str, object: &Value, is_right: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.get(object).await.unwrap_or_default(), is_right).await
    }

    fn collection(&self, object: &Value) -> String {
        let (api, kind) = (&object["apiVersion"], &object["kind"]);
        let known = [cluster::built_in(), cluster::okg(), cluster::agones()].concat();
        let is = |of: &Resource| *kind == *of.kind && *api == of.api_version();
        let found = known.iter().find(|of| is(of));
        found.unwrap_or_else(|| panic!("no test knows {kind} in {api}")).path(Some(&self.namespace))
    }

    fn path(&self, object: &Value) -> String {
        format!("{}/{}", self.collection(object), name_of(object))
    }
}

impl Drop for Kube {
    /// A real cluster is left as it was, but for CRDs.
    fn drop(&mut self) {
        let Some(kubeconfig) = real() else { return };
        let namespace = self.namespace.clone();
        // A runtime of its own: that of the test may be ending.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(clean(&kubeconfig, &namespace));
        });
        if cleaning.join().is_err() {
            eprintln!("namespace {} may be left in the cluster", self.namespace);
        }
    }
}

async fn clean(kubeconfig: &Path, namespace: &str) {
    let client = client_of(kubeconfig).await;
    let now = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 }).to_string();
    let kinds = [cluster::built_in(), cluster::okg(), cluster::agones()].concat();
    let collections = kinds.iter().filter(|of| of.namespaced).map(|of| of.path(Some(namespace)));
    for path in collections.chain([format!("/api/v1/namespaces/{namespace}")]) {
        let request = Request::delete(&path).header("content-type", "application/json");
        let asked = client.request::<Value>(request.body(now.clone().into_bytes()).expect("a path")).await;
        if let Err(error) = asked {
            eprintln!("{path} may be left in the cluster: {error}");
        }
    }
}

fn real() -> Option<PathBuf> {
    std::env::var_os(REAL).filter(|path| !path.is_empty()).map(PathBuf::from)
}

async fn client_of(kubeconfig: &Path) -> kube::Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("TIDEGATE_TEST_KUBECONFIG names a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let mut config = config.expect("the kubeconfig has a current context");
    // A refusal is shown at once: tests want to see it.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    kube::Client::try_from(config).expect("a client for the cluster")
}

/// Installs the CRDs that are not there; one that is there is left as it is.
async fn install_crds(client: &kube::Client) {
    let texts: Vec<String> = match std::env::var_os(CRDS).filter(|folder| !folder.is_empty()) {
        Some(folder) => {
            let entries = fs::read_dir(folder).expect("TIDEGATE_TEST_CRDS names a folder");
            let paths = entries.map(|entry| entry.expect("a readable folder").path());
            let is_yaml = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "yaml");
            paths.filter(is_yaml).map(|path| fs::read_to_string(path).expect("a readable CRD")).collect()
        }
        None => OUR_CRDS.map(str::to_owned).into(),
    };
    for text in texts {
        let crd: Value = serde_saphyr::from_str(&text).expect("a CRD is YAML");
        let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let post = Request::post(collection).header("content-type", "application/json");
        let body = crd.to_string().into_bytes();
        match client.request::<Value>(post.body(body).expect("a path")).await {
            // Another test was faster, or the cluster has it.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other.unwrap_or_else(|error| panic!("{}: {error}", name_of(&crd)))),
        }
        let path = format!("{collection}/{}", name_of(&crd));
        eventually(
            "the CRD is served",
            async || {
                client.request::<Value>(Request::get(&path).body(Vec::new()).expect("a path")).await.ok()
            },
            |crd| {
                let conditions = crd.as_ref().and_then(|crd| crd["status"]["conditions"].as_array());
                conditions
                    .into_iter()
                    .flatten()
                    .any(|of| of["type"] == "Established" && of["status"] == "True")
            },
        )
        .await;
    }
}
