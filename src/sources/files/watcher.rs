//! The watch over a fleet directory: events of the operating system in, looks at files out. It decides
//! only *when* to look; `disk` looks, `fleet` says what that changes.
//!
//! A notice never says what happened, only where to look. So a lost one costs time, not truth, and one
//! too many costs a read.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::content::{Content, MAX_PROBLEMS};
use super::disk::{self, Identity, Look, Stat};
use super::fleet::Fleet;
use super::notice::{Notice, notices};
use super::parse::Format;
use super::{Options, Report, SOURCES};
use crate::model::{Event, Problem, ProblemKind};
use crate::owner::Burst;

/// A file that is written to but not closed is read when it was left alone for so long, ...
const QUIET: Duration = Duration::from_millis(50);
/// ... and no later than this after the first write.
const PATIENCE: Duration = Duration::from_secs(1);
/// What such a file lacks may still be written: its servers are removed when it is closed, or after this.
const OPEN: Duration = Duration::from_secs(5);
/// An editor may rename the old file away before the new one is there.
const GRACE: Duration = Duration::from_millis(250);
/// A directory that is back is filled by somebody: what it has is taken at once, and what it lacks is gone when
/// nothing happened for so long, ...
const SETTLE: Duration = Duration::from_secs(1);
/// ... and no later than this.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a directory that is not there is looked for.
const RETRY: Duration = Duration::from_millis(500);
/// How often all stats are compared, should an event be lost.
const RESCAN: Duration = Duration::from_secs(10);
/// The same, when the operating system gives no events.
const RESCAN_BLIND: Duration = Duration::from_secs(2);
/// Notices that wait. When it is full the watcher's thread waits and the kernel's queue fills; that
/// overflows into a rescan, so nothing is lost.
const NOTICES: usize = 1024;

/// When to look at a file.
#[derive(Clone, Copy, Debug)]
struct Due {
    first: Instant,
    at: Instant,
    /// Somebody may still be writing to it.
    is_open: bool,
    /// It was read while somebody was, and lacked something: it is to be given its time.
    was_open: bool,
}

impl Due {
    fn at(at: Instant) -> Self {
        Self { first: at, at, is_open: false, was_open: false }
    }
}

#[derive(Debug)]
enum Phase {
    /// The directory is not there, or can't be read.
    Lost {
        retry_at: Instant,
    },
    /// It is back, and may not have everything yet: nothing is removed.
    Settling {
        since: Instant,
        until: Instant,
    },
    Watching,
}

/// The receiver of events has gone: there is nobody to work for.
struct Closed;

struct Watch {
    options: Arc<Options>,
    events: mpsc::Sender<Burst>,
    report: watch::Sender<Report>,
    fleet: Fleet,
    stats: BTreeMap<String, Option<Stat>>,
    phase: Phase,
    /// Dropped, it stops watching. None while the operating system gives no events.
    watcher: Option<RecommendedWatcher>,
    identity: Option<Identity>,
    pending: BTreeMap<String, Due>,
    /// Files that were not there when they were looked for, since when.
    missing: BTreeMap<String, Instant>,
    rescan_at: Instant,
    /// What is wrong with the directory itself.
    trouble: Option<String>,
    held: Option<String>,
    listed: bool,
    /// What was said last of a doubt.
    doubts: bool,
    reads: u64,
}

/// See [`super::run`].
pub(super) async fn run(
    options: Arc<Options>,
    events: mpsc::Sender<Burst>,
    report: watch::Sender<Report>,
) -> anyhow::Result<()> {
    let now = Instant::now();
    let closed = events.clone();
    let mut closed = pin!(closed.closed());
    let mut watch = Watch {
        fleet: Fleet::new(options.rules.clone()),
        options,
        events,
        report,
        stats: BTreeMap::new(),
        phase: Phase::Lost { retry_at: now },
        watcher: None,
        identity: None,
        pending: BTreeMap::new(),
        missing: BTreeMap::new(),
        rescan_at: now,
        trouble: None,
        held: None,
        listed: false,
        doubts: false,
        reads: 0,
    };
    let mut inbox = None;
    loop {
        tokio::select! {
            () = &mut closed => return Ok(()),
            notice = next(&mut inbox) => watch.note(notice),
            () = until(watch.wake_at()) => {
                if watch.act(&mut inbox).await.is_err() {
                    return Ok(());
                }
                watch.publish();
            }
        }
    }
}

/// Returns at that time. What is due is not put to sleep: the timer counts in milliseconds, rounds up, and the poll below
/// it rounds up once more.
async fn until(at: Instant) {
    if at > Instant::now() {
        sleep_until(at).await;
    }
}

