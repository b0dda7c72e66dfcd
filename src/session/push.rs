//! A response, and its encoding: a frame around bytes that every stream shares.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, string};

use super::Type;
use crate::snapshot::{Name, Revision};

/// One response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The type URL, of a served type or as it was asked.
    pub type_url: String,
    /// Its type; none for one that is not served.
    pub kind: Option<Type>,
    /// Its number on this stream.
    pub nonce: u64,
    /// What is new or changed, encoded; the bytes are shared with all other streams.
    pub resources: Vec<Bytes>,
    /// What is gone.
    pub removed: Vec<Name>,
    /// The revision it was made at, for people who read it.
    pub revision: Revision,
}

/// Field numbers of `DeltaDiscoveryResponse`.
mod tags {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
}

impl Push {
    /// Writes the `DeltaDiscoveryResponse` around the shared bytes: nothing else is encoded per Envoy.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        string::encode(tags::SYSTEM_VERSION_INFO, &self.revision.to_string(), buffer);
        for resource in &self.resources {
            encode_key(tags::RESOURCES, WireType::LengthDelimited, buffer);
            encode_varint(resource.len() as u64, buffer);
            buffer.put_slice(resource);
        }
        string::encode(tags::TYPE_URL, &self.type_url, buffer);
        string::encode(tags::NONCE, &self.nonce.to_string(), buffer);
        for name in &self.removed {
            encode_key(tags::REMOVED_RESOURCES, WireType::LengthDelimited, buffer);
            encode_varint(name.len() as u64, buffer);
            buffer.put_slice(name.as_bytes());
        }
    }

    /// About how many bytes `encode` writes; never fewer.
    pub fn size(&self) -> usize {
        let resources: usize = self.resources.iter().map(|resource| resource.len() + 6).sum();
        let removed: usize = self.removed.iter().map(|name| name.len() + 6).sum();
        resources + removed + self.type_url.len() + 64
    }
}
