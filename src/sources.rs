//! Where the fleet is read from. A source watches something outside and tells the engine what is new,
//! changed or gone there; it never asks what became of it.
//!
//! A source lists once, as an `Event::Reset`, and speaks in differences from then on. What it cannot
//! read it keeps as it last was: an error is not a deletion.

pub mod files;
/// A Kubernetes cluster.
pub mod kube;
