//! What the tests share.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::fmt::Debug;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use serde_json::{Value, json};

/// How long a wait may take before the test fails. Generous: it is a limit, not a pause.
pub const LIMIT: Duration = Duration::from_secs(20);

pub async fn eventually<T: Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if is_right(&answer) {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not in {LIMIT:?}: {what}; at last: {answer:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Agones' game servers in the namespace `games`.
pub fn servers(client: &kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("agones.dev", "v1", "GameServer");
    Api::namespaced_with(client.clone(), "games", &ApiResource::from_gvk(&kind))
}

/// OpenKruiseGame's game servers in the namespace `games`.
pub fn kruise_servers(client: &kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("game.kruise.io", "v1alpha1", "GameServer");
    Api::namespaced_with(client.clone(), "games", &ApiResource::from_gvk(&kind))
}

pub fn server(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "agones.dev/v1",
        "kind": "GameServer",
        "metadata": { "name": name, "namespace": "games", "labels": labels },
        "status": { "state": "Ready" },
    })
}

/// What a watcher says, as short text: `apply a`, `delete b`, `init`, `page a`, `done`, `error …`.
pub struct Heard(Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + Send>>);

impl Heard {
    pub fn from(api: Api<DynamicObject>, config: watcher::Config) -> Self {
        Self(Box::pin(watcher(api, config)))
    }

    pub async fn next(&mut self) -> String {
        let next = tokio::time::timeout(LIMIT, self.0.next()).await.expect("it says something in time");
        let name = |object: &DynamicObject| object.metadata.name.clone().unwrap();
        match next.expect("a watcher does not end") {
            Ok(watcher::Event::Apply(object)) => format!("apply {}", name(&object)),
            Ok(watcher::Event::Delete(object)) => format!("delete {}", name(&object)),
            Ok(watcher::Event::Init) => "init".to_owned(),
            Ok(watcher::Event::InitApply(object)) => format!("page {}", name(&object)),
            Ok(watcher::Event::InitDone) => "done".to_owned(),
            Err(error) => format!("error {error}"),
        }
    }

    /// The next so many.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(self.next().await);
        }
        heard
    }
}

/// The code of an API error.
pub fn code<T: Debug>(answer: kube::Result<T>) -> u16 {
    match answer {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("expected a refusal: {other:?}"),
    }
}
