//! Every metric family: its name, unit, help and labels, in one struct.
//!
//! Labels are enums. A host, a server or an Envoy is never a label: the number of series does not
//! grow with the fleet.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::model::ProblemKind;
use crate::session::Type;

/// An xDS type, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    r#type: TypeValue,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // the names are the label's values
enum TypeValue {
    clusters,
    scopes,
    routes,
    unserved,
}

impl From<Option<Type>> for TypeLabel {
    fn from(kind: Option<Type>) -> Self {
        let r#type = match kind {
            Some(Type::Clusters) => TypeValue::clusters,
            Some(Type::Scopes) => TypeValue::scopes,
            Some(Type::Routes) => TypeValue::routes,
            None => TypeValue::unserved,
        };
        Self { r#type }
    }
}

/// A server's mode, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModeLabel {
    /// `Mode::word`
    pub mode: &'static str,
}

/// What was written and what came of it, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabel {
    /// `object`, `network`, `event`, `sessions` or `empty`
    pub what: &'static str,
    /// `ok`, `gone` or `failed`
    pub result: &'static str,
}

/// A kind of problem, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProblemLabel {
    kind: ProblemValue,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
enum ProblemValue {
    unknown_field,
    bad_value,
    missing,
    duplicate,
    unparsable,
    unknown_kind,
    too_large,
    unreadable,
}

impl From<ProblemKind> for ProblemLabel {
    fn from(kind: ProblemKind) -> Self {
        let kind = match kind {
            ProblemKind::UnknownField => ProblemValue::unknown_field,
            ProblemKind::BadValue => ProblemValue::bad_value,
            ProblemKind::Missing => ProblemValue::missing,
            ProblemKind::Duplicate => ProblemValue::duplicate,
            ProblemKind::Unparsable => ProblemValue::unparsable,
            ProblemKind::UnknownKind => ProblemValue::unknown_kind,
            ProblemKind::TooLarge => ProblemValue::too_large,
            ProblemKind::Unreadable => ProblemValue::unreadable,
        };
        Self { kind }
    }
}

/// From 10 µs to 2.6 s, by fours.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
}

/// All metrics. Cheap to clone: clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events that sources reported.
    pub events: Counter,
    /// Events that really changed a server.
    pub changes: Counter,
    /// Resources translated.
    pub translations: Counter,
    /// What the watches of a cluster heard, changed or not.
    pub kube_news: Counter,
    /// Lists and watches of a cluster that failed.
    pub kube_errors: Counter,
    /// What was written to a cluster's objects, by what came of it.
    pub writes: Family<WriteLabel, Counter>,
    /// 1 while this replica holds the Lease and writes.
    pub writer: Gauge,
    /// Game servers that wait for an acknowledgement, or to be written.
    pub unwritten: Gauge,
    /// Time from what a source heard to its commit.
    pub event_seconds: Histogram,
    /// Time to apply and commit a batch of events.
    pub commit_seconds: Histogram,
    /// Servers by mode.
    pub servers: Family<ModeLabel, Gauge>,
    /// Route keys that a server claims and does not hold.
    pub lost_claims: Gauge,
    /// Problems of servers and files by kind.
    pub problems: Family<ProblemLabel, Gauge>,
    /// Resources that live, by type.
    pub resources: Family<TypeLabel, Gauge>,
    /// 1 when every source has listed.
    pub synced: Gauge,
    /// 1 while a source holds removals back.
    pub held: Gauge,
    /// Open ADS streams.
    pub streams: Gauge,
    /// Streams that were ended for what they asked, or for falling behind.
    pub refused_streams: Counter,
    /// Time from a commit to the responses that carry it.
    pub push_seconds: Histogram,
    /// Responses by type.
    pub pushes: Family<TypeLabel, Counter>,
    /// Resources in responses by type.
    pub pushed_resources: Family<TypeLabel, Counter>,
    /// Removed names in responses by type.
    pub pushed_removals: Family<TypeLabel, Counter>,
    /// Bytes of responses by type.
    pub pushed_bytes: Family<TypeLabel, Counter>,
    /// Acknowledged responses by type.
    pub acks: Family<TypeLabel, Counter>,
    /// Refused responses by type.
    pub nacks: Family<TypeLabel, Counter>,
    /// Resources refused alone, by type.
    pub quarantines: Family<TypeLabel, Counter>,
    /// Time from a response to its acknowledgement, by type.
    pub ack_seconds: Family<TypeLabel, Histogram, fn() -> Histogram>,
    /// Live sessions that Envoys report, over all servers.
    pub sessions: Gauge,
}

