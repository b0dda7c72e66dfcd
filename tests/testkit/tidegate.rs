//! The real `tidegate` binary as a process: started on free ports, asked, killed, restarted where it was.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::envoy::{Answer, exchange};
use super::{LIMIT, eventually};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// A running control plane.
pub struct Tidegate {
    /// Where Envoys connect.
    pub xds: SocketAddr,
    /// Where it is asked.
    pub admin: SocketAddr,
    launch: Launch,
    process: Child,
    log: Log,
}

/// How it is started: what it serves.
#[derive(Clone, Default)]
pub struct Launch {
    arguments: Vec<String>,
    /// The cluster that it watches.
    kubeconfig: Option<PathBuf>,
}

impl Launch {
    /// Serves a fleet directory.
    pub fn fleet(fleet: &Path) -> Self {
        Self::default().with(&["--fleet", fleet.to_str().expect("a path in UTF-8")])
    }

    /// Watches a cluster.
    pub fn kube(kubeconfig: &Path) -> Self {
        Self { kubeconfig: Some(kubeconfig.to_owned()), ..Self::default() }.with(&["--kube"])
    }

    /// With these arguments, too.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }
}

/// Lines of JSON, of all runs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Value>>>);

impl Log {
    fn lines(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(self, process: &mut Child) {
        let stderr = process.stderr.take().expect("it was piped");
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
    }
}

impl Tidegate {
    /// Serves a fleet directory on free ports.
    pub async fn start(fleet: &Path) -> Self {
        Self::launch(Launch::fleet(fleet)).await
    }

    /// Serves a fleet directory to Envoys that connect here.
    pub async fn start_at(fleet: &Path, xds: SocketAddr) -> Self {
        Self::launch_at(Launch::fleet(fleet), xds).await
    }

    /// Starts it on free ports.
    pub async fn launch(launch: Launch) -> Self {
        Self::launch_at(launch, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn launch_at(launch: Launch, xds: SocketAddr) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let process = serve(&launch, xds, any);
        let mut tidegate = Self { xds, admin: any, launch, process, log: Log::default() };
        tidegate.listen().await;
        tidegate
    }

    async fn listen(&mut self) {
        let known = self.log.lines().len();
        self.log.clone().keep(&mut self.process);
        let is_listening = |line: &Value| line["message"] == "listening";
        let log = self.log.clone();
        let lines = eventually(
            "tidegate says that it listens",
            async || log.lines().split_off(known),
            |lines| lines.iter().any(is_listening),
        )
        .await;
        let line = lines.into_iter().find(is_listening).expect("it was just seen");
        let address =
            |field: &str| line[field].as_str().and_then(|text| text.parse().ok()).expect("an address");
        (self.xds, self.admin) = (address("xds"), address("admin"));
    }

    /// Ends it as a crash would: SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await.expect("it is killed");
    }

    /// Starts it again on the ports it had; call `kill` or `stop` first.
    pub async fn restart(&mut self) {
        let (xds, admin) = (self.xds, self.admin);
        self.process = serve(&self.launch, xds, admin);
        self.listen().await;
        assert_eq!((self.xds, self.admin), (xds, admin));
    }

    /// Asks it to end as a service manager does: SIGTERM.
    pub async fn stop(&mut self) -> ExitStatus {
        let pid = self.process.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill starts");
        assert!(sent.success());
        timeout(LIMIT, self.process.wait()).await.expect("it ends in time").expect("it is waited for")
    }

    /// An admin page.
    pub async fn get(&self, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nhost: tidegate\r\nconnection: close\r\n\r\n");
        exchange(self.admin, head.as_bytes()).await.expect("the admin address answers")
    }

    /// An admin page that is JSON.
    pub async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {answer:?}"))
    }

    /// A metric that counts, summed over its series; 0 if it has none yet.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics").await.body;
        page.lines().filter_map(|line| sample(line, name)).sum()
    }

    /// What an operator reads: the lines of the log that say this.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.log.lines().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// The whole log.
    pub fn log(&self) -> Vec<Value> {
        self.log.lines()
    }

    /// Returns when `count` Envoys are connected and have acknowledged all there is.
    pub async fn is_served_to(&self, count: usize) -> Value {
        eventually(
            "every Envoy is up to date",
            async || self.get_json("/api/envoys").await,
            |page| {
                let envoys = page["envoys"].as_array().expect("a list");
                envoys.len() == count
                    && envoys.iter().all(|envoy| {
                        let types = envoy["types"].as_array().expect("a list");
                        types.len() == 2 && types.iter().all(|row| row["acked"] == page["revision"])
                    })
            },
        )
        .await
    }

    /// Runs a command of the binary that asks this control plane.
    pub async fn asked(&self, arguments: &[&str]) -> Output {
        let admin = format!("http://{}", self.admin);
        run(&[arguments, &["--admin", &admin]].concat()).await
    }
}

fn serve(launch: &Launch, xds: SocketAddr, admin: SocketAddr) -> Child {
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--xds", &xds.to_string(), "--admin", &admin.to_string(), "--log-format", "json"])
        .args(&launch.arguments)
        .env_remove("RUST_LOG")
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(kubeconfig) = &launch.kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.spawn().expect("tidegate starts")
}

/// Runs the binary to its end.
pub async fn run(arguments: &[&str]) -> Output {
    let run = Command::new(BINARY).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    timeout(LIMIT, run).await.expect("it ends in time").expect("tidegate starts")
}

/// What a command printed that went well.
pub fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// `name{labels} value`
fn sample(line: &str, name: &str) -> Option<u64> {
    let rest = line.strip_prefix(name)?;
    let value = match rest.strip_prefix('{') {
        Some(labelled) => labelled.split_once("} ")?.1,
        None => rest.strip_prefix(' ')?,
    };
    value.parse().ok()
}
