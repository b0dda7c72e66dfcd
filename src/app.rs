//! Wiring: sources, channels, tasks, shutdown. It names every room of the control plane.
//!
//! All tasks stand in one set; the first to end ends the process with its name.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admin::{Admin, Live};
use crate::ads::Ads;
use crate::cli::Serve;
use crate::engine::Engine;
use crate::envoys::Envoys;
use crate::metrics::Metrics;
use crate::owner::{Desk, EVENTS, Owner};
use crate::sources::{files, kube};
use crate::store::Store;
use crate::writer::{self, Writer};

/// How long streams, pages and the writer have to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// A control plane that listens.
pub struct App {
    /// Where Envoys connect; the port is real, even if 0 was asked for.
    pub xds: SocketAddr,
    /// Where health, metrics and the API are.
    pub admin: SocketAddr,
    /// The snapshot.
    pub store: Arc<Store>,
    /// The engine.
    pub desk: Desk,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    /// Those that have something to end at a shutdown: streams, pages, the Lease that the next writer waits for.
    last: Vec<&'static str>,
    shutdown: watch::Sender<bool>,
}

impl App {
    /// Takes the ports and starts every task.
    pub async fn start(config: Serve) -> anyhow::Result<Self> {
        let xds_listener = listen(config.xds, "xds").await?;
        let admin_listener = listen(config.admin, "admin").await?;
        let (xds, admin) = (xds_listener.local_addr()?, admin_listener.local_addr()?);
        let (metrics, mut registry) = Metrics::new();
        let (store, envoys) = (Arc::new(Store::default()), Arc::new(Envoys::default()));
        registry.register_collector(Box::new(Live { envoys: envoys.clone(), top: config.live.metrics_top }));
        let report_interval = config.live.report_interval;
        let clustered =
            config.kube.iter().flat_map(|kube| &kube.managers).map(|manager| kube::source(*manager));
        let sources = config.fleet.iter().flat_map(|_| files::SOURCES).chain(clustered);
        let (owner, desk) = Owner::new(Engine::new(sources), store.clone(), metrics.clone());
        let (events, inbox) = mpsc::channel(EVENTS);
        let (shutdown, end) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut last = vec!["ads", "admin"];

        tasks.spawn(async move {
            owner.run(inbox).await;
            ("engine", Ok(()))
        });
        let mut files_report = None;
        if let Some(dir) = config.fleet {
            info!(fleet = %dir.display(), "reading");
            let options =
                files::Options { dir, rules: config.rules.clone(), max_file_bytes: config.max_file_bytes };
            let (report, reports) = watch::channel(files::Report::default());
            files_report = Some(reports);
            let events = events.clone();
            tasks.spawn(async move { ("files", files::run(options, events, report).await) });
        }
        let mut kube_report = None;
        if let Some(asked) = config.kube {
            let (client, namespace) = kube::connect().await?;
            let options = kube::Options {
                managers: asked.managers,
                namespaces: asked.namespaces,
                selector: asked.selector,
                rules: config.rules,
            };
            let (report, reports) = watch::channel(kube::Report::default());
            kube_report = Some(reports);
            let mut outlets =
                kube::Outlets { events: events.clone(), report, touched: None, metrics: metrics.clone() };
            if let Some(config) = asked.write_back {
                let (sender, touched) = mpsc::channel(writer::TOUCHED);
                outlets.touched = Some(sender);
                let writer = Writer {
                    client: client.clone(),
                    namespace,
                    config,
                    store: store.clone(),
                    desk: desk.clone(),
                    envoys: envoys.clone(),
                    metrics: metrics.clone(),
                    report_interval,
                };
                let end = end.clone();
                last.push("writer");
                tasks.spawn(async move { ("writer", writer.run(touched, end).await) });
            }
            tasks.spawn(async move { ("kube", kube::run(client, options, outlets).await) });
        }
        drop(events);
        let ads = Ads {
            store: store.clone(),
            desk: desk.clone(),
            envoys: envoys.clone(),
            metrics: metrics.clone(),
            report_interval,
            shutdown: end.clone(),
        };
        tasks.spawn(async move { ("ads", ads.run(xds_listener).await.map_err(Into::into)) });
        let pages = Admin {
            store: store.clone(),
            desk: desk.clone(),
            envoys,
            metrics,
            registry: Arc::new(registry),
            report_interval,
            process: std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or_default()),
            files: files_report,
            kube: kube_report,
            shutdown: end,
        };
        tasks.spawn(async move { ("admin", pages.run(admin_listener).await.map_err(Into::into)) });
        info!(%xds, %admin, "listening");
        Ok(Self { xds, admin, store, desk, tasks, last, shutdown })
    }

    /// Runs until `shutdown` returns, or a task ends, which is an error.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown => {}
            Some(ended) = self.tasks.join_next() => {
                let (task, result) = ended.context("a task panicked")?;
                result.with_context(|| format!("{task} ended"))?;
                bail!("{task} ended");
            }
        }
        info!("ending");
        // Envoys keep what they have: no stream is told anything at the end but that it ends.
        self.shutdown.send_replace(true);
        let ending = async {
            while !self.last.is_empty()
                && let Some(ended) = self.tasks.join_next().await
            {
                self.last.retain(|task| !matches!(&ended, Ok((name, _)) if name == task));
            }
        };
        if tokio::time::timeout(GRACE, ending).await.is_err() {
            warn!(tasks = ?self.last, "streams did not end in time");
        }
        Ok(())
    }
}

async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; is another control plane running there? Choose a free port, or 0 for any"
            }
            std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        anyhow::anyhow!("--{flag} {address}: {error}{hint}")
    })
}
