//! Where in an object an annotation goes, and what is written there.

use std::fmt::Write;

use super::tree::{Node, Style, Value};
use super::{Edit, Splice};

/// What the edits of one object come to.
pub(super) struct Made {
    pub(super) splices: Vec<Splice>,
    /// For each edit the byte that it is about.
    pub(super) places: Vec<usize>,
}

/// Where it can't be done, and why.
type Refusal = (usize, String);

/// The edits of one object: all of them set, or all of them take away.
pub(super) fn made(text: &str, object: &Node<'_>, edits: &[&Edit]) -> Result<Made, Refusal> {
    let Some((_, metadata)) = object.entry("metadata") else {
        return Err((object.at.start, "it has no metadata of its own".to_owned()));
    };
    own(metadata, "metadata")?;
    let annotations = metadata.entry("annotations");
    if let Some((_, annotations)) = annotations {
        own(annotations, "annotations")?;
    }
    let mut made = Made { splices: Vec::new(), places: Vec::new() };
    let (mut missing, mut gone) = (Vec::new(), Vec::new());
    for edit in edits {
        let held = annotations.and_then(|(_, annotations)| annotations.entry(&edit.annotation));
        let near = annotations.map_or(metadata.at.start, |(_, annotations)| annotations.at.start);
        made.places.push(held.map_or(near, |(key, _)| key.at.start));
        match (held, &edit.value) {
            (Some((key, value)), Some(new)) => made.splices.push(replaced(text, key, value, &quoted(new))?),
            (None, Some(new)) => missing.push((edit.annotation.as_str(), quoted(new))),
            (Some((key, _)), None) => gone.push(key.at.start),
            (None, None) => {
                let merged = annotations.is_some_and(|(_, annotations)| annotations.entry("<<").is_some());
                let why = if merged { "it is merged from an anchor" } else { "it is not there" };
                return Err((near, format!("{} can't be taken away: {why}", edit.annotation)));
            }
        }
    }
    match annotations {
        Some((key, annotations)) if !gone.is_empty() => {
            made.splices.extend(taken(text, key, annotations, &gone)?);
        }
        _ if missing.is_empty() => {}
        Some((key, annotations)) => made.splices.push(added(text, key, annotations, metadata, &missing)?),
        None => made.splices.push(begun(text, metadata, &missing)?),
    }
    Ok(made)
}

/// What is an anchor's, or behind one, is not the object's alone.
fn own(node: &Node<'_>, what: &str) -> Result<(), Refusal> {
    let is_shared = node.has_anchor || matches!(node.value, Value::Alias);
    if is_shared {
        let why = format!(
            "its {what} stand behind an anchor, so that others would change with it; write them out there, or edit by hand"
        );
        return Err((node.at.start, why));
    }
    Ok(())
}

