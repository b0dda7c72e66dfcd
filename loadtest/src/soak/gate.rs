//! Tidegate with its Envoy as a front: two control planes on one fleet directory, each behind a proxy that breaks it,
//! and one Envoy that knows both.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::directory::Directory;
use super::front::{Cost, Front};
use super::oracle::{Oracle, Wrong};
use super::proxy::Proxy;
use super::record::MarkKind;
use super::schedule::Fault;
use super::world::File;
use crate::envoy::{self, Envoy};
use crate::machine::proportional_kb;
use crate::metrics::Metrics;
use crate::tidegate::{Tidegate, is_panic, is_warning, page};

/// How long all control planes are gone, the stream stands still, or the fleet directory is away.
const GONE: Duration = Duration::from_secs(2);
/// Envoy has its fleet, and serves it, by then.
const READY: Duration = Duration::from_secs(30);
/// So many responses have a bad scope when Envoy is made to refuse.
const SPOILED: u32 = 3;
/// What is counted is asked for so often.
const LOOK: Duration = Duration::from_millis(500);
/// Warnings that are kept: a person reads no more.
const KEPT: usize = 40;

/// One control plane, which may be gone, and its proxy, which never is.
struct Replica {
    proxy: Proxy,
    tidegate: tokio::sync::Mutex<Option<Tidegate>>,
    /// What it and those before it counted.
    pushes: Counter,
    resources: Counter,
}

/// A counter that begins anew when its process does.
#[derive(Default)]
struct Counter {
    before: AtomicU64,
    now: AtomicU64,
}

impl Counter {
    fn is(&self, now: u64) {
        let last = self.now.swap(now, Ordering::Relaxed);
        if now < last {
            self.before.fetch_add(last, Ordering::Relaxed);
        }
    }

    fn sum(&self) -> u64 {
        self.before.load(Ordering::Relaxed) + self.now.load(Ordering::Relaxed)
    }
}

/// The control planes, and what was heard of them.
pub(super) struct Planes {
    binary: PathBuf,
    pub(super) directory: Directory,
    replicas: [Replica; 2],
    heard: Arc<Mutex<Heard>>,
}

/// What the control planes printed that a person should read.
#[derive(Default)]
struct Heard {
    /// The last of them.
    warnings: VecDeque<String>,
    /// Those of them that are panics, until they are told of.
    panics: Vec<String>,
}

impl Heard {
    fn line(&mut self, line: String) {
        if !is_warning(&line) {
            return;
        }
        if is_panic(&line) {
            self.panics.push(line.clone());
        }
        self.warnings.push_back(line);
        if self.warnings.len() > KEPT {
            self.warnings.pop_front();
        }
    }
}

impl Replica {
    /// Counts what it has sent so far, and tells of what should not be.
    async fn look(&self, oracle: &Oracle) {
        for refusal in self.proxy.take_unprovoked() {
            let detail = format!("Envoy refused a response that nobody had spoiled: {refusal}");
            oracle.wrong(Wrong::Front, 0, "", detail);
        }
        self.notice(oracle).await;
        let admin = self.tidegate.lock().await.as_ref().map(|tidegate| tidegate.admin);
        let Some(admin) = admin else { return };
        // Killed while it was asked: there is nothing to count then.
        if let Ok(metrics) = Metrics::of(admin).await {
            self.pushes.is(metrics.count("tidegate_pushes_total"));
            self.resources.is(metrics.count("tidegate_pushed_resources_total")
                + metrics.count("tidegate_pushed_removals_total"));
        }
    }

    /// Tells of an end that nobody caused; the control plane is gone then, as one that was killed.
    async fn notice(&self, oracle: &Oracle) {
        let mut tidegate = self.tidegate.lock().await;
        if let Some(status) = tidegate.as_mut().and_then(Tidegate::ended) {
            *tidegate = None;
            self.proxy.lead_to(None);
            oracle.wrong(Wrong::Front, 0, "", format!("a control plane ended by itself: {status}"));
        }
    }
}

/// Hosts that Envoy was made to refuse: their servers must be edited to come back.
pub(super) type Refused = mpsc::UnboundedSender<Vec<String>>;

