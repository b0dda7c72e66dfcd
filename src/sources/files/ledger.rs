//! Which file holds which object, and what a new content of one file changes. Pure bookkeeping: files
//! go in, `Change`s come out, and only for what was not told already.
//!
//! A file with parts that can't be read loses nothing: what it held before is kept beside what it holds
//! now. When several files hold one object, the first by name counts and the others stand in line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::content::{self, Content, MAX_PROBLEMS};
use super::item::{Change, Id, Item};
use super::parse::Place;
use crate::model::{Problem, ProblemKind};

/// An object in a file.
#[derive(Debug)]
struct Entry {
    place: Place,
    item: Item,
    /// It stands there no more, or where nobody can read it.
    is_kept: bool,
}

#[derive(Debug, Default)]
struct File {
    entries: HashMap<Id, Entry>,
    problems: Vec<(Place, Problem)>,
    note: Option<(Place, Problem)>,
    kept: usize,
    /// It was never read whole: nobody knows what else is in it.
    is_unknown: bool,
}

impl File {
    /// True when there is something to be told of it.
    fn is_remarkable(&self) -> bool {
        !self.problems.is_empty() || self.note.is_some() || self.kept > 0 || self.is_unknown
    }
}

/// All files of a directory.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    files: BTreeMap<Arc<str>, File>,
    /// Those of which there is something to be told, so that a change need not look through all.
    remarkable: BTreeSet<Arc<str>>,
    /// The files that hold an object, by name: the first one's counts. Never empty, and nearly always one.
    holders: HashMap<Id, SmallVec<[Arc<str>; 1]>>,
    /// Objects in more than one file.
    contested: BTreeSet<Id>,
}

impl Ledger {
    /// How many files there are.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// True without any object.
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// True of a file that was read once.
    pub(super) fn knows(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// True of a file that keeps objects which it does not show.
    pub(super) fn keeps(&self, file: &str) -> bool {
        self.files.get(file).is_some_and(|file| file.kept > 0)
    }

    /// Every object as it counts, with its file and place; in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Place, &Item)> {
        self.holders.iter().filter_map(|(id, files)| {
            let file = files.first()?;
            let entry = self.files.get(file)?.entries.get(id)?;
            Some((&**file, entry.place, &entry.item))
        })
    }

    fn item(&self, id: &Id) -> Option<&Item> {
        let file = self.holders.get(id)?.first()?;
        Some(&self.files.get(file)?.entries.get(id)?.item)
    }

