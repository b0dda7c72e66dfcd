//! A response, and its encoding: frames around bytes that every stream shares.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::Type;
use crate::snapshot::{Name, Resource, Revision};
use crate::translate;

/// One response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The type URL, of a served type or as it was asked.
    pub type_url: Cow<'static, str>,
    /// Its type; none for one that is not served.
    pub kind: Option<Type>,
    /// Its number on this stream.
    pub nonce: u64,
    /// What is new or changed; the session keeps the same list until it is answered.
    pub resources: Arc<[Sent]>,
    /// What is gone.
    pub removed: Arc<[Name]>,
    /// The revision it was made at, for people who read it.
    pub revision: Revision,
    /// What changed up to here was sent before it; 0 in the first answer.
    pub behind: Revision,
}

/// A resource as one stream is sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What is sent.
    pub resource: Resource,
    /// Makes it other content to an Envoy that may have taken half of it (see `Channel::generation`).
    pub generation: Option<Box<str>>,
}

/// Who speaks; Envoy shows it as `control_plane.identifier`.
const IDENTIFIER: &str = concat!("tidegate ", env!("CARGO_PKG_VERSION"));

/// Field numbers of `DeltaDiscoveryResponse`, and of the messages in it.
mod tags {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
    pub(super) const CONTROL_PLANE: u32 = 7;
    /// `ControlPlane.identifier`
    pub(super) const IDENTIFIER: u32 = 1;
    /// `Resource`
    pub(super) const VERSION: u32 = 1;
    pub(super) const RESOURCE: u32 = 2;
    pub(super) const NAME: u32 = 3;
    /// `google.protobuf.Any`
    pub(super) const ANY_TYPE_URL: u32 = 1;
    pub(super) const ANY_VALUE: u32 = 2;
}

impl Push {
    /// Writes the `DeltaDiscoveryResponse` around the shared bytes: nothing else is encoded per Envoy.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        field(tags::SYSTEM_VERSION_INFO, self.revision.to_string().as_bytes(), buffer);
        for sent in &*self.resources {
            sent.encode(&self.type_url, buffer);
        }
        field(tags::TYPE_URL, self.type_url.as_bytes(), buffer);
        field(tags::NONCE, self.nonce.to_string().as_bytes(), buffer);
        for name in &*self.removed {
            field(tags::REMOVED_RESOURCES, name.as_bytes(), buffer);
        }
        if self.nonce == 1 {
            let mut control_plane = Vec::with_capacity(IDENTIFIER.len() + 2);
            field(tags::IDENTIFIER, IDENTIFIER.as_bytes(), &mut control_plane);
            field(tags::CONTROL_PLANE, &control_plane, buffer);
        }
    }

    /// About how many bytes `encode` writes; never fewer.
    pub fn size(&self) -> usize {
        let resources: usize = self.resources.iter().map(|sent| sent.size() + self.type_url.len()).sum();
        let removed: usize = self.removed.iter().map(|name| name.len() + 6).sum();
        resources + removed + self.type_url.len() + IDENTIFIER.len() + 64
    }
}

impl Sent {
    fn encode(&self, type_url: &str, buffer: &mut impl BufMut) {
        let name = self.resource.name();
        let content = self.resource.content();
        let generation = self.generation.as_deref();
        let behind = generation.map_or_else(Vec::new, |generation| translate::renamed(name, generation));
        // `#` and the generation stand behind the version: see `Version::parse`.
        let version = self.resource.version.digits();
        let version_length = version.len() + generation.map_or(0, |generation| 1 + generation.len());
        let value_length = content.len() + behind.len();
        let any_length = field_length(type_url.len()) + field_length(value_length);
        let length = field_length(version_length) + field_length(any_length) + field_length(name.len());

        head(tags::RESOURCES, length, buffer);
        head(tags::VERSION, version_length, buffer);
        buffer.put_slice(&version);
        if let Some(generation) = generation {
            buffer.put_u8(b'#');
            buffer.put_slice(generation.as_bytes());
        }
        head(tags::RESOURCE, any_length, buffer);
        field(tags::ANY_TYPE_URL, type_url.as_bytes(), buffer);
        head(tags::ANY_VALUE, value_length, buffer);
        buffer.put_slice(content);
        buffer.put_slice(&behind);
        field(tags::NAME, name.as_bytes(), buffer);
    }

    /// About how many bytes it is on the wire, but for its type URL; never fewer.
    pub(super) fn size(&self) -> usize {
        let (name, content) = (self.resource.name().len(), self.resource.content().len());
        let again = self.generation.as_ref().map_or(0, |generation| 2 * generation.len() + name + 16);
        name + content + again + 48
    }
}

fn head(tag: u32, length: usize, buffer: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn field(tag: u32, bytes: &[u8], buffer: &mut impl BufMut) {
    head(tag, bytes.len(), buffer);
    buffer.put_slice(bytes);
}

/// Of a field whose number is below 16.
fn field_length(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}
