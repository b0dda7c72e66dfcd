//! Tidegate
pub mod demo;
pub mod engine;
pub mod model;
pub mod claims;
pub mod session;
pub mod snapshot;
pub mod spec;
pub mod translate;
#[cfg(test)]
mod testkit;
