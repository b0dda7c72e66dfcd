//! Game servers that echo, and players who notice everything: each message has a number, and comes back once, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{LIMIT, eventually};

/// How often a player says something.
const BEAT: Duration = Duration::from_millis(20);

/// A game server on a free port of this machine: echoes on a WebSocket, and tells plain requests who it is.
pub struct Game {
    /// Its port.
    pub port: u16,
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    requests: AtomicUsize,
}

impl Game {
    /// Starts a server that calls itself `name`.
    pub async fn start(name: &str) -> Self {
        Self::serve(name, TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// Starts servers as pods are: each at an address of its own, 127.0.0.1 and up, all on one port.
    pub async fn start_pods(names: &[&str]) -> Vec<Self> {
        for _ in 0..100 {
            let first = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = first.local_addr().expect("it is bound").port();
            let mut listeners = vec![first];
            for n in 2..=names.len() {
                listeners.extend(TcpListener::bind(format!("127.0.0.{n}:{port}")).await);
            }
            if listeners.len() == names.len() {
                return names
                    .iter()
                    .zip(listeners)
                    .map(|(name, listener)| Self::serve(name, listener))
                    .collect();
            }
        }
        panic!("no port is free on {} loopback addresses", names.len());
    }

    /// Serves who comes to this listener.
    pub fn serve(name: &str, listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("it is bound").port();
        let (name, counts) = (Arc::<str>::from(name), Arc::new(Counts::default()));
        let counted = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (name, counts) = (name.clone(), counted.clone());
                tokio::spawn(async move { _ = attend(stream, &name, &counts).await });
            }
        });
        Self { port, counts, task: task.abort_handle() }
    }

    /// Players who are inside.
    pub fn players(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Plain requests that were answered.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Game {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one connection.
async fn attend(mut stream: TcpStream, name: &str, counts: &Counts) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let header = |wanted: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
        };
        if let Some(key) = header("sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\nx-server: {name}\r\n\r\n"
            );
            // Before the answer: who has it is counted.
            counts.open.fetch_add(1, Ordering::SeqCst);
            let greeted = stream.write_all(answer.as_bytes()).await;
            if greeted.is_ok() {
                echo(stream).await;
            }
            counts.open.fetch_sub(1, Ordering::SeqCst);
            return greeted;
        }
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let body = json!({ "server": name, "path": path, "host": header("host") }).to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Says again what a player says, until he goes.
async fn echo(stream: TcpStream) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            break;
        }
    }
}

/// A WebSocket through Envoy.
pub type Socket = WebSocketStream<TcpStream>;

/// Opens a WebSocket, or returns the status and body of what was answered instead.
pub async fn open(envoy: SocketAddr, host: &str, path: &str) -> Result<Socket, (u16, String)> {
    let stream = TcpStream::connect(envoy).await.expect("Envoy listens");
    let hello = client_async(format!("ws://{host}{path}"), stream);
    match timeout(LIMIT, hello).await.expect("an answer in time") {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
        }
        Err(error) => panic!("{host}{path}: {error}"),
    }
}

/// What a player saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Messages said.
    pub said: u64,
    /// Messages that did not come back.
    pub lost: u64,
    /// Messages that came back out of their turn.
    pub reordered: u64,
    /// True when the other side hung up.
    pub cut: bool,
}

impl Record {
    /// True when the player noticed nothing at all.
    pub fn is_clean(&self) -> bool {
        self.said > 0 && self.lost == 0 && self.reordered == 0 && !self.cut
    }
}

/// Someone who plays all the time.
pub struct Player {
    heard: Arc<AtomicU64>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<Record>,
}

impl Player {
    /// Joins at `host`; the test fails if the door is shut.
    pub async fn join(envoy: SocketAddr, host: &str) -> Self {
        match open(envoy, host, "/").await {
            Ok(socket) => Self::on(socket),
            Err(refusal) => panic!("{host} is shut: {refusal:?}"),
        }
    }

    /// Plays on an open WebSocket.
    pub fn on(socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>) -> Self {
        Self::with_beat(socket, BEAT)
    }

    /// Plays on an open WebSocket, and says something this often: for those who are many.
    pub fn with_beat(
        socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
        beat: Duration,
    ) -> Self {
        let heard = Arc::new(AtomicU64::new(0));
        let (leave, left) = oneshot::channel();
        let task = tokio::spawn(play(socket, beat, heard.clone(), left));
        Self { heard, leave, task }
    }

    /// Returns when messages that are said from now on have come back.
    pub async fn plays(&self) {
        let before = self.heard.load(Ordering::SeqCst);
        let heard = async || (self.heard.load(Ordering::SeqCst), self.task.is_finished());
        let (_, over) =
            eventually("the player hears an echo", heard, |(heard, over)| *over || *heard > before + 3).await;
        assert!(!over, "the player was cut");
    }

    /// Waits for the last echo, hangs up, and tells.
    pub async fn leave(self) -> Record {
        _ = self.leave.send(());
        self.task.await.expect("the player's task runs to its end")
    }
}

async fn play<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    beat: Duration,
    heard: Arc<AtomicU64>,
    mut left: oneshot::Receiver<()>,
) -> Record {
    let mut record = Record::default();
    let (mut next, mut leaving) = (0, false);
    let mut beat = interval(beat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !(leaving && next >= record.said) {
        tokio::select! {
            _ = &mut left, if !leaving => leaving = true,
            _ = beat.tick(), if !leaving => {
                if socket.send(Message::text(record.said.to_string())).await.is_err() {
                    record.cut = true;
                    break;
                }
                record.said += 1;
            }
            message = timeout(LIMIT, socket.next()) => match message {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let number: u64 = text.parse().expect("an echo is a number");
                    record.lost += number.saturating_sub(next);
                    record.reordered += u64::from(number < next);
                    next = next.max(number + 1);
                    heard.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => {
                    record.cut = true;
                    break;
                }
                Ok(Some(Ok(_))) => {}
                Err(_) => break,
            }
        }
    }
    record.lost += record.said.saturating_sub(next);
    if !record.cut {
        _ = socket.close(None).await;
    }
    record
}
