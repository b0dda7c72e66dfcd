//! Tidegate: an Envoy control plane that gives every game server its own host and path.
pub mod bootstrap;
