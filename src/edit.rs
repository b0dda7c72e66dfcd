//! A fleet file's text with annotations changed, and every other byte as it was.
//!
//! The text is parsed to places (`tree`), and only the places of what changes are written anew: comments, order, quotes
//! and line ends stay. JSON is edited as the flow style of YAML that it is. What can't be changed alone, such as
//! annotations behind an anchor that others use, is refused with its line. Who calls compares what the old and the new
//! text are read to: this room is trusted with nothing else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

mod place;
mod tree;

use tree::{Documents, Node};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// YAML, of one or more documents.
    Yaml,
    /// JSON values one behind the other.
    Json,
    /// One JSON value a line.
    Lines,
}

/// Which object of a file: the first that has all of these counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `apiVersion`
    pub api_version: String,
    /// `kind`
    pub kind: String,
    /// `metadata.namespace`; `default` when there is none.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

/// One annotation of one object: its new value, or none to take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The object.
    pub object: Identity,
    /// The annotation, with its prefix.
    pub annotation: String,
    /// Its new value.
    pub value: Option<String>,
}

/// A file that was edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Its new text.
    pub text: String,
    /// For each edit the line, counted from 1, where it stands in the text as it was.
    pub lines: Vec<usize>,
}

/// Why a file can't be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Refused {
    /// The line, counted from 1.
    pub line: usize,
    /// What is in the way, and what to do.
    pub why: String,
}

/// A piece of text put in the place of another.
#[derive(Clone, Debug)]
struct Splice {
    at: Range<usize>,
    text: String,
}

/// Makes every edit. The text is given whole, without a byte order mark.
pub fn edited(syntax: Syntax, text: &str, edits: &[Edit]) -> Result<Edited, Refused> {
    let mut lines = vec![0; edits.len()];
    let (set, taken): (Vec<usize>, Vec<usize>) = (0..edits.len()).partition(|at| edits[*at].value.is_some());
    // What goes is taken out of the text that has what comes: the two never touch the same place at once. A line number
    // is that of the first text, so what goes is looked up there, too.
    pass(syntax, text, edits, &taken, &mut lines)?;
    let text = pass(syntax, text, edits, &set, &mut lines)?;
    let text = pass(syntax, &text, edits, &taken, &mut vec![0; edits.len()])?;
    Ok(Edited { text, lines })
}

/// Makes the chosen edits, and notes their lines.
fn pass(
    syntax: Syntax,
    text: &str,
    edits: &[Edit],
    chosen: &[usize],
    lines: &mut [usize],
) -> Result<String, Refused> {
    if chosen.is_empty() {
        return Ok(text.to_owned());
    }
    let breaks = Lines::of(text);
    let mut pass = Pass { text, edits, wanted: HashMap::new(), splices: Vec::new(), lines, breaks };
    for at in chosen {
        pass.wanted.entry(edits[*at].object.clone()).or_default().push(*at);
    }
    let stopped = match syntax {
        Syntax::Yaml => pass.yaml()?,
        Syntax::Json => pass.json(text, 0)?,
        Syntax::Lines => {
            let mut start = 0;
            for line in text.split_inclusive('\n') {
                // A line that does not parse is its own author's matter.
                pass.json(line, start)?;
                start += line.len();
            }
            None
        }
    };
    if let Some(Identity { kind, namespace, name, .. }) = pass.wanted.keys().min() {
        let (line, why) = stopped.unwrap_or_else(|| (1, "it does not stand in this file".to_owned()));
        return Err(Refused { line, why: format!("{kind} {namespace}/{name} is not found: {why}") });
    }
    pass.text()
}

/// Where the lines of a text end: a file of many objects is not counted through for each.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, counted from 1.
    fn at(&self, byte: usize) -> usize {
        1 + self.0.partition_point(|newline| *newline < byte)
    }
}

/// Where reading stopped before the end, and why.
type Stopped = Option<(usize, String)>;

/// One way through a text.
struct Pass<'a> {
    text: &'a str,
    edits: &'a [Edit],
    /// Edits by the object that is still to be met.
    wanted: HashMap<Identity, Vec<usize>>,
    splices: Vec<Splice>,
    lines: &'a mut [usize],
    breaks: Lines,
}

impl Pass<'_> {
    fn yaml(&mut self) -> Result<Stopped, Refused> {
        for document in Documents::of(self.text) {
            match document {
                Ok(root) => self.objects(self.text, 0, &root)?,
                Err((line, why)) => {
                    return Ok(Some((line, format!("line {line} does not parse: {why}"))));
                }
            }
        }
        Ok(None)
    }

    fn json(&mut self, text: &str, base: usize) -> Result<Stopped, Refused> {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        while let Some(raw) = stream.next() {
            let raw = match raw {
                Ok(raw) => raw.get(),
                Err(error) => {
                    let line = error.line();
                    return Ok(Some((line, format!("line {line} does not parse: {error}"))));
                }
            };
            // Most of a large file is somebody else, who is told from what is wanted without a tree.
            if Head::of(raw).is_some_and(|identity| !self.wanted.contains_key(&identity)) {
                continue;
            }
            if let Some(Ok(root)) = Documents::of(raw).next() {
                self.objects(raw, base + stream.byte_offset() - raw.len(), &root)?;
            }
        }
        Ok(None)
    }

    /// Makes the edits of the objects of one document, which begins at `base`.
    fn objects(&mut self, source: &str, base: usize, root: &Node<'_>) -> Result<(), Refused> {
        for object in root.objects() {
            let Some(chosen) = object.identity().and_then(|identity| self.wanted.remove(&identity)) else {
                continue;
            };
            let edits: Vec<&Edit> = chosen.iter().map(|at| &self.edits[*at]).collect();
            let made = place::made(source, object, &edits)
                .map_err(|(at, why)| Refused { line: self.breaks.at(base + at), why })?;
            for (edit, at) in chosen.iter().zip(made.places) {
                self.lines[*edit] = self.breaks.at(base + at);
            }
            let moved =
                |splice: Splice| Splice { at: splice.at.start + base..splice.at.end + base, ..splice };
            self.splices.extend(made.splices.into_iter().map(moved));
        }
        Ok(())
    }

    fn text(mut self) -> Result<String, Refused> {
        self.splices.sort_by_key(|splice| splice.at.start);
        let mut new = String::with_capacity(self.text.len() + 64 * self.splices.len());
        let mut done = 0;
        for Splice { at, text } in self.splices {
            if at.start < done {
                let line = self.breaks.at(at.start);
                return Err(Refused { line, why: "two edits meet here; edit it by hand".to_owned() });
            }
            new.push_str(&self.text[done..at.start]);
            new.push_str(&text);
            done = at.end;
        }
        new.push_str(&self.text[done..]);
        Ok(new)
    }
}

/// What names an object in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
}

#[derive(Deserialize)]
struct HeadMeta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
}

impl Head<'_> {
    fn of(raw: &str) -> Option<Identity> {
        let head: Head<'_> = serde_json::from_str(raw).ok()?;
        Some(Identity {
            api_version: head.api_version.into_owned(),
            kind: head.kind.into_owned(),
            namespace: head.metadata.namespace.map_or_else(|| "default".to_owned(), Cow::into_owned),
            name: head.metadata.name.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
