//! The floor of a round trip: players on a game server of their own with no front between, in the same process and
//! the same seconds. What their messages take longer under churn, no front is to blame for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;

use super::games::small;
use super::oracle::Oracle;

/// So many players, ...
const PLAYERS: u32 = 100;
/// ... each of whom says something so often: 3,000 round trips in 15 quiet seconds, so that there is a 99th percentile.
const PAUSE: Duration = Duration::from_millis(500);

/// They play until this is dropped.
pub(super) struct Direct(#[expect(dead_code, reason = "held for its drop")] JoinSet<()>);

impl Direct {
    /// They come to the server at this address.
    pub(super) fn begin(server: SocketAddr, oracle: &Arc<Oracle>) -> Self {
        let mut players = JoinSet::new();
        for number in 0..PLAYERS {
            let oracle = oracle.clone();
            players.spawn(async move {
                // Where one can't play there is a message less to compare with.
                _ = play(server, number, &oracle).await;
            });
        }
        Self(players)
    }
}

async fn play(server: SocketAddr, number: u32, oracle: &Oracle) -> anyhow::Result<()> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async_with_config("ws://direct/", stream, Some(small())).await?;
    // Each in its own part of the pause.
    let mut beat = interval_at(tokio::time::Instant::now() + PAUSE * number / PLAYERS, PAUSE);
    // As the players' own.
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        let said = Instant::now();
        socket.send(Message::text(number.to_string())).await?;
        let Some(answer) = socket.next().await else { return Ok(()) };
        answer?;
        oracle.answered_directly(said.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::super::games::Games;
    use super::super::record::Phase;
    use super::super::world::Addresses;
    use super::*;

    #[tokio::test]
    async fn round_trips_without_a_front_are_counted_by_phase() {
        let games = Games::start().await.unwrap();
        let oracle = Arc::new(Oracle::new());
        let _direct = Direct::begin(games.rival(), &oracle);
        let counted = async |phase| {
            oracle.phase("a phase", phase);
            while oracle.direct(phase).is_none() {
                tokio::task::yield_now().await;
            }
        };
        let both = async { (counted(Phase::Quiet).await, counted(Phase::Churn).await) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("answers in time");
        let seen = oracle.finish();
        assert!(seen.direct_quiet.is_some() && seen.direct_churn.is_some());
        assert!(seen.quiet.is_none() && seen.churn.is_none(), "they are nobody's players");
    }
}
