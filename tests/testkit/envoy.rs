//! A real Envoy for a test: found, started on free ports, asked, and killed when dropped.
//!
//! The bootstrap should listen on port 0, for HTTP and admin: the ports that Envoy got are in `http` and `admin`.
//! Nothing here sleeps to be safe: each wait is for something that Envoy shows, and ends with Envoy's log if it fails.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command as Once, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a wait may take before the test fails. Generous: it is a limit, not a pause.
const LIMIT: Duration = Duration::from_secs(20);

/// The path of an Envoy, from `envoy/get-envoy`, which may install it at the first call.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/get-envoy");
        let found = Once::new(&script).stderr(Stdio::inherit()).output().expect("envoy/get-envoy starts");
        assert!(found.status.success(), "no Envoy: `{}` says how to get one", script.display());
        PathBuf::from(String::from_utf8(found.stdout).expect("a path in UTF-8").trim_end())
    })
}

/// What `envoy --mode validate` says about a bootstrap: nothing if it is good.
pub fn validate(bootstrap: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bootstrap.yaml");
    fs::write(&file, bootstrap).expect("the bootstrap is written");
    let run = Once::new(binary())
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(&file)
        .output()
        .expect("Envoy starts");
    if run.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&run.stderr).into_owned()) }
}

/// A running Envoy.
pub struct Envoy {
    /// Where its listener named `http` answers; any listener, if none has that name.
    pub http: SocketAddr,
    /// Where its admin page answers.
    pub admin: SocketAddr,
    process: Child,
    folder: TempDir,
}

impl Envoy {
    /// Starts an Envoy on a bootstrap (YAML or JSON), and returns as soon as its ports are known. Its listeners may
    /// still wait for a control plane: see [`Envoy::ready`].
    pub async fn start(bootstrap: &str) -> Self {
        Self::start_with(bootstrap, 1).await
    }

    /// The same with more threads than one for its connections.
    pub async fn start_with(bootstrap: &str, workers: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (config, admin_file) = (folder.path().join("bootstrap.yaml"), folder.path().join("admin"));
        fs::write(&config, bootstrap).expect("the bootstrap is written");
        let log = File::create(folder.path().join("log")).expect("the log is made");
        let process = Command::new(binary())
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .args(["--use-dynamic-base-id", "--concurrency", &workers.to_string(), "--log-level", "info"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log is opened twice"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy starts");
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut envoy = Self { http: nowhere, admin: nowhere, process, folder };

        envoy.admin = envoy
            .wait("write its admin address", async || {
                fs::read_to_string(&admin_file).ok()?.trim().parse().ok()
            })
            .await;
        let admin = envoy.admin;
        envoy.http = envoy
            .wait("list its listeners", async || {
                let (status, text) = request(admin, "GET", "/listeners").await?;
                if status == 200 { listener(&text) } else { None }
            })
            .await;
        envoy
    }

    /// Returns when Envoy serves: its static listeners are open, and every first answer from a control plane is in.
    pub async fn ready(&mut self) {
        let admin = self.admin;
        self.wait("become ready", async || {
            request(admin, "GET", "/ready").await.filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// The counters and gauges whose name starts with `prefix`, by name.
    pub async fn stats(&self, prefix: &str) -> Vec<(String, u64)> {
        let text = self.admin_get("/stats").await;
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(name, _)| name.starts_with(prefix))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// The body of an admin page, such as `/config_dump` or `/clusters`.
    pub async fn admin_get(&self, path: &str) -> String {
        match request(self.admin, "GET", path).await {
            Some((200, body)) => body,
            other => panic!("Envoy's admin page {path} answered {other:?}\n{}", self.log()),
        }
    }

    /// All that Envoy logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks until there is an answer; fails the test with Envoy's log when Envoy ends first, or the time does.
    async fn wait<T>(&mut self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if let Some(status) = self.process.try_wait().expect("the state of a child") {
                panic!("Envoy ended ({status}) before it could {what}\n{}", self.log());
            }
            assert!(start.elapsed() < LIMIT, "Envoy did not {what} in {LIMIT:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// `http::127.0.0.1:10000`, a line a listener.
fn listener(text: &str) -> Option<SocketAddr> {
    let listeners: Vec<(&str, SocketAddr)> = text
        .lines()
        .filter_map(|line| line.split_once("::"))
        .filter_map(|(name, address)| Some((name, address.parse().ok()?)))
        .collect();
    let named = listeners.iter().find(|(name, _)| *name == "http").or(listeners.first())?;
    (named.1.port() != 0).then_some(named.1)
}

/// One small HTTP/1.1 exchange: status and body; nothing when the peer is not there (yet).
async fn request(to: SocketAddr, method: &str, path: &str) -> Option<(u16, String)> {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    let answer = exchange(to, head.as_bytes()).await.ok()?;
    Some((answer.status, answer.body))
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code; 0 when the peer closed without one.
    pub status: u16,
    /// The header lines as they came.
    pub head: String,
    /// The body, without its chunks' frame.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends raw bytes on a new connection, and reads one answer: as long as it says it is, or else to the end.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    tokio::time::timeout(LIMIT, async {
        let mut stream = BufReader::new(TcpStream::connect(to).await?);
        stream.write_all(bytes).await?;
        answer(&mut stream).await
    })
    .await?
}

/// Reads one answer from a stream.
async fn answer(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Answer> {
    let mut head = String::new();
    while stream.read_line(&mut head).await? > 0 && !head.ends_with("\r\n\r\n") {}
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: String::new() };
    let mut body = Vec::new();
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await?;
            let size = usize::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = answer.header("content-length") {
        body = vec![0; length.parse().map_err(io::Error::other)?];
        stream.read_exact(&mut body).await?;
    } else {
        stream.read_to_end(&mut body).await?;
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}
