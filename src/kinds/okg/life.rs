//! Whether a server of OpenKruiseGame takes players: read from the pod itself. Its label `gs-state` and the
//! GameServer's status are copies that come late, and not at all while OpenKruiseGame is down.

use super::GameServer;
use crate::kinds::pod::{Container, Pod};
use crate::kinds::{Door, Meta, Readiness, Rules};
use crate::spec::State;

/// Kruise's label of where a pod stands between its hooks.
const LIFECYCLE: &str = "lifecycle.apps.kruise.io/state";

/// The state of the server behind a port of a pod.
///
/// A server that is not ready keeps its address, and with it its cluster: players inside stay while a
/// container beside theirs is updated in place, or a probe of theirs fails.
pub(super) fn state(
    pod: &Pod,
    server: Option<&GameServer>,
    port: Option<u16>,
    allowed: &[&str],
    rules: &Rules,
) -> State {
    if pod.metadata.deleting || is_in_hook(pod) || is_shut(&pod.metadata, server, rules) {
        State::Draining
    } else if pod.ip().is_some() && is_running(pod) && is_ready(pod, port, allowed, rules.readiness) {
        State::Ready
    } else {
        State::Starting
    }
}

/// True when its people let nobody in.
pub(super) fn is_shut(meta: &Meta, server: Option<&GameServer>, rules: &Rules) -> bool {
    // With the reclaim policy Delete this comes before the pod's own deletion.
    let is_deleted =
        server.is_some_and(|server| server.metadata.label("game.kruise.io/gs-deleting") == Some("true"));
    let ops_state = ops_state(meta, server);
    is_deleted
        || is_disabled(meta, server)
        || ops_state.is_some_and(|state| rules.ops_states.get(state) == Some(&Door::Drain))
}

/// `networkDisabled`: the GameServer's word, or the pod's label, which is a copy of it.
///
/// OpenKruiseGame means it to cut off players too. xDS can't end a live stream, so they stay and no new one
/// comes: the pod's own death, or a `NetworkPolicy`, cuts.
pub(super) fn is_disabled(meta: &Meta, server: Option<&GameServer>) -> bool {
    let label = || meta.label("game.kruise.io/network-disabled") == Some("true");
    server.and_then(|server| server.spec.network_disabled).unwrap_or_else(label)
}

/// The GameServer's word is a hop nearer than the label it is copied to. One whose GameServer was deleted
/// around it (reclaim policy Cascade) has the label yet.
fn ops_state<'a>(meta: &'a Meta, server: Option<&'a GameServer>) -> Option<&'a str> {
    let said = server.and_then(|server| server.spec.ops_state.as_deref()).filter(|state| !state.is_empty());
    said.or_else(|| meta.label("game.kruise.io/gs-opsState"))
}

/// A hook waits, before a deletion or an update, for players to leave or for data to be written.
fn is_in_hook(pod: &Pod) -> bool {
    matches!(pod.metadata.label(LIFECYCLE), Some("PreparingDelete" | "PreparingUpdate"))
}

fn is_running(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_deref(), None | Some("Running"))
}

fn is_ready(pod: &Pod, port: Option<u16>, allowed: &[&str], readiness: Readiness) -> bool {
    let is_allowed = |container: &Container| allowed.contains(&&*container.name);
    match readiness {
        Readiness::Container => owner(pod, port).map_or_else(
            || pod.is("ContainersReady"),
            |owner| {
                is_allowed(owner)
                    || pod.is_container_ready(&owner.name).unwrap_or_else(|| pod.is("ContainersReady"))
            },
        ),
        // What `AllowNotReadyContainers` names may be down while the rest of the pod takes players.
        Readiness::Pod => {
            let is_up = |container: &Container| {
                is_allowed(container) || pod.is_container_ready(&container.name) == Some(true)
            };
            pod.is("Ready") || (!allowed.is_empty() && pod.spec.containers.iter().all(is_up))
        }
    }
}

/// The container that has the port. Many declare none: then it is the first, where the game is by custom.
fn owner(pod: &Pod, port: Option<u16>) -> Option<&Container> {
    let containers = &pod.spec.containers;
    let has_port =
        |container: &&Container| container.ports.iter().any(|held| Some(held.container_port) == port);
    containers.iter().find(has_port).or_else(|| containers.first())
}
