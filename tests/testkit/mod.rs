//! What the end-to-end tests share. Each test file takes what it needs, so what is unused in one is used in another.
#![allow(dead_code, unreachable_pub)]

pub mod envoy;