impl Planes {
    /// Two control planes on this directory.
    pub(super) async fn start(binary: &Path, directory: Directory, seed: u64) -> anyhow::Result<Self> {
        let replica = async || {
            anyhow::Ok(Replica {
                proxy: Proxy::start(seed).await?,
                tidegate: tokio::sync::Mutex::default(),
                pushes: Counter::default(),
                resources: Counter::default(),
            })
        };
        let planes = Self {
            binary: binary.to_owned(),
            directory,
            replicas: [replica().await?, replica().await?],
            heard: Arc::default(),
        };
        planes.launch(0).await?;
        planes.launch(1).await?;
        Ok(planes)
    }

    async fn launch(&self, number: usize) -> anyhow::Result<()> {
        let replica = &self.replicas[number];
        let heard = self.heard.clone();
        let hear = move |line| heard.lock().unwrap_or_else(PoisonError::into_inner).line(line);
        let with_fleet = |command: &mut Command| _ = command.arg("--fleet").arg(&self.directory.home);
        let tidegate = Tidegate::heard(&self.binary, with_fleet, hear).await?;
        replica.proxy.lead_to(Some(tidegate.xds));
        *replica.tidegate.lock().await = Some(tidegate);
        Ok(())
    }

    async fn kill(&self, number: usize, oracle: &Oracle) -> anyhow::Result<()> {
        let replica = &self.replicas[number];
        replica.notice(oracle).await;
        replica.proxy.lead_to(None);
        // Let go of at once: whoever looks at it meanwhile sees nobody.
        let tidegate = replica.tidegate.lock().await.take();
        if let Some(tidegate) = tidegate {
            tidegate.end().await?;
        }
        Ok(())
    }

    /// Where Envoy connects.
    pub(super) fn xds(&self) -> [SocketAddr; 2] {
        [self.replicas[0].proxy.address, self.replicas[1].proxy.address]
    }

    /// Breaks what the plan says, when it says.
    pub(super) async fn suffer(
        &self,
        plan: &[(u64, Fault)],
        oracle: &Oracle,
        refused: &Refused,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        for (at_ms, fault) in plan {
            sleep_until(start + Duration::from_millis(*at_ms)).await;
            self.one(*fault, oracle, refused).await?;
        }
        Ok(())
    }

    async fn one(&self, fault: Fault, oracle: &Oracle, refused: &Refused) -> anyhow::Result<()> {
        let tell = |what: &str| oracle.mark(MarkKind::Fault, what);
        match fault {
            Fault::Kill => {
                tell("kill -9: both control planes");
                self.kill(0, oracle).await?;
                self.kill(1, oracle).await?;
                sleep(GONE).await;
                self.launch(0).await?;
                self.launch(1).await?;
                tell("kill -9: both control planes are back");
            }
            Fault::Takeover => {
                let used = usize::from(!self.replicas[0].proxy.is_used());
                tell("takeover: kill -9 of the control plane that Envoy has");
                self.kill(used, oracle).await?;
                sleep(GONE).await;
                self.launch(used).await?;
                tell("takeover: it is back");
            }
            Fault::Reset => {
                tell("reset: every stream ends with an error");
                self.replicas.iter().for_each(|replica| replica.proxy.reset());
            }
            Fault::Pause => {
                tell("pause: nothing passes to Envoy and back");
                self.replicas.iter().for_each(|replica| replica.proxy.pause(true));
                sleep(GONE).await;
                self.replicas.iter().for_each(|replica| replica.proxy.pause(false));
                tell("pause: over");
            }
            Fault::Away => {
                tell("away: the fleet directory is not there");
                self.directory.move_away(true)?;
                sleep(GONE).await;
                self.directory.move_away(false)?;
                tell("away: it is back");
            }
            Fault::Nack => {
                tell("nack: Envoy is sent scopes that it must refuse");
                self.replicas.iter().for_each(|replica| replica.proxy.spoil(SPOILED));
                sleep(GONE).await;
                // Where nothing was sent, it is waited for.
                let end = Instant::now() + GONE;
                while Instant::now() < end && !self.replicas.iter().any(|replica| replica.proxy.has_spoiled())
                {
                    sleep(LOOK).await;
                }
                let hosts: Vec<_> = self.replicas.iter().flat_map(|replica| replica.proxy.heal()).collect();
                tell(&format!("nack: over, {} servers are edited", hosts.len()));
                // A lane that has ended needs no cure.
                _ = refused.send(hosts);
            }
        }
        Ok(())
    }

