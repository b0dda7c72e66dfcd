//! The delta protocol as far as a stopwatch needs it: names and contents are passed over, not copied.
//!
//! Field numbers are those of `DeltaDiscoveryRequest`, `DeltaDiscoveryResponse` and `Resource` in
//! `envoy/service/discovery/v3/discovery.proto`.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The service's path.
pub(crate) const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// A request, in part.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Asked {
    #[prost(string, tag = "2")]
    pub(crate) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) subscribe: Vec<String>,
    #[prost(string, tag = "6")]
    pub(crate) response_nonce: String,
}

/// A response; its resources are not looked into.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Told {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) removed: Vec<String>,
}

impl Told {
    /// The ACK.
    pub(crate) fn ack(&self) -> Bytes {
        let ack =
            Asked { type_url: self.type_url.clone(), response_nonce: self.nonce.clone(), ..Asked::default() };
        ack.encode_to_vec().into()
    }
}

/// Who a resource is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

/// Sends bytes that are a message already; reads `D`.
pub(crate) struct Raw<D>(PhantomData<D>);

impl<D> Default for Raw<D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<D: Message + Default + 'static> Codec for Raw<D> {
    type Encode = Bytes;
    type Decode = D;
    type Encoder = Written;
    type Decoder = Read<D>;

    fn encoder(&mut self) -> Written {
        Written
    }

    fn decoder(&mut self) -> Read<D> {
        Read(PhantomData)
    }
}

pub(crate) struct Written;

impl Encoder for Written {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put(message);
        Ok(())
    }
}

pub(crate) struct Read<D>(PhantomData<D>);

impl<D: Message + Default> Decoder for Read<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// True of a response of this type.
pub(crate) fn is_of(message: &Bytes, type_url: &str) -> anyhow::Result<bool> {
    Ok(Told::decode(message.clone())?.type_url == type_url)
}

/// An empty first answer.
pub(crate) fn nothing(type_url: &str) -> Bytes {
    let told = Told { type_url: type_url.to_owned(), nonce: "1".to_owned(), ..Told::default() };
    told.encode_to_vec().into()
}
