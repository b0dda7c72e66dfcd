//! Transcripts of the protocol, one rule each. The random runs against a model of Envoy stand in
//! `convergence`.

use envoy_types::pb::envoy::config::core::v3::Node as ProtoNode;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::*;
use crate::snapshot::{Change, Variants};

mod convergence;

fn resource(name: &str, content: &str) -> Resource {
    Resource::new(name, content.as_bytes())
}

/// The version of a name's content.
fn version(name: &str, content: &str) -> String {
    resource(name, content).version.to_string()
}

fn put(kind: Kind, name: &str, content: &str) -> Change {
    Change { kind, name: name.into(), variants: Variants::everywhere(resource(name, content)) }
}

fn cut(kind: Kind, name: &str) -> Change {
    Change { kind, name: name.into(), variants: Variants::default() }
}

/// A session and its world, spoken to in the shorthand of the transcripts.
struct Talk {
    session: Session,
    snapshot: Snapshot,
    table: Option<(Revision, Resource)>,
    whole: bool,
}

/// `req!(CDS)`, `req!(CDS, sub [..], unsub [..], versions {..}, ack 1, nack 1)`
fn request(url: &str) -> DeltaDiscoveryRequest {
    let node = ProtoNode { id: "envoy".into(), cluster: "edge".into(), ..Default::default() };
    DeltaDiscoveryRequest { node: Some(node), type_url: url.into(), ..Default::default() }
}

/// As it comes over the wire.
fn wire(request: &DeltaDiscoveryRequest) -> Request {
    Request::decode(request.encode_to_vec().into()).expect("a request")
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const CDS: &str = translate::CLUSTER;
const SRDS: &str = translate::SCOPE;
const RDS: &str = translate::ROUTES;

impl Talk {
    fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut snapshot = Snapshot::default();
        snapshot.apply(changes);
        Self { session: Session::new(7), snapshot, table: None, whole: true }
    }

    /// How many resources of the first type are refused.
    fn refused(&self) -> usize {
        let mut rows = Vec::new();
        self.session.status(&mut rows);
        rows[0].refused.len()
    }

    fn say(&mut self, request: &DeltaDiscoveryRequest) -> Vec<Note> {
        self.session.on_request(wire(request), &self.snapshot).expect("a good request")
    }

    fn subscribe(&mut self, url: &str, names: &[&str]) {
        self.say(&DeltaDiscoveryRequest { resource_names_subscribe: strings(names), ..request(url) });
    }

    fn unsubscribe(&mut self, url: &str, names: &[&str]) {
        self.say(&DeltaDiscoveryRequest { resource_names_unsubscribe: strings(names), ..request(url) });
    }

    fn reconnect(&mut self, url: &str, held: &[(&str, &str)]) {
        let initial_resource_versions =
            held.iter().map(|(name, content)| ((*name).to_owned(), version(name, content))).collect();
        self.say(&DeltaDiscoveryRequest { initial_resource_versions, ..request(url) });
    }

    fn ack(&mut self, url: &str, nonce: u64) -> Vec<Note> {
        self.say(&DeltaDiscoveryRequest { response_nonce: nonce.to_string(), ..request(url) })
    }

    fn nack(&mut self, url: &str, nonce: u64) -> Vec<Note> {
        let error_detail = Some(Status { code: 13, message: "no".into(), ..Default::default() });
        self.say(&DeltaDiscoveryRequest { response_nonce: nonce.to_string(), error_detail, ..request(url) })
    }

    fn commit(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.snapshot.apply(changes);
    }

    fn next(&mut self) -> Option<Push> {
        let world = World { snapshot: &self.snapshot, table: self.table.as_ref(), whole: self.whole };
        self.session.next(world).expect("not behind")
    }

    /// All it has to say now, as `CDS 1 +a +b -c`.
    fn hear(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).map(|push| text(&push)).collect()
    }
}

/// As an Envoy reads it.
fn response(push: &Push) -> DeltaDiscoveryResponse {
    let mut bytes = Vec::new();
    push.encode(&mut bytes);
    assert!(bytes.len() <= push.size(), "{push:?}");
    DeltaDiscoveryResponse::decode(&bytes[..]).expect("a response")
}

fn names_of(push: &Push) -> Vec<String> {
    response(push).resources.into_iter().map(|resource| resource.name).collect()
}