/// JSON's quotes are YAML's, which does not take every character that JSON takes as it is.
fn quoted(value: &str) -> String {
    let mut quoted = String::new();
    for letter in serde_json::Value::from(value).to_string().chars() {
        match letter {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                // Writing to a String does not fail.
                _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted
}

fn replaced(text: &str, key: &Node<'_>, value: &Node<'_>, new: &str) -> Result<Splice, Refusal> {
    own(value, "value")?;
    match &value.value {
        // `key:` and nothing: right behind the colon.
        Value::Scalar(..) if value.at.is_empty() => {
            let at = colon(text, key)? + 1;
            Ok(Splice { at: at..at, text: format!(" {new}") })
        }
        Value::Scalar(..) if value.last().is_some() => {
            Ok(Splice { at: value.at.clone(), text: new.to_owned() })
        }
        // The place of a text in a block is its lines; the bar before them goes, too.
        Value::Scalar(..) => {
            let end = value.at.start + text[value.at.clone()].trim_end().len();
            Ok(Splice { at: colon(text, key)? + 1..end, text: format!(" {new}") })
        }
        _ => Err((value.at.start, "its value is no text; edit it by hand".to_owned())),
    }
}

fn colon(text: &str, key: &Node<'_>) -> Result<usize, Refusal> {
    let behind = &text[key.at.end..];
    let space = behind.len() - behind.trim_start().len();
    if behind[space..].starts_with(':') {
        Ok(key.at.end + space)
    } else {
        Err((key.at.start, "its colon is not found; edit it by hand".to_owned()))
    }
}

/// The new entries of annotations that there are.
fn added(
    text: &str,
    key: &Node<'_>,
    annotations: &Node<'_>,
    metadata: &Node<'_>,
    new: &[(&str, String)],
) -> Result<Splice, Refusal> {
    match &annotations.value {
        Value::Map(entries, Style::Block) if !entries.is_empty() => {
            let lines: Vec<_> = new.iter().map(|(key, value)| vec![format!("{key}: {value}")]).collect();
            Ok(lined(text, entries, &lines.concat()))
        }
        Value::Map(entries, _) => {
            let quoting = Quoting::of(text, if entries.is_empty() { metadata } else { annotations });
            let new: Vec<_> = new.iter().map(|(key, value)| quoting.entry(key, value)).collect();
            Ok(bracketed(text, annotations, entries, &new))
        }
        // `annotations:` and nothing, `null` or `~`.
        Value::Scalar(..) => {
            let quoting = Quoting::of(text, metadata);
            let new: Vec<_> = new.iter().map(|(key, value)| quoting.entry(key, value)).collect();
            let map = quoting.map(&new.join(", "));
            if annotations.at.is_empty() {
                let at = colon(text, key)? + 1;
                return Ok(Splice { at: at..at, text: format!(" {map}") });
            }
            Ok(Splice { at: annotations.at.clone(), text: map })
        }
        Value::List(..) | Value::Alias => {
            Err((annotations.at.start, "its annotations are no map; edit it by hand".to_owned()))
        }
    }
}

/// The annotations of metadata that has none.
fn begun(text: &str, metadata: &Node<'_>, new: &[(&str, String)]) -> Result<Splice, Refusal> {
    match &metadata.value {
        Value::Map(entries, Style::Block) if !entries.is_empty() => {
            let mut lines = vec!["annotations:".to_owned()];
            lines.extend(new.iter().map(|(key, value)| format!("  {key}: {value}")));
            Ok(lined(text, entries, &lines))
        }
        Value::Map(entries, _) => {
            let quoting = Quoting::of(text, metadata);
            let new: Vec<_> = new.iter().map(|(key, value)| quoting.entry(key, value)).collect();
            let map = quoting.map(&new.join(if quoting.is_tight { "," } else { ", " }));
            Ok(bracketed(text, metadata, entries, &[quoting.entry("annotations", &map)]))
        }
        _ => Err((metadata.at.start, "its metadata is no map; edit it by hand".to_owned())),
    }
}

/// Lines behind the last entry of a block, or before its first where the last has no clear end.
fn lined(text: &str, entries: &[(Node<'_>, Node<'_>)], lines: &[String]) -> Splice {
    let first = &entries[0].0;
    let start = text[..first.at.start].rfind('\n').map_or(0, |at| at + 1);
    let indent = " ".repeat(text[start..first.at.start].chars().count());
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let last = entries.last().and_then(|(key, value)| {
        // An entry without a value ends with its key's line.
        if value.at.is_empty() { Some(key.at.end) } else { value.last() }
    });
    let Some(last) = last else {
        let text = lines.iter().flat_map(|line| [line, newline, &indent]).collect();
        return Splice { at: first.at.start..first.at.start, text };
    };
    let end = text[last..].find('\n').map_or(text.len(), |at| last + at);
    let end = if text[..end].ends_with('\r') { end - 1 } else { end };
    let text = lines.iter().flat_map(|line| [newline, &indent, line]).collect();
    Splice { at: end..end, text }
}

/// How entries in brackets are written around here.
struct Quoting {
    is_quoted: bool,
    /// No space behind colons.
    is_tight: bool,
}

impl Quoting {
    /// As the first entry of this map is written.
    fn of(text: &str, map: &Node<'_>) -> Self {
        let Value::Map(entries, Style::Flow) = &map.value else {
            return Self { is_quoted: false, is_tight: false };
        };
        let Some((key, value)) = entries.first() else { return Self { is_quoted: false, is_tight: false } };
        let is_quoted = text[key.at.clone()].starts_with('"');
        let is_tight = is_quoted && text.get(key.at.end..value.at.start) == Some(":");
        Self { is_quoted, is_tight }
    }

    fn entry(&self, key: &str, value: &str) -> String {
        let colon = if self.is_tight { ":" } else { ": " };
        if self.is_quoted { format!("\"{key}\"{colon}{value}") } else { format!("{key}{colon}{value}") }
    }

    fn map(&self, entries: &str) -> String {
        if self.is_quoted { format!("{{{entries}}}") } else { format!("{{ {entries} }}") }
    }
}

/// Entries behind the last one in brackets, parted as those before them.
fn bracketed(text: &str, map: &Node<'_>, entries: &[(Node<'_>, Node<'_>)], new: &[String]) -> Splice {
    let (Some((first, _)), Some((key, value))) = (entries.first(), entries.last()) else {
        let at = map.at.start + 1;
        let is_json = new.iter().all(|entry| entry.starts_with('"'));
        let new = new.join(", ");
        let text = if is_json { new } else { format!(" {new} ") };
        return Splice { at: at..at, text };
    };
    // What stands before a key is a line's indentation, or a space, or nothing.
    let before = |at: usize| &text[text[..at].trim_end().len()..at];
    let space = match entries {
        [_, .., (last, _)] => before(last.at.start),
        _ => before(first.at.start),
    };
    let space = if space.is_empty() && !text[first.at.clone()].starts_with('"') { " " } else { space };
    let at = value.at.end.max(key.at.end);
    let text = new.iter().flat_map(|entry| [",", space, entry]).collect();
    Splice { at: at..at, text }
}

/// Entries whose keys begin at these places, taken out.
fn taken(text: &str, key: &Node<'_>, annotations: &Node<'_>, gone: &[usize]) -> Result<Vec<Splice>, Refusal> {
    let Value::Map(entries, style) = &annotations.value else { return Ok(Vec::new()) };
    let cut = |from: usize, to: usize| Splice { at: from..to, text: String::new() };
    let is_gone = |entry: &&(Node<'_>, Node<'_>)| gone.contains(&entry.0.at.start);
    let mut splices = Vec::new();
    if *style == Style::Flow {
        let leading = entries.iter().take_while(is_gone).count();
        if leading > 0 {
            let end =
                entries.get(leading).map_or_else(|| entries[leading - 1].1.at.end, |next| next.0.at.start);
            splices.push(cut(entries[0].0.at.start, end));
        }
        for at in leading..entries.len() {
            if is_gone(&&entries[at]) {
                splices.push(cut(entries[at - 1].1.at.end, entries[at].1.at.end));
            }
        }
        return Ok(splices);
    }
    if entries.iter().all(|entry| is_gone(&entry)) {
        let at = colon(text, key)? + 1;
        splices.push(Splice { at: at..at, text: " {}".to_owned() });
    }
    for (key, value) in entries.iter().filter(is_gone) {
        let start = text[..key.at.start].rfind('\n').map_or(0, |at| at + 1);
        if !text[start..key.at.start].trim().is_empty() {
            return Err((key.at.start, "it does not begin its line; edit it by hand".to_owned()));
        }
        let end = match value.last() {
            _ if value.at.is_empty() => key.at.end,
            Some(last) => last,
            None => value.at.start + text[value.at.clone()].trim_end().len(),
        };
        splices.push(cut(start, text[end..].find('\n').map_or(text.len(), |at| end + at + 1)));
    }
    Ok(splices)
}