async fn next(inbox: &mut Option<mpsc::Receiver<Notice>>) -> Notice {
    let Some(notices) = inbox else { return std::future::pending().await };
    let Some(notice) = notices.recv().await else {
        // Its thread has ended: watch anew.
        *inbox = None;
        return Notice::Lost;
    };
    notice
}

impl Watch {
    fn wake_at(&self) -> Instant {
        let next = match self.phase {
            Phase::Lost { retry_at } => return retry_at,
            // The first listing is told as a whole.
            Phase::Settling { until, .. } if !self.listed => return until,
            Phase::Settling { until, .. } => until.min(self.rescan_at),
            Phase::Watching => self.rescan_at,
        };
        self.pending.values().map(|due| due.at).fold(next, Instant::min)
    }

    fn is_settling(&self) -> bool {
        matches!(self.phase, Phase::Settling { .. })
    }

    fn note(&mut self, notice: Notice) {
        let now = Instant::now();
        if let (Phase::Settling { since, until }, true) = (&mut self.phase, notice != Notice::Lost) {
            *until = (now + SETTLE).min(*since + SETTLE_PATIENCE);
        }
        match notice {
            Notice::Stir => {}
            // Nothing is looked at alone before all was listed.
            Notice::Now(_) | Notice::Soon(_) | Notice::Everything if !self.listed => {}
            Notice::Now(name) => _ = self.pending.insert(name, Due::at(now)),
            Notice::Soon(name) => {
                let due = self.pending.entry(name).or_insert(Due::at(now));
                if !due.is_open {
                    *due = Due { first: now, is_open: true, ..*due };
                }
                due.at = (now + QUIET).min(due.first + PATIENCE);
            }
            Notice::Everything => self.rescan_at = self.rescan_at.min(now + QUIET),
            // The last word of a watcher that was dropped is no news.
            Notice::Lost if self.watcher.is_none() => {}
            Notice::Lost => {
                self.lose("is gone");
                self.publish();
            }
        }
    }

    /// Keeps everything, and looks for the directory from now on.
    fn lose(&mut self, why: impl std::fmt::Display) {
        self.watcher = None;
        self.identity = None;
        for name in std::mem::take(&mut self.pending).into_keys() {
            // What was to be looked at again is met by the next listing, though its stat stays.
            if let Some(stat) = self.stats.get_mut(&name) {
                *stat = None;
            }
        }
        self.missing.clear();
        self.held = None;
        self.trouble = Some(format!("{why}; looked for again every half second"));
        self.phase = Phase::Lost { retry_at: Instant::now() + RETRY };
    }

    async fn act(&mut self, inbox: &mut Option<mpsc::Receiver<Notice>>) -> Result<(), Closed> {
        let now = Instant::now();
        match self.phase {
            Phase::Lost { retry_at } if retry_at <= now => {
                let is_first = self.trouble.is_none();
                match self.open(inbox) {
                    Err(error) => self.lose(error),
                    Ok(()) if is_first => {
                        self.phase = Phase::Watching;
                        self.scan(inbox).await?;
                    }
                    Ok(()) => {
                        self.phase = Phase::Settling { since: now, until: now + SETTLE };
                        // A file that is being written right now has told of itself by then.
                        self.rescan_at = now + QUIET;
                    }
                }
            }
            Phase::Lost { .. } => {}
            Phase::Settling { until, .. } if until <= now => self.scan(inbox).await?,
            Phase::Settling { .. } if !self.listed => {}
            Phase::Settling { .. } | Phase::Watching if self.rescan_at <= now => self.scan(inbox).await?,
            Phase::Settling { .. } | Phase::Watching => self.look_at_due(now).await?,
        }
        Ok(())
    }