fn text(push: &Push) -> String {
    let kind = match push.kind {
        Some(Type::Clusters) => "CDS",
        Some(Type::Scopes) => "SRDS",
        Some(Type::Routes) => "RDS",
        None => "?",
    };
    let added = names_of(push).into_iter().map(|name| format!(" +{name}"));
    let removed = push.removed.iter().map(|name| format!(" -{name}"));
    format!("{kind} {}{}", push.nonce, added.chain(removed).collect::<String>())
}

fn clusters(names: &[&str]) -> Vec<Change> {
    names.iter().map(|name| put(Kind::Cluster, name, "1")).collect()
}

fn scopes(names: &[&str]) -> Vec<Change> {
    names.iter().map(|name| put(Kind::Scope, name, "1")).collect()
}

#[test]
fn legacy_wildcard_gets_all_then_changes() {
    let mut talk = Talk::new(clusters(&["a", "b"]));
    talk.subscribe(CDS, &[]);
    assert_eq!(talk.hear(), ["CDS 1 +a +b"]);
    talk.ack(CDS, 1);
    talk.commit([put(Kind::Cluster, "b", "2")]);
    assert_eq!(talk.hear(), ["CDS 2 +b"]);
    talk.ack(CDS, 2);
    talk.commit([cut(Kind::Cluster, "a")]);
    assert_eq!(talk.hear(), ["CDS 3 -a"]);
}

#[test]
fn an_empty_world_is_an_answer() {
    let mut talk = Talk::new([]);
    talk.subscribe(SRDS, &[]);
    assert_eq!(talk.hear(), ["SRDS 1"]);
    talk.ack(SRDS, 1);
    assert_eq!(talk.hear(), [""; 0]);
}

#[test]
fn a_name_beside_the_wildcard_is_answered_and_remembered() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    talk.hear();
    talk.ack(CDS, 1);
    talk.subscribe(CDS, &["x"]);
    assert_eq!(talk.hear(), ["CDS 2 -x"], "it does not exist, which must be said");
    talk.ack(CDS, 2);
    talk.commit(clusters(&["x"]));
    assert_eq!(talk.hear(), ["CDS 3 +x"]);
    talk.ack(CDS, 3);
    talk.unsubscribe(CDS, &["x"]);
    assert_eq!(talk.hear(), ["CDS 4 +x"], "the wildcard still covers it, which must be said");
    talk.ack(CDS, 4);
    talk.commit([cut(Kind::Cluster, "x")]);
    assert_eq!(talk.hear(), ["CDS 5 -x"]);
}

#[test]
fn names_alone_are_no_wildcard() {
    let mut talk = Talk::new(clusters(&["a", "b", "c"]));
    talk.subscribe(CDS, &["a", "missing"]);
    assert_eq!(talk.hear(), ["CDS 1 +a -missing"]);
    talk.ack(CDS, 1);
    talk.subscribe(CDS, &["a"]);
    assert_eq!(talk.hear(), ["CDS 2 +a"], "asked again is answered again");
    talk.ack(CDS, 2);
    talk.commit([put(Kind::Cluster, "b", "2"), put(Kind::Cluster, "missing", "1")]);
    assert_eq!(talk.hear(), ["CDS 3 +missing"]);
    talk.ack(CDS, 3);
    talk.unsubscribe(CDS, &["a", "missing", "never"]);
    talk.commit([put(Kind::Cluster, "a", "2")]);
    assert_eq!(talk.hear(), [""; 0], "empty is not wildcard afterwards");
}

#[test]
fn a_star_can_come_later_and_go() {
    let mut talk = Talk::new(clusters(&["a", "b"]));
    talk.subscribe(CDS, &["a"]);
    assert_eq!(talk.hear(), ["CDS 1 +a"]);
    talk.ack(CDS, 1);
    talk.subscribe(CDS, &["*"]);
    assert_eq!(talk.hear(), ["CDS 2 +a +b"]);
    talk.ack(CDS, 2);
    talk.unsubscribe(CDS, &["*"]);
    talk.commit([put(Kind::Cluster, "a", "2"), put(Kind::Cluster, "b", "2")]);
    assert_eq!(talk.hear(), ["CDS 3 +a"], "the name stays");
}

