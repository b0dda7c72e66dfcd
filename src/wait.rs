//! Waits until nobody is left on some servers, by what every replica of the control plane knows of them.
//!
//! A replica is asked again as soon as its answer would be another (it holds the question until then), so this ends as
//! soon as it is known that the last player has left, and costs next to nothing meanwhile.
//!
//! A report tells of the time before it. Whoever came behind the last one is in none yet, and a drain that was said a moment
//! ago may not have reached an Envoy. So nobody may be seen for two report intervals: by the end of the first one
//! every Envoy has to have taken all that its replica knew in the middle of it, in the second each reports, and answers given
//! behind that must still see nobody.

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
/// Report intervals for which nobody may be seen: one to take the changes, one to report. An Envoy that has not reported
/// for as long as both counts no more, and what it had is not known.
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
                let behind = known.ask();
                for (replica, (admin, behind)) in config.admins.iter().cloned().zip(behind).enumerate() {
                    questions.spawn(look(replica, admin, known.ids.clone(), behind, sender.clone()));
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
    /// Which changes it was asked about: have all Envoys taken them?
    behind: Option<Moment>,
    heard: Option<Heard>,
}

/// The newest change that a replica knew of at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Moment {
    /// A replica that starts anew counts anew.
    process: u64,
    revision: u64,
}

/// A replica's answer.
struct Heard {
    answer: Answer,
    /// By which the next one is told from it.
    tag: Value,
    /// For how long nobody may be seen.
    hold: Duration,
    /// What it knew then.
    moment: Moment,
}

impl Heard {
    fn read(mut answer: Value) -> Option<Self> {
        let tag = answer.get_mut("tag").map(Value::take).unwrap_or_default();
        let interval = Duration::try_from_secs_f64(answer["report_interval_seconds"].as_f64()?).ok()?;
        // Whose process has ended has nobody inside, and lets nobody in.
        let are_stopped = answer["servers"].as_array()?.iter().all(|row| row["mode"] == "stopped");
        let hold = if are_stopped { Duration::ZERO } else { QUIET * interval };
        let moment = Moment::deserialize(&answer).ok()?;
        Some(Self { answer: Answer::deserialize(answer).ok()?, tag, hold, moment })
    }
}

/// What all replicas said, and since when that is that nobody is left.
struct Known {
    ids: Vec<String>,
    answers: Vec<Option<Answer>>,
    /// For how long nobody may be seen, by each.
    holds: Vec<Duration>,
    /// What each knew when it answered last.
    moments: Vec<Option<Moment>>,
    quiet: Option<Quiet>,
}

/// A time in which nobody is seen.
struct Quiet {
    /// Everybody is asked at the first of these times what is known, and at the second whether all Envoys have taken that, ...
    looks: [Instant; 2],
    /// ... and then, where they have, whether anybody is there.
    end: Option<Instant>,
    /// How often everybody was asked.
    asked: usize,
    /// What each replica knew when they were asked first.
    behind: Vec<Option<Moment>>,
    /// Those all of whose Envoys have taken it.
    taken: BTreeSet<usize>,
    /// Those who said behind the end that nobody is left.
    sure: BTreeSet<usize>,
}

impl Known {
    fn new(ids: Vec<String>, replicas: usize) -> Self {
        Self {
            ids,
            answers: vec![None; replicas],
            holds: vec![Duration::ZERO; replicas],
            moments: vec![None; replicas],
            quiet: None,
        }
    }

    fn left(&self) -> BTreeMap<String, Left> {
        merged(&self.ids, &self.answers)
    }

