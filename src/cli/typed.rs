//! The command line as it is typed, and the configuration file as it is written; `--help` is made of these words.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use super::kube::{KubeFile, TypedKube, TypedRules};
use super::{LogFormat, MAX_DRAIN, MAX_GAMES, Output};
use crate::bootstrap::{Clusters, Endpoint, Name, Routes};
use crate::model::{MAX_NAME, is_name};

/// An Envoy control plane that gives every game server its own host and path.
///
/// Tidegate watches a fleet and streams the changes, and only the changes, to every Envoy: a server that
/// comes, drains or goes never reloads a listener and never drops a player's WebSocket.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Typed {
    #[command(subcommand)]
    pub(super) command: TypedCommand,

    /// How logs are written, to standard error. `RUST_LOG` chooses what: `tidegate=debug` for a line a change.
    #[arg(long, global = true, value_enum, default_value_t, env = "TIDEGATE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,

    #[arg(long, hide = true, global = true, env = "RUST_LOG")]
    pub(super) log_filter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TypedCommand {
    Serve(TypedServe),
    Bootstrap(TypedBootstrap),
    Drain(TypedDrain),
    Demo(TypedDemo),
    Check(TypedCheck),
    /// Lists the hosts and paths of a running control plane: who holds them, and which Envoys took them.
    Routes(TypedList),
    /// Lists the servers of a running control plane: what they claim, and what is wrong with them.
    Servers(TypedList),
    /// Lists the Envoys of a running control plane: what they took, and what they refused.
    Envoys(TypedAsk),
    Explain(TypedExplain),
}

/// Runs the control plane.
///
/// Reads a fleet directory: *.yaml, *.yml, *.json and *.ndjson files of Server objects, or of a cluster's objects
/// as kubectl prints them. Files are watched; one that does not parse keeps its last good content and is reported.
/// With --kube (or a part `kube` in the configuration file) it watches a cluster, found by KUBECONFIG or as a pod's own: pods of OpenKruiseGame and GameServers
/// of Agones. No Envoy is answered before everything was read once.
#[derive(Debug, Args)]
pub(super) struct TypedServe {
    /// A YAML file with any of: fleet, xds, admin, hostTemplate, maxFileBytes, kube (see the README). Flags win over it.
    /// A part `kube` switches the watch of a cluster on; with `watch: false` in it, it only says how objects in files
    /// are read.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// The fleet directory [default: ./fleet, or none with --kube]
    #[arg(long, value_name = "DIR", env = "TIDEGATE_FLEET")]
    pub(super) fleet: Option<PathBuf>,
    /// Where Envoys connect [default: 127.0.0.1:18000]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_XDS")]
    pub(super) xds: Option<SocketAddr>,
    /// Where health, metrics and the API are [default: 127.0.0.1:18080]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN")]
    pub(super) admin: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) rules: TypedRules,
    #[command(flatten)]
    pub(super) kube: TypedKube,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    pub(super) fleet: Option<PathBuf>,
    pub(super) xds: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) host_template: Option<String>,
    pub(super) max_file_bytes: Option<u64>,
    pub(super) kube: Option<KubeFile>,
}

/// Prints an Envoy bootstrap: `tidegate bootstrap -o envoy.yaml && envoy -c envoy.yaml`
///
/// The listener in it is static, so nothing that Tidegate streams can drain it.
#[derive(Debug, Args)]
pub(super) struct TypedBootstrap {
    /// Where Envoy finds the control plane: HOST:PORT, an address or a DNS name
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000")]
    pub(super) xds: Endpoint,
    /// Where players connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    pub(super) http: SocketAddr,
    /// Where players connect by TLS, beside --http
    #[arg(long, value_name = "ADDR", requires_all = ["tls_dir", "output"])]
    pub(super) https: Option<SocketAddr>,
    /// The folder of tls.crt and tls.key for --https; Envoy notices when they are renewed, as in a mounted Secret
    #[arg(long, value_name = "DIR", requires = "https")]
    pub(super) tls_dir: Option<PathBuf>,
    /// Where Envoy's own admin page is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:19000")]
    pub(super) envoy_admin: SocketAddr,
    /// The gateway that this Envoy belongs to; servers choose theirs by tidegate.dev/gateway
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = gateway)]
    pub(super) gateway: Name,
    /// The name of this Envoy
    #[arg(long, value_name = "ID", default_value = "envoy")]
    pub(super) node_id: Name,
    /// How routes reach the listener
    #[arg(long, value_enum, default_value_t)]
    pub(super) routes: Routes,
    /// When clusters reach Envoy
    #[arg(long, value_enum, default_value_t)]
    pub(super) clusters: Clusters,
    /// Leave out the reports of live sessions
    #[arg(long)]
    pub(super) no_load_reports: bool,
    /// Show browsers this page at a host that nobody has: an HTML file in UTF-8, 64 KiB at most; programs are
    /// answered in JSON all the same
    #[arg(long, value_name = "FILE")]
    pub(super) unknown_page: Option<PathBuf>,
    /// Write to this file, and not to standard output; with --https also FILE with .tls.yaml in place of its .yaml,
    /// where Envoy reads which certificate to use: it must find both under the same path as here
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Also copy this program to FILE, so that `FILE drain` can run beside an Envoy whose image has no shell
    #[arg(long, value_name = "FILE")]
    pub(super) install: Option<PathBuf>,
}