#[test]
fn a_stale_nonce_still_subscribes() {
    let mut talk = Talk::new(clusters(&["a", "z"]));
    talk.subscribe(CDS, &["a"]);
    talk.hear();
    let notes = talk.say(&DeltaDiscoveryRequest {
        response_nonce: "99".into(),
        resource_names_subscribe: strings(&["z"]),
        ..request(CDS)
    });
    assert_eq!(notes, [Note::StaleNonce]);
    assert_eq!(talk.hear(), ["CDS 2 +z"]);
    assert_eq!(
        talk.say(&DeltaDiscoveryRequest { response_nonce: "x".into(), ..request(CDS) }),
        [Note::StaleNonce]
    );
}

#[test]
fn a_nack_is_halved_down_to_the_culprit_which_is_not_sent_again() {
    let mut talk = Talk::new(clusters(&["a", "b", "c", "d"]));
    talk.subscribe(CDS, &[]);
    assert_eq!(talk.hear(), ["CDS 1 +a +b +c +d"]);
    talk.nack(CDS, 1);
    assert_eq!(talk.hear(), ["CDS 2 +a +b", "CDS 3 +c +d"]);
    talk.ack(CDS, 2);
    talk.nack(CDS, 3);
    assert_eq!(talk.hear(), ["CDS 4 +c", "CDS 5 +d"]);
    let notes = talk.nack(CDS, 4);
    assert!(
        notes.iter().any(|note| matches!(note, Note::Quarantined { name, .. } if &**name == "c")),
        "{notes:?}"
    );
    talk.ack(CDS, 5);
    assert_eq!(talk.hear(), [""; 0]);
    assert_eq!(talk.refused(), 1);

    talk.commit([put(Kind::Cluster, "c", "1"), put(Kind::Cluster, "a", "2")]);
    assert_eq!(talk.hear(), ["CDS 6 +a"], "nack is not sent again");
    talk.commit([put(Kind::Cluster, "c", "between"), put(Kind::Cluster, "c", "1")]);
    assert_eq!(talk.hear(), [""; 0], "nor when it comes back to what was refused");
    talk.commit([put(Kind::Cluster, "c", "2")]);
    assert_eq!(talk.hear(), ["CDS 7 +c"], "other content is");
    talk.ack(CDS, 7);
    assert_eq!(talk.refused(), 0);
}

/// A round trip that is longer than the time between two changes is no reason to vouch for nothing.
#[test]
fn what_is_acknowledged_moves_on_though_a_change_falls_into_each_round_trip() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    talk.subscribe(SRDS, &[]);
    let mut waiting: Vec<Push> = std::iter::from_fn(|| talk.next()).collect();
    let mut settled = Vec::new();
    for round in 0..6 {
        let name = format!("c{round}");
        talk.commit([put(Kind::Cluster, &name, "1"), put(Kind::Scope, &name, "1")]);
        let news: Vec<_> = std::iter::from_fn(|| talk.next()).collect();
        for push in std::mem::replace(&mut waiting, news) {
            talk.ack(&push.type_url, push.nonce);
        }
        waiting.extend(std::iter::from_fn(|| talk.next()));
        assert!(!waiting.is_empty(), "something is always under way");
        settled.push(talk.session.settled());
    }
    assert!(settled.is_sorted() && settled[3] > settled[1] && settled[5] > settled[3], "{settled:?}");
}

#[test]
fn a_push_tells_what_it_stands_behind() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    assert_eq!(talk.next().expect("a first answer").behind, 0);
    let before = talk.snapshot.revision();
    talk.commit(clusters(&["b"]));
    talk.commit(clusters(&["c"]));
    assert_eq!(talk.next().expect("news").behind, before, "it carries the older of two commits, too");
}

