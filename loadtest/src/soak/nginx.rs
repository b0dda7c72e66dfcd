//! The usual alternative beside it: nginx, whose configuration is written anew and reloaded when the fleet changes, as
//! ingress-nginx does it.
//!
//! Facts of that controller, which this copies: a new Ingress is a new server block and needs a reload; it checks the
//! new file by `nginx -t`; it does so 0.3 times a second at most (`--sync-rate-limit`, a burst of one), and takes all
//! changes until then in one; workers that a reload replaced close what they still hold after 240 s
//! (`worker-shutdown-timeout`). Before its release 0.26 that was 10 s, and 5 s and 10 s are values that people still set,
//! as old workers keep their memory until then. Endpoints alone change there without a reload, by Lua; here they wait for
//! the next one, which with this churn is never far.

mod config;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Resource, Signal, getrlimit, getuid, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::config::Fixed;
use super::front::{Cost, Front, Routes};
use crate::machine;
use crate::tidegate::page;

const LIMIT: Duration = Duration::from_secs(30);
/// How soon a port that is not open yet is tried again.
const PACE: Duration = Duration::from_millis(5);
/// A free port may be taken by another before nginx has it.
const TRIES: usize = 5;

/// How the nginx lane is set up.
#[derive(Clone, Debug, clap::Args)]
// Its group would be named as that of the options that it is part of.
#[group(skip)]
pub(crate) struct Options {
    /// Server blocks of nginx at the start: those that the fleet does not fill are idle
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000), value_name = "COUNT")]
    nginx_servers: u32,
    /// How long workers that a reload replaced keep their connections; several make a lane each
    #[arg(long, default_value = "240s", value_delimiter = ',', value_parser = seconds, value_name = "TIME")]
    pub(crate) worker_shutdown_timeout: Vec<Duration>,
    /// Reloads a second at most, as ingress-nginx's --sync-rate-limit
    #[arg(long, default_value_t = 0.3, value_parser = rate, value_name = "RATE")]
    nginx_sync_rate: f64,
    /// The nginx [default: the one that loadtest/get-nginx finds]
    #[arg(long, env = "NGINX", value_name = "FILE")]
    nginx: Option<PathBuf>,
}

/// `240s` or `240`: whole seconds, as nginx takes them, up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse() {
        Ok(count @ 1..=86_400) => Ok(Duration::from_secs(count)),
        _ => Err(format!("{text:?} is no time from 1s to 86400s: write seconds, such as 240s")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=100.0).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is no rate from 0.001 to 100 a second: write a number, such as 0.3")),
    }
}

impl Options {
    /// The nginx that was named, or the one that `loadtest/get-nginx` finds.
    pub(crate) fn binary(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.nginx {
            return Ok(path.clone());
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("get-nginx");
        let found = std::process::Command::new(&script).stderr(Stdio::inherit()).output();
        let found = found.with_context(|| format!("{}; name an nginx by --nginx", script.display()))?;
        if !found.status.success() {
            bail!("there is no nginx: {} says how to get one; or name one by --nginx", script.display());
        }
        Ok(String::from_utf8(found.stdout)?.trim_end().into())
    }

    /// What a lane's record says of it.
    pub(crate) fn facts(&self, version: &str, timeout: Duration) -> Vec<(String, String)> {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        vec![
            fact("nginx", version.to_owned()),
            fact("server blocks at the start", self.nginx_servers.to_string()),
            fact("worker_shutdown_timeout", format!("{} s", timeout.as_secs())),
            fact("reloads a second, at most", self.nginx_sync_rate.to_string()),
            fact("worker_processes", "2".to_owned()),
        ]
    }
}

/// What it says that it is: asked before the first lane begins, as one that can't be run is no nginx.
pub(crate) async fn version(binary: &Path) -> anyhow::Result<String> {
    let run = Command::new(binary).arg("-v").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, run)
        .await
        .context("nginx -v did not end")?
        .with_context(|| format!("{}: name an nginx by --nginx", binary.display()))?;
    // `nginx version: nginx/1.28.0`
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(text.trim().rsplit('/').next().unwrap_or_default().to_owned())
}

