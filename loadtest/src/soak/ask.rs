//! Plain requests: is a server there, and is it the right one?

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::games::GAME;

/// One answer.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest body that is read: answers of Envoy and of the games are short.
const BODY: usize = 64 << 10;

/// A status, and who gave the answer, where a game server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) game: String,
}

/// Someone who asks, on one connection as long as that holds.
pub(super) struct Asker {
    front: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Asker {
    pub(super) fn new(front: SocketAddr) -> Self {
        Self { front, stream: None }
    }

    /// Asks a host for `/`.
    pub(super) async fn ask(&mut self, host: &str) -> std::io::Result<Said> {
        let said =
            timeout(LIMIT, self.exchange(host)).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        if said.is_err() {
            self.stream = None;
        }
        said
    }

    async fn exchange(&mut self, host: &str) -> std::io::Result<Said> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.front).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(BufReader::with_capacity(1 << 10, stream));
        }
        let stream = self.stream.as_mut().ok_or(ErrorKind::NotConnected)?;
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
        let (mut said, mut length, mut line) = (Said { status: 0, game: String::new() }, 0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if said.status == 0 {
                let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
                said.status = code.ok_or_else(|| Error::other(format!("no status in {text:?}")))?;
            } else if let Some((name, value)) = text.split_once(": ") {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.parse().map_err(Error::other)?;
                } else if name.eq_ignore_ascii_case(GAME) {
                    value.clone_into(&mut said.game);
                }
            }
        }
        if length > BODY {
            return Err(Error::other(format!("a body of {length} bytes: {BODY} at most are read")));
        }
        stream.read_exact(&mut vec![0; length]).await?;
        Ok(said)
    }

    /// Asks until the answer is as it should be; the last one where it is not in time.
    pub(super) async fn until(
        &mut self,
        host: &str,
        limit: Duration,
        is_right: impl Fn(&Said) -> bool,
    ) -> Result<Instant, String> {
        let start = Instant::now();
        loop {
            let said = self.ask(host).await;
            if said.as_ref().is_ok_and(&is_right) {
                return Ok(Instant::now());
            }
            let waited = start.elapsed();
            if waited > limit {
                return Err(said.map_or_else(
                    |error| error.to_string(),
                    |said| format!("{} {}", said.status, said.game).trim_end().to_owned(),
                ));
            }
            // Fine at first, as the time is short; rare when something is broken anyway.
            sleep(match waited.as_millis() {
                0..100 => Duration::from_millis(2),
                100..1000 => Duration::from_millis(10),
                _ => Duration::from_millis(50),
            })
            .await;
        }
    }
}