    /// Watches the directory. Without events of the operating system it goes on blind, by stats alone.
    fn open(&mut self, inbox: &mut Option<mpsc::Receiver<Notice>>) -> std::io::Result<()> {
        // Asked first: should it be swapped right now, the next scan sees another identity.
        let identity = disk::directory(&self.options.dir)?;
        // A directory that can be found but not read is as good as none: said once, not at each look.
        std::fs::read_dir(&self.options.dir)?;
        if *self.identity.get_or_insert(identity) != identity {
            return Err(std::io::Error::other("was replaced by another directory"));
        }
        let (sender, receiver) = mpsc::channel(NOTICES);
        // As the events name it, which would not be equal to a relative one.
        let dir = std::path::absolute(&self.options.dir)?;
        let watched = dir.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            let list = event.map_or_else(|_| vec![Notice::Everything], |event| notices(&dir, &event));
            for notice in list {
                // An error says that this watch has ended.
                let _ = sender.blocking_send(notice);
            }
        };
        let watcher = RecommendedWatcher::new(handler, notify::Config::default()).and_then(|mut watcher| {
            watcher.watch(&watched, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => {
                *inbox = Some(receiver);
                self.watcher = Some(watcher);
                self.trouble = None;
            }
            Err(error) => {
                *inbox = None;
                self.watcher = None;
                let seconds = RESCAN_BLIND.as_secs();
                self.trouble =
                    Some(format!("can't be watched: {error}; it is read every {seconds} seconds instead"));
            }
        }
        Ok(())
    }

    /// What is there now; nothing when the directory was lost by looking at it.
    async fn list(
        &mut self,
        inbox: &mut Option<mpsc::Receiver<Notice>>,
    ) -> Option<Vec<(String, Option<Stat>)>> {
        if self.watcher.is_none()
            && self.listed
            && let Err(error) = self.open(inbox)
        {
            self.lose(error);
            return None;
        }
        self.rescan_at = Instant::now() + if self.watcher.is_some() { RESCAN } else { RESCAN_BLIND };
        let options = self.options.clone();
        let listing =
            spawn_blocking(move || Ok((disk::directory(&options.dir)?, disk::list(&options.dir)?))).await;
        match listing.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok((identity, list)) if self.identity == Some(identity) => Some(list),
            Ok(_) => {
                self.lose("was replaced by another directory");
                None
            }
            Err(error) => {
                self.lose(format_args!("can't be read: {error}"));
                None
            }
        }
    }

