//! Game servers: each at a loopback address that no other had before, so that an Envoy that is behind can't take one
//! for another. They echo on WebSockets behind their own name, tell plain requests who they are, and cheat when told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::world::{Addresses, name};

/// The header in which a game server says who it is: `NAME/LIFE`.
pub(super) const GAME: &str = "x-game";
/// Longest head of a request.
const HEAD: usize = 16 << 10;

/// Buffers for short messages: the default is 128 KiB on each side of each player.
pub(super) fn small() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(1 << 10).write_buffer_size(0)
}

/// How many messages are still to be spoiled, by kind: for the self-test.
#[derive(Debug, Default)]
pub(super) struct Cheats {
    /// Not answered.
    pub(super) swallow: AtomicU32,
    /// Answered twice.
    pub(super) repeat: AtomicU32,
    /// Answered behind the next.
    pub(super) swap: AtomicU32,
    /// Answered in another's name.
    pub(super) pretend: AtomicU32,
}

fn take(count: &AtomicU32) -> bool {
    // Nearly always there is nothing to take, and nothing to write then.
    count.load(Ordering::Relaxed) > 0
        && count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// A running game server; with it end all connections to it.
#[derive(Debug)]
struct Game {
    address: SocketAddr,
    identity: Arc<str>,
    task: AbortHandle,
}

impl Drop for Game {
    fn drop(&mut self) {
        // The connections are in the task's own set.
        self.task.abort();
    }
}

/// All that run.
pub(super) struct Games {
    running: BTreeMap<u32, Game>,
    rival: Game,
    /// How many addresses were given away.
    given: u32,
    pub(super) cheats: Arc<Cheats>,
}

impl Games {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let cheats = Arc::<Cheats>::default();
        let rival = Game::start(0, "rival".into(), &cheats).await?;
        Ok(Self { running: BTreeMap::new(), rival, given: 0, cheats })
    }

    /// Starts a server, in place of one that has its number.
    pub(super) async fn run(&mut self, server: u32, life: u32) -> anyhow::Result<()> {
        self.given += 1;
        let identity = format!("{}/{life}", name(server)).into();
        let game = Game::start(self.given, identity, &self.cheats).await?;
        self.running.insert(server, game);
        Ok(())
    }

    /// Ends a server.
    pub(super) fn end(&mut self, server: u32) {
        self.running.remove(&server);
    }

    /// `NAME/LIFE` of a server that runs.
    pub(super) fn identity(&self, server: u32) -> Option<Arc<str>> {
        Some(self.running.get(&server)?.identity.clone())
    }
}

impl Addresses for Games {
    fn of(&self, server: u32) -> Option<SocketAddr> {
        Some(self.running.get(&server)?.address)
    }

    fn rival(&self) -> SocketAddr {
        self.rival.address
    }
}

impl Game {
    async fn start(number: u32, identity: Arc<str>, cheats: &Arc<Cheats>) -> anyhow::Result<Self> {
        // 127.64.0.0 and up: four million, and far from those that other programs use.
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + number);
        let listener = TcpListener::bind((ip, 0)).await;
        let listener = listener.with_context(|| {
            format!("a game server at {ip}: all of 127.0.0.0/8 must be loopback, as on Linux")
        })?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, identity.clone(), cheats.clone())).abort_handle();
        Ok(Self { address, identity, task })
    }
}

async fn accept(listener: TcpListener, identity: Arc<str>, cheats: Arc<Cheats>) {
    let mut inside = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Without a free descriptor it would fail again at once.
                let Ok((stream, _)) = accepted else { tokio::task::yield_now().await; continue };
                let (identity, cheats) = (identity.clone(), cheats.clone());
                inside.spawn(async move { _ = attend(stream, &identity, &cheats).await; });
            }
            Some(_) = inside.join_next() => {}
        }
    }
}

/// Serves one connection.
async fn attend(stream: TcpStream, identity: &str, cheats: &Cheats) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(1 << 10, stream);
    loop {
        let (mut key, mut line, mut size) = (None, String::new(), 0);
        loop {
            line.clear();
            let read = stream.read_line(&mut line).await?;
            size += read;
            if read == 0 || size > HEAD {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some((field, value)) = line.trim_end().split_once(": ")
                && field.eq_ignore_ascii_case("sec-websocket-key")
            {
                key = Some(derive_accept_key(value.as_bytes()));
            }
        }
        let Some(accept) = key else {
            let answer = format!("HTTP/1.1 200 OK\r\n{GAME}: {identity}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
            continue;
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {accept}\r\n{GAME}: {identity}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        return echo(stream, identity, cheats).await;
    }
}

/// What a server makes of a message: its own name before it.
fn answer(identity: &str, text: &str) -> Message {
    Message::text(format!("{identity} {text}"))
}

async fn echo(stream: BufReader<TcpStream>, identity: &str, cheats: &Cheats) -> std::io::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(small())).await;
    let mut held = None;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        if take(&cheats.swallow) {
            continue;
        }
        let name = if take(&cheats.pretend) { "somebody/0" } else { identity };
        let message = answer(name, &text);
        if held.is_none() && take(&cheats.swap) {
            held = Some(message);
            continue;
        }
        let twice = take(&cheats.repeat).then(|| message.clone());
        for message in [Some(message), twice, held.take()].into_iter().flatten() {
            if socket.send(message).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
