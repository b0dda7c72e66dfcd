//! The game of `tidegate demo`: a shared pixel canvas with the other players' cursors.
//!
//! The canvas lives in one server's memory and nowhere else, so a player who lands elsewhere sees it at once.
//! What players do is collected and told to all in frames: a frame costs the players times what changed,
//! however fast they send. A game server is a thread with its own runtime, so stopping it ends every task and
//! socket it has, as ending a process would.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use http::{StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at, timeout};
use tracing::{debug, info, warn};

use crate::cli::MAX_GAMES;

/// Cells in a row of the canvas.
pub const WIDTH: u8 = 48;
/// Rows of the canvas.
pub const HEIGHT: u8 = 27;
/// Colours a cell can have; 0 is the empty canvas.
pub const COLOURS: u8 = 13;
/// Longest message a player may send, in bytes; a longer one ends that player's connection.
pub const MESSAGE_LIMIT: usize = 1024;
/// Most players on one server; the next is answered with 503.
pub const PLAYER_LIMIT: usize = 200;
/// Most cells one message may paint.
pub const CELL_LIMIT: usize = 64;

const CELLS: usize = WIDTH as usize * HEIGHT as usize;
const FRAME: Duration = Duration::from_millis(33);
const BEAT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(65);
const PATIENCE: Duration = Duration::from_secs(5);
const FAREWELL: Duration = Duration::from_millis(500);
/// Two seconds of frames; who is further behind is sent the whole canvas instead.
const BACKLOG: usize = 64;

const PAGE: &str = include_str!("page.html");
// Sockets are named beside 'self' because older browsers do not count `ws:` as the same origin.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'";

const MANNERS: [&str; 16] = [
    "Amber", "Brave", "Calm", "Dapper", "Eager", "Fuzzy", "Gentle", "Happy", "Ivory", "Jolly", "Keen",
    "Lucky", "Merry", "Nimble", "Plucky", "Quiet",
];
const ANIMALS: [&str; 16] = [
    "Otter", "Heron", "Lynx", "Badger", "Puffin", "Gecko", "Walrus", "Fox", "Newt", "Crane", "Seal", "Moth",
    "Bison", "Wren", "Koala", "Tern",
];

type PlayerId = u32;

/// The game servers of a demo: one for each wanted address. Dropping it stops them all.
#[derive(Default)]
pub struct Arcade {
    games: BTreeMap<(String, SocketAddr), Game>,
}

/// What a [`Arcade::reconcile`] did; empty when the wanted servers were already there.
#[derive(Debug, Default)]
pub struct Changes {
    /// Servers that now listen, by name, with the address they got.
    pub started: Vec<(String, SocketAddr)>,
    /// Servers that are gone with all their sockets.
    pub stopped: Vec<(String, SocketAddr)>,
    /// Wanted servers that could not be started; the next reconcile tries again.
    pub failed: Vec<(String, SocketAddr, Refusal)>,
}

/// Why a game server was not started.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The address is reachable from elsewhere, and a demo is for this computer only.
    #[error("{0} is not 127.0.0.1: a demo game server listens on loopback only")]
    NotLoopback(SocketAddr),
    /// The address could not be bound, mostly because its port is in use.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, #[source] io::Error),
    /// The arcade is full.
    #[error("there are {MAX_GAMES} game servers already")]
    TooMany,
    /// The system gave no thread to run it.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

struct Game {
    address: SocketAddr,
    world: Arc<World>,
    stop: watch::Sender<()>,
    /// Resolves when the thread and everything it ran have ended.
    ended: oneshot::Receiver<()>,
}

#[derive(Clone)]
struct Site {
    page: Bytes,
    world: Arc<World>,
    stop: watch::Receiver<()>,
}

struct World {
    name: String,
    state: Mutex<Canvas>,
    news: broadcast::Sender<Utf8Bytes>,
    left: Notify,
}

struct Canvas {
    cells: [u8; CELLS],
    players: BTreeMap<PlayerId, Player>,
    last_id: PlayerId,
    /// Cells and cursors that changed since the last frame.
    painted: BTreeSet<(u8, u8)>,
    moved: BTreeSet<PlayerId>,
}

