//! The text of a file to the objects in it, each with its place. Knows YAML, JSON and NDJSON, but not
//! what an object means.
//!
//! A part that does not parse is reported and the next part is read as if it had not been there. All
//! that a hostile file can spend, of time, memory or stack, is bounded by the budget below.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::strict::Strict;

/// Deeper nesting than this is refused in YAML; `serde_json` has a limit of its own (128).
const MAX_DEPTH: usize = 64;
/// Aliases may stand for so many events in one document: an anchor that thousands of servers merge is
/// honest, a billion laughs are not.
const MAX_REPLAYED: usize = 200_000;
/// After so many parts that do not parse, a JSON file is not searched for another.
const MAX_RESUMED: usize = 100;
/// Longest reason that is passed on, in characters.
const MAX_WHY: usize = 200;

/// How a file is written, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// YAML, of one or more documents.
    Yaml,
    /// JSON values one behind the other.
    Json,
    /// One JSON value a line.
    Ndjson,
}

impl Format {
    /// The format that a file of this name has; `None` for a file of no fleet. Dot-files belong to editors.
    pub(super) fn of(path: &Path) -> Option<Self> {
        if path.file_name()?.as_encoded_bytes().starts_with(b".") {
            return None;
        }
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// Where in a file something stands. Ordered as a reader meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The line, counted from 1.
    pub(super) line: u32,
    /// The position in a list that begins there, counted from 0.
    pub(super) item: Option<u32>,
}

impl Place {
    fn at(line: usize) -> Self {
        Self { line: narrow(line), item: None }
    }
}

/// Each object keeps its place. A file has more lines than this has numbers only past the greatest size.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            Some(item) => write!(f, "{} items[{item}]", self.line),
            None => write!(f, "{}", self.line),
        }
    }
}

/// One part of a file: an object, or why there is none.
pub(super) type Part = Result<Value, String>;

/// Passes every part of `bytes` to `sink`, in order. Nothing is passed of a file that is empty.
pub(super) fn parse(format: Format, bytes: &[u8], mut sink: impl FnMut(Place, Part)) {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match format {
        Format::Yaml => yaml(bytes, &mut sink),
        Format::Json => json(bytes, &mut sink),
        Format::Ndjson => ndjson(bytes, &mut sink),
    }
}

/// Takes a list apart. `kubectl get -o yaml` writes one for several objects.
fn spread(line: usize, mut value: Value, sink: &mut impl FnMut(Place, Part)) {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    let items = match &mut value {
        Value::Null => return,
        Value::Array(items) => std::mem::take(items),
        Value::Object(_) if is_list => match value.get_mut("items") {
            Some(Value::Array(items)) => std::mem::take(items),
            _ => return sink(Place::at(line), Err("is a list without items".into())),
        },
        _ => return sink(Place::at(line), Ok(value)),
    };
    for (at, item) in items.into_iter().enumerate() {
        sink(Place { item: Some(narrow(at)), ..Place::at(line) }, Ok(item));
    }
}

/// The first line of a reason, cut to a length that a log can bear.
fn short(why: &str) -> String {
    why.lines().next().unwrap_or_default().chars().take(MAX_WHY).collect()
}

fn yaml(bytes: &[u8], sink: &mut impl FnMut(Place, Part)) {
    for (first, bytes) in documents(bytes) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = first + newlines(&bytes[..error.valid_up_to()]);
                sink(Place::at(line), Err("is not UTF-8".into()));
                continue;
            }
        };
        let Some(blank) = text.lines().position(|line| !is_blank(line)) else { continue };
        match serde_saphyr::from_str_with_options::<Value>(text, budget()) {
            Ok(value) => spread(first + blank, value, sink),
            Err(error) => {
                let line = error
                    .location()
                    .map_or(blank, |at| usize::try_from(at.line()).unwrap_or(usize::MAX).saturating_sub(1));
                // Its own line counts from the document; the place has the file's.
                let why = error.without_snippet().to_string();
                let why = why.split(" at line ").next().unwrap_or(&why);
                sink(Place::at(first.saturating_add(line)), Err(short(why)));
            }
        }
    }
}

fn budget() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            // As many as a file of the greatest size has; what aliases add is counted below.
            max_events: 16_000_000,
            max_nodes: 8_000_000,
            max_aliases: 100_000,
            max_anchors: 100_000,
            max_merge_keys: 100_000,
            // A thousand servers may well merge one anchor.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        // `yes` and `007` stay what was written, as an annotation would have it.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(['#', '%']) || line == "---"
}

/// Cuts a stream at its markers, so that a bad document costs no more than itself. YAML 1.2, section
/// 9.1.2: `---` and `...` at the start of a line can't stand inside a document, not even in a text.
fn documents(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut documents = Vec::new();
    let (mut first, mut start, mut at) = (1, 0, 0);
    for (line, text) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let is_marker = matches!(text.get(..3), Some(b"---" | b"..."))
            && matches!(text.get(3), None | Some(b' ' | b'\t' | b'\r' | b'\n'));
        if is_marker {
            documents.push((first, &bytes[start..at]));
            // What stands behind `---` on its line is the document's.
            (first, start) = if text.starts_with(b"---") { (line, at) } else { (line + 1, at + text.len()) };
        }
        at += text.len();
    }
    documents.push((first, &bytes[start..]));
    documents
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

fn json(bytes: &[u8], sink: &mut impl FnMut(Place, Part)) {
    let (mut start, mut first) = (0, 1);
    for _ in 0..MAX_RESUMED {
        let rest = &bytes[start..];
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<Strict>();
        // Where the next value begins, and on which line.
        let (mut at, mut line) = (0, first);
        let error = loop {
            let space = rest[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            line += newlines(&rest[at..at + space]);
            at += space;
            match stream.next() {
                None => return,
                Some(Ok(Strict(value))) => spread(line, value, sink),
                Some(Err(error)) => break error,
            }
            let end = stream.byte_offset().clamp(at, rest.len());
            line += newlines(&rest[at..end]);
            at = end;
        };
        sink(Place::at(first + error.line().saturating_sub(1)), Err(short(&error.to_string())));
        // An object that begins its own line is read again, whatever was wrong before it.
        let Some(skipped) = rest.get(at + 1..).and_then(|rest| rest.windows(2).position(|two| two == b"\n{"))
        else {
            return;
        };
        let next = at + 1 + skipped + 1;
        first += newlines(&rest[..next]);
        start += next;
    }
    sink(Place::at(first), Err("is not read: too much before it does not parse".into()));
}

fn ndjson(bytes: &[u8], sink: &mut impl FnMut(Place, Part)) {
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(Strict(value)) => spread(line, value, sink),
            Err(error) => {
                // Its own "at line 1" would only confuse: every line is a text of its own.
                let why = error.to_string();
                let why = why.split(" at line ").next().unwrap_or(&why);
                sink(Place::at(line), Err(format!("{} at column {}", short(why), error.column())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
