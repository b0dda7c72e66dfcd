//! One file's bytes to its objects, and to the problems that belong to the file and not to an object.
//! Pure; what is done with it is `fleet`'s.

use std::collections::{BTreeSet, HashMap};

use super::item::{self, Id, Item, Part};
use super::parse::{self, Format, Place};
use crate::kinds::Rules;
use crate::model::{Problem, ProblemKind};

/// Most problems kept of one file: enough to mend, not enough to fill a memory.
pub(super) const MAX_PROBLEMS: usize = 1000;
/// Most kinds that a note lists.
const MAX_KINDS: usize = 8;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its objects in their order, each id once.
    pub(super) items: Vec<(Place, Item)>,
    /// What is wrong with it, in the order of the places. Line 0 is the file itself.
    pub(super) problems: Vec<(Place, Problem)>,
    /// What is left out of it and is no mistake: kinds that nobody reads here.
    pub(super) note: Option<(Place, Problem)>,
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
    pub(super) fn read(file: &str, format: Format, bytes: &[u8], rules: &Rules) -> Self {
        let mut content = Self { is_whole: true, is_blank: true, ..Self::default() };
        let mut first: HashMap<Id, Place> = HashMap::new();
        let (mut others, mut first_other) = (BTreeSet::new(), None);
        parse::parse(format, bytes, |place, part| {
            content.is_blank = false;
            let part = match part {
                Ok(value) => item::read(&value, rules),
                Err(why) => Part::Bad(ProblemKind::Unparsable, why),
            };
            let (kind, why) = match part {
                Part::Item(item) => {
                    let id = item.id();
                    match first.get(&id) {
                        None => {
                            first.insert(id, place);
                            content.items.push((place, item));
                            return;
                        }
                        Some(first) => (ProblemKind::Duplicate, held_already(&id, file, *first)),
                    }
                }
                Part::Other(kind) => {
                    first_other.get_or_insert(place);
                    // One more than is shown, so that it is known that there are more.
                    if others.len() <= MAX_KINDS {
                        others.insert(kind);
                    }
                    return;
                }
                Part::Bad(kind, why) => {
                    content.is_whole = false;
                    (kind, why)
                }
            };
            if content.problems.len() < MAX_PROBLEMS {
                content.problems.push(problem(file, place, kind, why));
            }
        });
        content.note = first_other.map(|place| {
            let more = if others.len() > MAX_KINDS { " and others" } else { "" };
            let kinds: Vec<_> = others.into_iter().take(MAX_KINDS).collect();
            let why = format!("left out, as nothing of them is read here: {}{more}", kinds.join(", "));
            problem(file, place, ProblemKind::UnknownKind, why)
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
pub(super) fn held_already(id: &Id, file: &str, place: Place) -> String {
    format!("{id} stands in {file}:{place} already; this one takes over when that goes")
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
        let content = Content::read("f.ndjson", Format::Ndjson, text.as_bytes(), &Rules::default());
        let names = content.items.iter().map(|(_, item)| item.id().to_string()).collect();
        (names, content.problems.iter().map(|(_, problem)| problem.to_string()).collect(), content)
    }

    #[test]
    fn one_bad_object_never_hurts_the_others() {
        let bad = "{\"apiVersion\":\"tidegate.dev/v1\",\"kind\":\"Server\",\"metadata\":{}}\n";
        let (names, problems, content) = read(&format!("{}{bad}oops\n{}", line("a"), line("b")));
        assert_eq!(names, ["default/a", "default/b"]);
        assert_eq!(problems[0], "f.ndjson:2: has no metadata.name; every object needs one");
        assert!(problems[1].starts_with("f.ndjson:3: expected value"), "{problems:?}");
        assert!(!content.is_whole && !content.is_blank);
    }

    #[test]
    fn the_first_of_one_id_holds_and_the_other_is_said() {
        let (names, problems, content) = read(&format!("{}{}{}", line("a"), line("b"), line("a")));
        assert_eq!(names, ["default/a", "default/b"]);
        assert_eq!(
            problems,
            ["f.ndjson:3: default/a stands in f.ndjson:1 already; this one takes over when that goes"]
        );
        assert!(content.is_whole);
    }

    #[test]
    fn kinds_of_others_are_one_note() {
        let others = "{\"apiVersion\":\"v1\",\"kind\":\"Service\"}\n".repeat(3)
            + "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\"}\n";
        let (names, problems, content) = read(&(line("a") + &others));
        assert_eq!((names.len(), problems.len(), content.is_whole), (1, 0, true));
        assert_eq!(
            content.note.unwrap().1.to_string(),
            "f.ndjson:2: left out, as nothing of them is read here: apps/v1 Deployment, v1 Service"
        );
        let many: Vec<_> =
            (0..100).map(|at| format!("{{\"apiVersion\":\"v{at}\",\"kind\":\"X\"}}")).collect();
        let note = read(&many.join("\n")).2.note.unwrap().1.to_string();
        assert!(note.ends_with(" and others") && note.len() < 300, "{note}");
    }

    #[test]
    fn problems_are_bounded() {
        let (names, problems, _) = read(&("oops\n".repeat(5000) + &line("a")));
        assert_eq!((names.len(), problems.len()), (1, MAX_PROBLEMS));
    }
}