#[derive(Clone, Serialize)]
struct Player {
    id: PlayerId,
    name: String,
    hue: u32,
    at: Option<(f32, f32)>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromPlayer {
    Paint { colour: u8, cells: Vec<(u8, u8)> },
    Cursor { at: Option<(f32, f32)> },
    Ping { n: u64 },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ToPlayer<'a> {
    Welcome { server: &'a str, you: PlayerId, width: u8, height: u8, cells: String, players: Vec<&'a Player> },
    Joined { player: &'a Player },
    Left { id: PlayerId },
    Frame { cells: Vec<(u8, u8, u8)>, cursors: Vec<(PlayerId, Option<(f32, f32)>)> },
    Pong { n: u64 },
    Error { message: &'a str },
}

/// A place at the canvas; dropping it leaves.
struct Seat {
    world: Arc<World>,
    id: PlayerId,
    messages: Allowance,
    cells: Allowance,
}

/// A token bucket: `rate` a second, saved up to `most`.
struct Allowance {
    rate: f32,
    most: f32,
    left: f32,
    since: Instant,
}

enum Turn {
    Send(Message),
    Resync,
    Wait,
    End(Option<CloseFrame>),
}

impl Arcade {
    /// An arcade without games.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the servers that are not wanted, then starts those that are wanted and missing.
    ///
    /// A server is its name and its address. Port 0 is a free port, told in [`Changes::started`].
    pub async fn reconcile(&mut self, wanted: &[(String, SocketAddr)]) -> Changes {
        let mut changes = Changes::default();
        let wanted: BTreeSet<_> = wanted.iter().collect();
        // A server whose thread has ended by itself hears nothing any more, and is started again.
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.games)
            .into_iter()
            .partition(|(key, game)| wanted.contains(key) && !game.stop.is_closed());
        self.games = kept;
        let gone = gone.into_iter().map(|((name, _), game)| {
            drop(game.stop);
            (name, game.address, game.ended)
        });
        // All are told to stop before the first is waited for.
        for (name, address, ended) in gone.collect::<Vec<_>>() {
            // The sender is never used: that it is dropped is the signal.
            let _ = ended.await;
            info!(server = name, %address, "game server stopped");
            changes.stopped.push((name, address));
        }
        for key in wanted {
            if self.games.contains_key(key) {
                continue;
            }
            let (name, address) = key;
            let room = self.games.len() < MAX_GAMES;
            match if room { Game::start(name, *address) } else { Err(Refusal::TooMany) } {
                Ok(game) => {
                    info!(server = name, address = %game.address, "game server started");
                    changes.started.push((name.clone(), game.address));
                    self.games.insert(key.clone(), game);
                }
                Err(why) => changes.failed.push((name.clone(), *address, why)),
            }
        }
        changes
    }

    /// How many players each server has, by name.
    pub fn players(&self) -> Vec<(String, usize)> {
        self.games.iter().map(|((name, _), game)| (name.clone(), game.world.lock().players.len())).collect()
    }
}

impl Changes {
    /// Whether nothing was done and nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.started.is_empty() && self.stopped.is_empty() && self.failed.is_empty()
    }
}

impl Game {
    fn start(name: &str, wanted: SocketAddr) -> Result<Self, Refusal> {
        if wanted.ip() != Ipv4Addr::LOCALHOST {
            return Err(Refusal::NotLoopback(wanted));
        }
        let bind = |why| Refusal::Bind(wanted, why);
        let listener = std::net::TcpListener::bind(wanted).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;

        let world = Arc::new(World::new(name));
        let (stop, stopped) = watch::channel(());
        let (running, ended) = oneshot::channel();
        let site = Site {
            page: PAGE.replace("{{server}}", &escape(name)).into(),
            world: world.clone(),
            stop: stopped,
        };
        let run = move || {
            // Made here, because a runtime may not be dropped where another one runs.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Err(error) = runtime.and_then(|runtime| runtime.block_on(site.run(listener))) {
                warn!(%error, "game server ended");
            }
            // The runtime is gone by now: who waits for the end finds every socket closed.
            drop(running);
        };
        thread::Builder::new().name("game".into()).spawn(run).map_err(Refusal::Thread)?;
        Ok(Self { address, world, stop, ended })
    }
}

impl Site {
    async fn run(self, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let world = self.world.clone();
        let mut stop = self.stop.clone();
        let app = Router::new().fallback(get(answer)).with_state(self);
        tokio::select! {
            served = axum::serve(listener, app) => served?,
            () = world.tell_frames() => {}
            _ = stop.changed() => {}
        }
        // The players' tasks heard the stop as well; those that cannot be told are dropped with the runtime.
        let _ = timeout(FAREWELL, world.emptied()).await;
        Ok(())
    }
}

async fn answer(
    State(site): State<Site>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    // Only the last segment counts: the same server works at `/` and under any prefix a route gives it.
    match uri.path().rsplit('/').next().unwrap_or_default() {
        "" => page(site.page),
        "ws" => enter(site, upgrade),
        "healthz" => "ok\n".into_response(),
        // `./` keeps a segment such as `a:b` from being read as a scheme.
        last if !last.contains('.') => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("./{last}/"))]).into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "nothing here"),
    }
}

