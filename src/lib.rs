//! Tidegate: an Envoy xDS control plane that gives every game server its own host and path.

pub mod demo;