/// A running nginx. Its processes are killed when it is dropped, those too that a reload replaced.
pub(crate) struct Nginx {
    address: SocketAddr,
    wanted: watch::Sender<Routes>,
    reloads: Arc<AtomicU64>,
    reloader: JoinHandle<()>,
    /// The master, and leader of a process group of its own.
    master: Pid,
    log: PathBuf,
    _child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it on the fleet as it is; returns when it answers.
    pub(crate) async fn start(
        binary: &Path,
        options: &Options,
        worker_shutdown_timeout: Duration,
        routes: &Routes,
    ) -> anyhow::Result<Self> {
        let idle = (options.nginx_servers as usize).saturating_sub(routes.len());
        let mut tries = 0;
        loop {
            let listen = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr())?;
            let files = getrlimit(Resource::Nofile).maximum.unwrap_or(65_536).min(65_536);
            let root = getuid().is_root();
            let fixed = Fixed { listen, idle, worker_shutdown_timeout, files, root };
            tries += 1;
            match Self::start_at(binary, fixed, routes, options.nginx_sync_rate).await {
                Err(error) if tries < TRIES && format!("{error:#}").contains("Address already in use") => {}
                result => return result,
            }
        }
    }

    async fn start_at(binary: &Path, fixed: Fixed, routes: &Routes, sync_rate: f64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("nginx").tempdir()?;
        let files = Files::of(folder.path());
        fs::write(&files.config, config::text(&fixed, folder.path(), routes))?;
        files.check(binary, &files.config).await?;
        let log = File::create(&files.log)?;
        let mut child = files
            .command(binary, &files.config)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let id = child.id().context("nginx ended at once")?;
        let master = Pid::from_raw(i32::try_from(id)?).context("nginx has no process id")?;
        // From here on whatever ends early ends the group.
        let address = fixed.listen;
        let (wanted, news) = watch::channel(routes.clone());
        let reloads = Arc::new(AtomicU64::new(0));
        let log = files.log.clone();
        let reloader = Reloader {
            binary: binary.to_owned(),
            fixed,
            folder: folder.path().to_owned(),
            files,
            master,
            period: Duration::from_secs_f64(1.0 / sync_rate),
            reloads: reloads.clone(),
        };
        let asking = async {
            loop {
                if let Some(status) = child.try_wait()? {
                    bail!("nginx ended ({status}): {}", fs::read_to_string(&log)?);
                }
                if page(address, "/").await.is_ok_and(|page| page.starts_with("HTTP/1.1 ")) {
                    return Ok(());
                }
                tokio::time::sleep(PACE).await;
            }
        };
        let opened = tokio::time::timeout(LIMIT, asking).await.context("nginx did not open its port in time");
        let reloader = tokio::spawn(reloader.run(news));
        let nginx = Self { address, wanted, reloads, reloader, master, log, _child: child, _folder: folder };
        opened??;
        Ok(nginx)
    }

    /// What its log says of trouble: too few connections or files would be drops that are not reloads' fault.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let bad = |line: &&str| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| line.contains(level));
        text.lines().filter(bad).map(str::to_owned).collect()
    }

    /// Its processes now: the master, and every worker that has not ended.
    fn processes(&self) -> Vec<u32> {
        let master = self.master.as_raw_nonzero().get().unsigned_abs();
        let mut all = machine::children(master);
        all.push(master);
        all
    }
}

impl Front for Nginx {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn apply(&mut self, routes: impl FnOnce() -> Routes) {
        let routes = routes();
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != routes;
            *wanted = routes;
            differs
        });
    }

    fn cost(&self) -> Cost {
        Cost {
            pushes: self.reloads.load(Ordering::Relaxed),
            workers: u32::try_from(self.processes().len() - 1).unwrap_or(u32::MAX),
        }
    }

    fn memory_mb(&self) -> f64 {
        let kilobytes: u64 = self.processes().iter().map(|pid| machine::proportional_kb(*pid)).sum();
        crate::stats::amount(kilobytes) / 1024.0
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.reloader.abort();
        // A master that is killed leaves its workers: the group has all of them.
        _ = kill_process_group(self.master, Signal::KILL);
    }
}

/// The files of one nginx.
struct Files {
    config: PathBuf,
    /// The next configuration, until it has been checked.
    draft: PathBuf,
    log: PathBuf,
    folder: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            config: file("nginx.conf"),
            draft: file("next.conf"),
            log: file("log"),
            folder: folder.to_owned(),
        }
    }

    fn command(&self, binary: &Path, config: &Path) -> Command {
        let mut command = Command::new(binary);
        command.arg("-p").arg(&self.folder).arg("-c").arg(config).args(["-e", "stderr"]).stdin(Stdio::null());
        command
    }

    /// `nginx -t`, as ingress-nginx does before each reload.
    async fn check(&self, binary: &Path, config: &Path) -> anyhow::Result<()> {
        let run = self.command(binary, config).arg("-t").kill_on_drop(true).output();
        let output = tokio::time::timeout(LIMIT, run)
            .await
            .context("nginx -t did not end")?
            .with_context(|| format!("{}: name an nginx by --nginx", binary.display()))?;
        if !output.status.success() {
            bail!("nginx refuses its configuration: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Brings about what is wanted.
struct Reloader {
    binary: PathBuf,
    fixed: Fixed,
    folder: PathBuf,
    files: Files,
    master: Pid,
    /// Between two reloads, at least.
    period: Duration,
    reloads: Arc<AtomicU64>,
}

impl Reloader {
    async fn run(self, mut news: watch::Receiver<Routes>) {
        let mut next = Instant::now();
        while news.changed().await.is_ok() {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + self.period;
            let routes = news.borrow_and_update().clone();
            if let Err(error) = self.reload(&routes).await {
                eprintln!("nginx: {error:#}");
            }
        }
    }

    async fn reload(&self, routes: &Routes) -> anyhow::Result<()> {
        fs::write(&self.files.draft, config::text(&self.fixed, &self.folder, routes))?;
        self.files.check(&self.binary, &self.files.draft).await?;
        fs::rename(&self.files.draft, &self.files.config)?;
        kill_process(self.master, Signal::HUP).context("SIGHUP to nginx")?;
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
