//! A request, read from its bytes. What an Envoy says it holds is the bulk of a reconnect: its names stay
//! where they are in the message, and only their places are noted.

use std::str;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::{MAX_CLAIMS, MAX_NAME_BYTES, MAX_NAMES, Refusal};
use crate::snapshot::{Name, Version};

/// Field numbers of `DeltaDiscoveryRequest`, and of the messages in it.
mod tags {
    pub(super) const NODE: u32 = 1;
    pub(super) const TYPE_URL: u32 = 2;
    pub(super) const SUBSCRIBE: u32 = 3;
    pub(super) const UNSUBSCRIBE: u32 = 4;
    pub(super) const INITIAL_VERSIONS: u32 = 5;
    pub(super) const NONCE: u32 = 6;
    pub(super) const ERROR_DETAIL: u32 = 7;
    /// Of an entry of a map.
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    /// `google.rpc.Status.message`
    pub(super) const MESSAGE: u32 = 2;
}

/// An `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Who asks; on the first request of a stream.
    pub node: Option<Node>,
    /// Of what.
    pub type_url: String,
    /// Names that it wants from now on.
    pub subscribe: Vec<Name>,
    /// Names that it no longer wants.
    pub unsubscribe: Vec<Name>,
    /// What it holds.
    pub held: Held,
    /// The response that it answers; empty if none.
    pub nonce: String,
    /// Why it refuses that response, if it does.
    pub error: Option<String>,
}

/// Names with their versions, as `initial_resource_versions` has them.
#[derive(Clone, Debug, Default)]
pub struct Held {
    message: Bytes,
    names: Vec<HeldName>,
}

#[derive(Clone, Copy, Debug)]
struct HeldName {
    start: u32,
    length: u16,
    /// None: a version that is not ours.
    version: Option<Version>,
}

impl Held {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// One name and its version; none for a version that is not ours.
    pub fn get(&self, at: usize) -> Option<(&str, Option<Version>)> {
        let HeldName { start, length, version } = *self.names.get(at)?;
        let name = self.message.get(start as usize..)?.get(..length.into())?;
        Some((str::from_utf8(name).ok()?, version))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<Version>)> {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

impl Request {
    /// Reads a request. What is refused here costs no more than its bytes, however many names they make.
    pub fn decode(message: Bytes) -> Result<Self, Refusal> {
        let mut request = Self::default();
        let mut names = Vec::new();
        let mut rest = &message[..];
        while let Some((tag, value)) = field(&mut rest)? {
            match tag {
                tags::NODE => request.node = Some(Node::decode(value).map_err(|_| Refusal::Malformed)?),
                tags::TYPE_URL => text(value)?.clone_into(&mut request.type_url),
                tags::SUBSCRIBE => push(&mut request.subscribe, value)?,
                tags::UNSUBSCRIBE => push(&mut request.unsubscribe, value)?,
                tags::INITIAL_VERSIONS => {
                    if names.len() == MAX_CLAIMS {
                        return Err(Refusal::TooManyClaims);
                    }
                    names.push(held(&message, value)?);
                }
                tags::NONCE => text(value)?.clone_into(&mut request.nonce),
                tags::ERROR_DETAIL => request.error = Some(error(value)?),
                _ => {}
            }
        }
        if !names.is_empty() {
            request.held = Held { message, names };
        }
        Ok(request)
    }
}

/// The next field; what is not length-delimited is passed as nothing, for no field that is read is.
fn field<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, Refusal> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (tag, wire_type) = decode_key(rest).map_err(|_| Refusal::Malformed)?;
    let length = match wire_type {
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(|_| Refusal::Malformed)?;
            usize::try_from(length).map_err(|_| Refusal::Malformed)?
        }
        WireType::Varint => {
            decode_varint(rest).map_err(|_| Refusal::Malformed)?;
            return Ok(Some((0, &[])));
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::StartGroup | WireType::EndGroup => return Err(Refusal::Malformed),
    };
    let (value, behind) = rest.split_at_checked(length).ok_or(Refusal::Malformed)?;
    *rest = behind;
    Ok(Some(if wire_type == WireType::LengthDelimited { (tag, value) } else { (0, &[]) }))
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(bytes).map_err(|_| Refusal::Malformed)
}

fn name(bytes: &[u8]) -> Result<&str, Refusal> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(Refusal::LongName(bytes.len()));
    }
    text(bytes)
}

fn push(names: &mut Vec<Name>, bytes: &[u8]) -> Result<(), Refusal> {
    if names.len() > MAX_NAMES {
        return Err(Refusal::TooManyNames);
    }
    names.push(name(bytes)?.into());
    Ok(())
}

fn held(message: &[u8], mut entry: &[u8]) -> Result<HeldName, Refusal> {
    let (mut key, mut version): (&[u8], _) = (&[], None);
    while let Some((tag, value)) = field(&mut entry)? {
        match tag {
            tags::KEY => key = value,
            tags::VALUE => version = Version::parse(text(value)?),
            _ => {}
        }
    }
    name(key)?;
    // Both are slices of one message, which is not longer than a request may be.
    let start = if key.is_empty() { 0 } else { key.as_ptr().addr() - message.as_ptr().addr() };
    let (start, length) = (u32::try_from(start), u16::try_from(key.len()));
    let (Ok(start), Ok(length)) = (start, length) else { return Err(Refusal::Malformed) };
    Ok(HeldName { start, length, version })
}

fn error(mut status: &[u8]) -> Result<String, Refusal> {
    let mut message = String::new();
    while let Some((tag, value)) = field(&mut status)? {
        if tag == tags::MESSAGE {
            text(value)?.clone_into(&mut message);
        }
    }
    Ok(message)
}
