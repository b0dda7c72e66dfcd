//! What a GameServer's state means to players, and what the game itself may say of its door.

use std::collections::BTreeMap;

use super::{At, GameServer, Words, short};
use crate::kinds::{Meta, PublishAt, Rules};
use crate::model::{Problem, ProblemKind};
use crate::spec::{PREFIX, State};

/// What the game writes with the SDK's `SetAnnotation("tidegate-<key>", …)`.
const SAID: &str = "agones.dev/sdk-tidegate-";
/// What the game may say: of its own door alone. A game that players have broken into can't take a host.
const MAY_SAY: [&str; 3] = ["drain", "maintenance", "max-sessions"];

/// How a server stands with players.
pub(super) struct Life {
    pub(super) state: State,
    pub(super) problem: Option<Problem>,
}

/// `None` before it is scheduled, and for what ended before that: it had no address, so it never had players.
///
/// A `deletionTimestamp` leaves the state as it was (Allocated, say) through all of the pod's grace
/// period, and is an end like Shutdown: those inside stay, nobody new comes.
pub(super) fn of(server: &GameServer, rules: &Rules) -> Option<Life> {
    let (meta, status) = (&server.metadata, &server.status);
    let ending = || status.is_told().then_some(State::Draining);
    let mut problem = None;
    let state = match &*status.state {
        "" | "PortAllocation" | "Creating" | "Starting" => None,
        _ if meta.deleting => ending(),
        "Shutdown" | "Unhealthy" | "Error" => ending(),
        "Scheduled" | "RequestReady" => Some(match rules.publish_at {
            // A game that asks to be used again was open already; its loop must not shut the door.
            PublishAt::Ready if !was_ready(meta) => State::Starting,
            PublishAt::Ready | PublishAt::Scheduled => State::Ready,
        }),
        "Ready" | "Reserved" | "Allocated" => Some(State::Ready),
        // Whatever a later Agones means by it: those inside are kept, and nobody is let in on a guess.
        unknown => {
            let why = format!(
                "{:?} is not a state that is known; the server takes no new players, those inside stay",
                short(unknown)
            );
            problem = Some(Problem::new(ProblemKind::BadValue, "status.state", why));
            ending()
        }
    };
    Some(Life { state: state?, problem })
}

/// True of a server that was Ready before: the controller writes the one as it makes it Ready, the
/// allocator the other. They stay for the object's life.
fn was_ready(meta: &Meta) -> bool {
    ["agones.dev/ready-container-id", "agones.dev/last-allocated"]
        .into_iter()
        .any(|key| meta.annotation(key).is_some())
}

/// What the game says of its own door. It goes before what stands on the object, except that a game
/// can't open a door that somebody else has shut.
pub(super) fn said_by_the_game(meta: &Meta, own: &BTreeMap<String, String>, at: At) -> Words {
    let mut words = Words::default();
    let is_shut = |key: &str| own.get(&format!("{PREFIX}{key}")).is_some_and(|value| value.trim() != "false");
    for (full, value) in &meta.annotations {
        let Some(key) = full.strip_prefix(SAID) else { continue };
        if !MAY_SAY.contains(&key) {
            let why = format!(
                "can't be said by the game, which may say {}; write {PREFIX}{key} on the GameServer",
                MAY_SAY.join(", ")
            );
            words.wrong(ProblemKind::UnknownField, at.annotation(full), why);
        } else if key == "max-sessions" || !is_shut(key) {
            words.say(key, value.as_str(), at.annotation(full));
        }
    }
    words
}
