//! Waits until nobody is left on some servers, by what every replica of the control plane knows of them.
//!
//! A replica is asked again as soon as its answer would be another (it holds the question until then), so this ends as
//! soon as it is known that the last player has left, and costs next to nothing meanwhile.
//!
//! A report tells of the time before it. Whoever came behind the last one is in none yet, and a drain that was said a moment
//! ago may not have reached an Envoy. So nobody may be seen for two report intervals, by answers that are given behind those.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cli::{Output, Wait};
use crate::client;
use crate::client::tally::{Answer, Left, merged};

/// How long a replica holds a question, in seconds.
const HOLD: u64 = 20;
/// How much later its answer may come.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a replica is asked again that did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Report intervals for which nobody may be seen. An Envoy that has not reported for as long counts no more, and what it
/// had is not known, so that in this time each one has told of players who came meanwhile.
const QUIET: u32 = 2;
/// Servers that are named in a line.
const MAX_NAMED: usize = 5;
/// Width of the progress bar.
const BAR: u64 = 24;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody is left.
    Empty,
    /// The time is over.
    TimeOver,
    /// Somebody asked to end.
    Interrupted,
}

/// Waits, and says how it goes: on standard error for people, on standard output as JSON.
pub async fn wait(config: Wait, interrupted: impl Future<Output = ()>) -> anyhow::Result<Ended> {
    let over = at(config.timeout.map(|timeout| Instant::now() + timeout));
    tokio::pin!(over, interrupted);
    let find = find(&config);
    let ids = tokio::select! {
        found = find => found?,
        () = &mut over => bail!("--timeout: the time is over, and no control plane has answered"),
        () = &mut interrupted => return Ok(Ended::Interrupted),
    };
    let (sender, mut news) = mpsc::channel(config.admins.len().max(1));
    let mut questions = JoinSet::new();
    for (replica, admin) in config.admins.iter().cloned().enumerate() {
        questions.spawn(watch(replica, admin, ids.clone(), sender.clone()));
    }
    let mut known = Known::new(ids, config.admins.len());
    let mut display = Display::new(config.output);
    loop {
        tokio::select! {
            Some(news) = news.recv() => {
                let (left, is_empty) = known.take(news, Instant::now());
                display.show(&left, is_empty)?;
                if is_empty {
                    return Ok(Ended::Empty);
                }
            }
            () = at(known.due()) => {
                known.ask();
                for (replica, admin) in config.admins.iter().cloned().enumerate() {
                    questions.spawn(look(replica, admin, known.ids.clone(), sender.clone()));
                }
            }
            () = &mut over => {
                display.give_up(&known.left())?;
                return Ok(Ended::TimeOver);
            }
            () = &mut interrupted => {
                display.end()?;
                return Ok(Ended::Interrupted);
            }
        }
    }
}

