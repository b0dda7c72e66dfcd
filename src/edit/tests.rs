#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

const DRAIN: &str = "tidegate.dev/drain";

fn identity(name: &str) -> Identity {
    Identity {
        api_version: "tidegate.dev/v1".into(),
        kind: "Server".into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn edit(name: &str, annotation: &str, value: Option<&str>) -> Edit {
    Edit { object: identity(name), annotation: annotation.into(), value: value.map(str::to_owned) }
}

fn set(syntax: Syntax, text: &str, name: &str) -> String {
    edited(syntax, text, &[edit(name, DRAIN, Some("true"))]).unwrap().text
}

fn unset(syntax: Syntax, text: &str, name: &str) -> String {
    edited(syntax, text, &[edit(name, DRAIN, None)]).unwrap().text
}

fn refused(text: &str, edit: Edit) -> Refused {
    edited(Syntax::Yaml, text, &[edit]).unwrap_err()
}

/// A document of one server, with this metadata.
fn document(metadata: &str) -> String {
    format!(
        "# ours\napiVersion: tidegate.dev/v1\nkind: Server   # a game\n{metadata}\nspec: {{ port: 7000 }}\n"
    )
}

#[test]
fn an_annotation_goes_behind_the_others_and_all_else_stays() {
    let before = document(
        "metadata:\n  name: a\n  annotations:\n    # where\n    tidegate.dev/host: a.b   # here\n  # end",
    );
    let after = before.replace("# here\n", "# here\n    tidegate.dev/drain: \"true\"\n");
    assert_eq!(set(Syntax::Yaml, &before, "a"), after);
    assert_eq!(unset(Syntax::Yaml, &after, "a"), before);
}

#[test]
fn every_way_to_write_metadata_takes_an_annotation() {
    for (before, after) in [
        ("metadata: { name: a }", "metadata: { name: a, annotations: { tidegate.dev/drain: \"true\" } }"),
        ("metadata: {name: a}", "metadata: {name: a, annotations: { tidegate.dev/drain: \"true\" }}"),
        (
            "metadata: {\"name\":\"a\"}",
            "metadata: {\"name\":\"a\",\"annotations\":{\"tidegate.dev/drain\":\"true\"}}",
        ),
        ("metadata:\n  name: a", "metadata:\n  name: a\n  annotations:\n    tidegate.dev/drain: \"true\""),
        (
            "metadata:\n    name: a\n    labels:\n      x: y # z",
            "metadata:\n    name: a\n    labels:\n      x: y # z\n    annotations:\n      tidegate.dev/drain: \"true\"",
        ),
        (
            "metadata:\n  name: a\n  annotations: {}",
            "metadata:\n  name: a\n  annotations: { tidegate.dev/drain: \"true\" }",
        ),
        (
            "metadata:\n  name: a\n  annotations: # none",
            "metadata:\n  name: a\n  annotations: { tidegate.dev/drain: \"true\" } # none",
        ),
        (
            "metadata:\n  annotations: ~\n  name: a",
            "metadata:\n  annotations: { tidegate.dev/drain: \"true\" }\n  name: a",
        ),
        (
            "metadata:\n  name: a\n  annotations: { tidegate.dev/path: /a } # c",
            "metadata:\n  name: a\n  annotations: { tidegate.dev/path: /a, tidegate.dev/drain: \"true\" } # c",
        ),
        (
            "metadata:\n  name: a\n  annotations: {\n    x: y,\n    z: w\n  }",
            "metadata:\n  name: a\n  annotations: {\n    x: y,\n    z: w,\n    tidegate.dev/drain: \"true\"\n  }",
        ),
        (
            "metadata:\n  name: a\n  annotations:\n    x: |\n      a text\n\n      of lines",
            "metadata:\n  name: a\n  annotations:\n    tidegate.dev/drain: \"true\"\n    x: |\n      a text\n\n      of lines",
        ),
    ] {
        assert_eq!(set(Syntax::Yaml, &document(before), "a"), document(after), "{before}");
    }
}

#[test]
fn a_value_is_replaced_however_it_was_written() {
    for held in [
        "\"false\"",
        "'false'",
        "false",
        "http://x",
        "",
        " \"a\\n b\"",
        ">-\n      https://a.b/\n",
        "|\n      x\n      y\n",
    ] {
        let with = |value: &str, end: &str| {
            document(&format!(
                "metadata:\n  name: a\n  annotations:\n    tidegate.dev/drain: {value}{end}\n    b: c"
            ))
        };
        let before = with(held, "");
        let text = set(Syntax::Yaml, &before, "a");
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        let wanted = json!({ "tidegate.dev/drain": "true", "b": "c" });
        assert_eq!(read["metadata"]["annotations"], wanted, "{held:?} became {text}");
        let gone = unset(Syntax::Yaml, &before, "a");
        let read: Value = serde_saphyr::from_str(&gone).unwrap();
        assert_eq!(read["metadata"]["annotations"], json!({ "b": "c" }), "{held:?} became {gone}");
    }
    let before = document("metadata: { name: a, annotations: { tidegate.dev/drain: 'no', b: c } } # d");
    assert_eq!(set(Syntax::Yaml, &before, "a"), before.replace("'no'", "\"true\""));
    assert_eq!(unset(Syntax::Yaml, &before, "a"), before.replace("tidegate.dev/drain: 'no', ", ""));
}

#[test]
fn the_last_annotation_leaves_an_empty_map() {
    let before =
        document("metadata:\n  name: a\n  annotations:\n    # why\n    tidegate.dev/drain: \"true\" # now");
    let after = document("metadata:\n  name: a\n  annotations: {}\n    # why");
    assert_eq!(unset(Syntax::Yaml, &before, "a"), after);
    let flow = document("metadata: { name: a, annotations: { tidegate.dev/drain: \"true\" } }");
    let read: Value = serde_saphyr::from_str(&unset(Syntax::Yaml, &flow, "a")).unwrap();
    assert_eq!(read["metadata"]["annotations"], json!({}));
}

#[test]
fn one_of_many_documents_and_lists_is_found() {
    let one = document("metadata: { name: a }");
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: tidegate.dev/v1\n  kind: Server\n  metadata:\n    name: b\n- apiVersion: tidegate.dev/v1\n  kind: Server\n  metadata:\n    name: c\n";
    let bare = "- { apiVersion: tidegate.dev/v1, kind: Server, metadata: { name: d } }\n";
    let text = format!("{one}---\n{list}...\n---\n{bare}");
    assert_eq!(
        set(Syntax::Yaml, &text, "b"),
        text.replace("name: b\n", "name: b\n    annotations:\n      tidegate.dev/drain: \"true\"\n")
    );
    let d = "metadata: { name: d, annotations: { tidegate.dev/drain: \"true\" } }";
    assert_eq!(set(Syntax::Yaml, &text, "d"), text.replace("metadata: { name: d }", d));
    let all = edited(
        Syntax::Yaml,
        &text,
        &["d", "a", "c", "b"].map(|name| edit(name, "tidegate.dev/weight", Some("7"))),
    )
    .unwrap();
    assert_eq!(all.text.matches("tidegate.dev/weight: \"7\"").count(), 4);
    assert_eq!(all.lines, [20, 4, 17, 13], "where the metadata stands:\n{text}");
}

#[test]
fn only_the_touched_line_of_many_changes() {
    let line = |name: &str, more: &str| {
        format!(
            "{{\"apiVersion\":\"tidegate.dev/v1\",\"kind\":\"Server\",\"metadata\":{{\"name\":\"{name}\"{more}}},\"spec\":{{\"port\":7000}}}}\n"
        )
    };
    let text = line("a", "") + "oops\n" + &line("b", ",\"annotations\":{\"x\":\"\\u00e9\"}") + &line("c", "");
    let after = set(Syntax::Lines, &text, "b");
    let b = line("b", ",\"annotations\":{\"x\":\"\\u00e9\",\"tidegate.dev/drain\":\"true\"}");
    assert_eq!(after, line("a", "") + "oops\n" + &b + &line("c", ""));
    assert_eq!(unset(Syntax::Lines, &after, "b"), text);
    let after = set(Syntax::Lines, &text, "c");
    assert!(after.ends_with(&line("c", ",\"annotations\":{\"tidegate.dev/drain\":\"true\"}")), "{after}");
    let edits = [edit("b", DRAIN, Some("a")), edit("c", DRAIN, Some("b"))];
    assert_eq!(edited(Syntax::Lines, &text, &edits).unwrap().lines, [3, 4]);
}

#[test]
fn json_keeps_its_layout() {
    let object = json!({ "apiVersion": "tidegate.dev/v1", "kind": "Server",
        "metadata": { "name": "a", "annotations": { "b": "c", "x": "y" } } });
    let tabs = |text: String| text.replace("  ", "\t");
    for text in
        [serde_json::to_string_pretty(&object).unwrap(), tabs(serde_json::to_string_pretty(&object).unwrap())]
    {
        let text = format!("{{\"kind\":\"Other\"}} {text}\n");
        let after = set(Syntax::Json, &text, "a");
        let space = if text.contains('\t') { "\t\t\t" } else { "      " };
        let line = format!("\"x\": \"y\",\n{space}\"tidegate.dev/drain\": \"true\"\n");
        assert_eq!(after, text.replace("\"x\": \"y\"\n", &line));
        assert_eq!(unset(Syntax::Json, &after, "a"), text);
        let first = edited(Syntax::Json, &text, &[edit("a", "b", None)]).unwrap().text;
        assert_eq!(first, text.replace(&format!("\"b\": \"c\",\n{space}"), ""));
    }
}

#[test]
fn line_ends_stay_what_they_are() {
    let text = "apiVersion: tidegate.dev/v1\r\nkind: Server\r\nmetadata:\r\n  name: a\r\n";
    let after = set(Syntax::Yaml, text, "a");
    assert_eq!(after, format!("{text}  annotations:\r\n    tidegate.dev/drain: \"true\"\r\n"));
    let gone = unset(Syntax::Yaml, &after, "a");
    assert_eq!(gone, format!("{text}  annotations: {{}}\r\n"));
    let open = text.trim_end();
    assert!(
        set(Syntax::Yaml, open, "a")
            .ends_with("name: a\r\n  annotations:\r\n    tidegate.dev/drain: \"true\"")
    );
}

#[test]
fn what_others_share_is_refused_with_its_line() {
    let shared = "apiVersion: tidegate.dev/v1\nkind: Server\nmetadata:\n  name: a\n  annotations: &all\n    x: y\n---\n";
    let why = refused(shared, edit("a", DRAIN, Some("true")));
    assert_eq!(why.line, 6);
    assert!(why.why.contains("behind an anchor"), "{why}");
    let alias = "- &m { name: b }\n- apiVersion: tidegate.dev/v1\n  kind: Server\n  metadata:\n    name: a\n    annotations: *m\n";
    let why = refused(alias, edit("a", DRAIN, Some("true")));
    assert_eq!((why.line, why.why.contains("behind an anchor")), (6, true), "{why}");
    let merged = "- &m { tidegate.dev/drain: \"true\" }\n- apiVersion: tidegate.dev/v1\n  kind: Server\n  metadata:\n    name: a\n    annotations:\n      <<: *m\n";
    assert!(refused(merged, edit("a", DRAIN, None)).why.contains("merged from an anchor"));
    let over = set(Syntax::Yaml, merged, "a");
    assert!(over.ends_with("<<: *m\n      tidegate.dev/drain: \"true\"\n"), "{over}");
}

#[test]
fn what_is_not_there_is_said() {
    let text = document("metadata: { name: a }");
    let why = refused(&text, edit("b", DRAIN, Some("true"))).to_string();
    assert_eq!(why, "line 1: Server default/b is not found: it does not stand in this file");
    let broken = text.clone() + "---\na: [\n";
    assert_eq!(set(Syntax::Yaml, &broken, "a").matches("drain").count(), 1, "what stands before is read");
    assert!(refused(&broken, edit("b", DRAIN, Some("true"))).why.contains("does not parse"));
    assert!(refused(&text, edit("a", DRAIN, None)).why.contains("is not there"));
}

/// Whatever stands in a value: it is read as it was said.
#[test]
fn every_value_survives() {
    let text = document("metadata:\n  name: a\n  annotations:\n    b: c");
    for value in [
        "",
        " ",
        "a: b",
        "# no",
        "\"quotes\" 'too'",
        "tab\t, line\nend",
        "*x",
        "é 🎮 \u{7f}\u{85}\u{2028}",
        "\\",
        "{}",
    ] {
        let after = edited(Syntax::Yaml, &text, &[edit("a", DRAIN, Some(value))]).unwrap().text;
        let read: Value = serde_saphyr::from_str(&after).unwrap();
        assert_eq!(read["metadata"]["annotations"][DRAIN], value, "{after}");
        assert_eq!(unset(Syntax::Yaml, &after, "a"), text);
    }
}
