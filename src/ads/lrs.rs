//! The load reporting service: the number of requests in progress is the number of open WebSockets.
//!
//! An Envoy's numbers count until its stream ends, or it says nothing for [`SILENCE`] of the interval: a machine that
//! vanished says no goodbye, and HTTP/2 notices it only after its own keepalive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::LoadReportingService;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::{Ads, turned};
use crate::envoys::{Delta, Ledger, Report};
use crate::session::Node;
use crate::snapshot::{Kind, Name};
use crate::translate::CLUSTER_PREFIX;

/// Intervals without a report after which an Envoy counts no more: it is gone within two, and a report that is late by
/// half an interval is still in time.
const SILENCE: f64 = 1.75;
/// Clusters whose fleet the engine is asked for at once: it commits nothing meanwhile.
const QUESTION: usize = 256;

/// The service.
pub(super) struct Lrs {
    pub(super) ads: Ads,
    pub(super) streams: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl LoadReportingService for Lrs {
    type StreamLoadStatsStream = ReceiverStream<Result<LoadStatsResponse, Status>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let (outbox, responses) = mpsc::channel(1);
        let mut listener = Listener { number, ads: self.ads.clone(), ledger: Ledger::default(), node: None };
        tokio::spawn(async move {
            if let Err(status) = listener.listen(request.into_inner(), &outbox).await {
                warn!(reason = status.message(), "load reports refused");
                _ = outbox.try_send(Err(status));
            }
            listener.forget();
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// One Envoy's reports.
struct Listener {
    number: u64,
    ads: Ads,
    ledger: Ledger,
    node: Option<Node>,
}

impl Listener {
    async fn listen(
        &mut self,
        mut reports: Streaming<LoadStatsRequest>,
        outbox: &mpsc::Sender<Result<LoadStatsResponse, Status>>,
    ) -> Result<(), Status> {
        let mut shutdown = self.ads.shutdown.clone();
        if outbox.send(Ok(wish(self.ads.report_interval))).await.is_err() {
            return Ok(());
        }
        let patience = self.ads.report_interval.mul_f64(SILENCE);
        let mut is_silent = false;
        loop {
            let report = tokio::select! {
                () = turned(&mut shutdown) => return Ok(()),
                report = timeout(patience, reports.message()) => report,
            };
            match report {
                Ok(Ok(Some(report))) => {
                    is_silent = false;
                    self.take(&report).await?;
                }
                Ok(Ok(None) | Err(_)) => return Ok(()),
                Err(_) if is_silent => {}
                Err(_) => {
                    is_silent = true;
                    let envoy = self.node.as_ref().map(|node| node.id.as_str());
                    debug!(envoy, "no load report in time, its sessions are not counted");
                    self.forget();
                }
            }
        }
    }

    async fn take(&mut self, report: &LoadStatsRequest) -> Result<(), Status> {
        let node = match (&mut self.node, &report.node) {
            (Some(node), _) => node,
            (none, Some(node)) => none.insert(Node::read(node).map_err(|refusal| super::status(&refusal))?),
            (None, None) => return Err(Status::invalid_argument("the first load report has no node")),
        };
        let (store, head) = (&self.ads.store, self.ads.store.revision());
        let clusters = report.cluster_stats.iter().map(|cluster| {
            let in_progress =
                cluster.upstream_locality_stats.iter().map(|stats| stats.total_requests_in_progress);
            (cluster.cluster_name.as_str(), in_progress.fold(0, u64::saturating_add))
        });
        let ours = clusters.filter(|(name, _)| name.starts_with(CLUSTER_PREFIX));
        let lists_any = ours.clone().next().is_some();
        let gateway = &node.gateway.0;
        // One lookup a server with players, each under a lock of its own: a commit never waits for a report.
        let content = |name: &str| store.read(|snapshot| snapshot.get(Kind::Cluster, name, gateway).cloned());
        let deltas = self.ledger.take(ours, content);
        let fleets = fleets(&self.ads, &deltas).await;
        self.ads.envoys.report(self.number, Report { node, lists_any, head, deltas, fleets });
        self.count();
        Ok(())
    }

    fn forget(&mut self) {
        self.ads.envoys.forget_report(self.number, self.ledger.clear());
        self.count();
    }

    fn count(&self) {
        self.ads.metrics.sessions.set(self.ads.envoys.all_sessions().try_into().unwrap_or(i64::MAX));
    }
}

/// What Envoy is asked for.
fn wish(interval: Duration) -> LoadStatsResponse {
    LoadStatsResponse {
        send_all_clusters: true,
        load_reporting_interval: Some(ProtoDuration {
            seconds: interval.as_secs().try_into().unwrap_or(i64::MAX),
            nanos: interval.subsec_nanos().try_into().unwrap_or_default(),
        }),
        ..Default::default()
    }
}

/// The fleets of servers that had no player before: asked once, so that a scrape need not ask for all.
async fn fleets(ads: &Ads, deltas: &[Delta]) -> HashMap<Name, Arc<str>> {
    let mut fleets = HashMap::new();
    let new = ads.envoys.unreported(deltas.iter().map(|delta| &delta.cluster));
    for names in new.chunks(QUESTION) {
        let names = names.to_vec();
        let question = move |engine: &mut crate::engine::Engine| {
            let found = names.into_iter().filter_map(|name| {
                let id = name.strip_prefix(CLUSTER_PREFIX)?;
                let mut parts = id.splitn(3, '/');
                let server = engine.named(parts.next()?, parts.next()?, parts.next()?)?;
                let fleet = format!("{}/{}", server.id.namespace(), server.fleet());
                Some((name, Arc::from(fleet)))
            });
            found.collect::<Vec<_>>()
        };
        let Some(found) = ads.desk.ask(question).await else { break };
        fleets.extend(found);
    }
    fleets
}