    /// Takes what a replica said. Returns who is left, and whether it is sure that nobody is.
    fn take(&mut self, news: News, now: Instant) -> (BTreeMap<String, Left>, bool) {
        let News { replica, asked, behind, heard } = news;
        let moment = heard.as_ref().map(|heard| heard.moment);
        let is_anew = self.moments[replica].map(|old| old.process) != moment.map(|new| new.process);
        self.moments[replica] = moment;
        let (answer, hold) = heard.map(|heard| (heard.answer, heard.hold)).unzip();
        self.answers[replica] = answer;
        self.holds[replica] = hold.unwrap_or_default();
        let left = self.left();
        let nobody = left.values().all(|left| left.players == Some(0));
        let is_taken = left.values().all(|left| left.not_taken_by.is_empty());
        if is_anew || !nobody || !is_taken {
            self.quiet = None;
        }
        if !nobody {
            return (left, false);
        }
        let hold = self.holds.iter().max().copied().unwrap_or_default();
        if hold.is_zero() {
            return (left, true);
        }
        let quiet = self.quiet.get_or_insert_with(|| Quiet {
            looks: [now + hold / QUIET / 2, now + hold / QUIET],
            end: None,
            asked: 0,
            behind: vec![None; self.answers.len()],
            taken: BTreeSet::new(),
            sure: BTreeSet::new(),
        });
        let all = self.answers.len();
        if is_taken && behind.is_some() && behind == quiet.behind[replica] {
            quiet.taken.insert(replica);
            if quiet.taken.len() == all {
                quiet.end.get_or_insert(now + hold / QUIET);
            }
        }
        if quiet.end.is_some_and(|end| asked >= end) {
            quiet.sure.insert(replica);
        }
        (left, quiet.sure.len() == all)
    }

    /// When everybody is to be asked once more, if that is not done.
    fn due(&self) -> Option<Instant> {
        let quiet = self.quiet.as_ref()?;
        match quiet.asked {
            2 => quiet.end,
            asked => quiet.looks.get(asked).copied(),
        }
    }

    /// Everybody is being asked once more. Returns which changes each is to be asked about.
    fn ask(&mut self) -> Vec<Option<Moment>> {
        let Some(quiet) = &mut self.quiet else { return vec![None; self.answers.len()] };
        quiet.asked += 1;
        if quiet.asked == quiet.looks.len() {
            quiet.behind.clone_from(&self.moments);
        }
        quiet.behind.clone()
    }
}

/// Tells what a replica says each time it is something else, and when it does not answer.
async fn watch(replica: usize, admin: String, ids: Vec<String>, news: mpsc::Sender<News>) {
    let mut tag = Value::Null;
    loop {
        let asked = Instant::now();
        let heard = ask(&admin, &ids, &tag, None, HOLD).await;
        let failed = heard.is_none();
        tag = heard.as_ref().map(|heard| heard.tag.clone()).unwrap_or_default();
        if news.send(News { replica, asked, behind: None, heard }).await.is_err() {
            return;
        }
        if failed {
            sleep(RETRY).await;
        }
    }
}

/// Tells what a replica says now, of these changes too.
async fn look(
    replica: usize,
    admin: String,
    ids: Vec<String>,
    behind: Option<Moment>,
    news: mpsc::Sender<News>,
) {
    let asked = Instant::now();
    let heard = ask(&admin, &ids, &Value::Null, behind, 0).await;
    // Nobody listens any more when the wait is over.
    _ = news.send(News { replica, asked, behind, heard }).await;
}

