//! The floor of a watch, as a child: it reads the same stream as the control plane, and throws it away.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::kube::core::NamespaceResourceScope;
use ::kube::runtime::watcher::{Config, Event, watcher};
use ::kube::{Api, Client, Resource};
use anyhow::{Context, bail};
use futures_util::{AsyncReadExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::child::{Child, answer_all};

/// How long news may take to be heard.
const LIMIT: Duration = Duration::from_mins(2);
const PACE: Duration = Duration::from_millis(5);

/// How it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum How {
    /// Bytes of a watch, with no look at what they say but for the ends of lines
    Bytes,
    /// kube's watcher, with nothing decoded but resource versions
    Watcher,
}

/// A watch whose news nobody reads.
#[derive(Debug, clap::Args)]
pub(crate) struct Ear {
    /// Where the API server is
    #[arg(long)]
    address: std::net::SocketAddr,
    /// How it hears
    #[arg(long, value_enum)]
    how: How,
}

/// The parent's side.
pub(super) struct Hearer(pub(super) Child);

impl Hearer {
    pub(super) fn start(address: &str, how: &str) -> anyhow::Result<Self> {
        Ok(Self(Child::start(&["hear", "--address", address, "--how", how])?))
    }

    /// Waits until it has heard so many in all.
    pub(super) async fn has_heard(&mut self, count: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let heard: u64 = self.0.ask(&()).await?;
            if heard >= count {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("a bare watch has heard {heard} of {count}");
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// The child's side: says how much it has heard whenever it is asked.
pub(crate) async fn hear(ear: Ear) -> anyhow::Result<()> {
    let client = cluster::client(ear.address)?;
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    let listening = tokio::spawn(async move {
        match ear.how {
            How::Bytes => bytes(client, &count).await,
            How::Watcher => watch(client, &count).await,
        }
    });
    let answering = answer_all(async |(): ()| Ok(json!(heard.load(Ordering::Relaxed))));
    tokio::select! {
        ended = listening => ended?.context("the watch"),
        answered = answering => answered,
    }
}

async fn bytes(client: Client, heard: &AtomicU64) -> anyhow::Result<()> {
    let request = http::Request::get("/apis/agones.dev/v1/gameservers?watch=true&resourceVersion=0");
    let mut stream = pin!(client.request_stream(request.body(Vec::new())?).await?);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            bail!("the API server ended it");
        }
        // A part's count fits a byte, so that sixteen are compared at once: a floor should cost little.
        let ends = |part: &[u8]| part.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
        let lines: usize = buffer[..count].chunks(255).map(|part| usize::from(ends(part))).sum();
        heard.fetch_add(lines as u64, Ordering::Relaxed);
    }
}

async fn watch(client: Client, heard: &AtomicU64) -> anyhow::Result<()> {
    let mut events = pin!(watcher(Api::<Nothing>::all(client), Config::default()));
    while let Some(event) = events.next().await {
        if matches!(event?, Event::Apply(_) | Event::InitApply(_)) {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    }
    bail!("it ended")
}

/// An object of which nothing is read but the version that a watch goes on from.
#[derive(Clone, Debug)]
struct Nothing(ObjectMeta);

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Version,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            resource_version: Option<String>,
        }
        let resource_version = Head::deserialize(from)?.metadata.resource_version;
        Ok(Self(ObjectMeta { resource_version, ..ObjectMeta::default() }))
    }
}

impl Resource for Nothing {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "GameServer".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "agones.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "gameservers".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0
    }
}
