//! What was typed, and what it means. The only reader of the command line, the environment and the
//! configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::bootstrap::tls::{FilePath, Https};
use crate::bootstrap::{Clusters, Endpoint, Name, Options, Routes};
use crate::kinds::Rules;
use crate::model::{MAX_NAME, is_name};

mod kube;

pub use kube::{Kube, WriteBack};
use kube::{KubeFile, TypedKube, TypedRules};

/// Most game servers that the demo runs.
pub const MAX_GAMES: usize = 128;
/// Longest drain, in seconds: a week.
const MAX_DRAIN: u64 = 7 * 24 * 3600;
/// Largest fleet file that is read unless the configuration says otherwise.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// An Envoy control plane that gives every game server its own host and path.
///
/// Tidegate watches a fleet and streams the changes, and only the changes, to every Envoy: a server that
/// comes, drains or goes never reloads a listener and never drops a player's WebSocket.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Typed {
    #[command(subcommand)]
    command: TypedCommand,

    /// How logs are written, to standard error. `RUST_LOG` chooses what: `tidegate=debug` for a line a change.
    #[arg(long, global = true, value_enum, default_value_t, env = "TIDEGATE_LOG_FORMAT")]
    log_format: LogFormat,

    #[arg(long, hide = true, global = true, env = "RUST_LOG")]
    log_filter: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line an event, for people.
    #[default]
    Text,
    /// An object an event, for programs.
    Json,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table, for people.
    #[default]
    Table,
    /// JSON, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum TypedCommand {
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
struct TypedServe {
    /// A YAML file with any of: fleet, xds, admin, hostTemplate, maxFileBytes, kube (see the README). Flags win over it.
    /// A part `kube` switches the watch of a cluster on; with `watch: false` in it, it only says how objects in files
    /// are read.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The fleet directory [default: ./fleet, or none with --kube]
    #[arg(long, value_name = "DIR", env = "TIDEGATE_FLEET")]
    fleet: Option<PathBuf>,
    /// Where Envoys connect [default: 127.0.0.1:18000]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_XDS")]
    xds: Option<SocketAddr>,
    /// Where health, metrics and the API are [default: 127.0.0.1:18080]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    rules: TypedRules,
    #[command(flatten)]
    kube: TypedKube,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    fleet: Option<PathBuf>,
    xds: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    host_template: Option<String>,
    max_file_bytes: Option<u64>,
    kube: Option<KubeFile>,
}

/// Prints an Envoy bootstrap: `tidegate bootstrap -o envoy.yaml && envoy -c envoy.yaml`
///
/// The listener in it is static, so nothing that Tidegate streams can drain it.
#[derive(Debug, Args)]
struct TypedBootstrap {
    /// Where Envoy finds the control plane: HOST:PORT, an address or a DNS name
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000")]
    xds: Endpoint,
    /// Where players connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    http: SocketAddr,
    /// Where players connect by TLS, beside --http
    #[arg(long, value_name = "ADDR", requires_all = ["tls_dir", "output"])]
    https: Option<SocketAddr>,
    /// The folder of tls.crt and tls.key for --https; Envoy notices when they are renewed, as in a mounted Secret
    #[arg(long, value_name = "DIR", requires = "https")]
    tls_dir: Option<PathBuf>,
    /// Where Envoy's own admin page is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:19000")]
    envoy_admin: SocketAddr,
    /// The gateway that this Envoy belongs to; servers choose theirs by tidegate.dev/gateway
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = gateway)]
    gateway: Name,
    /// The name of this Envoy
    #[arg(long, value_name = "ID", default_value = "envoy")]
    node_id: Name,
    /// How routes reach the listener
    #[arg(long, value_enum, default_value_t)]
    routes: Routes,
    /// When clusters reach Envoy
    #[arg(long, value_enum, default_value_t)]
    clusters: Clusters,
    /// Leave out the reports of live sessions
    #[arg(long)]
    no_load_reports: bool,
    /// Write to this file, and not to standard output; with --https also FILE with .tls.yaml in place of its .yaml,
    /// where Envoy reads which certificate to use: it must find both under the same path as here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also copy this program to FILE, so that `FILE drain` can run beside an Envoy whose image has no shell
    #[arg(long, value_name = "FILE")]
    install: Option<PathBuf>,
}

/// Empties an Envoy before it ends, as a preStop hook: those inside play on, the next connection goes elsewhere.
///
/// Tells Envoy to close each connection at the end of its request (`/healthcheck/fail`), and returns when no request
/// and no WebSocket is left, or the time is over. What ends Envoy is up to you.
#[derive(Debug, Args)]
struct TypedDrain {
    /// Where Envoy's own admin page is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:19000")]
    envoy_admin: SocketAddr,
    /// Wait so long even when it is empty: load balancers go on sending newcomers for a while
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN))]
    at_least: u64,
    /// Wait no longer; keep it below the Pod's terminationGracePeriodSeconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3540, value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN))]
    at_most: u64,
}

