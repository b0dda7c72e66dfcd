//! The objects and their history. One lock, held for one read or one write and never across an await.
//!
//! An object is rendered once a version; a list or a watch only copies those bytes. What changed is kept in
//! a ring a kind, as long as `Options::history` says: a watch is a cursor in it, so a slow one costs nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::kinds::Resource;
use crate::owners::Owners;
use crate::refusal::Refusal;
use crate::selector::{Labels, Selection};

/// Namespace (empty outside namespaces) and name.
pub(crate) type Key = (Arc<str>, Arc<str>);

/// Where `namespaces` stands among the collections.
pub(crate) const NAMESPACES: usize = 0;

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    /// `metadata.resourceVersion`.
    pub(crate) revision: u64,
    pub(crate) labels: Arc<Labels>,
    /// The object, rendered.
    pub(crate) json: Bytes,
}

impl Version {
    pub(crate) fn is_in(&self, selection: &Selection) -> bool {
        selection.matches(&self.namespace, &self.name, &self.labels)
    }

    /// The object; parsed, so not for hot paths.
    pub(crate) fn object(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// What one write did.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// The object afterwards; of a removed one its last state, with the revision of the removal.
    pub(crate) version: Arc<Version>,
    pub(crate) old: Option<Arc<Version>>,
    pub(crate) removed: bool,
}

pub(crate) struct Entry {
    pub(crate) version: Arc<Version>,
    pub(crate) object: Value,
    pub(crate) owners: Option<Owners>,
}

/// A list that is being read page by page: all its pages show one moment.
#[derive(Clone)]
pub(crate) struct OpenList {
    pub(crate) token: u64,
    pub(crate) revision: u64,
    pub(crate) all: Arc<[Arc<Version>]>,
}

/// All objects of one kind.
pub(crate) struct Collection {
    pub(crate) resource: Arc<Resource>,
    pub(crate) objects: BTreeMap<Key, Entry>,
    /// What changed after `lost`, in order.
    ring: VecDeque<Change>,
    /// The last change that is forgotten.
    lost: u64,
    /// Nobody may begin to read history at an older revision than this.
    pub(crate) floor: u64,
    /// Lists that are being read page by page, the latest last.
    pub(crate) open: VecDeque<OpenList>,
    /// Says that something changed.
    pub(crate) wake: watch::Sender<u64>,
}

impl Collection {
    /// What changed after a revision, at most `limit` changes; an error if that is forgotten.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, Refusal> {
        if after < self.lost {
            return Err(Refusal::expired(after, self.lost));
        }
        let first = self.ring.partition_point(|change| change.revision <= after);
        Ok(self.ring.range(first..).take(limit).cloned().collect())
    }

    pub(crate) fn selected(&self, selection: &Selection) -> Vec<Arc<Version>> {
        let all = self.objects.values().map(|entry| &entry.version);
        all.filter(|version| version.is_in(selection)).cloned().collect()
    }
}

pub(crate) struct State {
    /// The revision of the last write, of any kind.
    pub(crate) revision: u64,
    pub(crate) collections: Vec<Collection>,
    history: usize,
}

impl State {
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<usize> {
        self.collections.iter().position(|Collection { resource, .. }| {
            resource.plural == plural && resource.group == group && resource.version == version
        })
    }

    pub(crate) fn resource(&self, at: usize) -> Arc<Resource> {
        self.collections[at].resource.clone()
    }

    pub(crate) fn entry(&self, at: usize, key: &Key) -> Result<&Entry, Refusal> {
        let collection = &self.collections[at];
        collection.objects.get(key).ok_or_else(|| Refusal::not_found(&collection.resource, &key.1))
    }

    /// Stores an object whose metadata is complete, all but the resource version.
    pub(crate) fn put(
        &mut self,
        at: usize,
        key: Key,
        mut object: Value,
        owners: Option<Owners>,
    ) -> Arc<Version> {
        self.revision += 1;
        let collection = &mut self.collections[at];
        let old = collection.objects.get(&key).map(|entry| entry.version.clone());
        let version = render(&key, self.revision, &mut object, old.as_ref());
        collection.objects.insert(key, Entry { version: version.clone(), object, owners });
        self.changed(at, version.clone(), old, false);
        version
    }

    /// Takes an object away; nothing if it is not there.
    pub(crate) fn remove(&mut self, at: usize, key: &Key) -> Option<Arc<Version>> {
        let mut entry = self.collections[at].objects.remove(key)?;
        self.revision += 1;
        let version = render(key, self.revision, &mut entry.object, Some(&entry.version));
        self.changed(at, version.clone(), Some(entry.version), true);
        Some(version)
    }

    fn changed(&mut self, at: usize, version: Arc<Version>, old: Option<Arc<Version>>, removed: bool) {
        let collection = &mut self.collections[at];
        if collection.ring.len() >= self.history
            && let Some(forgotten) = collection.ring.pop_front()
        {
            collection.lost = forgotten.revision;
            collection.floor = collection.floor.max(forgotten.revision);
        }
        collection.ring.push_back(Change { revision: self.revision, version, old, removed });
        collection.wake.send_replace(self.revision);
    }

    /// Forgets all history, as etcd's compaction does: whoever begins at an older revision meets `410 Gone`.
    /// A watch that is open and has read all goes on.
    pub(crate) fn compact(&mut self) {
        // A write of nothing: without it a client that stands at the head could begin there again.
        self.revision += 1;
        for collection in &mut self.collections {
            if let Some(last) = collection.ring.back() {
                collection.lost = last.revision;
            }
            collection.ring.clear();
            collection.open.clear();
            collection.floor = self.revision;
        }
    }
}

fn render(key: &Key, revision: u64, object: &mut Value, old: Option<&Arc<Version>>) -> Arc<Version> {
    object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
    let labels = labels(object);
    // Most writes leave labels alone; then both versions share them.
    let labels = match old {
        Some(old) if *old.labels == labels => old.labels.clone(),
        _ => Arc::new(labels),
    };
    let json = Bytes::from(object.to_string());
    Arc::new(Version { namespace: key.0.clone(), name: key.1.clone(), revision, labels, json })
}

fn labels(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object();
    let texts = labels.into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_str()?)));
    texts.map(|(key, value)| (key.clone(), value.to_owned())).collect()
}

/// The objects, shared.
pub(crate) struct Store {
    state: Mutex<State>,
    /// Moves when bookmarks are asked for.
    pub(crate) marks: watch::Sender<u64>,
}

impl Store {
    pub(crate) fn new(resources: Vec<Resource>, history: usize) -> Self {
        let collections = resources.into_iter().map(|resource| Collection {
            resource: Arc::new(resource),
            objects: BTreeMap::new(),
            ring: VecDeque::new(),
            lost: 0,
            floor: 0,
            open: VecDeque::new(),
            wake: watch::Sender::new(0),
        });
        let state = State { revision: 1, collections: collections.collect(), history: history.max(1) };
        Self { state: Mutex::new(state), marks: watch::Sender::new(0) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
