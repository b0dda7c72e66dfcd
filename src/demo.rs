//! What `tidegate demo` shows: small stateful game servers behind a real Envoy.

pub mod game;
pub mod terminal;