    /// Compares all stats, and looks at what differs; until the directory has settled, not at what is missing.
    async fn scan(&mut self, inbox: &mut Option<mpsc::Receiver<Notice>>) -> Result<(), Closed> {
        let Some(list) = self.list(inbox).await else { return Ok(()) };
        let now = Instant::now();
        if let (Phase::Settling { until, .. }, true) = (&self.phase, self.listed) {
            let is_over = *until <= now;
            let objects = self.fleet.ledger().len();
            self.held = (list.is_empty() && objects > 0).then(|| {
                let dir = self.options.dir.display();
                format!(
                    "{dir} came back empty; holding {objects} objects; add a file, or restart to accept it"
                )
            });
            if is_over && self.held.is_some() {
                self.phase = Phase::Settling { since: now, until: now + SETTLE };
            }
            if !is_over || self.held.is_some() {
                return self.take_what_is_there(list).await;
            }
            // What files lack was kept meanwhile.
            let waiting = self.pending.values_mut().filter(|due| !due.is_open && !due.was_open);
            waiting.for_each(|due| due.at = now);
        }
        self.phase = Phase::Watching;
        let names: BTreeSet<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
        let gone: Vec<_> = self.stats.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.pending.entry(name).or_insert(Due::at(now));
        }
        for name in self.changed(list) {
            let is_open = self.pending.remove(&name).is_some_and(|due| due.is_open);
            self.look_at(name, is_open).await?;
        }
        if !self.listed {
            self.listed = true;
            let ledger = self.fleet.ledger();
            let (dir, files, objects) = (self.options.dir.display(), ledger.files(), ledger.len());
            info!(%dir, files, objects, "fleet directory listed");
            self.doubts = ledger.doubt().is_some();
            self.send(self.fleet.listing()).await?;
        }
        // In the same turn, so that nothing is said to be held that no longer is.
        self.look_at_due(now).await
    }

    /// Looks at all that changed but what somebody is writing to: that is due on its own.
    async fn take_what_is_there(&mut self, list: Vec<(String, Option<Stat>)>) -> Result<(), Closed> {
        for name in self.changed(list) {
            if !self.pending.get(&name).is_some_and(|due| due.is_open) {
                self.pending.remove(&name);
                self.look_at(name, false).await?;
            }
        }
        Ok(())
    }

    /// The files whose stats are not as they were when they were read.
    fn changed(&self, list: Vec<(String, Option<Stat>)>) -> Vec<String> {
        let differs =
            |(name, stat): &(String, Option<Stat>)| stat.is_none() || self.stats.get(name) != Some(stat);
        list.into_iter().filter(differs).map(|(name, _)| name).collect()
    }

    async fn look_at_due(&mut self, now: Instant) -> Result<(), Closed> {
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|(_, due)| due.at <= now);
        self.pending = later;
        let due: BTreeMap<String, Due> = due;
        for (name, due) in due {
            self.look_at(name, due.is_open).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, name: String, is_open: bool) -> Result<(), Closed> {
        let options = self.options.clone();
        let file = name.clone();
        let look = spawn_blocking(move || {
            let path = options.dir.join(&file);
            let format = Format::of(&path).unwrap_or(Format::Yaml);
            disk::look(&path, &file, format, options.max_file_bytes, &options.rules)
        });
        // A panic in a parser is a bug, but not one that may cost a fleet.
        let look = look.await.unwrap_or_else(|panic| Look::Found {
            stat: None,
            content: Content::unreadable(&name, ProblemKind::Unreadable, format!("can't be read: {panic}")),
            was_read: true,
        });
        self.take(name, look, is_open).await
    }

    async fn take(&mut self, name: String, look: Look, is_open: bool) -> Result<(), Closed> {
        let changes = match look {
            Look::Found { stat, mut content, was_read } => {
                self.reads += u64::from(was_read);
                self.missing.remove(&name);
                let is_whole = content.is_whole;
                // What a file lacks in a directory that is being filled may be in the next.
                content.is_open = is_open || self.is_settling();
                let is_patient = content.is_open && is_whole;
                let changes = self.fleet.replace(&name, content);
                if is_patient && self.fleet.ledger().keeps(&name) {
                    let due = Due { was_open: is_open, ..Due::at(Instant::now() + OPEN) };
                    self.pending.insert(name.clone(), due);
                }
                debug!(file = %name, changes = changes.len(), "file read");
                self.stats.insert(name, stat);
                changes
            }
            // The scan that ends the settling sees what is gone for good.
            Look::Gone if self.is_settling() || !self.fleet.ledger().knows(&name) => return Ok(()),
            Look::Gone => {
                let now = Instant::now();
                let since = *self.missing.entry(name.clone()).or_insert(now);
                if now < since + GRACE {
                    self.pending.insert(name, Due::at(since + GRACE));
                    return Ok(());
                }
                // Its file is gone, or all of them: a directory that vanished is no deletion.
                if disk::directory(&self.options.dir).ok() != self.identity {
                    self.lose("is gone");
                    return Ok(());
                }
                self.missing.remove(&name);
                self.stats.remove(&name);
                let changes = self.fleet.remove(&name);
                debug!(file = %name, changes = changes.len(), "file deleted");
                changes
            }
        };
        self.send(changes).await
    }

    async fn send(&mut self, mut changes: Vec<Event>) -> Result<(), Closed> {
        // Before the listing is told as a whole, its parts are not.
        if !self.listed {
            return Ok(());
        }
        let doubts = self.fleet.ledger().doubt().is_some();
        if doubts != self.doubts {
            self.doubts = doubts;
            changes.extend(SOURCES.map(|source| Event::Doubt { source, doubts }));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.events.send(Burst::now(changes)).await.map_err(|_| Closed)
    }

    fn publish(&self) {
        let dir = self.options.dir.display();
        let ledger = self.fleet.ledger();
        let mut problems: Vec<_> = self
            .trouble
            .iter()
            .map(|why| Problem::new(ProblemKind::Unreadable, dir.to_string(), why))
            .collect();
        if self.missing.is_empty() {
            problems.extend(ledger.problems());
            problems.truncate(MAX_PROBLEMS);
        } else {
            // A file on its way to another name stands in two: what is said now would be void at once.
            problems.extend(
                self.report
                    .borrow()
                    .problems
                    .iter()
                    .filter(|problem| problem.field != dir.to_string())
                    .cloned(),
            );
        }
        let lost = match self.phase {
            _ if ledger.is_empty() => None,
            Phase::Lost { .. } => {
                Some(format!("{dir} is not there to be read: {} objects are kept as they were", ledger.len()))
            }
            Phase::Settling { .. } => {
                let (quiet, most) = (SETTLE.as_secs(), SETTLE_PATIENCE.as_secs());
                Some(format!(
                    "{dir} is back: what it has counts, what it lacks is kept until nothing changes there for {quiet} s, \
                     at most {most} s"
                ))
            }
            Phase::Watching => None,
        };
        let report = Report {
            listed: self.listed,
            files: ledger.files(),
            held: self.held.clone().or(lost).or_else(|| ledger.held()).or_else(|| ledger.doubt()),
            problems,
            notes: ledger.notes(),
            reads: self.reads,
        };
        self.report.send_if_modified(|before| {
            if *before == report {
                return false;
            }
            report.tell(before);
            *before = report;
            true
        });
    }
}
