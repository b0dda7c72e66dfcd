//! What was typed, and what it means. The only reader of the command line, the environment and the
//! configuration file.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};

use crate::bootstrap::Options;
use crate::bootstrap::page::{MAX_PAGE, Page};
use crate::bootstrap::tls::{FilePath, Https};
use crate::kinds::{Door, Rules};

mod kube;
mod live;
mod operate;
mod signals;
mod typed;
mod wait;

pub use kube::{Kube, WriteBack};
pub use live::Live;
pub use operate::{Action, Ground, Operate, Place};
pub use signals::Empty;
use typed::{
    File, Typed, TypedAsk, TypedBootstrap, TypedCheck, TypedCommand, TypedDemo, TypedDrainEnvoy,
    TypedExplain, TypedList, TypedServe,
};
pub use wait::{Labelled, Wait};

/// Most game servers that the demo runs.
pub const MAX_GAMES: usize = 128;
/// Longest drain, in seconds: a week.
const MAX_DRAIN: u64 = 7 * 24 * 3600;
/// Largest fleet file that is read unless the configuration says otherwise.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

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
    DrainEnvoy(DrainEnvoy),
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
    /// Change what stands on game servers.
    Operate(Box<Operate>),
    /// Wait until servers are empty.
    Wait(Box<Wait>),
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
    /// How live sessions are counted.
    pub live: Live,
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
            live: Live::default(),
            kube: None,
        }
    }
}

/// How an Envoy is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainEnvoy {
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
        TypedCommand::DrainEnvoy(TypedDrainEnvoy { envoy_admin, at_least, at_most }) => {
            if at_least > at_most {
                bail!(
                    "--at-least {at_least} is more than --at-most {at_most}; expected no more seconds than that"
                );
            }
            let [at_least, at_most] = [at_least, at_most].map(Duration::from_secs);
            Command::DrainEnvoy(DrainEnvoy { envoy_admin, at_least, at_most })
        }
        TypedCommand::Drain(typed) => operate(operate::drain(typed)?),
        TypedCommand::Undrain(typed) => operate(operate::undrain(typed)?),
        TypedCommand::Maintenance(typed) => operate(operate::maintenance(typed)?),
        TypedCommand::Weight(typed) => operate(operate::weight(typed)?),
        TypedCommand::Switch(typed) => operate(operate::switch(typed)?),
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
        TypedCommand::WaitEmpty(typed) => Command::Wait(Box::new(wait::meaning(typed)?)),
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
        unknown_page,
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
    let unknown_page = unknown_page.as_deref().map(page).transpose()?;
    let options = Options {
        xds,
        http,
        https,
        envoy_admin,
        gateway,
        node_id,
        routes,
        clusters,
        load_reports,
        unknown_page,
    };
    Ok(Command::Bootstrap { options, output, install })
}

/// Reads no more of a file than shows that it is too long.
fn page(path: &Path) -> anyhow::Result<Page> {
    let about = || format!("--unknown-page {}", path.display());
    let file = std::fs::File::open(path).with_context(about)?;
    let mut bytes = Vec::new();
    file.take(MAX_PAGE as u64 + 1).read_to_end(&mut bytes).with_context(about)?;
    Page::read(&bytes).with_context(about)
}

/// The path as a process with another working directory finds it.
fn path_for_envoy(flag: &str, path: &Path) -> anyhow::Result<FilePath> {
    let absolute = std::path::absolute(path).with_context(|| format!("{flag} {}", path.display()))?;
    // What is no UTF-8 becomes a character that the path may not hold, and is refused by name.
    absolute.to_string_lossy().parse().with_context(|| flag.to_owned())
}

fn operate(meant: Operate) -> Command {
    Command::Operate(Box::new(meant))
}

fn question(ask: TypedAsk, question: Question) -> Command {
    let TypedAsk { admin, output } = ask;
    Command::Ask(Ask { admin, output, question })
}

fn serve(typed: TypedServe) -> anyhow::Result<Serve> {
    let TypedServe { config, fleet, xds, admin, rules, live, kube } = typed;
    let file = config.as_deref().map(file).transpose()?.unwrap_or_default();
    let default = Serve::default();
    let mut rules = kube::rules(rules, file.host_template, file.kube.as_ref());
    let live = live::meaning(&live, file.report_interval.as_deref())?;
    let kube = kube::meaning(kube, file.kube)?;
    let signal = kube.as_ref().and_then(|kube| kube.write_back.as_ref()?.empty.as_ref());
    if let Some(Empty { after, ops_state, .. }) = signal {
        if *after < 3 * live.report_interval {
            bail!(
                "--empty-for {after:?} is short: Envoys report every {:?}; expected three times that or more",
                live.report_interval
            );
        }
        // What is called empty so as to be deleted takes no new players, whatever drained it before.
        rules.ops_states.insert(ops_state.clone(), Door::Drain);
    }
    // In a cluster nobody has a ./fleet; who wants both says so.
    let implied = if kube.is_some() { None } else { default.fleet };
    Ok(Serve {
        fleet: fleet.or(file.fleet).or(implied),
        xds: xds.or(file.xds).unwrap_or(default.xds),
        admin: admin.or(file.admin).unwrap_or(default.admin),
        rules,
        max_file_bytes: file.max_file_bytes.unwrap_or(default.max_file_bytes),
        live,
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
