//! Players who notice everything: each message has a number, and comes back once, in order, from the server that they
//! are on. Who falls comes back elsewhere; half of them move on by themselves now and then, the others never do.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::games::{GAME, small};
use super::oracle::{Oracle, Wrong};
use super::world::Target;

/// A front that takes longer to let a player in has not answered.
const KNOCK: Duration = Duration::from_secs(15);
/// Who is refused asks elsewhere after this.
const AGAIN: Duration = Duration::from_millis(200);
/// A player whom nobody lets in for so long is locked out: all servers but a few are open all the time.
const LOCKED_OUT: Duration = Duration::from_secs(20);
/// Half of the players stay for so long. Seconds.
const STAY: (f64, f64) = (20.0, 120.0);
/// Players who knock at once: a crowd, and not a flood that would be measured in place of what is behind it.
const KNOCKING: usize = 32;

/// What players know.
pub(super) struct Doors {
    pub(super) front: SocketAddr,
    targets: Mutex<Arc<Vec<Target>>>,
    /// An answer that takes longer never comes.
    lost_after: Duration,
    /// Who fell knocks again within this time, each at a moment of his own.
    rejoin: Duration,
    /// Half of the players move on by themselves.
    moving: bool,
    knocking: Semaphore,
    oracle: Arc<Oracle>,
}

impl Doors {
    pub(super) fn new(
        front: SocketAddr,
        targets: Vec<Target>,
        lost_after: Duration,
        rejoin: Duration,
        moving: bool,
        oracle: Arc<Oracle>,
    ) -> Arc<Self> {
        let targets = Mutex::new(Arc::new(targets));
        let knocking = Semaphore::new(KNOCKING);
        Arc::new(Self { front, targets, lost_after, rejoin, moving, knocking, oracle })
    }

    /// From now on players go there.
    pub(super) fn lead_to(&self, targets: Vec<Target>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(targets);
    }

    fn pick(&self, random: &mut Rng) -> Option<Target> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!targets.is_empty()).then(|| targets[random.usize(..targets.len())].clone())
    }
}

/// All players.
pub(super) struct Crowd {
    players: JoinSet<()>,
    leave: watch::Sender<bool>,
    lost_after: Duration,
}

impl Crowd {
    /// They come at once, and say something every `pause`.
    pub(super) fn gather(doors: &Arc<Doors>, players: u32, pause: Duration, seed: u64) -> Self {
        let (leave, leaving) = watch::channel(false);
        let mut set = JoinSet::new();
        for number in 0..players {
            let random = Rng::with_seed(seed ^ (u64::from(number) << 20));
            let player =
                Player { number, doors: doors.clone(), random, pause, leaving: leaving.clone(), session: 0 };
            set.spawn(player.play());
        }
        Self { players: set, leave, lost_after: doors.lost_after }
    }

    /// Waits for their last answers, and lets them go.
    pub(super) async fn go(mut self) -> anyhow::Result<()> {
        self.leave.send_replace(true);
        let all = async {
            while let Some(ended) = self.players.join_next().await {
                ended.context("a player's task")?;
            }
            anyhow::Ok(())
        };
        timeout(KNOCK + self.lost_after * 2, all).await.context("not all players went in time")?
    }
}

struct Player {
    number: u32,
    doors: Arc<Doors>,
    random: Rng,
    pause: Duration,
    leaving: watch::Receiver<bool>,
    session: u32,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By his own will.
    Left,
    /// By the other side.
    Fell,
}

/// A place on a server.
struct Seat {
    socket: WebSocketStream<TcpStream>,
    identity: Arc<str>,
}

impl Player {
    async fn play(mut self) {
        let (mut outside, mut leaving) = (Instant::now(), self.leaving.clone());
        loop {
            let Some(target) = self.doors.pick(&mut self.random) else {
                // Where every door is closed nobody locks him out: he waits until one opens.
                outside = Instant::now();
                if !self.rest_outside().await {
                    return;
                }
                continue;
            };
            let sat = tokio::select! {
                biased;
                () = over(&mut leaving) => return,
                sat = self.knock(&target) => sat,
            };
            match sat {
                Ok(seat) => {
                    self.session += 1;
                    self.doors.oracle.joined();
                    if self.stay(seat).await == End::Fell {
                        let pause = self.doors.rejoin.mul_f64(self.random.f64());
                        if !self.rest(pause).await {
                            return;
                        }
                    }
                    outside = Instant::now();
                }
                Err(error) => {
                    self.doors.oracle.refused();
                    if outside.elapsed() > LOCKED_OUT {
                        let detail = format!("for {LOCKED_OUT:?}, at last {}: {error:#}", target.host);
                        self.doors.oracle.wrong(Wrong::LockedOut, self.number, "", detail);
                        outside = Instant::now();
                    }
                    if !self.rest_outside().await {
                        return;
                    }
                }
            }
        }
    }

