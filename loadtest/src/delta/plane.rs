//! The control planes that a change goes through: the real binary, its tasks in this process, and the bare
//! server that is the floor of both.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tempfile::TempDir;
use tidegate::ads::Ads;
use tidegate::engine::Engine;
use tidegate::envoys::Envoys;
use tidegate::metrics::Metrics;
use tidegate::model::Event;
use tidegate::owner::{Burst, EVENTS, Owner};
use tidegate::sources::files;
use tidegate::store::Store;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::bare::Order;
use crate::core::{Core, Stream};
use crate::fleet::{Fleet, place};
use crate::floor::Floor;
use crate::tidegate::Tidegate;

/// A control plane that has a fleet.
pub(super) enum Plane {
    Floor(Box<Bare>),
    File(Box<Real>),
    Event(Box<Inner>),
}

/// A change that is ready to happen.
pub(super) enum Change {
    Messages(Vec<Bytes>),
    File(PathBuf),
    Events(Vec<Event>),
}

/// The bare server, and the core that says what it should send.
pub(super) struct Bare {
    floor: Floor,
    core: Core,
    stream: Stream,
}

/// The real binary on its fleet directory.
pub(super) struct Real {
    tidegate: Tidegate,
    folder: TempDir,
}

/// The control plane's tasks in this process, without a source.
pub(super) struct Inner {
    xds: SocketAddr,
    events: mpsc::Sender<Burst>,
    // Dropped, they end.
    _tasks: JoinSet<()>,
    _shutdown: watch::Sender<bool>,
}

impl Plane {
    /// The bare server with a fleet of `size`; with clusters by name alone, for Envoys that fetch them on demand.
    pub(super) async fn floor(fleet: Fleet, size: usize, on_demand: bool) -> anyhow::Result<Self> {
        let mut floor = Floor::start().await?;
        let mut core = Core::of(fleet.servers(0..size)?);
        let mut stream = Stream::open(&core, fleet.layout.is_table())?;
        for message in stream.drain(&mut core)? {
            let is_cluster = crate::messages::is_of(&message, tidegate::translate::CLUSTER)?;
            let order = if on_demand && is_cluster { Order::ByName } else { Order::First };
            floor.order(order, &[message]).await?;
        }
        Ok(Self::Floor(Box::new(Bare { floor, core, stream })))
    }

    /// The real binary with a fleet of `size` in one file.
    pub(super) async fn file(binary: &Path, fleet: Fleet, size: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let directory = folder.path().join("fleet");
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("fleet.ndjson"), fleet.file(0..size))?;
        let tidegate = Tidegate::start(binary, &directory).await?;
        Ok(Self::File(Box::new(Real { tidegate, folder })))
    }

    /// The tasks in this process with a fleet of `size`.
    pub(super) async fn event(fleet: Fleet, size: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let xds = listener.local_addr()?;
        let (metrics, _) = Metrics::new();
        let (store, envoys) = (Arc::new(Store::default()), Arc::new(Envoys::default()));
        let (owner, desk) = Owner::new(Engine::new([files::SOURCE]), store.clone(), metrics.clone());
        let (events, inbox) = mpsc::channel(EVENTS);
        let (shutdown, end) = watch::channel(false);
        let report_interval = tidegate::cli::Live::default().report_interval;
        let ads = Ads { store, desk, envoys, metrics, report_interval, shutdown: end };
        let mut tasks = JoinSet::new();
        tasks.spawn(owner.run(inbox));
        tasks.spawn(async move { _ = ads.run(listener).await });
        let servers = fleet.servers(0..size)?;
        events.send(Burst::now(vec![Event::Reset { source: files::SOURCE, servers }])).await?;
        Ok(Self::Event(Box::new(Inner { xds, events, _tasks: tasks, _shutdown: shutdown })))
    }

    pub(super) fn xds(&self) -> SocketAddr {
        match self {
            Self::Floor(bare) => bare.floor.xds,
            Self::File(real) => real.tidegate.xds,
            Self::Event(inner) => inner.xds,
        }
    }

    /// Makes all ready for these servers to come, so that `happen` does nothing but say it.
    pub(super) fn prepare(&mut self, fleet: Fleet, numbers: Range<usize>) -> anyhow::Result<Change> {
        Ok(match self {
            Self::Floor(bare) => {
                let events: Vec<_> = fleet.servers(numbers)?.into_iter().map(Event::Upsert).collect();
                bare.core.apply(events);
                Change::Messages(bare.stream.drain(&mut bare.core)?)
            }
            Self::File(real) => {
                let draft = real.folder.path().join(format!("from-{}.ndjson", numbers.start));
                std::fs::write(&draft, fleet.file(numbers))?;
                Change::File(draft)
            }
            Self::Event(_) => {
                Change::Events(fleet.servers(numbers)?.into_iter().map(Event::Upsert).collect())
            }
        })
    }

    /// Makes the change happen.
    pub(super) async fn happen(&mut self, change: Change) -> anyhow::Result<()> {
        match (self, change) {
            (Self::Floor(bare), Change::Messages(messages)) => {
                bare.floor.order(Order::Now, &messages).await?;
            }
            (Self::File(real), Change::File(draft)) => {
                let name = draft.file_name().context("a file")?.to_string_lossy().into_owned();
                place(&draft, &real.folder.path().join("fleet"), &name)?;
            }
            (Self::Event(inner), Change::Events(events)) => inner.events.send(Burst::now(events)).await?,
            _ => anyhow::bail!("a change of another control plane"),
        }
        Ok(())
    }

    /// Ends it, and waits until it has.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Floor(bare) => bare.floor.end().await,
            Self::File(real) => real.tidegate.end().await,
            Self::Event(_) => Ok(()),
        }
    }
}
