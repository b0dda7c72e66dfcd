use std::collections::BTreeSet;
use std::sync::Arc;

use super::words::{Complaint, Write, complaints, wanted};
use crate::cli::WriteBack;
use crate::kinds::{Key, Kind, Network, Noted, Subject, Target};
use crate::model::{Problem, ProblemKind};
use crate::report::Placement;
use crate::testkit::{key, server_with};

fn subject(noted: Noted) -> Subject {
    let key = Key { kind: Kind::AgonesGameServer, namespace: "default".into(), name: "a".into() };
    let target = Some(Target { key, uid: "u1".into() });
    Subject { servers: vec![server_with("a", &["a.x", "b.x/p"], |_| {})], target, noted, network: None }
}

fn held(routes: &[&str]) -> Placement {
    Placement { held: routes.iter().map(|text| key(text)).collect(), open: true, ..Placement::default() }
}

/// The patch that should be sent, if any.
fn patch(subject: &Subject, placement: &Placement, acknowledged: bool) -> Option<serde_json::Value> {
    Some(wanted(subject, placement, acknowledged, &WriteBack::default()).marks?.patch("u1"))
}

#[test]
fn a_server_is_marked_when_it_is_acknowledged_and_not_before() {
    let subject = subject(Noted { ready: Some(false), ..Noted::default() });
    let placement = held(&["a.x", "b.x/p"]);
    assert_eq!(patch(&subject, &placement, false), None);
    let expected = serde_json::json!({ "metadata": {
        "uid": "u1",
        "annotations": { "tidegate.dev/url": "https://a.x/,https://b.x/p", "octops.io/ingress-ready": "true" },
        "labels": { "tidegate.dev/routed": "true" },
    } });
    assert_eq!(patch(&subject, &placement, true), Some(expected));
    let closed = Placement { open: false, ..placement };
    assert_eq!(patch(&subject, &closed, true), None, "one that takes nobody is not offered");
}

#[test]
fn what_stands_there_is_not_written_again() {
    let noted = Noted { url: Some("https://a.x/".into()), routed: true, ..Noted::default() };
    assert_eq!(patch(&subject(noted.clone()), &held(&["a.x"]), true), None);
    let moved = patch(&subject(noted.clone()), &held(&["c.x"]), true).unwrap();
    assert_eq!(moved["metadata"]["annotations"]["tidegate.dev/url"], "https://c.x/");
    assert!(
        moved["metadata"]["annotations"].get("octops.io/ingress-ready").is_none(),
        "it is none of Octops'"
    );
    let unready = Noted { ready: Some(false), ..noted };
    assert!(patch(&subject(unready), &held(&["a.x"]), true).is_some(), "Octops' word is missing");
}

#[test]
fn one_that_lost_all_its_routes_loses_its_marks() {
    let noted = Noted { url: Some("https://a.x/".into()), routed: true, ..Noted::default() };
    let gone = patch(&subject(noted), &held(&[]), false).unwrap();
    assert!(gone["metadata"]["annotations"]["tidegate.dev/url"].is_null());
    assert!(gone["metadata"]["labels"]["tidegate.dev/routed"].is_null());
    assert_eq!(patch(&subject(Noted::default()), &held(&[]), true), None);
}

#[test]
fn a_wildcard_is_routed_and_no_url() {
    let placement = held(&["*.x", "*/p"]);
    let marked = patch(&subject(Noted::default()), &placement, true).unwrap();
    assert_eq!(marked["metadata"]["labels"]["tidegate.dev/routed"], "true");
    assert!(marked["metadata"]["annotations"]["tidegate.dev/url"].is_null());
    let noted = Noted { routed: true, ..Noted::default() };
    assert_eq!(patch(&subject(noted.clone()), &placement, true), None, "it stands there");
    let moved = Noted { url: Some("https://a.x/".into()), ..noted };
    let moved = patch(&subject(moved), &placement, true).unwrap();
    assert_eq!(moved["metadata"]["labels"]["tidegate.dev/routed"], "true", "its host alone is gone");
}