    /// Until he asks again: not all of them at the same moment. Whether he does.
    async fn rest_outside(&mut self) -> bool {
        let pause = AGAIN + Duration::from_millis(self.random.u64(..200));
        self.rest(pause).await
    }

    /// Lets the time pass; whether he plays on.
    async fn rest(&self, pause: Duration) -> bool {
        let mut leaving = self.leaving.clone();
        tokio::select! {
            () = sleep(pause) => true,
            () = over(&mut leaving) => false,
        }
    }

    /// Whether he never moves on by himself.
    fn stays(&self) -> bool {
        !self.doors.moving || self.number.is_multiple_of(2)
    }

    /// Until he wants to go: nobody comes to his first server just when the run begins, so that as many move on a
    /// second at its begin as at any other time.
    fn stays_for(&mut self) -> Duration {
        let ((least, most), random) = (STAY, &mut self.random);
        let seconds = if self.session == 1 {
            // What is left at a random moment of a stay: who stays longer is met more often.
            (least.powi(2) + random.f64() * (most.powi(2) - least.powi(2))).sqrt() * random.f64()
        } else {
            least + random.f64() * (most - least)
        };
        Duration::from_secs_f64(seconds)
    }

    async fn knock(&self, target: &Target) -> anyhow::Result<Seat> {
        let _one_of_few = self.doors.knocking.acquire().await?;
        let opening = async {
            let stream = TcpStream::connect(self.doors.front).await.context("no connection")?;
            stream.set_nodelay(true)?;
            let hello = client_async_with_config(format!("ws://{}/", target.host), stream, Some(small()));
            anyhow::Ok(hello.await?)
        };
        let (socket, answer) = timeout(KNOCK, opening).await.context("no answer in time")??;
        let identity = answer.headers().get(GAME).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = identity.split('/').next().unwrap_or_default();
        if !target.servers.iter().any(|server| server == name) {
            let detail = format!("{} led to {identity:?}, and should to {:?}", target.host, target.servers);
            let server = target.servers.first().map_or("", String::as_str);
            self.doors.oracle.wrong(Wrong::Stranger, self.number, server, detail);
        }
        Ok(Seat { socket, identity: identity.into() })
    }

    /// Plays until he wants to go, must, or the other side hangs up.
    async fn stay(&mut self, mut seat: Seat) -> End {
        let oracle = self.doors.oracle.clone();
        let phase = self.pause.mul_f64(self.random.f64());
        let mut beat = interval_at(tokio::time::Instant::now() + phase, self.pause);
        // Who is late is not late for ever: with a pause counted anew, all whom a stall has held up would speak at once from
        // then on, every time, and be held up by each other.
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let stays = self.stays();
        let until = Instant::now() + self.stays_for();
        let mut talk = Talk::default();
        let (mut leaving, mut is_leaving) = (self.leaving.clone(), false);
        let saw = loop {
            tokio::select! {
                () = over(&mut leaving), if !is_leaving => is_leaving = true,
                _ = beat.tick() => {
                    for number in talk.overdue(Instant::now(), self.doors.lost_after) {
                        let detail = format!("message {number} of session {} got no answer in {:?}", self.session, self.doors.lost_after);
                        oracle.wrong(Wrong::Lost, self.number, &seat.identity, detail);
                    }
                    is_leaving |= !stays && Instant::now() > until;
                    if !is_leaving {
                        let number = talk.say(Instant::now());
                        let text = format!("{}.{}.{number}", self.number, self.session);
                        if let Err(error) = seat.socket.send(Message::text(text)).await {
                            break error.to_string();
                        }
                    }
                }
                message = seat.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.hear(&mut talk, &seat, &text),
                    Some(Ok(Message::Close(_))) => break "a close frame".to_owned(),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error.to_string(),
                    None => break "the end of the stream".to_owned(),
                },
            }
            if is_leaving && talk.is_over() {
                oracle.left();
                // The answer to a goodbye is nobody's concern: the seat is given up with it.
                _ = timeout(Duration::from_secs(1), seat.socket.close(None)).await;
                return End::Left;
            }
        };
        let waiting = talk.open.len();
        if !oracle.dropped(self.number, &seat.identity, waiting, &saw) {
            for (number, _) in &talk.open {
                let detail = format!("message {number} of session {} fell with its connection", self.session);
                oracle.wrong(Wrong::Lost, self.number, &seat.identity, detail);
            }
        }
        End::Fell
    }

    fn hear(&self, talk: &mut Talk, seat: &Seat, text: &str) {
        let wrong = |wrong, detail: String| {
            self.doors.oracle.wrong(wrong, self.number, &seat.identity, detail);
        };
        let mine = format!("{}.{}.", self.number, self.session);
        let number = text.split_once(' ').and_then(|(from, said)| {
            (from == &*seat.identity).then_some(())?;
            said.strip_prefix(&mine)?.parse().ok()
        });
        let Some(number) = number else {
            // It was an answer to something, though a false one: nothing is lost besides.
            talk.open.pop_front();
            return wrong(Wrong::Stranger, format!("heard {text:?}, and not {} {mine}…", seat.identity));
        };
        match talk.hear(number) {
            Heard::InTurn(said) => self.doors.oracle.answered(said.elapsed()),
            Heard::Late => wrong(Wrong::Reordered, format!("{text} came behind a later one")),
            Heard::Again => wrong(Wrong::Repeated, format!("{text} came again")),
        }
    }
}