impl Metrics {
    /// The families and the registry that prints them.
    pub fn new() -> (Self, Registry) {
        let metrics = Self {
            events: Counter::default(),
            changes: Counter::default(),
            translations: Counter::default(),
            kube_news: Counter::default(),
            kube_errors: Counter::default(),
            writes: Family::default(),
            writer: Gauge::default(),
            unwritten: Gauge::default(),
            event_seconds: seconds(),
            commit_seconds: seconds(),
            servers: Family::default(),
            lost_claims: Gauge::default(),
            problems: Family::default(),
            resources: Family::default(),
            synced: Gauge::default(),
            held: Gauge::default(),
            streams: Gauge::default(),
            refused_streams: Counter::default(),
            push_seconds: seconds(),
            pushes: Family::default(),
            pushed_resources: Family::default(),
            pushed_removals: Family::default(),
            pushed_bytes: Family::default(),
            acks: Family::default(),
            nacks: Family::default(),
            quarantines: Family::default(),
            ack_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            sessions: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("tidegate");
        let r = &mut registry;
        r.register("events", "Events that sources reported", metrics.events.clone());
        r.register("changes", "Events that changed a server", metrics.changes.clone());
        r.register("translations", "Resources translated", metrics.translations.clone());
        r.register("kube_news", "What the watches of a cluster heard", metrics.kube_news.clone());
        r.register("kube_errors", "Lists and watches of a cluster that failed", metrics.kube_errors.clone());
        r.register("writes", "What was written to a cluster's objects", metrics.writes.clone());
        r.register("writer", "1 while this replica writes to a cluster's objects", metrics.writer.clone());
        r.register(
            "unwritten",
            "Game servers that wait for an acknowledgement, or to be written",
            metrics.unwritten.clone(),
        );
        r.register_with_unit(
            "event",
            "From what a source heard to its commit",
            Unit::Seconds,
            metrics.event_seconds.clone(),
        );
        r.register_with_unit(
            "commit",
            "From a batch of events to its commit",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register("servers", "Servers by mode", metrics.servers.clone());
        r.register(
            "lost_claims",
            "Routes that a server claims and an older one holds",
            metrics.lost_claims.clone(),
        );
        r.register("problems", "What the authors of servers and files should mend", metrics.problems.clone());
        r.register("resources", "Resources that live", metrics.resources.clone());
        r.register(
            "synced",
            "1 when every source has listed, so that Envoys are answered",
            metrics.synced.clone(),
        );
        r.register("removals_held", "1 while a source holds removals back", metrics.held.clone());
        r.register("streams", "Open ADS streams", metrics.streams.clone());
        r.register(
            "streams_refused",
            "ADS streams ended for what they asked or for falling behind",
            metrics.refused_streams.clone(),
        );
        r.register_with_unit(
            "push",
            "From a commit to the responses that carry it",
            Unit::Seconds,
            metrics.push_seconds.clone(),
        );
        r.register("pushes", "Responses sent to Envoys", metrics.pushes.clone());
        r.register("pushed_resources", "Resources in those responses", metrics.pushed_resources.clone());
        r.register("pushed_removals", "Removed names in those responses", metrics.pushed_removals.clone());
        r.register_with_unit("pushed", "Size of those responses", Unit::Bytes, metrics.pushed_bytes.clone());
        r.register("acks", "Responses that an Envoy took", metrics.acks.clone());
        r.register("nacks", "Responses that an Envoy refused", metrics.nacks.clone());
        r.register("quarantines", "Resources that an Envoy refused alone", metrics.quarantines.clone());
        r.register_with_unit(
            "ack",
            "From a response to its acknowledgement",
            Unit::Seconds,
            metrics.ack_seconds.clone(),
        );
        r.register("sessions", "Live sessions that Envoys report", metrics.sessions.clone());
        (metrics, registry)
    }
}

/// The registry in the `OpenMetrics` text format.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    _ = encode(&mut text, registry);
    text
}
