//! One file's bytes to its servers, and to the problems that belong to the file and not to a server.
//! Pure; what is done with it is `fleet`'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::object::{self, Object};
use super::parse::{self, Format, Place};
use crate::model::{Problem, ProblemKind, Server, ServerId};

/// Most problems kept of one file: enough to mend, not enough to fill a memory.
pub(super) const MAX_PROBLEMS: usize = 1000;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its servers in their order, each id once.
    pub(super) servers: Vec<(Place, Arc<Server>)>,
    /// What is wrong with it, in the order of the places. Line 0 is the file itself.
    pub(super) problems: Vec<(Place, Problem)>,
    /// Every part could be read: what is not here any more was taken out on purpose.
    pub(super) is_whole: bool,
    /// There is nothing in it at all.
    pub(super) is_blank: bool,
    /// Somebody is still writing it, so that nothing is taken out yet.
    pub(super) is_open: bool,
}

impl Content {
    /// Of a file that can't be read.
    pub(super) fn unreadable(file: &str, kind: ProblemKind, why: String) -> Self {
        let place = Place { line: 0, item: None };
        Self { problems: vec![problem(file, place, kind, why)], ..Self::default() }
    }

    /// Of these bytes.
    pub(super) fn read(file: &str, format: Format, bytes: &[u8], host_template: Option<&str>) -> Self {
        let mut content = Self { is_whole: true, is_blank: true, ..Self::default() };
        let mut first: HashMap<ServerId, Place> = HashMap::new();
        let mut kinds = HashSet::new();
        parse::parse(format, bytes, |place, part| {
            content.is_blank = false;
            let object = match part {
                Ok(value) => object::read(&value, host_template),
                Err(why) => Object::Bad(ProblemKind::Unparsable, why),
            };
            let (kind, why) = match object {
                Object::Server(server) => match first.get(&server.id) {
                    None => {
                        first.insert(server.id.clone(), place);
                        content.servers.push((place, server));
                        return;
                    }
                    Some(first) => (ProblemKind::Duplicate, held_already(&server.id, file, *first)),
                },
                Object::Other(kind) if kinds.contains(&kind) => return,
                Object::Other(kind) => {
                    let why = format!(
                        "{kind} is not a kind that is read here; all of them in this file are left out"
                    );
                    kinds.insert(kind);
                    (ProblemKind::UnknownKind, why)
                }
                Object::Bad(kind, why) => {
                    content.is_whole = false;
                    (kind, why)
                }
            };
            if content.problems.len() < MAX_PROBLEMS {
                content.problems.push(problem(file, place, kind, why));
            }
        });
        content
    }
}

/// A problem at a place of a file.
pub(super) fn problem(
    file: &str,
    place: Place,
    kind: ProblemKind,
    why: impl Into<String>,
) -> (Place, Problem) {
    let field = if place.line == 0 { file.to_owned() } else { format!("{file}:{place}") };
    (place, Problem::new(kind, field, why))
}

/// Why a second object of one id is left out.
pub(super) fn held_already(id: &ServerId, file: &str, place: Place) -> String {
    format!(
        "{}/{} stands in {file}:{place} already; this one takes over when that goes",
        id.namespace(),
        id.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        format!(
            "{{\"apiVersion\":\"tidegate.dev/v1\",\"kind\":\"Server\",\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"address\":\"10.0.0.1\",\"port\":7000}}}}\n"
        )
    }

    fn read(text: &str) -> (Vec<String>, Vec<String>, Content) {
        let content = Content::read("f.ndjson", Format::Ndjson, text.as_bytes(), None);
        let names = content.servers.iter().map(|(_, server)| server.id.name().to_owned()).collect();
        (names, content.problems.iter().map(|(_, problem)| problem.to_string()).collect(), content)
    }

    #[test]
    fn one_bad_object_never_hurts_the_others() {
        let bad = "{\"apiVersion\":\"tidegate.dev/v1\",\"kind\":\"Server\",\"metadata\":{}}\n";
        let (names, problems, content) = read(&format!("{}{bad}oops\n{}", line("a"), line("b")));
        assert_eq!(names, ["a", "b"]);
        assert_eq!(problems[0], "f.ndjson:2: has no metadata.name; every server needs one");
        assert!(problems[1].starts_with("f.ndjson:3: expected value"), "{problems:?}");
        assert!(!content.is_whole && !content.is_blank);
    }

    #[test]
    fn the_first_of_one_id_holds_and_the_other_is_said() {
        let (names, problems, content) = read(&format!("{}{}{}", line("a"), line("b"), line("a")));
        assert_eq!(names, ["a", "b"]);
        assert_eq!(
            problems,
            ["f.ndjson:3: default/a stands in f.ndjson:1 already; this one takes over when that goes"]
        );
        assert!(content.is_whole);
    }

    #[test]
    fn a_kind_of_others_is_said_once() {
        let pods = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}\n".repeat(3)
            + "{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}\n";
        let (names, problems, content) = read(&(pods + &line("a")));
        assert_eq!((names.len(), problems.len(), content.is_whole), (1, 2, true));
        assert!(
            problems[0].starts_with("f.ndjson:1: v1 Pod is not a kind that is read here"),
            "{problems:?}"
        );
    }

    #[test]
    fn problems_are_bounded() {
        let (names, problems, _) = read(&("oops\n".repeat(5000) + &line("a")));
        assert_eq!((names.len(), problems.len()), (1, MAX_PROBLEMS));
    }
}