#[test]
fn one_that_has_no_server_any_more_loses_its_marks() {
    let noted = Noted { url: Some("https://a.x/".into()), routed: true, ..Noted::default() };
    let parted = Subject { servers: Vec::new(), ..subject(noted) };
    let gone = patch(&parted, &Placement::default(), false).unwrap();
    assert!(gone["metadata"]["labels"]["tidegate.dev/routed"].is_null());
}

#[test]
fn who_stands_in_for_the_writer_says_what_its_envoys_know_and_says_it_once() {
    let before = Write::default();
    let marked =
        |placement: &Placement, noted| wanted(&subject(noted), placement, true, &WriteBack::default());
    let said = marked(&held(&["a.x"]), Noted::default()).of_envoys(&before);
    assert!(!said.is_empty());
    assert!(marked(&held(&["a.x"]), Noted::default()).of_envoys(&said).is_empty(), "it was said");
    assert!(!marked(&held(&["c.x"]), Noted::default()).of_envoys(&said).is_empty(), "it has moved");
    let noted = Noted { routed: true, ..Noted::default() };
    assert!(!marked(&held(&[]), noted.clone()).is_empty());
    assert!(marked(&held(&[]), noted).of_envoys(&before).is_empty(), "it takes nothing away");
    let complaint = Complaint { reason: "Misconfigured", note: "x".into() };
    let complains = Write { complaints: vec![complaint], ..before.clone() };
    assert!(complains.of_envoys(&before).is_empty());
}

#[test]
fn a_complaint_is_made_once() {
    let wrong = server_with("a", &["a.x"], |server| {
        let why = "x".repeat(2000);
        server.problems.push(Problem::new(ProblemKind::BadValue, "f", why));
    });
    let mut placement = held(&[]);
    placement.lost.push((key("a.x"), server_with("old", &[], |_| {}).id.clone()));
    let all = complaints(&[Arc::clone(&wrong)], &placement, Some("Envoy e refuses a.x: no".into()));
    let reasons: Vec<_> = all.iter().map(|complaint| complaint.reason).collect();
    assert_eq!(reasons, ["Misconfigured", "RouteTaken", "RefusedByEnvoy"]);
    assert!(all[0].note.len() <= 1024 && all[0].note.ends_with('…'));
    assert!(all[1].note.contains("a.x is held by"), "{}", all[1].note);
    let first = wanted(&subject(Noted::default()), &placement, false, &WriteBack::default()).beyond(
        &Write::default(),
        all.clone(),
        &BTreeSet::new(),
    );
    assert_eq!(first.complaints.len(), 3);
    let said: BTreeSet<_> = first.complaints.iter().cloned().collect();
    assert!(
        wanted(&subject(Noted::default()), &placement, false, &WriteBack::default())
            .beyond(&first, all, &said)
            .is_empty()
    );
}

#[test]
fn a_pod_of_our_network_type_is_told_at_once_and_ready_when_acknowledged() {
    let mut subject = subject(Noted::default());
    subject.servers = vec![server_with("a", &["a.x"], |_| {})];
    let pod = Target {
        key: Key { kind: Kind::Pod, namespace: "default".into(), name: "a".into() },
        uid: "pod-1".into(),
    };
    let ip = Some([10, 0, 0, 7].into());
    let network = Network { target: pod.clone(), ip, status: None, disabled: false };
    subject.network = Some(network.clone());
    let said = |subject: &Subject, acknowledged| {
        let (target, status) =
            wanted(subject, &held(&["a.x"]), acknowledged, &WriteBack::default()).network?;
        assert_eq!(target, pod);
        Some(status)
    };
    assert!(said(&subject, false).unwrap().contains("\"Waiting\""));
    let ready = said(&subject, true).unwrap();
    assert!(ready.contains("\"Ready\"") && ready.contains("a.x") && ready.contains("443"), "{ready}");
    subject.network = Some(Network { status: Some(ready.into()), ..network });
    assert_eq!(said(&subject, true), None, "it stands there");
}