#[test]
fn a_refused_scope_batch_comes_back_with_new_generations() {
    let mut talk = Talk::new(scopes(&["a", "b"]));
    talk.subscribe(SRDS, &[]);
    let first = response(&talk.next().unwrap());
    talk.nack(SRDS, 1);
    let retry = response(&talk.next().unwrap());
    assert_eq!(retry.resources[0].name, "a");
    assert_eq!(retry.resources[0].version, format!("{}#1", version("a", "1")));
    let content = |response: &DeltaDiscoveryResponse| response.resources[0].resource.clone().unwrap().value;
    assert_ne!(content(&first), content(&retry), "the same content would be skipped as known");
    talk.nack(SRDS, 2);
    talk.commit([put(Kind::Scope, "a", "2")]);
    let versions = std::iter::from_fn(|| {
        let push = talk.next()?;
        talk.ack(SRDS, push.nonce);
        Some(response(&push).resources.into_iter().map(|resource| resource.version))
    });
    let versions: Vec<_> = versions.flatten().collect();
    assert_eq!(versions, [format!("{}#2", version("b", "1")), format!("{}#2", version("a", "2"))]);
}

#[test]
fn a_reconnect_gets_the_difference() {
    let mut talk = Talk::new([
        put(Kind::Cluster, "a", "1"),
        put(Kind::Cluster, "b", "2"),
        put(Kind::Cluster, "new", "1"),
    ]);
    talk.reconnect(CDS, &[("a", "1"), ("b", "1"), ("gone", "1")]);
    assert_eq!(talk.hear(), ["CDS 1 +b +new"]);
    talk.ack(CDS, 1);
    assert_eq!(talk.hear(), ["CDS 2 -gone"], "when the answer shows that no routes are asked for");
}

#[test]
fn a_reconnect_with_equal_versions_gets_nothing() {
    let mut talk = Talk::new([clusters(&["a", "b"]), scopes(&["x"])].concat());
    talk.reconnect(CDS, &[("a", "1"), ("b", "1")]);
    talk.reconnect(SRDS, &[("x", "1")]);
    assert_eq!(talk.hear(), ["CDS 1", "SRDS 2"], "an empty answer ends Envoy's wait");
    talk.ack(CDS, 1);
    talk.ack(SRDS, 2);
    talk.commit(scopes(&["y"]));
    assert_eq!(talk.hear(), ["SRDS 3 +y"]);
}

#[test]
fn in_doubt_an_envoy_keeps_what_nobody_knows() {
    let mut talk = Talk::new([clusters(&["a"]), scopes(&["x"])].concat());
    talk.whole = false;
    talk.reconnect(CDS, &[("a", "1"), ("unread", "1")]);
    talk.reconnect(SRDS, &[("x", "1"), ("unread.x", "1")]);
    assert_eq!(talk.hear(), ["CDS 1", "SRDS 2"]);
    talk.ack(CDS, 1);
    talk.ack(SRDS, 2);
    talk.commit([cut(Kind::Scope, "x"), cut(Kind::Cluster, "a")]);
    assert_eq!(talk.hear(), ["SRDS 3 -x"], "what goes while it is known goes");
    talk.ack(SRDS, 3);
    assert_eq!(talk.hear(), ["CDS 4 -a"]);
    talk.ack(CDS, 4);
    talk.whole = true;
    assert_eq!(talk.hear(), ["SRDS 5 -unread.x"], "and the rest when the doubt does, in its order");
    talk.ack(SRDS, 5);
    assert_eq!(talk.hear(), ["CDS 6 -unread"]);
}

#[test]
fn a_reconnect_may_name_what_it_holds() {
    let mut talk = Talk::new(clusters(&["a", "x"]));
    let initial_resource_versions = [("x".to_owned(), version("x", "1"))].into();
    talk.say(&DeltaDiscoveryRequest {
        resource_names_subscribe: strings(&["*", "x", "missing"]),
        initial_resource_versions,
        ..request(CDS)
    });
    assert_eq!(talk.hear(), ["CDS 1 +a -missing"]);
}

#[test]
fn versions_are_read_from_the_first_request_only() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    talk.hear();
    talk.ack(CDS, 1);
    talk.reconnect(CDS, &[("gone", "1")]);
    assert_eq!(talk.hear(), [""; 0]);
}

#[test]
fn further_clusters_go_while_an_ack_is_held() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    for (i, name) in ["b", "c", "d"].iter().enumerate() {
        talk.hear();
        talk.commit(clusters(&[name]));
        assert_eq!(talk.session.clusters.in_flight.len(), i + 1);
    }
    for i in 0..FLIGHTS * 2 {
        talk.commit([put(Kind::Cluster, "b", &i.to_string())]);
        talk.hear();
    }
    assert_eq!(talk.session.clusters.in_flight.len(), FLIGHTS);
    talk.ack(CDS, 2);
    assert_eq!(talk.hear().len(), 1, "what piled up is one response");
}

