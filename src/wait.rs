//! Waits until nobody is left on some servers, by what every replica of the control plane knows of them.
//!
//! A replica is asked again as soon as its answer would be another (it holds the question until then), so this ends as
//! soon as the last player's Envoy has reported, and costs next to nothing meanwhile.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::cli::{Output, Wait};
use crate::client;
use crate::client::tally::{Answer, Left, merged};

/// How long a replica holds a question, in seconds.
const HOLD: u64 = 20;
/// How much later its answer may come.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a replica is asked again that did not answer.
const RETRY: Duration = Duration::from_secs(1);
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
    let end = config.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    let over = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over, interrupted);
    let find = find(&config);
    let ids = tokio::select! {
        found = find => found?,
        () = &mut over => bail!("--timeout: the time is over, and no control plane has answered"),
        () = &mut interrupted => return Ok(Ended::Interrupted),
    };
    let (sender, mut answers) = mpsc::channel(config.admins.len().max(1));
    let mut watches = JoinSet::new();
    for (replica, admin) in config.admins.iter().cloned().enumerate() {
        watches.spawn(watch(replica, admin, ids.clone(), sender.clone()));
    }
    let mut known: Vec<Option<Answer>> = config.admins.iter().map(|_| None).collect();
    let mut display = Display::new(config.output);
    loop {
        tokio::select! {
            Some((replica, answer)) = answers.recv() => {
                known[replica] = answer;
                let left = merged(&ids, &known);
                let is_empty = left.values().all(Left::is_empty);
                display.show(&left, is_empty)?;
                if is_empty {
                    return Ok(Ended::Empty);
                }
            }
            () = &mut over => {
                display.give_up(&merged(&ids, &known))?;
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

/// Tells what a replica says each time it is something else, and nothing when it does not answer.
async fn watch(
    replica: usize,
    admin: String,
    ids: Vec<String>,
    answers: mpsc::Sender<(usize, Option<Answer>)>,
) {
    let mut tag = Value::Null;
    loop {
        let question = json!({ "of": ids, "unlike": tag, "wait": HOLD });
        let limit = Duration::from_secs(HOLD) + PATIENCE;
        let asked = timeout(limit, client::post_json(&admin, "/api/sessions", &question)).await;
        let answer = asked.ok().and_then(Result::ok).and_then(|mut answer| {
            tag = answer["tag"].take();
            Answer::deserialize(answer).ok()
        });
        let failed = answer.is_none();
        if answers.send((replica, answer)).await.is_err() {
            return;
        }
        if failed {
            tag = Value::Null;
            sleep(RETRY).await;
        }
    }
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
            Output::Table => sentence(left),
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
        writeln!(std::io::stderr(), "the time is over: {}", sentence(left))?;
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

fn sentence(left: &BTreeMap<String, Left>) -> String {
    let busy: Vec<_> = left.iter().filter(|(_, left)| !left.is_empty()).collect();
    if busy.is_empty() {
        return "empty".to_owned();
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
