//! Tidegate: an Envoy control plane that gives every game server its own host and path, and streams
//! only the changes.
//!
//! The map of the house. A room imports only rooms of lower rows; `tests/purity.rs` checks it.
//!
//! ```text
//!  11  main                                   what was typed
//!  10  demo                                   a game to see it by
//!   9  app                                    wiring and shutdown
//!   8  admin  check  wait  writer  operate    health, metrics, API; files; until servers are empty; the cluster told; objects changed
//!   7  sources  ads  client  departure        the cluster's side, Envoy's side, a question from outside, an Envoy's end
//!   6  owner                                  the one task that owns the engine
//!   5  store  metrics  envoys  cli            shared handles; what was typed, as values
//!  ══  the wall: below it no runtime, socket, clock, disk, environment or log  ══
//!   4  report                                 what people ask, as rows
//!   3  engine  session  plan                  events to commits; one Envoy's stream; what an operator's command changes
//!   2  translate  kinds                       to Envoy's protos; from Kubernetes' objects
//!   1  spec  claims  snapshot  bootstrap  edit  what may be written; who holds what; bytes in order; text; a file changed in place
//!   0  model                                  the words
//! ```
//!
//! ```text
//! sources ─ mpsc<Burst> ─▶ owner: Engine::apply ▸ Store::commit ─ watch<Revision> ─▶ a body a stream: Session ─▶ Envoy  
//!                                 ▲ questions: admin, table                                   └─ envoys: what each took
//! ```

/// Health, metrics and the JSON API over HTTP.
pub mod admin;
/// The gRPC services: delta ADS and load reports.
pub mod ads;
/// Wiring: sources, channels, tasks, shutdown.
pub mod app;
/// The Envoy bootstrap, as text.
pub mod bootstrap;
/// What fleet files would do.
pub mod check;
/// Who holds a route when several servers claim it.
pub mod claims;
/// What was typed, and what it means.
pub mod cli;
/// Questions to a running control plane.
pub mod client;
/// A game on stateful servers behind a real Envoy.
pub mod demo;
/// An Envoy is emptied before it ends.
pub mod departure;
/// A fleet file with annotations changed.
pub mod edit;
/// Events in, commits out.
pub mod engine;
/// What is known of the Envoys.
pub mod envoys;
/// Kubernetes' objects to servers.
pub mod kinds;
/// Every metric family.
pub mod metrics;
/// The words: servers, hosts, paths, modes.
pub mod model;
/// Operators' commands, which change objects.
pub mod operate;
/// The task that owns the engine.
pub mod owner;
/// What an operator's command changes.
pub mod plan;
/// What people ask, as rows.
pub mod report;
/// One Envoy's delta stream as a value.
pub mod session;
/// Encoded resources in the order of their change.
pub mod snapshot;
/// Where fleets come from.
pub mod sources;
/// What a user may write.
pub mod spec;
/// The shared handle on the snapshot.
pub mod store;
#[cfg(test)]
mod testkit;
/// Servers and routes to Envoy's protos.
pub mod translate;
/// Until nobody is left on some servers.
pub mod wait;
/// Game servers told that they are routed.
pub mod writer;