#[test]
fn a_type_is_not_sent_before_it_is_asked_for() {
    let mut talk = Talk::new([clusters(&["a"]), scopes(&["x"])].concat());
    assert_eq!(talk.hear(), [""; 0]);
    talk.subscribe(CDS, &[]);
    assert_eq!(talk.hear(), ["CDS 1 +a"]);
}

#[test]
fn a_key_that_came_and_went_is_said_once() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    talk.hear();
    talk.ack(CDS, 1);
    talk.commit([
        cut(Kind::Cluster, "a"),
        put(Kind::Cluster, "a", "1"),
        put(Kind::Cluster, "b", "1"),
        cut(Kind::Cluster, "b"),
    ]);
    assert_eq!(talk.hear(), ["CDS 2 +a -b"]);
}

#[test]
fn a_drain_is_one_scope_and_a_spawn_needs_no_round_trip() {
    let mut talk = Talk::new([clusters(&["a"]), scopes(&["x"])].concat());
    talk.subscribe(CDS, &[]);
    talk.subscribe(SRDS, &[]);
    assert_eq!(talk.hear(), ["CDS 1 +a", "SRDS 2 +x"]);
    talk.ack(CDS, 1);
    talk.ack(SRDS, 2);
    talk.commit([put(Kind::Scope, "x", "draining")]);
    assert_eq!(talk.hear(), ["SRDS 3 +x"]);
    talk.ack(SRDS, 3);
    talk.commit([clusters(&["b"]), scopes(&["y"])].concat());
    assert_eq!(talk.hear(), ["CDS 4 +b", "SRDS 5 +y"]);
}

#[test]
fn a_cluster_goes_behind_the_ack_of_its_scope() {
    let mut talk = Talk::new([clusters(&["a"]), scopes(&["x"])].concat());
    talk.subscribe(CDS, &[]);
    talk.subscribe(SRDS, &[]);
    talk.hear();
    talk.ack(CDS, 1);
    talk.ack(SRDS, 2);
    talk.commit([cut(Kind::Scope, "x"), cut(Kind::Cluster, "a")]);
    assert_eq!(talk.hear(), ["SRDS 3 -x"]);
    talk.ack(SRDS, 3);
    assert_eq!(talk.hear(), ["CDS 4 -a"]);
}

#[test]
fn one_scope_response_waits_and_what_piles_up_is_one_more() {
    let mut talk = Talk::new([]);
    talk.subscribe(SRDS, &[]);
    talk.hear();
    for i in 0..100 {
        talk.commit([
            put(Kind::Scope, "x", &i.to_string()),
            put(Kind::Scope, &format!("y{i}"), "1"),
            cut(Kind::Scope, &format!("y{i}")),
        ]);
        assert_eq!(talk.hear(), [""; 0]);
    }
    talk.ack(SRDS, 1);
    let push = talk.next().unwrap();
    assert_eq!((push.resources.len(), push.removed.len()), (1, 100));
}

