#![allow(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::fmt::Write as _;

use super::*;

/// Every part on a line: its place, and the object's name or the reason that there is none.
fn parts(format: Format, bytes: &[u8]) -> Vec<String> {
    let mut parts = Vec::new();
    parse(format, bytes, |place, part| {
        parts.push(match part {
            Ok(value) => format!("{place}: {}", value.get("name").unwrap_or(&value)),
            Err(why) => format!("{place}! {why}"),
        });
    });
    parts
}

/// Only the places of parts that were refused.
fn refused(format: Format, bytes: &[u8]) -> Vec<String> {
    let all = parts(format, bytes).into_iter();
    all.filter_map(|part| Some(part.split_once('!')?.0.to_owned())).collect()
}

#[test]
fn the_name_says_the_format() {
    let format = |name: &str| Format::of(Path::new(name));
    assert_eq!(format("fleet/a.yaml"), Some(Format::Yaml));
    assert_eq!(format("a.yml"), Some(Format::Yaml));
    assert_eq!(format("a.json"), Some(Format::Json));
    assert_eq!(format("a.ndjson"), Some(Format::Ndjson));
    for other in ["a.yaml~", ".a.yaml", ".a.yaml.swp", "4913", "yaml", "..data", "a.yaml.tmp", ".yaml"] {
        assert_eq!(format(other), None, "{other}");
    }
}

#[test]
fn a_bad_document_costs_itself_alone() {
    let text =
        b"# fleet\n---\nname: a\n---\nname: [b\nx: y\n---\n\nname: c\n...\n---\n# nothing\n--- {name: d}\n";
    let parts = parts(Format::Yaml, text);
    assert_eq!((&*parts[0], &*parts[2], &*parts[3]), ("3: \"a\"", "9: \"c\"", "13: \"d\""));
    assert!(parts[1].starts_with("5!") || parts[1].starts_with("6!"), "{parts:?}");
    assert_eq!(parts.len(), 4);
}

#[test]
fn a_marker_inside_a_text_is_no_marker() {
    let text = b"name: |\n  ---\n  ...\n---x: 1\n";
    assert_eq!(documents(text).len(), 1);
    assert_eq!(parts(Format::Yaml, b"name: |\n  a\n  ---\n  b\n"), ["1: \"a\\n---\\nb\\n\""]);
    assert_eq!(parts(Format::Yaml, b"---\r\nname: a\r\n---\r\nname: b\r\n"), ["2: \"a\"", "4: \"b\""]);
}

#[test]
fn an_empty_file_has_no_parts() {
    for text in ["", "\n\n", "\u{feff}", "# all of it\n---\n", "%YAML 1.2\n---\n", "null\n"] {
        assert_eq!(parts(Format::Yaml, text.as_bytes()), [""; 0], "{text:?}");
    }
    assert_eq!(parts(Format::Json, b" \n "), [""; 0]);
    assert_eq!(parts(Format::Ndjson, b"\n \n\r\n"), [""; 0]);
}

#[test]
fn a_list_is_taken_apart() {
    let list = br#"{"kind": "List", "items": [{"name": "a"}, {"name": "b"}]}"#;
    let apart = ["1 items[0]: \"a\"", "1 items[1]: \"b\""];
    assert_eq!(parts(Format::Json, list), apart);
    assert_eq!(parts(Format::Ndjson, list), apart);
    assert_eq!(parts(Format::Yaml, b"kind: List\nitems: [{name: a}, {name: b}]\n"), apart);
    assert_eq!(parts(Format::Yaml, b"- name: a\n- name: b\n"), apart);
    assert_eq!(parts(Format::Yaml, b"kind: List\n"), ["1! is a list without items"]);
    assert_eq!(parts(Format::Yaml, b"kind: List\nitems: []\n"), [""; 0]);
}

#[test]
fn json_goes_on_at_the_next_object() {
    let text = b"{\n \"name\": \"a\"\n}\n\n{ \"name\": \"b\" }{\"name\":\"c\"}\n{ \"name\": oops,\n \"x\": {}\n}\n{ \"name\": \"d\" }\n";
    let parts = parts(Format::Json, text);
    assert_eq!(parts[..3], ["1: \"a\"", "5: \"b\"", "5: \"c\""]);
    assert!(parts[3].starts_with("6! expected value"), "{parts:?}");
    assert_eq!(parts[4..], ["9: \"d\""]);
    assert_eq!(refused(Format::Json, b"{\"name\": \"a\"}\n{\"name\": \"b"), ["2"]);
    assert_refused(Format::Json, &b"{\"a\":[\n".repeat(100_000));
}