/// An answer with another tag than this, or any after so many seconds; none in time is none.
async fn ask(
    admin: &str,
    ids: &[String],
    unlike: &Value,
    behind: Option<Moment>,
    seconds: u64,
) -> Option<Heard> {
    let behind = behind.map(|moment| moment.revision);
    let question = json!({ "of": ids, "unlike": unlike, "wait": seconds, "behind": behind });
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

    const MOMENT: Moment = Moment { process: 1, revision: 7 };

    /// An answer of replica `replica`, asked at `asked`: a server in this mode with so many sessions, or none.
    fn news(replica: usize, asked: Instant, server: Option<(&str, u64)>) -> News {
        let row = |(mode, sessions): (&str, u64)| json!({ "id": "a", "mode": mode, "sessions": sessions, "reported_sessions": sessions });
        let rows: Vec<Value> = server.map(row).into_iter().collect();
        let answer = json!({ "servers": rows, "unknown": [], "reporting": ["envoy"], "process": MOMENT.process,
            "revision": MOMENT.revision, "report_interval_seconds": INTERVAL.as_secs_f64(), "tag": "t" });
        News { replica, asked, behind: None, heard: Heard::read(answer) }
    }

    /// The same of an empty server, to a question that is about changes: these Envoys have not taken them.
    fn look(replica: usize, asked: Instant, not_taken_by: &[&str]) -> News {
        let mut news = news(replica, asked, Some(("draining", 0)));
        let row = &mut news.heard.as_mut().unwrap().answer.servers[0];
        row.not_taken_by = not_taken_by.iter().map(|name| (*name).to_owned()).collect();
        News { behind: Some(MOMENT), ..news }
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
        assert_eq!(known.due(), Some(start + INTERVAL / 2));
        assert!(!take(&mut known, 1, 1), "there he is");
        assert_eq!(known.due(), None);
        assert!(!take(&mut known, 2, 0));
        assert!(!take(&mut known, 3, 0), "it began anew");
        assert_eq!((known.ask(), known.due()), (vec![None], Some(after(3))));
        assert_eq!((known.ask(), known.due()), (vec![Some(MOMENT)], None));
        assert!(!known.take(look(0, after(3), &[]), after(3)).1, "a report of behind that is to come");
        assert_eq!(known.due(), Some(after(4)));
        assert_eq!(known.ask(), [Some(MOMENT)]);
        assert_eq!(known.due(), None, "they are asked three times");
        assert!(take(&mut known, 4, 0));
    }

    #[test]
    fn an_envoy_that_is_behind_may_let_somebody_in() {
        let (mut known, start) = (known(1), Instant::now());
        let after = |intervals: u32| start + intervals * INTERVAL;
        let empty = Some(("draining", 0));
        assert!(!known.take(news(0, after(0), empty), after(0)).1);
        assert_eq!((known.ask(), known.ask()), (vec![None], vec![Some(MOMENT)]));
        let (left, is_empty) = known.take(look(0, after(1), &["x"]), after(1));
        assert!(!is_empty && left["a"].to_string().contains("not taken by x"), "{left:?}");
        assert_eq!(known.due(), Some(after(1) + INTERVAL / 2), "it is asked again soon");
        assert!(!known.take(news(0, after(3), empty), after(3)).1, "nobody was asked about it");
        assert_eq!((known.ask(), known.due()), (vec![None], Some(after(2))));
        known.ask();
        assert!(!known.take(look(0, after(3), &[]), after(3)).1);
        assert_eq!(known.due(), Some(after(4)));
        assert!(known.take(look(0, after(4), &[]), after(4)).1);
    }

    #[test]
    fn a_replica_that_starts_anew_counts_anew() {
        let (mut known, start) = (known(1), Instant::now());
        let end = start + 2 * INTERVAL;
        assert!(!known.take(news(0, start, Some(("draining", 0))), start).1);
        assert_eq!((known.ask(), known.ask()), (vec![None], vec![Some(MOMENT)]));
        let mut other = look(0, end, &[]);
        other.heard.as_mut().unwrap().moment.process = 2;
        assert!(!known.take(other, end).1, "its revisions are others");
        assert_eq!(known.due(), Some(end + INTERVAL / 2));
    }

    #[test]
    fn what_a_replica_hears_meanwhile_is_asked_about_too() {
        let (mut known, start) = (known(1), Instant::now());
        assert!(!known.take(news(0, start, Some(("open", 0))), start).1);
        known.ask();
        let mut newer = news(0, start, Some(("draining", 0)));
        newer.heard.as_mut().unwrap().moment.revision = 8;
        assert!(!known.take(newer, start).1);
        assert_eq!(known.ask(), [Some(Moment { revision: 8, ..MOMENT })]);
        assert!(!known.take(look(0, start, &[]), start).1);
        assert_eq!(known.due(), None, "that was about what was known before");
    }

    #[test]
    fn every_replica_has_to_say_so_behind_it() {
        let (mut known, start) = (known(2), Instant::now());
        let (middle, end) = (start + INTERVAL, start + 2 * INTERVAL);
        let empty = Some(("open", 0));
        assert!(!known.take(news(0, start, empty), start).1, "the other has not answered");
        assert_eq!(known.due(), None);
        assert!(!known.take(news(1, start, empty), start).1);
        assert_eq!((known.ask(), known.due()), (vec![None; 2], Some(middle)));
        known.ask();
        assert!(!known.take(look(0, middle, &[]), middle).1);
        assert_eq!(known.due(), None, "the other's Envoys may be behind");
        assert!(!known.take(look(1, middle, &[]), middle).1);
        assert_eq!(known.due(), Some(end));
        assert!(!known.take(look(0, end, &[]), end).1);
        assert!(!known.take(look(1, start, &[]), end).1, "it was asked before");
        assert!(known.take(look(1, end, &[]), end).1);
        let silent = News { replica: 0, asked: end, behind: None, heard: None };
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