/// Plays: the control plane, a real Envoy and small WebSocket game servers, on loopback.
///
/// Open a printed URL in two browser tabs and draw; scale with + and - and see that nobody is dropped.
#[derive(Debug, Args)]
struct TypedDemo {
    /// How many game servers to start with
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=MAX_GAMES as i64))]
    servers: u16,
    /// End by itself after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Where players connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    http: SocketAddr,
    /// Where Tidegate's health, metrics and API are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18080")]
    admin: SocketAddr,
    /// The Envoy to run [default: `envoy` on PATH, else the one that envoy/get-envoy installed]
    #[arg(long, value_name = "FILE", env = "ENVOY")]
    envoy: Option<PathBuf>,
}

/// Reads fleet files and prints every problem with its place; exits with 1 if there is any.
///
/// Reads what `serve` reads: our own servers, and Kubernetes' objects as kubectl prints them. Of a GameServerSet or
/// an Agones Fleet without servers it shows the first ones that would be made, so that a manifest can be read before
/// it is applied; of a pod or GameServer that is not routed it says why.
#[derive(Debug, Args)]
struct TypedCheck {
    /// Files or directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The configuration file of `serve`, for its hostTemplate and for how its part `kube` has objects read
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    rules: TypedRules,
    /// How many servers of a set or fleet are shown that has none yet
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    samples: u8,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct TypedAsk {
    /// The control plane's admin address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:18080", env = "TIDEGATE_ADMIN_URL")]
    admin: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct TypedList {
    /// Only those that contain this text
    #[arg(default_value = "")]
    filter: String,
    #[command(flatten)]
    ask: TypedAsk,
}

/// Says why a request ends where it does: the scopes that are tried, who holds the route, who lost it.
#[derive(Debug, Args)]
struct TypedExplain {
    /// HOST or HOST/PATH, as a player types it
    target: String,
    /// The gateway of the Envoy that is asked
    #[arg(long, value_name = "NAME", default_value = "default")]
    gateway: String,
    #[command(flatten)]
    ask: TypedAsk,
}

fn gateway(text: &str) -> Result<Name, String> {
    if !is_name(text) {
        return Err(format!("expected 1 to {MAX_NAME} letters, digits and - . _, like edge-eu"));
    }
    text.parse().map_err(|error: crate::bootstrap::BadName| error.to_string())
}

/// What was asked for.
#[derive(Debug)]
pub struct Invocation {
    /// How logs are written.
    pub log_format: LogFormat,
    /// Which logs are written, in the grammar of `RUST_LOG`, if that was said.
    pub log_filter: Option<String>,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Run the control plane.
    Serve(Serve),
    /// Print a bootstrap.
    Bootstrap {
        /// What Envoy has to know.
        options: Options,
        /// The file to write, in place of standard output.
        output: Option<PathBuf>,
        /// Where to copy this program to.
        install: Option<PathBuf>,
    },
    /// Empty an Envoy.
    Drain(Drain),
    /// Play.
    Demo(Demo),
    /// Read fleet files.
    Check {
        /// Files or directories.
        paths: Vec<PathBuf>,
        /// How objects are read.
        rules: Rules,
        /// Servers that are shown of a set or fleet without any.
        samples: usize,
        /// How to print.
        output: Output,
    },
    /// Ask a running control plane.
    Ask(Ask),
}

/// The control plane's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The fleet directory, if one is read.
    pub fleet: Option<PathBuf>,
    /// Where Envoys connect.
    pub xds: SocketAddr,
    /// Where health, metrics and the API are.
    pub admin: SocketAddr,
    /// How objects are read, those in files and those of a cluster.
    pub rules: Rules,
    /// Largest fleet file that is read.
    pub max_file_bytes: u64,
    /// The cluster, if one is watched.
    pub kube: Option<Kube>,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            fleet: Some("fleet".into()),
            xds: ([127, 0, 0, 1], 18000).into(),
            admin: ([127, 0, 0, 1], 18080).into(),
            rules: Rules::default(),
            max_file_bytes: MAX_FILE_BYTES,
            kube: None,
        }
    }
}

/// How an Envoy is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Its admin page.
    pub envoy_admin: SocketAddr,
    /// How long it is given when it is empty already.
    pub at_least: Duration,
    /// How long it is given at most.
    pub at_most: Duration,
}

/// The demo's configuration.
#[derive(Clone, Debug)]
pub struct Demo {
    /// Game servers to start with.
    pub servers: usize,
    /// When to end.
    pub limit: Option<Duration>,
    /// Where players connect.
    pub http: SocketAddr,
    /// Where Tidegate's API is.
    pub admin: SocketAddr,
    /// The Envoy to run, if one was named.
    pub envoy: Option<PathBuf>,
}

/// A question to a running control plane.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its admin URL.
    pub admin: String,
    /// How to print.
    pub output: Output,
    /// The question.
    pub question: Question,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// Its routes.
    Routes(String),
    /// Its servers.
    Servers(String),
    /// Its Envoys.
    Envoys,
    /// Why a request ends where it does.
    Explain {
        /// The host.
        host: String,
        /// The path.
        path: String,
        /// The gateway.
        gateway: String,
    },
}

