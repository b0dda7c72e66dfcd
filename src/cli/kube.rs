//! What is said of Kubernetes: how its objects are read, and which cluster is watched. Flags, and the `kube`
//! part of the configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::bail;
use clap::Args;
use serde::Deserialize;

use super::signals::{self, Empty, TypedSignals};
use crate::kinds::{Door, Manager, PublishAt, Readiness, Rules, Upstream};

/// How objects are read, those of a cluster and those in files.
#[derive(Debug, Default, Args)]
pub(super) struct TypedRules {
    /// Hosts of servers whose annotations name none, such as `<name>.games.example.com`
    #[arg(long, value_name = "HOSTS", env = "TIDEGATE_HOST_TEMPLATE")]
    pub(super) host_template: Option<String>,
    /// An ingress class that is ours, in a cluster and in files; say it again for more, and "" for objects that name
    /// none [default: tidegate]
    #[arg(long, value_name = "CLASS")]
    pub(super) ingress_class: Vec<String>,
}

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
    /// Write to game servers that Envoys route them: needs the right to patch them
    #[arg(long, env = "TIDEGATE_WRITE_BACK", requires = "kube")]
    write_back: bool,
    #[command(flatten)]
    signals: TypedSignals,
}

/// The part of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KubeFile {
    watch: Option<bool>,
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
    public_address: Option<IpAddr>,
    writes_per_second: Option<u32>,
    write_sessions: Option<bool>,
    empty_for: Option<String>,
    empty_ops_state: Option<String>,
    empty_label: Option<String>,
    peers: Option<Vec<String>>,
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
    /// Envoy's address for players, for those who are told no names.
    pub public_address: Option<IpAddr>,
    /// Most objects that are written to in a second.
    pub writes_per_second: u32,
    /// Whether live sessions become an annotation.
    pub sessions: bool,
    /// How fleet managers are told that a drained server is empty, if they are.
    pub empty: Option<Empty>,
}

impl WriteBack {
    /// The port of the public URL; `None` when it is no URL of a server.
    pub fn public_port(&self) -> Option<u16> {
        let (scheme, rest) = self.public_url.split_once("://")?;
        let behind = rest.strip_prefix("{host}")?.trim_end_matches("{path}");
        let implied = match scheme {
            "https" | "wss" => 443,
            "http" | "ws" => 80,
            _ => return None,
        };
        match behind {
            "" => Some(implied),
            port => port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0),
        }
    }
}

impl Default for WriteBack {
    fn default() -> Self {
        Self {
            lease_namespace: None,
            lease_name: "tidegate".into(),
            public_url: "https://{host}{path}".into(),
            public_address: None,
            writes_per_second: 100,
            sessions: false,
            empty: None,
        }
    }
}

/// How objects are read, by flags and file.
pub(super) fn rules(typed: TypedRules, host_template: Option<String>, file: Option<&KubeFile>) -> Rules {
    let TypedRules { host_template: typed_template, ingress_class } = typed;
    let mut rules = Rules { host_template: typed_template.or(host_template), ..Rules::default() };
    if let Some(file) = file {
        rules.classes = file.ingress_classes.clone().unwrap_or(rules.classes);
        rules.ops_states.extend(file.ops_states.clone().unwrap_or_default());
        rules.readiness = file.readiness.unwrap_or_default();
        rules.upstream = file.upstream.unwrap_or_default();
        rules.publish_at = file.publish_at.unwrap_or_default();
    }
    if !ingress_class.is_empty() {
        rules.classes = ingress_class.into_iter().collect();
    }
    rules
}

impl KubeFile {
    /// False when it only says how objects in files are read.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.unwrap_or(true)
    }

    /// The fleet managers that it names.
    pub(super) fn managers(&self) -> Option<BTreeSet<Manager>> {
        self.sources.clone()
    }
}

/// The cluster that flags or file ask for; none when neither does, or the file only says how objects are read.
pub(super) fn meaning(typed: TypedKube, file: Option<KubeFile>) -> anyhow::Result<Option<Kube>> {
    let is_watched = typed.kube || file.as_ref().is_some_and(KubeFile::is_watched);
    let file = file.unwrap_or_default();
    let writes = typed.write_back || file.write_back.unwrap_or(false);
    if let Some(flag) = typed.signals.said().filter(|_| !(is_watched && writes)) {
        let missing = match (typed.kube, is_watched, writes) {
            (true, ..) => "--write-back",
            (_, _, true) => "--kube",
            (_, true, _) => "--kube --write-back, or writeBack: true to the configuration's part kube",
            _ => "--kube --write-back",
        };
        bail!("{flag} tells a cluster's objects something, and nothing is written to them; add {missing}");
    }
    let managers = file.sources.unwrap_or_else(|| Manager::ALL.into());
    if managers.is_empty() {
        bail!("kube.sources: names nobody; expected okg, agones or both, or leave it out for both");
    }
    let default = WriteBack::default();
    let write_back = WriteBack {
        lease_namespace: file.lease_namespace,
        lease_name: file.lease_name.unwrap_or(default.lease_name),
        public_url: file.public_url.unwrap_or(default.public_url),
        public_address: file.public_address,
        writes_per_second: file.writes_per_second.unwrap_or(default.writes_per_second),
        sessions: typed.signals.write_sessions || file.write_sessions.unwrap_or(false),
        empty: signals::empty(
            typed.signals,
            signals::InFile {
                empty_for: file.empty_for,
                ops_state: file.empty_ops_state,
                label: file.empty_label,
                peers: file.peers,
            },
        )?,
    };
    if !(1..=10_000).contains(&write_back.writes_per_second) {
        bail!("kube.writesPerSecond: {} is not a number from 1 to 10000", write_back.writes_per_second);
    }
    if write_back.public_port().is_none() {
        bail!(
            "kube.publicUrl: {:?} is not a URL with {{host}} such as https://{{host}}{{path}} or http://{{host}}:8080{{path}}",
            write_back.public_url
        );
    }
    let namespaces = if typed.namespace.is_empty() {
        file.namespaces.unwrap_or_default()
    } else {
        typed.namespace.into_iter().collect()
    };
    if let Some(bad) = namespaces.iter().find(|name| !is_namespace(name)) {
        bail!("namespace {bad:?} is none; expected up to 63 small letters, digits and hyphens");
    }
    // What is not watched is checked all the same: it may be switched on by a flag.
    let kube = Kube {
        managers,
        namespaces,
        selector: typed.selector.or(file.selector).unwrap_or_default(),
        write_back: writes.then_some(write_back),
    };
    Ok(is_watched.then_some(kube))
}

/// A DNS label, as RFC 1123 has it.
fn is_namespace(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