    /// Counts what the control planes send, and tells of what they should not do, for ever.
    pub(super) async fn watch(&self, oracle: &Oracle) {
        let mut beat = interval(LOOK);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.look(oracle).await;
        }
    }

    /// Counts what the control planes have sent so far, and tells of what they should not have done.
    pub(super) async fn look(&self, oracle: &Oracle) {
        let panics = std::mem::take(&mut self.heard().panics);
        for line in panics {
            oracle.wrong(Wrong::Front, 0, "", format!("a control plane panicked: {line}"));
        }
        for replica in &self.replicas {
            replica.look(oracle).await;
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Responses to Envoy so far.
    pub(super) fn pushes(&self) -> u64 {
        self.replicas.iter().map(|replica| replica.pushes.sum()).sum()
    }

    /// Resources and removals in them.
    pub(super) fn resources(&self) -> u64 {
        self.replicas.iter().map(|replica| replica.resources.sum()).sum()
    }

    /// Responses that Envoy refused, and those that were spoiled for it.
    pub(super) fn refusals(&self) -> (u64, u64) {
        let sum = |of: fn(&Proxy) -> u64| self.replicas.iter().map(|replica| of(&replica.proxy)).sum();
        (sum(Proxy::refusals), sum(Proxy::spoilt))
    }

    /// The last warnings of all of them.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.heard().warnings.iter().cloned().collect()
    }

    fn pids(&self) -> Vec<u32> {
        // One that is being started or ended is left out for a second.
        let pid = |replica: &Replica| Some(replica.tidegate.try_lock().ok()?.as_ref()?.pid);
        self.replicas.iter().filter_map(pid).collect()
    }
}

/// Where the listener comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listeners {
    /// The bootstrap, as Tidegate prints it.
    Static,
    /// A file that can be changed: what Tidegate never does, to see it found out.
    File,
}

/// Envoy, and the control planes behind it.
pub(super) struct Gate {
    pub(super) planes: Arc<Planes>,
    pub(super) envoy: Envoy,
    listener: Option<Listener>,
}

/// A listener that stands in a file of its own.
#[derive(Clone)]
pub(super) struct Listener {
    folder: Arc<TempDir>,
    content: Value,
}

impl Gate {
    pub(super) async fn start(
        planes: Arc<Planes>,
        envoy: &Path,
        listeners: Listeners,
    ) -> anyhow::Result<Self> {
        let [one, other] = planes.xds();
        let printed = envoy::bootstrap(&planes.binary, one, &[]).await?;
        let mut config: Value = serde_saphyr::from_str(&printed).context("the bootstrap that it prints")?;
        let endpoints =
            &mut config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"];
        let mut twin = endpoints[0].clone();
        twin["endpoint"]["address"]["socket_address"]["port_value"] = other.port().into();
        endpoints.as_array_mut().context("the endpoints of the control plane")?.push(twin);
        let listener = match listeners {
            Listeners::Static => None,
            Listeners::File => {
                let content = config["static_resources"]["listeners"].take()[0].take();
                config["static_resources"]["listeners"] = json!([]);
                let listener = Listener { folder: Arc::new(tempfile::tempdir()?), content };
                config["dynamic_resources"]["lds_config"] = json!({ "path_config_source": { "path": listener.path() }, "resource_api_version": "V3" });
                listener.put()?;
                Some(listener)
            }
        };
        // Where listeners drain, they do so at once.
        let flags = ["--drain-time-s", "1", "--drain-strategy", "immediate"];
        let envoy = Envoy::start_with(envoy, &config.to_string(), &flags).await?;
        let serving = async {
            while !page(envoy.admin, "/ready").await.is_ok_and(|page| page.starts_with("HTTP/1.1 200 ")) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(READY, serving).await.with_context(|| format!("Envoy does not serve: {}", envoy.log()))?;
        Ok(Self { planes, envoy, listener })
    }

    /// The listener, if it stands in a file.
    pub(super) fn listener(&self) -> anyhow::Result<Listener> {
        self.listener.clone().context("the listener is static")
    }
}

impl Listener {
    fn path(&self) -> PathBuf {
        self.folder.path().join("listeners.json")
    }

