//! The annotations there are, and what is said of others.

use super::{PREFIX, Reader, WRITTEN};
use crate::model::ProblemKind;

/// Longest key that is shown or compared, in characters.
const MAX_SHOWN: usize = 80;

/// Every annotation, without its prefix.
const KNOWN: [&str; 23] = [
    "host",
    "path",
    "strip-prefix",
    "port",
    "protocol",
    "gateway",
    "share",
    "weight",
    "priority",
    "affinity",
    "version",
    "drain",
    "drain-allow-cookie",
    "retry-after",
    "maintenance",
    "maintenance-paths",
    "max-sessions",
    "max-connections",
    "max-pending-requests",
    "new-sessions-per-second",
    "idle-timeout",
    "response-timeout",
    "https-redirect",
];

impl Reader<'_> {
    pub(super) fn unknown_fields(&mut self) {
        for layer in self.facts.layers {
            for key in layer.values.keys() {
                let Some(short) = key.strip_prefix(PREFIX) else { continue };
                // What is said of a server is no wish of its author's.
                if KNOWN.contains(&short) || WRITTEN.contains(&key.as_str()) {
                    continue;
                }
                let why = match nearest(short, &KNOWN) {
                    Some(near) => format!("is not an annotation of Tidegate; did you mean {PREFIX}{near}?"),
                    None => "is not an annotation of Tidegate".to_owned(),
                };
                self.wrong(ProblemKind::UnknownField, layer.field_of(key), why);
            }
        }
    }
}

/// The one of `known` that a mistyped key was meant to be; none for a key that is too long to be a slip, as
/// the comparison costs the product of both lengths.
pub fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    if shown(key).len() < key.len() {
        return None;
    }
    let key = key.to_lowercase();
    known.iter().copied().min_by_key(|name| strsim::damerau_levenshtein(&name.to_lowercase(), &key))
}

/// As much of a key as a problem shows.
pub fn shown(key: &str) -> &str {
    key.char_indices().nth(MAX_SHOWN).map_or(key, |(end, _)| &key[..end])
}