fn page(page: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, page).into_response()
}

fn enter(site: Site, upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>) -> Response {
    let Ok(upgrade) = upgrade else {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket");
    };
    if site.world.lock().players.len() >= PLAYER_LIMIT {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "this server is full");
    }
    upgrade
        .max_message_size(MESSAGE_LIMIT)
        .max_frame_size(MESSAGE_LIMIT)
        .on_upgrade(|socket| play(socket, site.world, site.stop))
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "message": message }))).into_response()
}

async fn play(mut socket: WebSocket, world: Arc<World>, mut stop: watch::Receiver<()>) {
    // Asked again: others may have taken the last seat between the answer and the upgrade.
    let Some(mut seat) = Seat::take(&world) else {
        let full = Message::Close(Some(why(close_code::AGAIN, "this server is full")));
        return say(&mut socket, full).await.unwrap_or_default();
    };
    let (welcome, mut news) = seat.look();
    let mut heard = Instant::now();
    let mut beat = interval_at(tokio::time::Instant::now() + BEAT, BEAT);
    let mut turn = Turn::Send(welcome);
    loop {
        let said = match turn {
            Turn::Send(message) => say(&mut socket, message).await,
            Turn::Resync => {
                let (welcome, fresh) = seat.look();
                news = fresh;
                say(&mut socket, welcome).await
            }
            Turn::Wait => Some(()),
            Turn::End(frame) => {
                say(&mut socket, Message::Close(frame)).await;
                return;
            }
        };
        if said.is_none() {
            debug!(player = seat.id, "player could not be told, and was let go");
            return;
        }
        turn = tokio::select! {
            message = socket.recv() => {
                heard = Instant::now();
                seat.hear(message)
            }
            told = news.recv() => match told {
                Ok(text) => Turn::Send(Message::Text(text)),
                Err(broadcast::error::RecvError::Lagged(_)) => Turn::Resync,
                Err(broadcast::error::RecvError::Closed) => Turn::End(None),
            },
            _ = beat.tick() => if heard.elapsed() > SILENCE {
                Turn::End(Some(why(close_code::POLICY, "nothing heard for too long")))
            } else {
                // A ping of the protocol is answered by a browser even when its tab sleeps.
                Turn::Send(Message::Ping(Bytes::new()))
            },
            _ = stop.changed() => Turn::End(Some(why(close_code::AWAY, "this server is stopping"))),
        };
    }
}

/// Sends, and gives up on who does not take it in time.
async fn say(socket: &mut WebSocket, message: Message) -> Option<()> {
    timeout(PATIENCE, socket.send(message)).await.ok()?.ok()
}

fn why(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}

impl Seat {
    fn take(world: &Arc<World>) -> Option<Self> {
        let mut canvas = world.lock();
        if canvas.players.len() >= PLAYER_LIMIT {
            return None;
        }
        canvas.last_id = canvas.last_id.wrapping_add(1);
        let id = canvas.last_id;
        let player = Player::new(id);
        world.tell(&ToPlayer::Joined { player: &player });
        canvas.players.insert(id, player);
        let (messages, cells) = (Allowance::new(100, 200), Allowance::new(600, 1200));
        Some(Self { world: world.clone(), id, messages, cells })
    }

