use super::*;

fn resource(name: &str, text: &str) -> Resource {
    Resource::new(name, text.as_bytes())
}

fn put(name: &str, text: &str) -> Change {
    Change { kind: Kind::Scope, name: name.into(), variants: Variants::everywhere(resource(name, text)) }
}

fn drop(name: &str) -> Change {
    Change { kind: Kind::Scope, name: name.into(), variants: Variants::default() }
}

fn changed(snapshot: &Snapshot, seen: Revision) -> Vec<String> {
    snapshot.changed_since(Kind::Scope, seen).map(|entry| entry.name().to_owned()).collect()
}

fn lost(snapshot: &Snapshot, gateway: &str) -> Vec<String> {
    snapshot
        .lost_since(Kind::Scope, 0, Revision::MAX)
        .filter(|entry| entry.was_lost_by(gateway))
        .map(|entry| entry.name().to_owned())
        .collect()
}

#[test]
fn a_key_stands_once_however_often_it_changed() {
    let mut snapshot = Snapshot::default();
    snapshot.apply([put("a", "1"), put("b", "1"), put("a", "2"), put("a", "3")]);
    assert_eq!(changed(&snapshot, 0), ["b", "a"]);
    assert_eq!(changed(&snapshot, 3), ["a"]);
    assert_eq!(changed(&snapshot, snapshot.revision()), [""; 0]);
}

#[test]
fn the_same_content_is_no_change() {
    let mut snapshot = Snapshot::default();
    snapshot.apply([put("a", "1")]);
    let revision = snapshot.revision();
    assert_eq!(snapshot.apply([put("a", "1"), drop("never")]), Applied::default());
    assert_eq!(snapshot.revision(), revision);
}

#[test]
fn a_removal_is_seen_until_it_is_compacted() {
    let mut snapshot = Snapshot::default();
    snapshot.apply([put("a", "1"), drop("a"), put("b", "1")]);
    assert_eq!((changed(&snapshot, 0), lost(&snapshot, "x")), (vec!["b".into()], vec!["a".into()]));
    snapshot.compact(snapshot.revision());
    assert_eq!((lost(&snapshot, "x"), snapshot.tombstones()), (vec![], 0));
    assert_eq!(snapshot.revision_of(Kind::Scope, "a"), None);
    assert_eq!(snapshot.floor(), 4);
}

#[test]
fn a_name_that_comes_back_is_not_lost() {
    let mut snapshot = Snapshot::default();
    snapshot.apply([put("a", "1"), drop("a"), put("a", "1")]);
    assert_eq!((changed(&snapshot, 0), lost(&snapshot, "x")), (vec!["a".into()], vec![]));
    snapshot.compact(snapshot.revision());
    assert_eq!(changed(&snapshot, 0), ["a"]);
}

#[test]
fn a_gateway_loses_what_others_keep() {
    let mut snapshot = Snapshot::default();
    let eu = Gateway("eu".into());
    let only_eu = Variants { every: None, named: vec![(eu.clone(), Some(resource("a", "1")))] };
    let all_but_eu = Variants { every: Some(resource("a", "1")), named: vec![(eu, None)] };
    let change =
        |variants: &Variants| Change { kind: Kind::Scope, name: "a".into(), variants: variants.clone() };

    snapshot.apply([change(&only_eu)]);
    assert_eq!((lost(&snapshot, "eu").len(), lost(&snapshot, "us").len()), (0, 0), "us never had it");
    snapshot.apply([put("a", "1"), change(&only_eu)]);
    assert_eq!((lost(&snapshot, "eu").len(), lost(&snapshot, "us").len()), (0, 1));
    snapshot.apply([change(&all_but_eu)]);
    assert_eq!((lost(&snapshot, "eu").len(), lost(&snapshot, "us").len()), (1, 0));
}

#[test]
fn the_newest_tombstones_are_kept() {
    let mut snapshot = Snapshot::default();
    for i in 0..10 {
        snapshot.apply([put(&format!("n{i}"), "1"), drop(&format!("n{i}"))]);
    }
    snapshot.compact(snapshot.floor_keeping(3));
    assert_eq!(lost(&snapshot, "x"), ["n7", "n8", "n9"]);
}

#[test]
fn a_generation_is_not_part_of_a_version() {
    let version = Version::of(b"x");
    assert_eq!(Version::parse(&version.to_string()), Some(version));
    assert_eq!(Version::parse(&format!("{version}#2")), Some(version));
    assert_eq!(Version::parse("v1"), None);
}