    fn put(&self) -> anyhow::Result<()> {
        let mut listener = self.content.clone();
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        let draft = self.folder.path().join("draft");
        fs::write(&draft, json!({ "resources": [listener] }).to_string())?;
        // Envoy looks again when a file is moved into place.
        fs::rename(draft, self.path())?;
        Ok(())
    }

    /// Changes it, by which Envoy drains it and cuts every player on it.
    pub(super) fn change(mut self) -> anyhow::Result<()> {
        self.content["per_connection_buffer_limit_bytes"] = 65_536.into();
        self.put()
    }
}

impl Front for Gate {
    fn address(&self) -> SocketAddr {
        self.envoy.http
    }

    fn files(&mut self, files: &[File]) -> anyhow::Result<()> {
        files.iter().try_for_each(|file| self.planes.directory.write(file))
    }

    fn cost(&self) -> Cost {
        // Envoy was started with one.
        Cost { pushes: self.planes.pushes(), workers: 1 }
    }

    fn memory_mb(&self) -> f64 {
        let memory: u64 = self.planes.pids().into_iter().chain([self.envoy.pid]).map(proportional_kb).sum();
        crate::stats::amount(memory) / 1024.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a control plane begins to log.
    const LISTENS: &str = r#"echo '{"message":"listening","xds":"127.0.0.1:1","admin":"127.0.0.1:1"}' >&2"#;

    /// A shell in place of a control plane: of `sh serve …` it runs the file of that name.
    async fn replica(rest: &str) -> Replica {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("serve"), format!("{LISTENS}\n{rest}\n")).unwrap();
        let there = |command: &mut Command| _ = command.current_dir(folder.path());
        let tidegate = Tidegate::heard(Path::new("/bin/sh"), there, |_| {}).await.unwrap();
        Replica {
            proxy: Proxy::start(0).await.unwrap(),
            tidegate: tokio::sync::Mutex::new(Some(tidegate)),
            pushes: Counter::default(),
            resources: Counter::default(),
        }
    }

    async fn planes(rest: [&str; 2]) -> (Planes, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let planes = Planes {
            binary: PathBuf::new(),
            directory: Directory::new(folder.path()).unwrap(),
            replicas: [replica(rest[0]).await, replica(rest[1]).await],
            heard: Arc::default(),
        };
        (planes, folder)
    }

    #[tokio::test]
    async fn a_control_plane_that_ends_by_itself_is_told_of_and_one_that_is_killed_is_not() {
        let (planes, _folder) = planes(["exit 3", "exec sleep 600"]).await;
        let oracle = Oracle::new();
        let noticed = async {
            while !oracle.has(Wrong::Front) {
                planes.look(&oracle).await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(READY, noticed).await.expect("its end is seen in time");
        planes.kill(0, &oracle).await.unwrap();
        planes.kill(1, &oracle).await.unwrap();
        planes.look(&oracle).await;
        let findings = oracle.finish().findings;
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(findings[0].detail.contains("by itself: exit status: 3"), "{findings:#?}");
    }

    #[tokio::test]
    async fn a_panic_is_kept_with_the_warnings_and_told_of_once() {
        let (planes, _folder) = planes(["exec sleep 600"; 2]).await;
        let oracle = Oracle::new();
        let panic = "thread 'main' panicked at src/engine.rs:1:2:";
        for line in [r#"{"level":"INFO"}"#, r#"{"level":"WARN"}"#, panic] {
            planes.heard().line(line.to_owned());
        }
        planes.look(&oracle).await;
        planes.look(&oracle).await;
        assert_eq!(planes.warnings(), [r#"{"level":"WARN"}"#, panic]);
        let findings = oracle.finish().findings;
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(findings[0].detail.contains(panic), "{findings:#?}");
    }
}
