//! Fleet files as they are written: every object with its place, its whole text as a value, and what it is read to.
//! For who changes files; who serves them watches.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::item::{self, Item, Part};
use super::parse::{self, Format, Place};
use super::{content, disk};
use crate::edit::Syntax;
use crate::kinds::{Object, Rules};
use crate::model::{Problem, ProblemKind, Server};

/// What an object is read to.
#[derive(Clone, Debug)]
pub enum Read {
    /// One of our own kind.
    Server(Arc<Server>),
    /// One of Kubernetes'.
    Object(Arc<Object>),
}

/// An object of a file.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The file.
    pub file: PathBuf,
    /// The place in it, such as `12` or `1 items[3]`.
    pub place: String,
    /// All that is written.
    pub value: Value,
    /// What it is read to.
    pub read: Read,
}

/// The objects of a directory.
#[derive(Clone, Debug, Default)]
pub struct RawFleet {
    /// By file and place; of several with one name the first, which is the one that counts.
    pub objects: Vec<Raw>,
    /// What can't be read.
    pub problems: Vec<Problem>,
}

/// Reads the fleet files of a directory. Blocking.
pub fn raw_fleet(dir: &Path, rules: &Rules, max_bytes: u64) -> io::Result<RawFleet> {
    let mut fleet = RawFleet::default();
    let mut seen = HashSet::new();
    for (name, _) in disk::list(dir)? {
        let path = dir.join(&name);
        let Some(format) = Format::of(&path) else { continue };
        let mut wrong = |place: Place, kind, why: String| {
            fleet.problems.push(content::problem(&path.display().to_string(), place, kind, why).1);
        };
        let whole = Place { line: 0, item: None };
        let bytes = match read_file(&path, max_bytes) {
            Ok(bytes) => bytes,
            Err(error) => {
                wrong(whole, ProblemKind::Unreadable, format!("can't be read: {error}"));
                continue;
            }
        };
        parse::parse(format, &bytes, |place, part| {
            let value = match part {
                Ok(value) => value,
                Err(why) => return wrong(place, ProblemKind::Unparsable, why),
            };
            let item = match item::read(&value, rules) {
                Part::Item(item) => item,
                Part::Other(_) => return,
                Part::Bad(kind, why) => return wrong(place, kind, why),
            };
            if !seen.insert(item.id()) {
                return;
            }
            let read = Read::of(item);
            fleet.objects.push(Raw { file: path.clone(), place: place.to_string(), value, read });
        });
    }
    Ok(fleet)
}

/// A file, if it has no more bytes than that.
pub fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    if metadata.len() > max_bytes {
        let why = format!("has {} bytes; at most {max_bytes} are read (maxFileBytes)", metadata.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    fs::read(path)
}

/// Every part of a text in its order: an object's value, or that it can't be read.
pub fn raw_values(path: &Path, bytes: &[u8]) -> Vec<Option<Value>> {
    let mut values = Vec::new();
    if let Some(format) = Format::of(path) {
        parse::parse(format, bytes, |_, part| values.push(part.ok()));
    }
    values
}

/// What an object of a cluster is read to; none of a kind that is not read. An error is why it can't be.
pub fn read_value(value: &Value, rules: &Rules) -> Result<Option<Read>, String> {
    match item::read(value, rules) {
        Part::Item(item) => Ok(Some(Read::of(item))),
        Part::Other(_) => Ok(None),
        Part::Bad(_, why) => Err(why),
    }
}

/// How a fleet file of this name is written; none for a file of no fleet.
pub fn syntax(path: &Path) -> Option<Syntax> {
    Format::of(path).map(|format| match format {
        Format::Yaml => Syntax::Yaml,
        Format::Json => Syntax::Json,
        Format::Ndjson => Syntax::Lines,
    })
}

impl Read {
    fn of(item: Item) -> Self {
        match item {
            Item::Server(server) => Self::Server(server),
            Item::Object(object) => Self::Object(object),
        }
    }
}
