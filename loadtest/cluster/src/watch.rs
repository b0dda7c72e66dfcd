//! Watches: a cursor in the history of a kind, and the frames it makes of what lies behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep_until};

use crate::kinds::Resource;
use crate::list::{metadata_of, revision};
use crate::refusal::Refusal;
use crate::route::Query;
use crate::selector::Selection;
use crate::store::{Change, Store, Version};

/// Changes in a frame. It bounds how long the lock is held, and the memory of a frame.
const BATCH: usize = 256;

/// Far enough to be never.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// An open watch.
#[allow(clippy::struct_excessive_bools)] // three are what was asked, one is that it is over
pub(crate) struct Watch {
    store: Arc<Store>,
    at: usize,
    resource: Arc<Resource>,
    selection: Selection,
    metadata_only: bool,
    /// All up to this revision was sent.
    cursor: u64,
    /// What is sent before changes are, last first, and the bookmark that ends it.
    initial: Vec<Arc<Version>>,
    initial_end: bool,
    /// `allowWatchBookmarks`.
    bookmarks: bool,
    ended: bool,
    deadline: Instant,
    wake: watch::Receiver<u64>,
    marks: watch::Receiver<u64>,
    every: tokio::time::Interval,
}

impl Watch {
    /// Opens a watch as the query says.
    ///
    /// # Errors
    ///
    /// `410` when its revision is forgotten. The real server says so in the stream; the caller decides.
    pub(crate) fn open(
        store: &Arc<Store>,
        at: usize,
        selection: Selection,
        query: &Query,
        metadata_only: bool,
        bookmark_every: Duration,
    ) -> Result<Self, Refusal> {
        let asked = query.get("resourceVersion").map(revision).transpose()?.unwrap_or(0);
        let sends_initial = query.is_true("sendInitialEvents");
        if sends_initial && query.get("resourceVersionMatch") != Some("NotOlderThan") {
            let why = "sendInitialEvents requires resourceVersionMatch=NotOlderThan";
            return Err(Refusal::of(422, format!("ListOptions.meta.k8s.io \"\" is invalid: {why}")));
        }
        let timeout = match query.get("timeoutSeconds").map(str::parse::<u64>) {
            None | Some(Ok(0)) => NEVER,
            Some(Ok(seconds)) => Duration::from_secs(seconds).min(NEVER),
            Some(Err(_)) => return Err(Refusal::of(400, "timeoutSeconds: not a number; expected seconds")),
        };
        let state = store.lock();
        let collection = &state.collections[at];
        // No revision, or 0, asks for all there is first, as if it had just been added.
        let starts_over = sends_initial || asked == 0;
        if !starts_over && asked < collection.floor {
            return Err(Refusal::expired(asked, collection.floor));
        }
        let (initial, cursor) = if starts_over {
            let mut all = collection.selected(&selection);
            all.reverse();
            (all, state.revision)
        } else {
            (Vec::new(), asked)
        };
        let now = Instant::now();
        Ok(Self {
            at,
            resource: collection.resource.clone(),
            selection,
            metadata_only,
            cursor,
            initial,
            initial_end: sends_initial,
            bookmarks: query.is_true("allowWatchBookmarks"),
            ended: false,
            deadline: now + timeout,
            wake: collection.wake.subscribe(),
            marks: store.marks.subscribe(),
            every: interval_at(now + bookmark_every, bookmark_every),
            store: store.clone(),
        })
    }

    /// The frames, each of whole lines.
    pub(crate) fn frames(self) -> impl Stream<Item = Bytes> {
        unfold(self, |mut watch| async move {
            let frame = watch.next().await?;
            Some((frame, watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            // Marked as seen before the look, so that what comes after it wakes.
            self.wake.borrow_and_update();
            let frame = self.behind();
            if !frame.is_empty() {
                return Some(frame.freeze());
            }
            tokio::select! {
                changed = self.wake.changed() => changed.ok()?,
                marked = self.marks.changed() => {
                    marked.ok()?;
                    if self.bookmarks {
                        return Some(self.marked());
                    }
                }
                _ = self.every.tick(), if self.bookmarks => return Some(self.marked()),
                () = sleep_until(self.deadline) => {
                    // The real server says where to go on before it ends a watch.
                    let last = self.bookmarks.then(|| self.marked());
                    self.ended = true;
                    return last;
                }
            }
        }
        None
    }

    /// What is to be sent now; empty if nothing is.
    fn behind(&mut self) -> BytesMut {
        let mut frame = BytesMut::new();
        for _ in 0..BATCH {
            let Some(version) = self.initial.pop() else { break };
            self.line(&mut frame, "ADDED", &version);
        }
        if !frame.is_empty() {
            return frame;
        }
        if std::mem::take(&mut self.initial_end) {
            frame.put_slice(&mark(&self.resource, self.cursor, true));
            return frame;
        }
        let (changes, head) = {
            let state = self.store.lock();
            (state.collections[self.at].changes(self.cursor, BATCH), state.revision)
        };
        match changes {
            Ok(changes) => {
                self.cursor = match changes.last() {
                    Some(last) if changes.len() == BATCH => last.revision,
                    _ => head,
                };
                for change in &changes {
                    self.show(&mut frame, change);
                }
                if frame.is_empty() && changes.len() == BATCH {
                    // None of these was selected; there may be more.
                    return self.behind();
                }
            }
            Err(gone) => {
                self.ended = true;
                frame.put_slice(&error(&gone));
            }
        }
        frame
    }

    fn show(&self, frame: &mut BytesMut, change: &Change) {
        let is = !change.removed && change.version.is_in(&self.selection);
        let old = change.old.as_ref().filter(|old| old.is_in(&self.selection));
        match (is, old) {
            (true, Some(_)) => self.line(frame, "MODIFIED", &change.version),
            (true, None) => self.line(frame, "ADDED", &change.version),
            (false, Some(_)) if change.removed => self.line(frame, "DELETED", &change.version),
            // It left the selection: shown as it was inside, at the revision of its leaving.
            (false, Some(old)) => {
                let mut object = old.object();
                object["metadata"]["resourceVersion"] = change.revision.to_string().into();
                let json = object.to_string().into();
                let (namespace, name, labels) = (old.namespace.clone(), old.name.clone(), old.labels.clone());
                let left = Version { namespace, name, revision: change.revision, labels, json };
                self.line(frame, "DELETED", &left);
            }
            (false, None) => {}
        }
    }

    fn line(&self, frame: &mut BytesMut, kind: &str, version: &Version) {
        let object = if self.metadata_only { metadata_of(version) } else { version.json.clone() };
        frame.reserve(object.len() + 40);
        frame.put_slice(br#"{"type":""#);
        frame.put_slice(kind.as_bytes());
        frame.put_slice(br#"","object":"#);
        frame.put_slice(&object);
        frame.put_slice(b"}\n");
    }

    /// A bookmark, behind what is to be sent first.
    fn marked(&mut self) -> Bytes {
        let mut frame = self.behind();
        if !self.ended {
            frame.put_slice(&mark(&self.resource, self.cursor, false));
        }
        frame.freeze()
    }
}

fn mark(resource: &Resource, revision: u64, initial_end: bool) -> Bytes {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata });
    format!("{}\n", json!({ "type": "BOOKMARK", "object": object })).into()
}

/// A refusal as a line of a watch.
pub(crate) fn error(refusal: &Refusal) -> Bytes {
    format!("{}\n", json!({ "type": "ERROR", "object": refusal.status() })).into()
}
