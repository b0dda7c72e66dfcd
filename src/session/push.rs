//! A response, and its encoding: a frame around bytes that every stream shares.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint};

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

/// Who speaks; Envoy shows it as `control_plane.identifier`.
const IDENTIFIER: &str = concat!("tidegate ", env!("CARGO_PKG_VERSION"));

/// Field numbers of `DeltaDiscoveryResponse`.
mod tags {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
    pub(super) const CONTROL_PLANE: u32 = 7;
    /// `ControlPlane.identifier`
    pub(super) const IDENTIFIER: u32 = 1;
}

impl Push {
    /// Writes the `DeltaDiscoveryResponse` around the shared bytes: nothing else is encoded per Envoy.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        field(tags::SYSTEM_VERSION_INFO, self.revision.to_string().as_bytes(), buffer);
        for resource in &self.resources {
            field(tags::RESOURCES, resource, buffer);
        }
        field(tags::TYPE_URL, self.type_url.as_bytes(), buffer);
        field(tags::NONCE, self.nonce.to_string().as_bytes(), buffer);
        for name in &self.removed {
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
        let resources: usize = self.resources.iter().map(|resource| resource.len() + 6).sum();
        let removed: usize = self.removed.iter().map(|name| name.len() + 6).sum();
        resources + removed + self.type_url.len() + IDENTIFIER.len() + 64
    }
}

fn field(tag: u32, bytes: &[u8], buffer: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}
