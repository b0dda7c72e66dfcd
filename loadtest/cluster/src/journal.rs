//! What was asked: counts of all requests, and the writes themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::route::Verb;

/// How many writes are kept; of more, the oldest are forgotten.
const WRITES: usize = 100_000;

/// One write, as it was asked.
#[derive(Clone, Debug)]
pub struct Write {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The resource: `pods`, `gameservers.agones.dev`.
    pub resource: String,
    /// What was asked of it.
    pub verb: Verb,
    /// The status code of the answer.
    pub code: u16,
    /// The body.
    pub body: Bytes,
}

impl Write {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A journal of requests.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    counts: BTreeMap<(Verb, String, u16), u64>,
    writes: VecDeque<Write>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, verb: Verb, resource: &str, code: u16) {
        *self.lock().counts.entry((verb, resource.to_owned(), code)).or_default() += 1;
    }

    pub(crate) fn keep(&self, write: Write) {
        let mut entries = self.lock();
        if entries.writes.len() >= WRITES {
            entries.writes.pop_front();
        }
        entries.writes.push_back(write);
    }

    /// Requests by verb, resource and code. A watch counts when it is answered, so while it is open.
    pub fn counts(&self) -> BTreeMap<(Verb, String, u16), u64> {
        self.lock().counts.clone()
    }

    /// How many requests of this verb and resource were answered, with any code.
    pub fn requests(&self, verb: Verb, resource: &str) -> u64 {
        let entries = self.lock();
        let of = entries.counts.iter().filter(|((is, name, _), _)| *is == verb && name == resource);
        of.map(|(_, count)| count).sum()
    }

    /// The writes, oldest first.
    pub fn writes(&self) -> Vec<Write> {
        self.lock().writes.iter().cloned().collect()
    }

    /// Forgets counts and writes.
    pub fn clear(&self) {
        *self.lock() = Entries::default();
    }
}
