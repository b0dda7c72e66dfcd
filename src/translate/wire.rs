//! Protobuf's wire format, written straight into the bytes that are kept.
//!
//! envoy-types' structs are complete, so they are large: a `Cluster` of theirs is built field by field in
//! dozens of allocations, to be encoded and thrown away. What each change makes is written here by field
//! numbers instead, in their order, which is how prost would have written it.

use std::time::Duration;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// A length-delimited field: a message that is encoded already, or text.
pub(super) fn bytes(tag: u32, field: &[u8], buffer: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(field.len() as u64, buffer);
    buffer.extend_from_slice(field);
}

/// A message that `fill` writes.
pub(super) fn message(tag: u32, buffer: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    let begin = buffer.len();
    fill(buffer);
    // Its length stands before it and is known behind it: some hundred bytes move up by one or two.
    let length = (buffer.len() - begin) as u64;
    let mut varint = [0; 10];
    encode_varint(length, &mut &mut varint[..]);
    buffer.splice(begin..begin, varint.into_iter().take(encoded_len_varint(length)));
}

/// A number, an enum or a bool; not written when it is zero, as proto3 has it.
pub(super) fn number(tag: u32, value: u64, buffer: &mut Vec<u8>) {
    if value != 0 {
        choice(tag, value, buffer);
    }
}

/// The same as a member of a `oneof`, which is there though it be zero.
pub(super) fn choice(tag: u32, value: u64, buffer: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, buffer);
    encode_varint(value, buffer);
}

/// `google.protobuf.UInt32Value`
pub(super) fn uint(tag: u32, value: u32, buffer: &mut Vec<u8>) {
    message(tag, buffer, |wrapper| number(1, value.into(), wrapper));
}

/// `google.protobuf.Duration`
pub(super) fn duration(tag: u32, value: Duration, buffer: &mut Vec<u8>) {
    message(tag, buffer, |inner| {
        number(1, value.as_secs(), inner);
        number(2, value.subsec_nanos().into(), inner);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_any_size_stands_before_its_message() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let (mut nested, mut plain) = (b"before".to_vec(), b"before".to_vec());
            message(7, &mut nested, |inner| inner.extend(vec![b'x'; size]));
            bytes(7, &vec![b'x'; size], &mut plain);
            assert_eq!(nested, plain, "{size}");
        }
    }
}