/// Reads the command line; prints help or an error and exits if that is what it asks for.
pub fn parse() -> anyhow::Result<Invocation> {
    meaning(Typed::parse())
}

fn meaning(typed: Typed) -> anyhow::Result<Invocation> {
    let Typed { command, log_format, log_filter } = typed;
    let command = match command {
        TypedCommand::Serve(typed) => Command::Serve(serve(typed)?),
        TypedCommand::Bootstrap(typed) => bootstrap(typed)?,
        TypedCommand::Drain(TypedDrain { envoy_admin, at_least, at_most }) => {
            if at_least > at_most {
                bail!(
                    "--at-least {at_least} is more than --at-most {at_most}; expected no more seconds than that"
                );
            }
            let [at_least, at_most] = [at_least, at_most].map(Duration::from_secs);
            Command::Drain(Drain { envoy_admin, at_least, at_most })
        }
        TypedCommand::Demo(typed) => {
            let TypedDemo { servers, seconds, http, admin, envoy } = typed;
            Command::Demo(Demo {
                servers: servers.into(),
                limit: seconds.map(Duration::from_secs),
                http,
                admin,
                envoy,
            })
        }
        TypedCommand::Check(TypedCheck { paths, config, rules, samples, output }) => {
            let file = config.as_deref().map(file).transpose()?.unwrap_or_default();
            let rules = kube::rules(rules, file.host_template, file.kube.as_ref());
            Command::Check { paths, rules, samples: samples.into(), output }
        }
        TypedCommand::Routes(TypedList { filter, ask }) => question(ask, Question::Routes(filter)),
        TypedCommand::Servers(TypedList { filter, ask }) => question(ask, Question::Servers(filter)),
        TypedCommand::Envoys(ask) => question(ask, Question::Envoys),
        TypedCommand::Explain(TypedExplain { target, gateway, ask }) => {
            let target = target.split_once("://").map_or(target.as_str(), |(_, rest)| rest);
            let (host, path) = target
                .split_once('/')
                .map_or((target, "/".to_owned()), |(host, path)| (host, format!("/{path}")));
            question(ask, Question::Explain { host: host.to_owned(), path, gateway })
        }
    };
    Ok(Invocation { log_format, log_filter, command })
}

fn bootstrap(typed: TypedBootstrap) -> anyhow::Result<Command> {
    let TypedBootstrap {
        xds,
        http,
        https,
        tls_dir,
        envoy_admin,
        gateway,
        node_id,
        routes,
        clusters,
        no_load_reports,
        output,
        install,
    } = typed;
    let https = match (https, tls_dir, &output) {
        (Some(address), Some(folder), Some(output)) => Some(Https {
            address,
            folder: path_for_envoy("--tls-dir", &folder)?,
            secret: path_for_envoy("--output", &output.with_extension("tls.yaml"))?,
        }),
        _ => None,
    };
    let load_reports = !no_load_reports;
    let options = Options { xds, http, https, envoy_admin, gateway, node_id, routes, clusters, load_reports };
    Ok(Command::Bootstrap { options, output, install })
}

/// The path as a process with another working directory finds it.
fn path_for_envoy(flag: &str, path: &Path) -> anyhow::Result<FilePath> {
    let absolute = std::path::absolute(path).with_context(|| format!("{flag} {}", path.display()))?;
    // What is no UTF-8 becomes a character that the path may not hold, and is refused by name.
    absolute.to_string_lossy().parse().with_context(|| flag.to_owned())
}

fn question(ask: TypedAsk, question: Question) -> Command {
    let TypedAsk { admin, output } = ask;
    Command::Ask(Ask { admin, output, question })
}

fn serve(typed: TypedServe) -> anyhow::Result<Serve> {
    let TypedServe { config, fleet, xds, admin, rules, kube } = typed;
    let file = config.as_deref().map(file).transpose()?.unwrap_or_default();
    let default = Serve::default();
    let rules = kube::rules(rules, file.host_template, file.kube.as_ref());
    let kube = kube::meaning(kube, file.kube)?;
    // In a cluster nobody has a ./fleet; who wants both says so.
    let implied = if kube.is_some() { None } else { default.fleet };
    Ok(Serve {
        fleet: fleet.or(file.fleet).or(implied),
        xds: xds.or(file.xds).unwrap_or(default.xds),
        admin: admin.or(file.admin).unwrap_or(default.admin),
        rules,
        max_file_bytes: file.max_file_bytes.unwrap_or(default.max_file_bytes),
        kube,
    })
}

fn file(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    let file: File = serde_saphyr::from_str(&text).with_context(|| format!("--config {}", path.display()))?;
    if file.max_file_bytes == Some(0) {
        bail!(
            "--config {}: maxFileBytes: 0 reads nothing; expected a number of bytes such as {MAX_FILE_BYTES}",
            path.display()
        );
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