#[test]
fn large_changes_are_cut_into_chunks_but_the_first_scopes_are_whole() {
    let many: Vec<String> = (0..40_000).map(|i| format!("name-{i:06}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut talk = Talk::new([clusters(&many), scopes(&many)].concat());
    talk.subscribe(CDS, &[]);
    talk.subscribe(SRDS, &[]);
    let pushes: Vec<_> = std::iter::from_fn(|| talk.next()).collect();
    let (last, chunks) = pushes.split_last().unwrap();
    assert!(chunks.len() > 2, "{} chunks", chunks.len());
    assert!(chunks.iter().all(|push| push.kind == Some(Type::Clusters) && push.size() < CHUNK * 5 / 4));
    assert_eq!(chunks.iter().map(|push| push.resources.len()).sum::<usize>(), 40_000);
    assert_eq!(
        (last.kind, last.resources.len()),
        (Some(Type::Scopes), 40_000),
        "a listener opens when all is there"
    );
}

#[test]
fn the_table_is_sent_when_its_clusters_are_and_once_a_version() {
    let mut talk = Talk::new(clusters(&["a"]));
    let table = |content: &str, revision| Some((revision, resource(translate::TABLE, content)));
    talk.table = table("1", 2);
    talk.subscribe(CDS, &[]);
    talk.subscribe(RDS, &[translate::TABLE, "other"]);
    assert!(talk.session.wants_table());
    assert_eq!(talk.hear(), ["CDS 1 +a", "RDS 2 -other"]);
    talk.ack(RDS, 2);
    assert_eq!(talk.hear(), ["RDS 3 +tidegate"]);
    talk.ack(RDS, 3);
    talk.commit(clusters(&["b"]));
    talk.table = table("1", 3);
    assert_eq!(talk.hear(), ["CDS 4 +b"]);
    talk.commit([cut(Kind::Cluster, "b")]);
    talk.table = table("2", 4);
    assert_eq!(talk.hear(), ["RDS 5 +tidegate"], "the cluster waits for its ACK");
    talk.nack(RDS, 5);
    assert_eq!(talk.hear(), ["CDS 6 -b"], "the table is not sent again");
    talk.table = table("3", 4);
    assert_eq!(talk.hear(), ["RDS 7 +tidegate"]);
}

#[test]
fn an_unknown_type_is_an_empty_one() {
    let mut talk = Talk::new(clusters(&["a"]));
    let notes = talk.say(&DeltaDiscoveryRequest {
        resource_names_subscribe: strings(&["e"]),
        ..request("type.googleapis.com/x.Y")
    });
    assert!(
        matches!(&notes[..], [Note::Connected(_), Note::UnknownType(url)] if url == "type.googleapis.com/x.Y")
    );
    assert_eq!(talk.hear(), ["? 1 -e"]);
    assert_eq!(talk.ack("type.googleapis.com/x.Y", 1), []);
    assert_eq!(talk.hear(), [""; 0]);
    for i in 0..100 {
        talk.subscribe(&format!("unknown{i}"), &["e"]);
    }
    assert!(talk.hear().len() <= 16, "a flood is not answered without end");
}

#[test]
fn bad_requests_are_refused_by_name() {
    let snapshot = Snapshot::default();
    let refuse = |request: DeltaDiscoveryRequest| {
        let request = Request::decode(request.encode_to_vec().into());
        request.and_then(|request| Session::new(1).on_request(request, &snapshot)).unwrap_err()
    };
    assert_eq!(refuse(DeltaDiscoveryRequest { node: None, ..request(CDS) }), Refusal::NoNode);
    let node = Some(ProtoNode { cluster: "a b".into(), ..Default::default() });
    assert_eq!(refuse(DeltaDiscoveryRequest { node, ..request(CDS) }), Refusal::BadGateway("a b".into()));
    let names = vec!["x".repeat(MAX_NAME_BYTES + 1)];
    assert_eq!(
        refuse(DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(CDS) }),
        Refusal::LongName(1025)
    );
    let names = (0..=MAX_NAMES).map(|i| i.to_string()).collect();
    assert_eq!(
        refuse(DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(CDS) }),
        Refusal::TooManyNames
    );
}

#[test]
fn a_reader_older_than_the_floor_has_to_compare() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &[]);
    talk.hear();
    talk.commit([cut(Kind::Cluster, "a"), put(Kind::Cluster, "b", "1")]);
    talk.snapshot.compact(talk.snapshot.revision());
    let world = World { snapshot: &talk.snapshot, table: None, whole: true };
    assert_eq!(talk.session.next(world), Err(Refusal::FellBehind));
}

#[test]
fn a_push_is_a_delta_discovery_response() {
    let mut talk = Talk::new(clusters(&["a"]));
    talk.subscribe(CDS, &["a", "missing"]);
    let response = response(&talk.next().unwrap());
    assert_eq!(
        (&*response.type_url, &*response.nonce, &response.removed_resources[..]),
        (CDS, "1", &["missing".to_owned()][..])
    );
    assert_eq!(response.control_plane.unwrap().identifier, format!("tidegate {}", env!("CARGO_PKG_VERSION")));
    let sent = &response.resources[0];
    assert_eq!((&*sent.name, &sent.version), ("a", &version("a", "1")));
    let any = sent.resource.as_ref().unwrap();
    assert_eq!((&*any.type_url, &any.value[..]), (CDS, resource("a", "1").content()));
}
