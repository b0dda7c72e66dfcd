//! The whole on a cluster: its API server, the control plane that watches it, and a real Envoy.

use serde_json::Value;

use super::envoy::{Answer, Envoy};
use super::gate::{comes_from, envoy, get, until};
use super::kube::Kube;
use super::tidegate::{Launch, Tidegate};

/// All that stands between players and pods.
pub struct Ground {
    /// The cluster.
    pub kube: Kube,
    /// The control plane.
    pub tidegate: Tidegate,
    /// The data plane.
    pub envoy: Envoy,
}

impl Ground {
    /// A cluster with these objects, watched with these arguments.
    pub async fn with(objects: &[Value], arguments: &[&str]) -> Self {
        let kube = Kube::start().await;
        for object in objects {
            kube.create(object).await;
        }
        let tidegate = Tidegate::launch(launch(&kube, arguments)).await;
        let mut envoy = envoy(&tidegate.xds.to_string(), &[]).await;
        envoy.ready().await;
        Self { kube, tidegate, envoy }
    }

    /// One plain request, on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Answer {
        get(&self.envoy, host, path).await
    }

    /// Asks until this server answers.
    pub async fn until_from(&self, host: &str, path: &str, name: &str) -> Answer {
        until(&self.envoy, host, path, |answer| comes_from(answer, name)).await
    }

    /// Asks until there is this status.
    pub async fn until_status(&self, host: &str, status: u16) -> Answer {
        until(&self.envoy, host, "/", |answer| answer.status == status).await
    }

    /// Responses that were pushed so far, of every type.
    pub async fn pushes(&self) -> u64 {
        self.tidegate.metric("tidegate_pushes_total").await
    }
}

/// How the control plane is started on this cluster: it sees the test's own namespace.
pub fn launch(kube: &Kube, arguments: &[&str]) -> Launch {
    Launch::kube(&kube.kubeconfig()).with(&["--namespace", &kube.namespace]).with(arguments)
}