/// The ids of all servers that are waited for. What no replica knows is an error: most likely a slip of the pen.
async fn find(config: &Wait) -> anyhow::Result<Vec<String>> {
    let (mut ids, mut unknown): (Vec<String>, Option<Vec<String>>) = (Vec::new(), None);
    for admin in &config.admins {
        let question = json!({ "of": config.targets, "fleets": config.fleets });
        let answer = Answer::deserialize(client::post_json(admin, "/api/sessions", &question).await?)?;
        ids.extend(answer.servers.into_iter().map(|row| row.id));
        let before = unknown.unwrap_or_else(|| answer.unknown.clone());
        unknown = Some(before.into_iter().filter(|name| answer.unknown.contains(name)).collect());
    }
    let unknown = unknown.unwrap_or_default();
    if !unknown.is_empty() {
        bail!(
            "no server is known as {}; `tidegate servers` lists them as SOURCE/NAMESPACE/NAME",
            unknown.join(", ")
        );
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// What a replica said, or that it does not answer.
struct News {
    replica: usize,
    /// When it was asked.
    asked: Instant,
    heard: Option<Heard>,
}

/// A replica's answer.
struct Heard {
    answer: Answer,
    /// By which the next one is told from it.
    tag: Value,
    /// For how long nobody may be seen.
    hold: Duration,
}

impl Heard {
    fn read(mut answer: Value) -> Option<Self> {
        let tag = answer.get_mut("tag").map(Value::take).unwrap_or_default();
        let interval = Duration::try_from_secs_f64(answer["report_interval_seconds"].as_f64()?).ok()?;
        // Whose process has ended has nobody inside, and lets nobody in.
        let are_stopped = answer["servers"].as_array()?.iter().all(|row| row["mode"] == "stopped");
        let hold = if are_stopped { Duration::ZERO } else { QUIET * interval };
        Some(Self { answer: Answer::deserialize(answer).ok()?, tag, hold })
    }
}

/// What all replicas said, and since when that is that nobody is left.
struct Known {
    ids: Vec<String>,
    answers: Vec<Option<Answer>>,
    /// For how long nobody may be seen, by each.
    holds: Vec<Duration>,
    quiet: Option<Quiet>,
}

/// A time in which nobody is seen.
struct Quiet {
    /// It is long enough then.
    until: Instant,
    /// By then everybody is asked once more.
    is_asked: bool,
    /// Those who said behind it that nobody is left.
    sure: BTreeSet<usize>,
}

impl Known {
    fn new(ids: Vec<String>, replicas: usize) -> Self {
        Self { ids, answers: vec![None; replicas], holds: vec![Duration::ZERO; replicas], quiet: None }
    }

    fn left(&self) -> BTreeMap<String, Left> {
        merged(&self.ids, &self.answers)
    }

    /// Takes what a replica said. Returns who is left, and whether it is sure that nobody is.
    fn take(&mut self, news: News, now: Instant) -> (BTreeMap<String, Left>, bool) {
        let News { replica, asked, heard } = news;
        let (answer, hold) = heard.map(|heard| (heard.answer, heard.hold)).unzip();
        self.answers[replica] = answer;
        self.holds[replica] = hold.unwrap_or_default();
        let left = self.left();
        if !left.values().all(Left::is_empty) {
            self.quiet = None;
            return (left, false);
        }
        let hold = self.holds.iter().max().copied().unwrap_or_default();
        if hold.is_zero() {
            return (left, true);
        }
        let quiet = self.quiet.get_or_insert_with(|| Quiet {
            until: now + hold,
            is_asked: false,
            sure: BTreeSet::new(),
        });
        if asked >= quiet.until {
            quiet.sure.insert(replica);
        }
        (left, quiet.sure.len() == self.answers.len())
    }

    /// When everybody is to be asked once more, if that is not done.
    fn due(&self) -> Option<Instant> {
        self.quiet.as_ref().filter(|quiet| !quiet.is_asked).map(|quiet| quiet.until)
    }

    /// Everybody is being asked once more.
    fn ask(&mut self) {
        if let Some(quiet) = &mut self.quiet {
            quiet.is_asked = true;
        }
    }
}

/// Tells what a replica says each time it is something else, and when it does not answer.
async fn watch(replica: usize, admin: String, ids: Vec<String>, news: mpsc::Sender<News>) {
    let mut tag = Value::Null;
    loop {
        let asked = Instant::now();
        let heard = ask(&admin, &ids, &tag, HOLD).await;
        let failed = heard.is_none();
        tag = heard.as_ref().map(|heard| heard.tag.clone()).unwrap_or_default();
        if news.send(News { replica, asked, heard }).await.is_err() {
            return;
        }
        if failed {
            sleep(RETRY).await;
        }
    }
}

/// Tells what a replica says now.
async fn look(replica: usize, admin: String, ids: Vec<String>, news: mpsc::Sender<News>) {
    let asked = Instant::now();
    let heard = ask(&admin, &ids, &Value::Null, 0).await;
    // Nobody listens any more when the wait is over.
    _ = news.send(News { replica, asked, heard }).await;
}

/// An answer with another tag than this, or any after so many seconds; none in time is none.
async fn ask(admin: &str, ids: &[String], unlike: &Value, seconds: u64) -> Option<Heard> {
    let question = json!({ "of": ids, "unlike": unlike, "wait": seconds });
    let limit = Duration::from_secs(seconds) + PATIENCE;
    let answer = timeout(limit, client::post_json(admin, "/api/sessions", &question)).await.ok()?.ok()?;
    Heard::read(answer)
}

/// What is shown.
struct Display {
    output: Output,
    is_terminal: bool,
    /// Most players that were seen: the whole of the bar.
    most: u64,
    last: String,
}

impl Display {
    fn new(output: Output) -> Self {
        let is_terminal = output == Output::Table && std::io::stderr().is_terminal();
        Self { output, is_terminal, most: 0, last: String::new() }
    }

    fn show(&mut self, left: &BTreeMap<String, Left>, is_empty: bool) -> std::io::Result<()> {
        let players: u64 = left.values().map(|left| left.at_least).sum();
        self.most = self.most.max(players);
        let line = match self.output {
            Output::Json => json!({ "empty": is_empty, "players": total(left), "servers": left }).to_string(),
            Output::Table => sentence(left, is_empty),
        };
        if line == self.last && !is_empty {
            return Ok(());
        }
        if self.output == Output::Json {
            writeln!(std::io::stdout(), "{line}")?;
        } else if self.is_terminal {
            let done = if is_empty { BAR } else { (self.most - players) * BAR / self.most.max(1) };
            let bar: String = (0..BAR).map(|at| if at < done { '#' } else { '.' }).collect();
            // Back to the margin, and what was there before is cleared.
            write!(std::io::stderr(), "\r\u{1b}[K[{bar}] {line}{}", if is_empty { "\n" } else { "" })?;
            std::io::stderr().flush()?;
        } else {
            writeln!(std::io::stderr(), "{line}")?;
        }
        self.last = line;
        Ok(())
    }

    fn end(&self) -> std::io::Result<()> {
        if self.is_terminal { writeln!(std::io::stderr()) } else { Ok(()) }
    }

    fn give_up(&mut self, left: &BTreeMap<String, Left>) -> std::io::Result<()> {
        self.end()?;
        if self.output == Output::Json {
            let line = json!({ "empty": false, "timeout": true, "players": total(left), "servers": left });
            return writeln!(std::io::stdout(), "{line}");
        }
        writeln!(std::io::stderr(), "the time is over: {}", sentence(left, false))?;
        for (id, left) in left.iter().filter(|(_, left)| !left.is_empty()) {
            writeln!(std::io::stderr(), "  {id}: {left}")?;
        }
        Ok(())
    }
}

/// Players on all of them; none while that is not known of each.
fn total(left: &BTreeMap<String, Left>) -> Option<u64> {
    left.values().map(|left| left.players).sum()
}

fn sentence(left: &BTreeMap<String, Left>, is_sure: bool) -> String {
    let busy: Vec<_> = left.iter().filter(|(_, left)| !left.is_empty()).collect();
    if busy.is_empty() {
        let text = if is_sure { "empty" } else { "nobody is left by the last reports; newer ones will tell" };
        return text.to_owned();
    }
    let players: u64 = busy.iter().map(|(_, left)| left.at_least).sum();
    let mut names: Vec<_> =
        busy.iter().take(MAX_NAMED).map(|(id, left)| format!("{} {left}", short(id))).collect();
    if busy.len() > MAX_NAMED {
        names.push(format!("{} more", busy.len() - MAX_NAMED));
    }
    let least = if total(left).is_some() { "" } else { "at least " };
    format!("players left: {least}{players} on {} of {}: {}", busy.len(), left.len(), names.join(", "))
}

/// An id without its source.
fn short(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// An answer of replica `replica`, asked at `asked`: a server in this mode with so many sessions, or none.
    fn news(replica: usize, asked: Instant, server: Option<(&str, u64)>) -> News {
        let row = |(mode, sessions): (&str, u64)| json!({ "id": "a", "mode": mode, "sessions": sessions, "reported_sessions": sessions });
        let rows: Vec<Value> = server.map(row).into_iter().collect();
        let answer = json!({ "servers": rows, "unknown": [], "reporting": ["envoy"],
            "report_interval_seconds": INTERVAL.as_secs_f64(), "tag": "t" });
        News { replica, asked, heard: Heard::read(answer) }
    }

    fn known(replicas: usize) -> Known {
        Known::new(vec!["a".to_owned()], replicas)
    }

    #[test]
    fn a_report_of_before_proves_nothing() {
        let (mut known, start) = (known(1), Instant::now());
        let after = |intervals: u32| start + intervals * INTERVAL;
        let take = |known: &mut Known, asked: u32, sessions: u64| {
            known.take(news(0, after(asked), Some(("draining", sessions))), after(asked)).1
        };
        assert!(!take(&mut known, 0, 0), "who came behind the last report is not in it");
        assert_eq!(known.due(), Some(after(2)));
        assert!(!take(&mut known, 1, 1), "there he is");
        assert_eq!(known.due(), None);
        assert!(!take(&mut known, 2, 0));
        assert!(!take(&mut known, 3, 0), "it began anew");
        assert_eq!(known.due(), Some(after(4)));
        known.ask();
        assert_eq!(known.due(), None, "they are asked once");
        assert!(take(&mut known, 4, 0));
    }

    #[test]
    fn every_replica_has_to_say_so_behind_it() {
        let (mut known, start) = (known(2), Instant::now());
        let end = start + 2 * INTERVAL;
        let empty = Some(("open", 0));
        assert!(!known.take(news(0, start, empty), start).1, "the other has not answered");
        assert_eq!(known.due(), None);
        assert!(!known.take(news(1, start, empty), start).1);
        assert_eq!(known.due(), Some(end));
        assert!(!known.take(news(0, end, empty), end).1);
        assert!(!known.take(news(1, start, empty), end).1, "it was asked before");
        assert!(known.take(news(1, end, empty), end).1);
        let silent = News { replica: 0, asked: end, heard: None };
        assert!(!known.take(silent, end).1);
    }

    #[test]
    fn who_is_gone_or_stopped_is_not_waited_for() {
        let now = Instant::now();
        for server in [None, Some(("stopped", 0))] {
            assert!(known(1).take(news(0, now, server), now).1, "{server:?}");
        }
        assert!(!known(1).take(news(0, now, Some(("starting", 0))), now).1);
    }
}
