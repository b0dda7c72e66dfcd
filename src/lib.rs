//! Tidegate
pub mod bootstrap;
pub mod claims;
pub mod demo;
pub mod engine;
pub mod model;
pub mod session;
pub mod snapshot;
pub mod spec;
#[cfg(test)]
mod testkit;
pub mod translate;
