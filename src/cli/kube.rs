//! What is said of a cluster: flags, and the `kube` part of the configuration file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use clap::Args;
use serde::Deserialize;

use crate::kinds::{Door, Manager, PublishAt, Readiness, Rules, Upstream};

/// The flags.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct TypedKube {
    /// Watch the cluster that KUBECONFIG names, or that this pod runs in
    #[arg(long, env = "TIDEGATE_KUBE")]
    kube: bool,
    /// Only this namespace; say it again for more [default: all]
    #[arg(long, value_name = "NAME", requires = "kube")]
    namespace: Vec<String>,
    /// Only pods and Agones GameServers with these labels, such as `region=eu`
    #[arg(long, value_name = "LABELS", requires = "kube")]
    selector: Option<String>,
    /// An ingress class that is ours; say it again for more, and "" for objects that name none [default: tidegate]
    #[arg(long, value_name = "CLASS", requires = "kube")]
    ingress_class: Vec<String>,
    /// Write to game servers that Envoys route them: needs the right to patch them
    #[arg(long, env = "TIDEGATE_WRITE_BACK", requires = "kube")]
    write_back: bool,
}

/// The part of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KubeFile {
    namespaces: Option<BTreeSet<String>>,
    selector: Option<String>,
    sources: Option<BTreeSet<Manager>>,
    ingress_classes: Option<BTreeSet<String>>,
    ops_states: Option<BTreeMap<String, Door>>,
    readiness: Option<Readiness>,
    upstream: Option<Upstream>,
    publish_at: Option<PublishAt>,
    write_back: Option<bool>,
    lease_namespace: Option<String>,
    lease_name: Option<String>,
    public_url: Option<String>,
    writes_per_second: Option<u32>,
}

/// What is watched in a cluster, and what is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kube {
    /// The fleet managers.
    pub managers: BTreeSet<Manager>,
    /// The namespaces; none: all.
    pub namespaces: BTreeSet<String>,
    /// A label selector; empty: all.
    pub selector: String,
    /// How objects are read.
    pub rules: Rules,
    /// What is written, if anything is.
    pub write_back: Option<WriteBack>,
}

/// What is written to game servers, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteBack {
    /// The namespace of the Lease whose holder writes; none: that of this pod, or the kubeconfig's.
    pub lease_namespace: Option<String>,
    /// Its name.
    pub lease_name: String,
    /// A server's URL: `{host}` and `{path}` stand for its own.
    pub public_url: String,
    /// Most objects that are written to in a second.
    pub writes_per_second: u32,
}

impl Default for WriteBack {
    fn default() -> Self {
        Self {
            lease_namespace: None,
            lease_name: "tidegate".into(),
            public_url: "https://{host}{path}".into(),
            writes_per_second: 100,
        }
    }
}

/// What flags and file come to; nothing, when neither asks for a cluster.
pub(super) fn meaning(
    typed: TypedKube,
    file: Option<KubeFile>,
    host_template: Option<&str>,
) -> anyhow::Result<Option<Kube>> {
    if !typed.kube && file.is_none() {
        return Ok(None);
    }
    let file = file.unwrap_or_default();
    let mut rules = Rules { host_template: host_template.map(str::to_owned), ..Rules::default() };
    let asked = |typed: Vec<String>, file: Option<BTreeSet<String>>| {
        if typed.is_empty() { file } else { Some(typed.into_iter().collect()) }
    };
    if let Some(classes) = asked(typed.ingress_class, file.ingress_classes) {
        rules.classes = classes;
    }
    rules.ops_states.extend(file.ops_states.unwrap_or_default());
    rules.readiness = file.readiness.unwrap_or_default();
    rules.upstream = file.upstream.unwrap_or_default();
    rules.publish_at = file.publish_at.unwrap_or_default();
    let managers = file.sources.unwrap_or_else(|| Manager::ALL.into());
    if managers.is_empty() {
        bail!("kube.sources: names nobody; expected okg, agones or both, or leave it out for both");
    }
    let default = WriteBack::default();
    let write_back = WriteBack {
        lease_namespace: file.lease_namespace,
        lease_name: file.lease_name.unwrap_or(default.lease_name),
        public_url: file.public_url.unwrap_or(default.public_url),
        writes_per_second: file.writes_per_second.unwrap_or(default.writes_per_second),
    };
    if !(1..=10_000).contains(&write_back.writes_per_second) {
        bail!("kube.writesPerSecond: {} is not a number from 1 to 10000", write_back.writes_per_second);
    }
    if !write_back.public_url.contains("{host}") {
        bail!(
            "kube.publicUrl: {:?} has no {{host}}; expected a URL such as https://{{host}}{{path}}",
            write_back.public_url
        );
    }
    let namespaces = asked(typed.namespace, file.namespaces).unwrap_or_default();
    if let Some(bad) = namespaces.iter().find(|name| !is_namespace(name)) {
        bail!("namespace {bad:?} is none; expected up to 63 small letters, digits and hyphens");
    }
    Ok(Some(Kube {
        managers,
        namespaces,
        selector: typed.selector.or(file.selector).unwrap_or_default(),
        rules,
        write_back: (typed.write_back || file.write_back.unwrap_or(false)).then_some(write_back),
    }))
}

/// A DNS label, as RFC 1123 has it.
fn is_namespace(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
