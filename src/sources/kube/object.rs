//! What a watch decodes: an object to the fields that are read, and never an error. One that does not have
//! the shape of its kind must not end the watch of all others.

use std::borrow::Cow;
use std::fmt::Debug;

use ::kube::Resource;
use ::kube::core::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::kinds::{Key, Kind, Meta, Object, agones, okg, pod};

/// A kind that is watched.
pub(super) trait Watchable: Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    /// Which.
    const KIND: Kind;

    /// As an object.
    fn object(self) -> Object;
}

impl Watchable for pod::Pod {
    const KIND: Kind = Kind::Pod;

    fn object(self) -> Object {
        Object::Pod(Box::new(self))
    }
}

impl Watchable for okg::GameServer {
    const KIND: Kind = Kind::OkgGameServer;

    fn object(self) -> Object {
        Object::OkgGameServer(Box::new(self))
    }
}

impl Watchable for okg::GameServerSet {
    const KIND: Kind = Kind::GameServerSet;

    fn object(self) -> Object {
        Object::GameServerSet(Box::new(self))
    }
}

impl Watchable for agones::GameServer {
    const KIND: Kind = Kind::AgonesGameServer;

    fn object(self) -> Object {
        Object::AgonesGameServer(Box::new(self))
    }
}

/// An object, or why it is none.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// It was read.
    Good(Box<Object>),
    /// Its name was, and no more.
    Bad(Key, String),
    /// Not even that.
    Nameless(String),
}

/// What kube's watcher sees of an object: its resource version, by which a watch goes on.
#[derive(Clone, Debug)]
pub(super) struct Watched<T> {
    meta: ObjectMeta,
    pub(super) content: Content,
    kind: std::marker::PhantomData<fn() -> T>,
}

#[derive(Deserialize)]
struct Head {
    metadata: Meta,
}

impl<'de, T: Watchable> Deserialize<'de> for Watched<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        let (mut meta, content) = match serde_json::from_str::<T>(raw).map(Watchable::object) {
            Ok(object) if object.meta().name.is_empty() => {
                (Meta::default(), Content::Nameless("it has no metadata.name".into()))
            }
            Ok(mut object) => {
                let version = object.meta_mut().resource_version.take();
                let meta = Meta { resource_version: version, ..Meta::default() };
                (meta, Content::Good(Box::new(object)))
            }
            Err(error) => match serde_json::from_str::<Head>(raw) {
                Ok(Head { metadata }) if !metadata.name.is_empty() => {
                    let key = Key {
                        kind: T::KIND,
                        namespace: metadata.namespace.clone(),
                        name: metadata.name.clone(),
                    };
                    (metadata, Content::Bad(key, error.to_string()))
                }
                _ => (Meta::default(), Content::Nameless(error.to_string())),
            },
        };
        let resource_version = meta.resource_version.take().map(String::from);
        Ok(Self {
            meta: ObjectMeta { resource_version, ..ObjectMeta::default() },
            content,
            kind: std::marker::PhantomData,
        })
    }
}

impl<T: Watchable> Resource for Watched<T> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.name().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::KIND.api_version().split_once('/').map_or("", |(group, _)| group).into()
    }

    fn version((): &()) -> Cow<'_, str> {
        let api = T::KIND.api_version();
        api.split_once('/').map_or(api, |(_, version)| version).into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::KIND.plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
