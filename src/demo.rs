//! `tidegate demo`: the control plane, a real Envoy and small stateful game servers, on loopback.
//!
//! The game servers follow the fleet directory as a fleet manager would: whatever the control plane
//! routes on loopback has a game at its address. So scaling is a file more or less, by key or by hand.

pub mod game;
pub mod terminal;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::app::App;
use crate::bootstrap::{Options, bootstrap};
use crate::cli::{Demo, MAX_GAMES, Serve};
use crate::client;
use crate::model::Mode;
use game::Arcade;
use terminal::{Key, line};

/// The oldest Envoy that has all that the bootstrap needs (delta-xDS and inline scopes that work).
const OLDEST_ENVOY: (u32, u32) = (1, 38);
/// Where the games' ports begin.
const FIRST_PORT: u16 = 27_000;
/// To the next port for the same game: no fewer than there are games.
const STRIDE: u16 = 128;
const READY: Duration = Duration::from_secs(30);

/// Runs the demo until `shutdown` returns, its time is over, or `q` is pressed.
pub async fn run(demo: Demo, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let binary = find_envoy(demo.envoy.as_deref()).await?;
    // Envoys share a port without a word (SO_REUSEPORT): half the players would reach the other one.
    drop(
        TcpListener::bind(demo.http)
            .await
            .with_context(|| format!("--http {}: choose a free port", demo.http))?,
    );
    let folder =
        tempfile::Builder::new().prefix("tidegate-demo-").tempdir().context("a folder for the demo")?;
    let fleet = Fleet { dir: folder.path().join("fleet") };
    std::fs::create_dir(&fleet.dir).context("the fleet directory")?;
    for number in 0..demo.servers {
        fleet.add(number).await?;
    }
    let config = Serve {
        fleet: Some(fleet.dir.clone()),
        xds: (Ipv4Addr::LOCALHOST, 0).into(),
        admin: demo.admin,
        ..Serve::default()
    };
    let app = App::start(config).await?;
    let mut play = Play { arcade: Arcade::new(), app: &app, failed: Vec::new() };
    _ = app.store.synced().wait_for(|synced| *synced).await;
    let mut revisions = app.store.revisions();
    play.follow().await;
    let options = Options {
        xds: app.xds.into(),
        http: demo.http,
        envoy_admin: (Ipv4Addr::LOCALHOST, 0).into(),
        ..Options::default()
    };
    let mut envoy = Envoy::start(&binary, folder.path(), &bootstrap(&options)).await?;
    welcome(&demo, &fleet, &app, &envoy);

    let mut keys = terminal::keys();
    let over = async {
        match demo.limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let (mut shutdown, mut over) = (std::pin::pin!(shutdown), std::pin::pin!(over));
    let result = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            () = &mut over => break Ok(()),
            ended = envoy.process.wait() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                break Err(anyhow::anyhow!("envoy ended by itself ({status})\n{}", envoy.log()));
            }
            _ = revisions.changed() => play.follow().await,
            Some(key) = keys.next() => match key {
                Key::Quit => break Ok(()),
                Key::Up => match fleet.next() {
                    Some(number) => fleet.add(number).await?,
                    None => line(&format!("{MAX_GAMES} servers are the most that play here")),
                },
                Key::Down => match fleet.last() {
                    Some(number) => fleet.remove(number)?,
                    None => line("there is no server left"),
                },
            },
        }
    };
    drop(keys);
    // Envoy goes first: it is asked, waited for, and killed only if it does not listen.
    envoy.end().await;
    drop(play);
    app.run(async {}).await?;
    result
}

fn welcome(demo: &Demo, fleet: &Fleet, app: &App, envoy: &Envoy) {
    line("");
    line("Tidegate demo: open one of these in two browser tabs, and draw.");
    line("");
    let shown = demo.servers.min(8);
    for number in 0..shown {
        line(&format!("  http://game{number}.localhost:{}/", demo.http.port()));
    }
    if demo.servers > shown {
        line(&format!("  … to http://game{}.localhost:{}/", demo.servers - 1, demo.http.port()));
    }
    line("");
    line(&format!("fleet    {}   (add, edit or remove a file, and watch)", fleet.dir.display()));
    line(&format!("tidegate http://{}/", app.admin));
    line(&format!("envoy    http://{}/", envoy.admin));
    line("");
    line("+ one server more   - one less   q end");
    line("");
}

/// The games that should run, as the control plane has them.
struct Play<'a> {
    arcade: Arcade,
    app: &'a App,
    /// Addresses that could not be taken, so that each is said once.
    failed: Vec<SocketAddr>,
}

impl Play<'_> {
    async fn follow(&mut self) {
        let wanted = self.app.desk.ask(|engine| {
            let lives = engine.servers().filter(|server| server.desired.mode != Mode::Stopped);
            let wanted =
                lives.filter_map(|server| Some((server.id.name().to_owned(), server.desired.endpoint?)));
            wanted.collect::<Vec<_>>()
        });
        let Some(wanted) = wanted.await else { return };
        let changes = self.arcade.reconcile(&wanted).await;
        let names = |list: &[(String, SocketAddr)]| {
            list.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        if !changes.stopped.is_empty() {
            line(&format!("- {}", names(&changes.stopped)));
        }
        if !changes.started.is_empty() {
            line(&format!("+ {}", names(&changes.started)));
        }
        for (name, address, why) in &changes.failed {
            if !self.failed.contains(address) {
                line(&format!("! {name} at {address}: {why}"));
            }
        }
        self.failed = changes.failed.into_iter().map(|(_, address, _)| address).collect();
    }
}