#[test]
fn a_bad_line_costs_itself_alone() {
    let parts = parts(
        Format::Ndjson,
        b"{\"name\":\"a\"}\n{\"name\":\n\n{\"name\":\"c\"} x\n{\"name\":\"\xff\"}\n{\"name\":\"d\"}",
    );
    assert_eq!((&*parts[0], &*parts[4]), ("1: \"a\"", "6: \"d\""));
    assert_eq!(parts[1], "2! EOF while parsing a value at column 8");
    assert!(parts[2].starts_with("4! trailing characters") && parts[3].starts_with("5!"), "{parts:?}");
}

#[test]
fn a_field_that_stands_twice_costs_its_object() {
    let text = b"{\"name\":\"a\"}\n{\"name\":\"b\",\"name\":\"c\"}\n{\"name\":\"d\"}\n";
    for format in [Format::Json, Format::Ndjson] {
        let parts = parts(format, text);
        assert_eq!((&*parts[0], &*parts[2], parts.len()), ("1: \"a\"", "3: \"d\"", 3), "{format:?}");
        assert!(parts[1].starts_with("2! the field \"name\" stands twice in one object"), "{parts:?}");
    }
    assert_eq!(refused(Format::Yaml, b"name: b\nname: c\n"), ["2"]);
}

#[test]
fn what_is_not_utf8_is_refused_with_its_line() {
    assert_eq!(
        parts(Format::Yaml, b"name: a\n---\nx: 1\nname: \xff\n---\nname: c\n"),
        ["1: \"a\"", "4! is not UTF-8", "6: \"c\""]
    );
    assert_eq!(refused(Format::Json, b"{\"name\": \"\xff\"}"), ["1"]);
    assert_eq!(
        refused(
            Format::Yaml,
            "name: a\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().as_slice()
        )
        .len(),
        1
    );
}

#[test]
fn scalars_stay_what_was_written() {
    let mut values = Vec::new();
    let text = b"a: yes\nb: 007\nc: 1_000\nd: true\ne: 7001\nf: 2024-05-01T10:00:00Z\n";
    parse(Format::Yaml, text, |_, part| values.push(part.unwrap()));
    let expected = serde_json::json!({"a": "yes", "b": "007", "c": "1_000", "d": true, "e": 7001, "f": "2024-05-01T10:00:00Z"});
    assert_eq!(values, [expected]);
}

/// Without its limits the parser would not come to an end of these.
#[track_caller]
fn assert_refused(format: Format, bytes: &[u8]) {
    assert!(!refused(format, bytes).is_empty(), "{format:?} is not refused");
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut laughs = String::from("l0: &l0 lol\n");
    for level in 1..30 {
        let below = vec![format!("*l{}", level - 1); 10].join(", ");
        writeln!(laughs, "l{level}: &l{level} [{below}]").unwrap();
    }
    assert_refused(Format::Yaml, laughs.as_bytes());
    // Few events, but each of a megabyte: a hundred gigabytes.
    let large = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 90_000].join(", "));
    assert_refused(Format::Yaml, large.as_bytes());
}

#[test]
fn one_anchor_may_serve_many() {
    let mut text = String::from("kind: List\nbase: &base {kind: Server, spec: {port: 1}}\nitems:\n");
    for at in 0..5000 {
        writeln!(text, "- {{<<: *base, name: s{at}}}").unwrap();
    }
    let parts = parts(Format::Yaml, text.as_bytes());
    assert_eq!((parts.len(), &*parts[4999]), (5000, "1 items[4999]: \"s4999\""));
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [200, 100_000] {
        for (open, format) in
            [("[", Format::Yaml), ("[", Format::Json), ("[", Format::Ndjson), ("{\"a\":", Format::Json)]
        {
            assert_refused(format, open.repeat(depth).as_bytes());
        }
        let dashes = "- ".repeat(depth) + "x";
        assert_refused(Format::Yaml, dashes.as_bytes());
    }
}

#[test]
fn garbage_never_panics() {
    let seed = crate::testkit::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    println!("TIDEGATE_SEED={seed}");
    let words: [&[u8]; 30] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b": ",
        b"\n",
        b"\n  ",
        b"- ",
        b"---\n",
        b"...\n",
        b"\"",
        b"'",
        b"&a ",
        b"*a",
        b"<<: ",
        b"|\n",
        b">-\n",
        b"#",
        b"%TAG ! x\n",
        b"!!int ",
        b"\t",
        b"\r\n",
        b"\xff",
        b"\xEF\xBB\xBF",
        b"a",
        b"1e999",
        b".nan",
        b"kind: List\n",
        b"?",
    ];
    for _ in 0..20_000 {
        let text: Vec<u8> =
            (0..random.usize(0..24)).flat_map(|_| words[random.usize(0..words.len())].to_vec()).collect();
        for format in [Format::Yaml, Format::Json, Format::Ndjson] {
            parse(format, &text, |place, _| {
                assert!(place.line as usize <= text.len() + 1, "{place}, seed {seed}");
            });
        }
    }
}
