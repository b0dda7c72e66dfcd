//! The walls of the house, read from the source: the core takes facts as arguments, and a room imports lower rooms only.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that know no clock, disk, socket, chance or log.
const CORE: [&str; 12] = [
    "model",
    "spec",
    "claims",
    "translate",
    "kinds",
    "snapshot",
    "engine",
    "session",
    "report",
    "bootstrap",
    "edit",
    "plan",
];

/// What only the shell may mention.
const SHELL_WORDS: [&str; 13] = [
    "tokio",
    "kube::",
    "tonic::transport",
    "hyper",
    "notify::",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "tracing::",
    "rand::",
    "thread::",
];

/// The rooms, lowest row first, as `src/lib.rs` draws them. A room imports rooms of lower rows, never a neighbour.
const ROWS: [&[&str]; 12] = [
    &["model"],
    &["spec", "claims", "snapshot", "bootstrap", "edit"],
    &["translate", "kinds"],
    &["engine", "session", "plan"],
    &["report"],
    &["store", "metrics", "envoys", "cli"],
    &["owner"],
    &["sources", "ads", "client", "departure"],
    &["admin", "check", "wait", "writer", "operate"],
    &["app"],
    &["demo"],
    &["main"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file of the source by its room, without tests and comments.
fn rooms() -> BTreeMap<String, String> {
    let mut rooms: BTreeMap<String, String> = BTreeMap::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(source()).unwrap().with_extension("");
            let room = inside.iter().next().unwrap().to_str().unwrap().to_owned();
            let is_test = inside.iter().any(|part| part == "tests" || part == "testkit");
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test && room != "lib"
            {
                *rooms.entry(room).or_default() += &code(&fs::read_to_string(path).unwrap());
            }
        }
    }
    rooms
}

/// Without what stands behind `//` on lines of their own, and without test modules, which are last.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]").next().unwrap_or(text);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The rooms that a room names: `crate::room`, and `tidegate::room` in the binary.
fn imports(room: &str, code: &str) -> BTreeSet<String> {
    let prefix = if room == "main" { "tidegate::" } else { "crate::" };
    let mut imports = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let words = match rest.strip_prefix('{') {
            // Rooms in a list are the words before `::` or a comma on its own level.
            Some(list) => top_level(list.split('}').next().unwrap_or(list)),
            None => vec![rest],
        };
        imports.extend(words.into_iter().map(first_word));
    }
    imports.remove("");
    imports.remove(room);
    imports
}

fn top_level(list: &str) -> Vec<&str> {
    assert!(!list.contains('{'), "a list in a list is not read here: {list}");
    list.split(',').map(str::trim).collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn the_core_takes_facts_as_arguments() {
    let rooms = rooms();
    for room in CORE {
        for (number, line) in rooms[room].lines().enumerate() {
            for word in SHELL_WORDS {
                assert!(!line.contains(word), "{room} mentions {word}, line {number} of its code: {line}");
            }
        }
    }
}

#[test]
fn a_room_imports_lower_rooms_only() {
    let rooms = rooms();
    let row = |room: &str| ROWS.iter().position(|row| row.contains(&room));
    let mut wrong = Vec::new();
    for (room, code) in &rooms {
        let Some(own) = row(room) else {
            wrong.push(format!("{room} stands in no row"));
            continue;
        };
        for import in imports(room, code) {
            if row(&import).is_none_or(|row| row >= own) {
                wrong.push(format!("{room} (row {own}) imports {import} ({:?})", row(&import)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for room in ROWS.concat() {
        assert!(rooms.contains_key(room), "{room} is in the table, and there is no such room");
    }
}

#[test]
fn imports_are_read_as_they_are_written() {
    let text =
        "use crate::model::{Host, Path};\nuse crate::{client, demo::game};\nlet x = crate::spec::read();";
    let found = imports("app", text);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["client", "demo", "model", "spec"]);
    assert_eq!(code("//! crate::x\nlet a;\n    // crate::y\n#[cfg(test)]\nmod tests {}"), "let a;\n");
}
