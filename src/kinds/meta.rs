//! An object's metadata, as far as it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};

use crate::model::Age;
use crate::spec;

/// Keys of labels and annotations that begin so are kept.
const PREFIXES: [&str; 3] = ["tidegate.dev/", "octops", "agones.dev/sdk-tidegate"];
/// Keys that are kept besides.
const KEYS: [&str; 16] = [
    "agones.dev/dev-address",
    "agones.dev/fleet",
    "agones.dev/gameserver",
    "agones.dev/last-allocated",
    "agones.dev/ready-container-id",
    "agones.dev/role",
    "apps.kubernetes.io/pod-index",
    "game.kruise.io/gs-deleting",
    "game.kruise.io/gs-opsState",
    "game.kruise.io/network-conf",
    "game.kruise.io/network-disabled",
    "game.kruise.io/network-status",
    "game.kruise.io/network-type",
    "game.kruise.io/owner-gss",
    "game.kruise.io/reserve-ids",
    "lifecycle.apps.kruise.io/state",
];
/// Longest value that is kept, in bytes, and more than anybody reads: what is cut here is refused there, with
/// an error. An API server allows 256 KiB for all annotations of an object.
const MAX_VALUE: usize = 64 << 10;

/// Who an object belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// Its kind.
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
}

/// `metadata`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// `metadata.namespace`; `default` when there is none, as kubectl has it.
    #[serde(default = "default_namespace")]
    pub namespace: Box<str>,
    /// `metadata.name`
    #[serde(default)]
    pub name: Box<str>,
    /// `metadata.uid`: another one when the same name is made again.
    #[serde(default)]
    pub uid: Box<str>,
    /// `metadata.resourceVersion`. It moves with every write and says nothing of the object: whoever
    /// watches takes it out, so that it makes no two versions differ.
    #[serde(default)]
    pub resource_version: Option<Box<str>>,
    /// `metadata.creationTimestamp`
    #[serde(default, rename = "creationTimestamp", deserialize_with = "age")]
    pub age: Age,
    /// True with a `metadata.deletionTimestamp`: it is going.
    #[serde(default, rename = "deletionTimestamp", deserialize_with = "is_there")]
    pub deleting: bool,
    /// `metadata.labels`, those that are read.
    #[serde(default, deserialize_with = "kept")]
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`, those that are read.
    #[serde(default, deserialize_with = "kept")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            namespace: default_namespace(),
            name: Box::default(),
            uid: Box::default(),
            resource_version: None,
            age: Age::Unknown,
            deleting: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

impl Meta {
    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// True with any annotation of ours.
    pub fn has_own_annotation(&self) -> bool {
        // What we write ourselves asks for nothing.
        let is_wish = |key: &&str| key.starts_with(spec::PREFIX) && !spec::WRITTEN.contains(key);
        self.annotations.keys().map(String::as_str).any(|key| is_wish(&key))
    }
}

fn default_namespace() -> Box<str> {
    "default".into()
}

fn age<'de, D: Deserializer<'de>>(from: D) -> Result<Age, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let made = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(made.map_or(Age::Unknown, |made| Age::Since(made.as_millisecond())))
}

fn is_there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(from).map(|value| value.is_some())
}

fn is_read(key: &str) -> bool {
    PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || KEYS.contains(&key)
}

/// A map without the keys that nobody reads: they cost neither memory nor a difference.
fn kept<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Kept(PhantomData<()>);

    impl<'de> Visitor<'de> for Kept {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of texts")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                if is_read(&key) {
                    // People forget the quotes around `true` and `7001`; an API server would refuse them.
                    let mut text = match map.next_value::<serde_json::Value>()? {
                        serde_json::Value::String(text) => text,
                        other => other.to_string(),
                    };
                    text.truncate(text.floor_char_boundary(MAX_VALUE));
                    kept.insert(key.into_owned(), text);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(kept)
        }
    }

    from.deserialize_any(Kept(PhantomData))
}