    /// Takes a file's new content. Returns what that changes: nothing for objects that stay equal.
    pub(super) fn replace(&mut self, name: &str, mut content: Content) -> Vec<Change> {
        let name: Arc<str> =
            self.files.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone());
        let held = self.files.remove(&name);
        let was_known = held.as_ref().is_some_and(|file| !file.is_unknown);
        let mut old = held.unwrap_or_default();
        if content.is_blank && !old.entries.is_empty() {
            content.is_whole = false;
            let place = Place { line: 0, item: None };
            let why = format!(
                "is empty, as if half-written; its {} objects are kept. Delete the file to remove them",
                old.entries.len()
            );
            content.problems.push(content::problem(&name, place, ProblemKind::Missing, why));
        }
        let is_unknown = !content.is_whole && !was_known;
        let mut new = File { problems: content.problems, note: content.note, is_unknown, ..File::default() };
        let mut changed = Vec::new();
        let mut before = Vec::new();
        for (place, item) in content.items {
            let id = item.id();
            let item = match old.entries.remove(&id) {
                // The one that is known already, so that there is one in memory.
                Some(held) if held.item == item => held.item,
                Some(held) => {
                    changed.push(id.clone());
                    before.push((id.clone(), held.item));
                    item
                }
                None => {
                    changed.push(id.clone());
                    item
                }
            };
            new.entries.insert(id, Entry { place, item, is_kept: false });
        }
        if content.is_whole && !content.is_open {
            let mut gone: Vec<_> = old.entries.into_iter().collect();
            gone.sort_by_key(|(_, entry)| entry.place);
            for (id, entry) in gone {
                changed.push(id.clone());
                before.push((id, entry.item));
            }
        } else {
            new.kept = old.entries.len();
            new.entries
                .extend(old.entries.into_iter().map(|(id, entry)| (id, Entry { is_kept: true, ..entry })));
        }
        self.settle(&name, new, changed, &before.into_iter().collect())
    }

    /// Takes away a file that was deleted. Returns what that changes.
    pub(super) fn remove(&mut self, name: &str) -> Vec<Change> {
        let Some((name, old)) = self.files.remove_entry(name) else { return Vec::new() };
        let mut gone: Vec<_> = old.entries.into_iter().collect();
        gone.sort_by_key(|(_, entry)| entry.place);
        let changed = gone.iter().map(|(id, _)| id.clone()).collect();
        let before: HashMap<_, _> = gone.into_iter().map(|(id, entry)| (id, entry.item)).collect();
        let changes = self.settle(&name, File::default(), changed, &before);
        self.files.remove(&name);
        changes
    }

    /// Puts `file` in place and says what became of the objects that changed in it.
    fn settle(
        &mut self,
        name: &Arc<str>,
        file: File,
        changed: Vec<Id>,
        before: &HashMap<Id, Item>,
    ) -> Vec<Change> {
        if file.is_remarkable() {
            self.remarkable.insert(name.clone());
        } else {
            self.remarkable.remove(name);
        }
        self.files.insert(name.clone(), file);
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        // O(changed): objects that stay as they are were dropped from the list already.
        for id in changed {
            let counted = match self.holders.get(&id).and_then(|files| files.first()) {
                Some(first) if first == name => before.get(&id).cloned(),
                Some(_) => self.item(&id).cloned(),
                None => None,
            };
            self.line_up(&id, name);
            match (counted, self.item(&id)) {
                (Some(counted), Some(item)) if counted == *item => {}
                (_, Some(item)) => changes.push(Change::Put(item.clone())),
                (Some(_), None) => gone.push(Change::Gone(id)),
                (None, None) => {}
            }
        }
        changes.extend(gone);
        changes
    }

    /// Puts a file in the line for an object, or takes it out, by whether it has it.
    fn line_up(&mut self, id: &Id, name: &Arc<str>) {
        let has = self.files.get(name).is_some_and(|file| file.entries.contains_key(id));
        let line = self.holders.entry(id.clone()).or_default();
        match (line.binary_search(name), has) {
            (Err(at), true) => line.insert(at, name.clone()),
            (Ok(at), false) => _ = line.remove(at),
            _ => {}
        }
        match line.len() {
            0 => {
                self.holders.remove(id);
                self.contested.remove(id);
            }
            1 => _ = self.contested.remove(id),
            _ => _ = self.contested.insert(id.clone()),
        }
    }

    /// By name.
    fn remarkable(&self) -> impl Iterator<Item = (&str, &File)> {
        self.remarkable.iter().filter_map(|name| Some((&**name, self.files.get(name)?)))
    }

    /// Why there may be objects that nobody knows; `None` when there are none.
    pub(super) fn doubt(&self) -> Option<String> {
        let (name, _) = self.remarkable().find(|(_, file)| file.is_unknown)?;
        Some(format!("{name} was never read whole: Envoys keep what they hold and nobody knows"))
    }

    /// Why objects are kept that no file shows any more; `None` when none are.
    pub(super) fn held(&self) -> Option<String> {
        let mut keeping = self.remarkable().filter(|(_, file)| file.kept > 0);
        let (name, file) = keeping.next()?;
        let (kept, others) = (file.kept, keeping.count());
        let others = if others == 0 { String::new() } else { format!(", and those of {others} more files") };
        Some(format!("{name} is not whole: {kept} objects of it are kept as they were{others}"))
    }

    /// What is wrong with the files, by file and place, not more than [`MAX_PROBLEMS`].
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<(&str, Place, Problem)> = Vec::new();
        for (name, file) in self.remarkable() {
            problems.extend(file.problems.iter().map(|(place, problem)| (name, *place, problem.clone())));
            if problems.len() > MAX_PROBLEMS {
                break;
            }
        }
        for id in self.contested.iter().take(MAX_PROBLEMS) {
            problems.extend(self.duplicates(id));
        }
        problems.sort();
        let mut problems: Vec<_> = problems.into_iter().map(|(_, _, problem)| problem).collect();
        problems.truncate(MAX_PROBLEMS);
        problems
    }

    /// What is left out of the files, and no mistake; by file, not more than [`MAX_PROBLEMS`].
    pub(super) fn notes(&self) -> Vec<Problem> {
        let notes = self.remarkable().filter_map(|(_, file)| Some(file.note.as_ref()?.1.clone()));
        notes.take(MAX_PROBLEMS).collect()
    }

    fn duplicates<'a>(&'a self, id: &'a Id) -> impl Iterator<Item = (&'a str, Place, Problem)> {
        let mut entries = self.holders.get(id).into_iter().flatten().filter_map(|name| {
            let entry = self.files.get(name)?.entries.get(id)?;
            Some((&**name, entry))
        });
        let first = entries.next();
        entries.filter_map(move |(name, entry)| {
            let (first, counted) = first?;
            if entry.is_kept {
                return None;
            }
            let why = content::held_already(id, first, counted.place);
            let (place, problem) = content::problem(name, entry.place, ProblemKind::Duplicate, why);
            Some((name, place, problem))
        })
    }
}

#[cfg(test)]
mod tests;