    /// The whole canvas, and the news from that moment on.
    fn look(&self) -> (Message, broadcast::Receiver<Utf8Bytes>) {
        // News are told under the same lock, so none falls between the two.
        let canvas = self.world.lock();
        let welcome = ToPlayer::Welcome {
            server: &self.world.name,
            you: self.id,
            width: WIDTH,
            height: HEIGHT,
            cells: canvas.cells.iter().map(|&colour| char::from(b'a' + colour)).collect(),
            players: canvas.players.values().collect(),
        };
        (Message::Text(welcome.text()), self.world.news.subscribe())
    }

    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Turn {
        match message {
            Some(Ok(Message::Text(_) | Message::Binary(_))) if !self.messages.spend(1) => Turn::Wait,
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(FromPlayer::Ping { n }) => Turn::Send(Message::Text(ToPlayer::Pong { n }.text())),
                Ok(FromPlayer::Cursor { at }) => {
                    self.point(at);
                    Turn::Wait
                }
                Ok(FromPlayer::Paint { colour, cells }) => match self.paint(colour, &cells) {
                    Ok(()) => Turn::Wait,
                    Err(message) => complain(message),
                },
                Err(_) => complain("not a message of this game"),
            },
            Some(Ok(Message::Binary(_))) => complain("messages are text"),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Turn::Wait,
            // The protocol's answer to a close was sent by the socket itself.
            Some(Ok(Message::Close(_))) | None => Turn::End(None),
            Some(Err(error)) => {
                debug!(player = self.id, %error, "player cannot be heard");
                Turn::End(Some(why(close_code::SIZE, "unreadable: a message is at most 1024 bytes of text")))
            }
        }
    }

    fn point(&self, at: Option<(f32, f32)>) {
        let at = at.map(|(x, y)| (x.clamp(0.0, f32::from(WIDTH)), y.clamp(0.0, f32::from(HEIGHT))));
        let mut canvas = self.world.lock();
        if let Some(player) = canvas.players.get_mut(&self.id) {
            player.at = at;
            canvas.moved.insert(self.id);
        }
    }

    fn paint(&mut self, colour: u8, cells: &[(u8, u8)]) -> Result<(), &'static str> {
        if colour >= COLOURS {
            return Err("there is no such colour");
        }
        if cells.len() > CELL_LIMIT {
            return Err("too many cells in one message");
        }
        if cells.iter().any(|&(x, y)| x >= WIDTH || y >= HEIGHT) {
            return Err("that is outside the canvas");
        }
        if !self.cells.spend(cells.len()) {
            return Err("you paint too fast");
        }
        let mut canvas = self.world.lock();
        for &(x, y) in cells {
            canvas.cells[place(x, y)] = colour;
            canvas.painted.insert((x, y));
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut canvas = self.world.lock();
        canvas.players.remove(&self.id);
        self.world.tell(&ToPlayer::Left { id: self.id });
        drop(canvas);
        self.world.left.notify_one();
    }
}

impl World {
    fn new(name: &str) -> Self {
        let canvas = Canvas {
            cells: [0; CELLS],
            players: BTreeMap::new(),
            last_id: 0,
            painted: BTreeSet::new(),
            moved: BTreeSet::new(),
        };
        Self {
            name: name.to_owned(),
            state: Mutex::new(canvas),
            news: broadcast::Sender::new(BACKLOG),
            left: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Canvas> {
        // A canvas is good after any panic: no change of it has a half.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, news: &ToPlayer<'_>) {
        // Err is that nobody listens.
        let _ = self.news.send(news.text());
    }

    async fn tell_frames(&self) {
        let mut clock = interval(FRAME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let mut canvas = self.lock();
            if let Some(frame) = canvas.frame() {
                self.tell(&frame);
            }
        }
    }

    async fn emptied(&self) {
        while !self.lock().players.is_empty() {
            self.left.notified().await;
        }
    }
}

impl Canvas {
    /// What changed since the last frame; `None` when nothing did.
    fn frame(&mut self) -> Option<ToPlayer<'static>> {
        let painted = std::mem::take(&mut self.painted);
        let moved = std::mem::take(&mut self.moved);
        let cells: Vec<_> = painted.into_iter().map(|(x, y)| (x, y, self.cells[place(x, y)])).collect();
        let cursors: Vec<_> =
            moved.iter().filter_map(|id| self.players.get(id)).map(|player| (player.id, player.at)).collect();
        (!cells.is_empty() || !cursors.is_empty()).then_some(ToPlayer::Frame { cells, cursors })
    }
}

impl Player {
    fn new(id: PlayerId) -> Self {
        let manner = MANNERS[id as usize % MANNERS.len()];
        // 7 and 16 share no factor: every pair of words comes before one repeats.
        let animal = ANIMALS[(id as usize / MANNERS.len() + id as usize * 7) % ANIMALS.len()];
        // The golden angle: hues of neighbours are far apart.
        Self { id, name: format!("{manner} {animal}"), hue: id % 360 * 137 % 360, at: None }
    }
}

impl ToPlayer<'_> {
    fn text(&self) -> Utf8Bytes {
        serde_json::to_string(self).expect("numbers and strings always have a JSON text").into()
    }
}

impl Allowance {
    fn new(rate: u16, most: u16) -> Self {
        Self { rate: rate.into(), most: most.into(), left: most.into(), since: Instant::now() }
    }

    fn spend(&mut self, amount: usize) -> bool {
        let amount = u16::try_from(amount).map_or(f32::INFINITY, f32::from);
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs_f32() * self.rate;
        self.since = now;
        self.left = (self.left + earned).min(self.most);
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }
}

fn complain(message: &str) -> Turn {
    Turn::Send(Message::Text(ToPlayer::Error { message }.text()))
}

fn place(x: u8, y: u8) -> usize {
    usize::from(y) * usize::from(WIDTH) + usize::from(x)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
