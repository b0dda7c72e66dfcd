#![allow(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::sync::Arc;

use super::super::parse::Format;
use super::*;
use crate::kinds::Rules;
use crate::model::{Server, ServerId};

/// A file's content: servers as `name` or `name=port`; `!` is a part that can't be read.
fn content(text: &str) -> Content {
    let lines: String = text
        .split_whitespace()
        .map(|word| match word.split_once('=').unwrap_or((word, "7000")) {
            ("!", _) => "oops\n".to_owned(),
            (name, port) => format!(
                "{{\"apiVersion\":\"tidegate.dev/v1\",\"kind\":\"Server\",\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"address\":\"10.0.0.1\",\"port\":{port}}}}}\n"
            ),
        })
        .collect();
    Content::read("x", Format::Ndjson, lines.as_bytes(), &Rules::default())
}

fn shown(changes: Vec<Change>) -> String {
    let mut words: Vec<_> = changes
        .into_iter()
        .map(|change| match change {
            Change::Put(Item::Server(server)) => {
                format!("+{}={}", server.id.name(), server.desired.endpoint.unwrap().port())
            }
            Change::Gone(Id::Server(id)) => format!("-{}", id.name()),
            other => panic!("{other:?}"),
        })
        .collect();
    words.sort();
    words.join(" ")
}

/// Runs `file: content` steps (`file: -` deletes it) and shows what each one changed.
fn steps(steps: &[&str]) -> (Vec<String>, Ledger) {
    let mut fleet = Ledger::default();
    let changes = steps
        .iter()
        .map(|step| match step.split_once(':').unwrap() {
            (file, " -") => shown(fleet.remove(file)),
            (file, text) => shown(fleet.replace(file, content(text))),
        })
        .collect();
    (changes, fleet)
}

#[test]
fn only_what_changed_is_told() {
    let (changes, _) = steps(&["f: a b c", "f: a b c", "f: c b=7001 a", "f: b=7001 a", "f: -", "f: -"]);
    assert_eq!(changes, ["+a=7000 +b=7000 +c=7000", "", "+b=7001", "-c", "-a -b", ""]);
}

#[test]
fn a_file_with_unreadable_parts_loses_nothing() {
    let (changes, fleet) = steps(&["f: a b c", "f: a=7001 ! d"]);
    assert_eq!(changes[1], "+a=7001 +d=7000");
    assert_eq!(fleet.held().unwrap(), "f is not whole: 2 objects of it are kept as they were");
    assert_eq!(fleet.problems().len(), 1);
    let (changes, fleet) = steps(&["f: a b c", "f: a !", "f: !", "f: a b"]);
    assert_eq!(changes[1..], ["", "", "-c"]);
    assert_eq!((fleet.held(), fleet.problems().len(), fleet.len()), (None, 0, 2));
}

#[test]
fn an_empty_file_is_half_written() {
    let (changes, fleet) = steps(&["f: a b", "f: "]);
    assert_eq!(changes[1], "");
    let [problem] = &fleet.problems()[..] else { panic!() };
    assert_eq!(
        problem.to_string(),
        "f: is empty, as if half-written; its 2 objects are kept. Delete the file to remove them"
    );
    assert_eq!(steps(&["f: a b", "f: ", "f: -"]).0[2], "-a -b");
    assert_eq!(steps(&["f: "]).1.problems(), [], "one that never held a server may be empty");
}

#[test]
fn the_first_file_holds_and_the_next_takes_over() {
    let (changes, fleet) = steps(&["b: s=2 x", "a: s=1", "c: s=3"]);
    assert_eq!(changes, ["+s=2 +x=7000", "+s=1", ""]);
    let problems: Vec<_> = fleet.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "b:1: default/s stands in a:1 already; this one takes over when that goes",
            "c:1: default/s stands in a:1 already; this one takes over when that goes",
        ]
    );
    let (changes, fleet) = steps(&["b: s=2 x", "a: s=1", "a: y", "b: x", "b: -"]);
    assert_eq!(changes[2..], ["+s=2 +y=7000", "-s", "-x"]);
    assert_eq!((fleet.problems().len(), fleet.len()), (0, 1));
}

#[test]
fn a_file_may_be_renamed_without_a_word() {
    assert_eq!(steps(&["a: s t", "b: s t", "a: -"]).0, ["+s=7000 +t=7000", "", ""]);
    assert_eq!(steps(&["b: s t", "a: s t", "b: -"]).0, ["+s=7000 +t=7000", "", ""]);
}

#[test]
fn one_of_a_thousand_is_one_event() {
    let all: Vec<_> = (0..1000).map(|at| format!("s{at}")).collect();
    let mut other = all.clone();
    other[500] = "s500=7001".into();
    let (changes, _) = steps(&[&format!("f: {}", all.join(" ")), &format!("f: {}", other.join(" "))]);
    assert_eq!(changes[1], "+s500=7001");
}

/// The second definition: the files as they stand now, read from nothing. With no unreadable parts, what
/// was told must add up to exactly that.
#[test]
fn what_was_told_adds_up_to_what_is_there() {
    let seed = crate::testkit::seed();
    println!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut fleet = Ledger::default();
    let mut told: BTreeMap<ServerId, Arc<Server>> = BTreeMap::new();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for _ in 0..3000 {
        let file = format!("f{}", random.usize(0..4));
        let changes = if random.usize(0..5) == 0 {
            files.remove(&file);
            fleet.remove(&file)
        } else {
            let words: Vec<_> = (0..random.usize(1..6))
                .map(|_| format!("s{}={}", random.usize(0..8), random.usize(1..4)))
                .collect();
            files.insert(file.clone(), words.join(" "));
            fleet.replace(&file, content(&words.join(" ")))
        };
        for change in changes {
            match change {
                Change::Put(Item::Server(server)) => {
                    let before = told.insert(server.id.clone(), server.clone());
                    assert_ne!(before, Some(server), "told twice, seed {seed}");
                }
                Change::Gone(Id::Server(id)) => {
                    assert!(told.remove(&id).is_some(), "removed twice, seed {seed}");
                }
                other => panic!("{other:?}"),
            }
        }
        let mut expected = BTreeMap::new();
        for (_, item) in files.values().flat_map(|text| content(text).items) {
            let Item::Server(server) = item else { panic!() };
            expected.entry(server.id.clone()).or_insert(server);
        }
        assert_eq!(told, expected, "seed {seed}");
        assert_eq!(fleet.len(), expected.len(), "seed {seed}");
        let is_expected =
            |item: &Item| matches!(item, Item::Server(server) if expected.get(&server.id) == Some(server));
        assert!(fleet.all().all(|(_, _, item)| is_expected(item)), "seed {seed}");
    }
}