/// Empties an Envoy before it ends, as a preStop hook: those inside play on, the next connection goes elsewhere.
///
/// Tells Envoy to close each connection at the end of its request (`/healthcheck/fail`), and returns when no request
/// and no WebSocket is left, or the time is over. What ends Envoy is up to you.
#[derive(Debug, Args)]
pub(super) struct TypedDrain {
    /// Where Envoy's own admin page is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:19000")]
    pub(super) envoy_admin: SocketAddr,
    /// Wait so long even when it is empty: load balancers go on sending newcomers for a while
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN))]
    pub(super) at_least: u64,
    /// Wait no longer; keep it below the Pod's terminationGracePeriodSeconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3540, value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN))]
    pub(super) at_most: u64,
}

/// Plays: the control plane, a real Envoy and small WebSocket game servers, on loopback.
///
/// Open a printed URL in two browser tabs and draw; scale with + and - and see that nobody is dropped.
#[derive(Debug, Args)]
pub(super) struct TypedDemo {
    /// How many game servers to start with
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=MAX_GAMES as i64))]
    pub(super) servers: u16,
    /// End by itself after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    pub(super) seconds: Option<u64>,
    /// Where players connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    pub(super) http: SocketAddr,
    /// Where Tidegate's health, metrics and API are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18080")]
    pub(super) admin: SocketAddr,
    /// The Envoy to run [default: `envoy` on PATH, else the one that envoy/get-envoy installed]
    #[arg(long, value_name = "FILE", env = "ENVOY")]
    pub(super) envoy: Option<PathBuf>,
}

/// Reads fleet files and prints every problem with its place; exits with 1 if there is any.
///
/// Reads what `serve` reads: our own servers, and Kubernetes' objects as kubectl prints them. Of a GameServerSet or
/// an Agones Fleet without servers it shows the first ones that would be made, so that a manifest can be read before
/// it is applied; of a pod or GameServer that is not routed it says why.
#[derive(Debug, Args)]
pub(super) struct TypedCheck {
    /// Files or directories
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// The configuration file of `serve`, for its hostTemplate and for how its part `kube` has objects read
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) rules: TypedRules,
    /// How many servers of a set or fleet are shown that has none yet
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) samples: u8,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct TypedAsk {
    /// The control plane's admin address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:18080", env = "TIDEGATE_ADMIN_URL")]
    pub(super) admin: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct TypedList {
    /// Only those that contain this text
    #[arg(default_value = "")]
    pub(super) filter: String,
    #[command(flatten)]
    pub(super) ask: TypedAsk,
}

/// Says why a request ends where it does: the scopes that are tried, who holds the route, who lost it.
#[derive(Debug, Args)]
pub(super) struct TypedExplain {
    /// HOST or HOST/PATH, as a player types it
    pub(super) target: String,
    /// The gateway of the Envoy that is asked
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(super) gateway: String,
    #[command(flatten)]
    pub(super) ask: TypedAsk,
}

pub(super) fn gateway(text: &str) -> Result<Name, String> {
    if !is_name(text) {
        return Err(format!("expected 1 to {MAX_NAME} letters, digits and - . _, like edge-eu"));
    }
    text.parse().map_err(|error: crate::bootstrap::BadName| error.to_string())
}