/// Returns when the players should go.
async fn over(leaving: &mut watch::Receiver<bool>) {
    // Nobody who could say so any more is as good as a word.
    _ = leaving.wait_for(|leaving| *leaving).await;
}

/// The messages of a session.
#[derive(Default)]
struct Talk {
    said: u64,
    /// The least number that was not passed by an answer.
    next: u64,
    /// Said and not answered, in order.
    open: VecDeque<(u64, Instant)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Said then.
    InTurn(Instant),
    Late,
    Again,
}

impl Talk {
    fn say(&mut self, now: Instant) -> u64 {
        self.open.push_back((self.said, now));
        self.said += 1;
        self.said - 1
    }

    fn hear(&mut self, number: u64) -> Heard {
        let place = self.open.iter().position(|(open, _)| *open == number);
        let Some((_, said)) = place.and_then(|place| self.open.remove(place)) else { return Heard::Again };
        if number < self.next {
            return Heard::Late;
        }
        self.next = number + 1;
        Heard::InTurn(said)
    }

    /// Those whose time is over, each told of once.
    fn overdue(&mut self, now: Instant, limit: Duration) -> Vec<u64> {
        let mut over = Vec::new();
        while let Some((number, said)) = self.open.front().copied()
            && now.duration_since(said) > limit
        {
            self.open.pop_front();
            over.push(number);
        }
        over
    }

    fn is_over(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(front: SocketAddr, moving: bool) -> Arc<Doors> {
        Doors::new(front, Vec::new(), KNOCK, Duration::ZERO, moving, Arc::new(Oracle::new()))
    }

    #[test]
    fn half_of_the_players_move_on_where_players_do() {
        let movers = |moving| {
            let doors = doors(SocketAddr::from(([127, 0, 0, 1], 1)), moving);
            let player = |number| Player {
                number,
                doors: doors.clone(),
                random: Rng::with_seed(0),
                pause: KNOCK,
                leaving: watch::channel(false).1,
                session: 1,
            };
            (0..10).map(player).filter(|player| !player.stays()).count()
        };
        assert_eq!((movers(true), movers(false)), (5, 0));
    }

    #[tokio::test]
    async fn who_finds_every_door_closed_comes_in_when_one_opens() {
        let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let doors = doors(front.local_addr().unwrap(), true);
        let _crowd = Crowd::gather(&doors, 1, KNOCK, 0);
        // He looks, and there is no host to ask for.
        tokio::task::yield_now().await;
        doors.lead_to(vec![Target { host: "a.soak.localhost".into(), servers: vec!["soak-0".into()] }]);
        timeout(KNOCK, front.accept()).await.expect("he knocks in time").unwrap();
    }

    #[test]
    fn every_message_is_heard_once_and_in_order_or_it_is_noticed() {
        let (mut talk, then) = (Talk::default(), Instant::now());
        for number in 0..6 {
            assert_eq!(talk.say(then), number);
        }
        assert_eq!(talk.hear(0), Heard::InTurn(then));
        assert_eq!(talk.hear(0), Heard::Again);
        assert_eq!(talk.hear(2), Heard::InTurn(then));
        assert_eq!(talk.hear(1), Heard::Late);
        assert_eq!(talk.hear(1), Heard::Again);
        assert_eq!(talk.hear(99), Heard::Again, "what was never said");
        assert_eq!(talk.hear(5), Heard::InTurn(then));
        assert!(!talk.is_over() && talk.overdue(then, KNOCK).is_empty());
        assert_eq!(talk.overdue(then + KNOCK * 2, KNOCK), [3, 4]);
        assert!(talk.is_over());
    }
}