/// The fleet directory: a file a server.
struct Fleet {
    dir: PathBuf,
}

impl Fleet {
    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("game-{number}.yaml"))
    }

    fn exists(&self, number: usize) -> bool {
        self.path(number).exists()
    }

    fn next(&self) -> Option<usize> {
        (0..MAX_GAMES).find(|number| !self.exists(*number))
    }

    fn last(&self) -> Option<usize> {
        (0..MAX_GAMES).rev().find(|number| self.exists(*number))
    }

    async fn add(&self, number: usize) -> anyhow::Result<()> {
        // Free at this moment, and below the range from which the system gives ports to others: the game
        // takes it as soon as the control plane has read the file.
        let mut port = FIRST_PORT + u16::try_from(number)?;
        while TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            port = port.checked_add(STRIDE).context("a port for a game")?;
        }
        let text = format!(
            "apiVersion: tidegate.dev/v1\n\
             kind: Server\n\
             metadata:\n  name: game-{number}\n  annotations:\n    tidegate.dev/host: game<id>.localhost\n\
             spec:\n  address: 127.0.0.1\n  port: {port}\n"
        );
        let path = self.path(number);
        // Never half a file: written beside, then renamed.
        let beside = self.dir.join(format!(".game-{number}.yaml"));
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, &path))
            .with_context(|| path.display().to_string())
    }

    fn remove(&self, number: usize) -> anyhow::Result<()> {
        let path = self.path(number);
        std::fs::remove_file(&path).with_context(|| path.display().to_string())
    }
}

/// The real thing, as a child that does not outlive the demo.
struct Envoy {
    process: Child,
    admin: SocketAddr,
    log: PathBuf,
}

impl Envoy {
    async fn start(binary: &Path, folder: &Path, bootstrap: &str) -> anyhow::Result<Self> {
        let (config, address, log) =
            (folder.join("envoy.yaml"), folder.join("envoy-admin"), folder.join("envoy.log"));
        std::fs::write(&config, bootstrap).context("the bootstrap")?;
        let output = std::fs::File::create(&log).context("envoy's log")?;
        let mut process = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&address)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C is for the demo, which ends Envoy in its own time.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let ready = async {
            loop {
                if let Some(status) = process.try_wait()? {
                    bail!("envoy ended ({status}); is the port of --http free?\n{}", tail(&log));
                }
                let admin = std::fs::read_to_string(&address)
                    .ok()
                    .and_then(|text| text.trim().parse::<SocketAddr>().ok());
                if let Some(admin) = admin
                    && is_ready(admin).await
                {
                    return Ok(admin);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(READY, ready).await {
            Ok(admin) => Ok(Self { admin: admin?, process, log }),
            Err(_) => bail!("envoy was not ready in {} s\n{}", READY.as_secs(), tail(&log)),
        }
    }

    fn log(&self) -> String {
        tail(&self.log)
    }

    async fn end(mut self) {
        // Envoy ends itself at once when it is asked over its admin port: no signal, no unsafe code.
        let asked = client::post(self.admin, "/quitquitquit");
        if tokio::time::timeout(Duration::from_secs(2), asked).await.is_err()
            || tokio::time::timeout(Duration::from_secs(3), self.process.wait()).await.is_err()
        {
            _ = self.process.kill().await;
        }
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    client::status(admin, "/ready").await == Some(200)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The Envoy that was named, or one on `PATH`, or the one that `envoy/get-envoy` installed.
async fn find_envoy(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let candidates = match named {
        Some(path) => vec![path.to_owned()],
        None => vec![PathBuf::from("envoy"), PathBuf::from(".envoy/bin/envoy")],
    };
    let mut seen = Vec::new();
    for candidate in candidates {
        match version(&candidate).await {
            Ok(version) if version >= OLDEST_ENVOY => return Ok(candidate),
            Ok((major, minor)) => seen.push(format!("{} is {major}.{minor}", candidate.display())),
            Err(why) => seen.push(format!("{}: {why:#}", candidate.display())),
        }
    }
    let (major, minor) = OLDEST_ENVOY;
    bail!(
        "no Envoy of {major}.{minor} or newer ({}); run envoy/get-envoy in the repository (`make demo` does), or name one by --envoy",
        seen.join("; ")
    )
}

/// Reads `envoy  version: <hash>/1.40.0/Clean/RELEASE/BoringSSL`.
async fn version(binary: &Path) -> anyhow::Result<(u32, u32)> {
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split("version: ").nth(1).and_then(|build| build.split('/').nth(1)).unwrap_or_default();
    let mut parts = number.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("it does not say its version"),
    }
}
