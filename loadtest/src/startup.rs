//! From the start of the process to the first and the last answer to an Envoy, for a fleet in one
//! NDJSON file. The floor is the start of the process and the parsing of the same file, alone.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::tidegate::Tidegate;

const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const SRDS: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
const LIMIT: Duration = Duration::from_mins(2);

/// From the start of the process to the first and the last answer to an Envoy.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Servers in the file
    #[arg(long, default_value_t = 10_000)]
    servers: usize,
    /// How often
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The control plane [default: `tidegate` beside this program]
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One run, in milliseconds.
struct Run {
    process: f64,
    parse: f64,
    first: f64,
    clusters: f64,
    scopes: f64,
}

/// A figure's name, and where it stands in a run.
type Row = (&'static str, fn(&Run) -> f64);

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let binary = match options.tidegate {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("tidegate"),
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("fleet.ndjson");
    std::fs::write(&file, fleet(options.servers))?;
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        eprintln!("run {number} of {}", options.runs);
        let process = process_floor(&binary).await?;
        let parse = parse_floor(&file)?;
        let (first, clusters, scopes) =
            tokio::time::timeout(LIMIT, answers(&binary, folder.path(), options.servers))
                .await
                .context("no answer in time")??;
        runs.push(Run { process, parse, first, clusters, scopes });
    }
    let rows: [Row; 5] = [
        ("floor: start of the process (tidegate --version)", |run| run.process),
        ("floor: reading and parsing the file (serde_json)", |run| run.parse),
        ("start to first answer", |run| run.first),
        ("start to last cluster", |run| run.clusters),
        ("start to last scope", |run| run.scopes),
    ];
    println!("{} servers, {} runs, milliseconds", options.servers, runs.len());
    println!("{:52} {:>8} {:>8} {:>8}", "", "median", "least", "most");
    let mut figures = serde_json::Map::new();
    for (name, of) in rows {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (median, least, most) = (values[values.len() / 2], values[0], values[values.len() - 1]);
        println!("{name:52} {median:8.1} {least:8.1} {most:8.1}");
        figures.insert(name.to_owned(), json!({ "median_ms": median, "least_ms": least, "most_ms": most }));
    }
    if let Some(path) = options.json {
        let all = json!({ "servers": options.servers, "runs": runs.len(), "figures": figures });
        std::fs::write(&path, format!("{all:#}\n")).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn fleet(servers: usize) -> String {
    (0..servers).fold(String::new(), |mut text, number| {
        let object = json!({
            "apiVersion": "tidegate.dev/v1",
            "kind": "Server",
            "metadata": {
                "name": format!("game-{number}"),
                "annotations": { "tidegate.dev/host": "game<id>.example.com" },
            },
            "spec": { "address": format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255), "port": 7000 },
        });
        // Writing to a String does not fail.
        _ = writeln!(text, "{object}");
        text
    })
}

async fn process_floor(binary: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    let status = tokio::process::Command::new(binary).arg("--version").stdout(Stdio::null()).status().await?;
    if !status.success() {
        bail!("{} --version: {status}", binary.display());
    }
    Ok(millis(start))
}

fn parse_floor(file: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    let text = std::fs::read_to_string(file)?;
    let objects: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    std::hint::black_box(&objects);
    // They are freed behind it: that is no part of reading them.
    Ok(millis(start))
}

/// To the first answer, to the last cluster and to the last scope, from the start of the process.
async fn answers(binary: &Path, fleet: &Path, servers: usize) -> anyhow::Result<(f64, f64, f64)> {
    let start = Instant::now();
    let tidegate = Tidegate::start(binary, fleet).await?;
    let channel = Endpoint::from_shared(format!("http://{}", tidegate.xds))?.connect().await?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let (requests, outbox) = mpsc::channel(16);
    for type_url in [CDS, SRDS] {
        let node = Some(Node { id: "loadtest".into(), cluster: "default".into(), ..Default::default() });
        requests
            .send(DeltaDiscoveryRequest { node, type_url: type_url.into(), ..Default::default() })
            .await?;
    }
    let mut responses = client.delta_aggregated_resources(ReceiverStream::new(outbox)).await?.into_inner();
    let (mut first, mut clusters, mut scopes) = (None, BTreeSet::new(), BTreeSet::new());
    let mut last_cluster = None;
    let last_scope = loop {
        let response = responses.message().await?.context("the stream ended")?;
        let now = millis(start);
        first.get_or_insert(now);
        let names = response.resources.into_iter().map(|resource| resource.name);
        if response.type_url == CDS {
            clusters.extend(names);
        } else {
            scopes.extend(names);
        }
        if clusters.len() == servers {
            last_cluster.get_or_insert(now);
        }
        if scopes.len() == servers {
            break now;
        }
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..Default::default()
        };
        requests.send(ack).await?;
    };
    tidegate.end().await?;
    Ok((first.context("no answer")?, last_cluster.context("scopes before clusters")?, last_scope))
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}
