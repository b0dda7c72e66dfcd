//! A player who asks until let in, on a connection and a thread of his own: a clock as fine as the network
//! allows. And the game server that lets him in.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use crate::fleet::Door;

/// How long a server may take to be there. An Envoy takes half a minute over 100,000 clusters.
const LIMIT: Duration = Duration::from_mins(3);
/// Between two questions: fine beside the milliseconds that are measured, and rare enough that Envoy's
/// worker has time for other things.
const PACE: Duration = Duration::from_micros(200);

/// A connection to an Envoy.
#[derive(Debug)]
pub(crate) struct Player {
    envoy: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Player {
    pub(crate) fn new(envoy: SocketAddr) -> Self {
        Self { envoy, stream: None }
    }

    /// Asks once; the status, and nothing where nobody answers.
    pub(crate) fn ask(&mut self, door: &Door) -> Option<u16> {
        let status = self.exchange(door).ok();
        if status.is_none() {
            self.stream = None;
        }
        status
    }

    fn exchange(&mut self, door: &Door) -> std::io::Result<u16> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.envoy)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LIMIT))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().ok_or(ErrorKind::NotConnected)?;
        let head = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", door.path, door.host);
        stream.get_mut().write_all(head.as_bytes())?;
        answer(stream)
    }

    /// Asks until the server answers; when it did. `waiting` is told once that it does not yet.
    pub(crate) fn until_open(
        &mut self,
        door: &Door,
        waiting: Option<oneshot::Sender<()>>,
    ) -> anyhow::Result<Instant> {
        let start = Instant::now();
        let mut waiting = waiting;
        loop {
            let status = self.ask(door);
            if status == Some(200) {
                return Ok(Instant::now());
            }
            if let Some(waiting) = waiting.take() {
                _ = waiting.send(());
            }
            if start.elapsed() > LIMIT {
                bail!("{}{} still answers {status:?}", door.host, door.path);
            }
            std::thread::sleep(PACE);
        }
    }
}

/// Reads an answer to its end; its status.
fn answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<u16> {
    let mut line = String::new();
    let (mut status, mut length) = (None, None);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if status.is_none() {
            status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        } else if let Some((name, value)) = text.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse().ok();
        }
    }
    // An answer without a length would end with the connection: neither Envoy nor the game gives one.
    let (Some(status), Some(length)) = (status, length) else { return Err(ErrorKind::InvalidData.into()) };
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(status)
}

/// A game server that says 200 to everything, as all servers of a fleet: its port. It ends with the process.
pub(crate) fn game() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port for the game")?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Handle::current();
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}

async fn serve(stream: tokio::net::TcpStream) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
    _ = stream.set_nodelay(true);
    let mut stream = tokio::io::BufReader::new(stream);
    let mut line = String::new();
    while let Ok(1..) = stream.read_line(&mut line).await {
        // Requests of these players have no body.
        if line == "\r\n" && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err()
        {
            return;
        }
        line.clear();
    }
}
