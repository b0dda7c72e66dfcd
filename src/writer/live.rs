//! Live sessions told to the cluster: as an annotation, and as a word to the fleet manager that a drained server is empty.
//! Both only where it was asked for.
//!
//! - **Never on a guess**: only a number that is known from every Envoy of the server's gateways counts, and to be called
//!   empty it is zero, for all the time that was asked for, at every replica; the replicas being the same all that time.
//!   A replica without such an Envoy has nothing to say: then the others are asked, and one of them has to know.
//! - **Never one that takes players**: it is drained, and what was said is taken back when it no longer is, or when
//!   somebody came back.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::send::Outcome;
use super::words::Write;
use super::{Entry, RETRY, SHOWN, Work};
use crate::cli::Empty;
use crate::client;
use crate::client::tally::{Answer, merged};
use crate::envoys::{Coverage, Sessions};
use crate::kinds::{Key, Kind as Object, Noted, Target};
use crate::snapshot::Kind;
use crate::spec::{EMPTY, SESSIONS};
use crate::translate;

/// An object's annotation is written no more often.
const PACE: Duration = Duration::from_mins(1);
/// Annotations a second, over all objects.
const BUDGET: u64 = 10;
/// What a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is under way.
#[derive(Default)]
pub(super) struct Live {
    notes: HashMap<Key, Note>,
    /// What the last look found to write.
    pub(super) ready: VecDeque<(Key, Write)>,
    /// The other replicas are asked.
    polls: JoinSet<Poll>,
    /// Those that answered last.
    replicas: BTreeSet<SocketAddr>,
    /// Why they could not be asked last: said once.
    failure: Option<String>,
}

/// What is remembered of a server.
#[derive(Debug, Default)]
struct Note {
    /// It is drained, and nobody was seen there since.
    empty_since: Option<Instant>,
    /// When all replicas were asked last that found it empty.
    confirmed: Option<Instant>,
    /// When its sessions were written last.
    written: Option<Instant>,
    not_before: Option<Instant>,
    /// What was said last: the watch may not show it yet.
    said: Option<(Word, Instant)>,
}

/// What the replicas say of servers.
pub(super) struct Poll {
    at: Instant,
    asked: Vec<Key>,
    found: anyhow::Result<(BTreeSet<SocketAddr>, BTreeSet<Key>)>,
}

impl Live {
    /// Returns when the replicas have answered; at once and with nothing when they were not asked.
    pub(super) async fn answered(&mut self) -> Option<Poll> {
        self.polls.join_next().await?.ok()
    }

    /// True when somebody is to be told of live sessions.
    fn is_wanted(work: &Work) -> bool {
        work.writer.config.sessions || work.writer.config.empty.is_some()
    }

    /// Takes what the replicas say: who is not empty everywhere, or was asked of others than before, starts again.
    pub(super) fn hear(&mut self, poll: Poll) {
        let Poll { at, asked, found } = poll;
        let (replicas, empty) = match found {
            Ok(found) => {
                self.failure = None;
                found
            }
            Err(why) => {
                let why = format!("{why:#}");
                if self.failure.as_ref() != Some(&why) {
                    warn!(why, "the replicas can't be asked, so nobody is called empty");
                }
                self.failure = Some(why);
                <_>::default()
            }
        };
        // An Envoy that lost its replica reports nowhere for a moment.
        let are_others = !self.replicas.is_empty() && self.replicas != replicas;
        self.replicas = replicas;
        if are_others {
            self.notes.values_mut().for_each(|note| (note.empty_since, note.confirmed) = (None, None));
        }
        for key in asked {
            let Some(note) = self.notes.get_mut(&key) else { continue };
            if empty.contains(&key) && !are_others {
                note.confirmed = Some(at);
            } else {
                (note.empty_since, note.confirmed) = (None, None);
            }
        }
    }

    /// What came of a write.
    pub(super) fn landed(&mut self, key: &Key, outcome: &Outcome) {
        if let Outcome::Failed(why) = outcome {
            if self.failure.as_ref() != Some(why) {
                let (kind, namespace, name) = (key.kind, &key.namespace, &key.name);
                warn!(%kind, %namespace, %name, why, "live sessions are not written, trying again");
            }
            self.failure = Some(why.clone());
            self.notes.entry(key.clone()).or_default().not_before = Some(Instant::now() + RETRY.1);
        }
    }
}

impl Work {
    /// Looks at the sessions of all servers that somebody should be told of. Costs a look-up a server with the annotation,
    /// and else one a drained server.
    pub(super) fn look(&mut self, period: Duration) {
        if !Live::is_wanted(self) {
            return;
        }
        let (coverage, now) = (self.writer.envoys.coverage(), Instant::now());
        let mut live = std::mem::take(&mut self.live);
        let mut budget = BUDGET * period.as_secs().max(1);
        let mut doubtful = Vec::new();
        live.ready.clear();
        live.notes.retain(|key, _| self.entries.contains_key(key));
        for (key, entry) in &self.entries {
            let noted = &entry.subject.noted;
            // What is no game server any more is left as it was.
            let is_concerned = !entry.subject.servers.is_empty()
                && (self.writer.config.sessions || noted.drained || noted.empty.is_some());
            let Some(target) = entry.subject.target.as_ref().filter(|_| is_concerned) else {
                live.notes.remove(key);
                continue;
            };
            let here = self.sessions(entry, &coverage);
            let known: Option<u64> = here.iter().map(|of_port| of_port.sessions).sum();
            let note = live.notes.entry(key.clone()).or_default();
            let is_held = note.not_before.is_some_and(|when| now < when) || self.flying.contains(key);
            let word = self.writer.config.empty.as_ref().and_then(|empty| {
                let is_for_peers = !empty.peers.is_empty() && here.iter().all(may_be_empty);
                note.watch(noted.drained, if is_for_peers { Some(0) } else { known }, now);
                if noted.empty.is_none() && note.is_due(empty, now) && empty.peers.is_empty() {
                    note.confirmed = Some(now);
                }
                if noted.empty.is_none() && note.empty_since.is_some() {
                    doubtful.push((key.clone(), entry));
                }
                let word = note.word(noted, known, empty)?;
                note.said.is_none_or(|(said, at)| said != word || now > at + SHOWN).then_some(word)
            });
            let patch = match (word, known) {
                (Some(word), _) => Some(("empty", self.told(word, target, noted))),
                (None, Some(sessions))
                    if self.writer.config.sessions && budget > 0 && note.may_say(sessions, noted, now) =>
                {
                    budget -= u64::from(!is_held);
                    let annotations = json!({ SESSIONS: sessions.to_string() });
                    Some(("sessions", json!({ "metadata": { "annotations": annotations } })))
                }
                _ => None,
            };
            let Some((what, mut patch)) = patch.filter(|_| !is_held) else { continue };
            match word {
                Some(word) => note.said = Some((word, now)),
                None => note.written = Some(now),
            }
            patch["metadata"]["uid"] = (*target.uid).into();
            let write = Write { target: Some(target.clone()), live: Some((what, patch)), ..Write::default() };
            live.ready.push_back((key.clone(), write));
        }
        if live.polls.is_empty()
            && !doubtful.is_empty()
            && let Some(empty) = self.writer.config.empty.as_ref().filter(|empty| !empty.peers.is_empty())
        {
            let asked = doubtful.into_iter().map(|(key, entry)| {
                let ids = entry.subject.servers.iter().map(|server| server.id.to_string());
                (key, ids.collect())
            });
            live.polls.spawn(poll(empty.peers.clone(), asked.collect(), now));
        }
        self.live = live;
    }

    /// Live sessions of a game server at the Envoys that are connected here, port by port.
    fn sessions(&self, entry: &Entry, coverage: &Coverage) -> Vec<Sessions> {
        let sessions = entry.subject.servers.iter().map(|server| {
            let cluster = translate::cluster_name(&server.id);
            let revision = self.writer.store.read(|snapshot| snapshot.revision_of(Kind::Cluster, &cluster));
            self.writer.envoys.sessions(server, &cluster, revision, coverage)
        });
        sessions.collect()
    }

    /// What is said to the fleet manager, as a merge patch (RFC 7386): null takes a key away.
    fn told(&self, word: Word, target: &Target, noted: &Noted) -> Value {
        let Some(empty) = &self.writer.config.empty else { return Value::Null };
        let (namespace, name) = (&target.key.namespace, &target.key.name);
        let is_okg = target.key.kind == Object::OkgGameServer;
        let before = if is_okg { noted.ops_state.as_deref().unwrap_or("None") } else { "true" };
        let (key, value) = (&empty.label.0, &empty.label.1);
        match word {
            Word::Empty => {
                info!(%namespace, %name, "drained and empty, its fleet manager is told");
                let metadata = json!({ "annotations": { EMPTY: before } });
                if is_okg {
                    json!({ "metadata": metadata, "spec": { "opsState": empty.ops_state } })
                } else {
                    json!({ "metadata": { "annotations": { EMPTY: before }, "labels": { key: value } } })
                }
            }
            Word::TakenBack => {
                info!(%namespace, %name, "no longer drained and empty, that is taken back");
                let annotations = json!({ EMPTY: null });
                // What somebody else wrote meanwhile is not ours to change.
                if is_okg && noted.ops_state.as_deref() == Some(&empty.ops_state) {
                    json!({ "metadata": { "annotations": annotations }, "spec": { "opsState": noted.empty } })
                } else if is_okg {
                    json!({ "metadata": { "annotations": annotations } })
                } else {
                    json!({ "metadata": { "annotations": annotations, "labels": { key: null } } })
                }
            }
        }
    }
}

/// True when nobody is inside as far as it is known here: it is known, or no Envoy is here that is late, or that counts
/// some no more.
fn may_be_empty(here: &Sessions) -> bool {
    here.sessions.is_none_or(|sessions| sessions == 0)
        && here.reported_sessions == 0
        && here.uncounted_sessions == 0
        && here.unreported_by.is_empty()
}

/// What a fleet manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Empty,
    TakenBack,
}

impl Note {
    /// Keeps since when it is drained and empty.
    fn watch(&mut self, drained: bool, known: Option<u64>, now: Instant) {
        if drained && known == Some(0) {
            self.empty_since.get_or_insert(now);
        } else {
            (self.empty_since, self.confirmed) = (None, None);
        }
    }

    /// True when it was empty for as long as it has to be.
    fn is_due(&self, empty: &Empty, at: Instant) -> bool {
        self.empty_since.is_some_and(|since| at.duration_since(since) >= empty.after)
    }

    /// What is to be said now, if anything.
    fn word(&self, noted: &Noted, known: Option<u64>, empty: &Empty) -> Option<Word> {
        if noted.empty.is_some() {
            let is_wrong = !noted.drained || known.is_some_and(|sessions| sessions > 0);
            return is_wrong.then_some(Word::TakenBack);
        }
        self.confirmed.filter(|at| self.is_due(empty, *at)).map(|_| Word::Empty)
    }

    /// True when the annotation is far enough from the truth, and was not written lately.
    fn may_say(&self, sessions: u64, noted: &Noted, now: Instant) -> bool {
        // None is as good as 0: a fleet at rest is not written to at all.
        let said = noted.sessions.as_deref().map_or(Some(0), |text| text.parse::<u64>().ok());
        let is_far = match said {
            Some(said) => {
                said != sessions
                    && (said == 0 || sessions == 0 || said.abs_diff(sessions).saturating_mul(10) > said)
            }
            None => true,
        };
        is_far && self.written.is_none_or(|at| now.duration_since(at) >= PACE)
    }
}

/// Asks all replicas for servers, by the ids of each. Returns who answered, and which are empty everywhere.
async fn poll(peers: Vec<String>, asked: Vec<(Key, Vec<String>)>, at: Instant) -> Poll {
    let ids: Vec<String> = asked.iter().flat_map(|(_, ids)| ids).cloned().collect();
    let found = ask(&peers, &ids).await.map(|(replicas, left)| {
        let is_empty = |ids: &Vec<String>| ids.iter().all(|id| left.contains(id));
        let empty = asked.iter().filter(|(_, ids)| is_empty(ids)).map(|(key, _)| key.clone());
        (replicas, empty.collect())
    });
    Poll { at, asked: asked.into_iter().map(|(key, _)| key).collect(), found }
}

async fn ask(peers: &[String], ids: &[String]) -> anyhow::Result<(BTreeSet<SocketAddr>, BTreeSet<String>)> {
    let mut replicas = BTreeSet::new();
    for peer in peers {
        let address = peer.trim_start_matches("http://").trim_end_matches('/');
        let found = timeout(PATIENCE, tokio::net::lookup_host(address)).await;
        let found = found.context("no answer in time").and_then(|found| Ok(found?));
        replicas.extend(found.with_context(|| format!("--peers {peer}: looking it up"))?);
    }
    let mut answers = Vec::with_capacity(replicas.len());
    let mut questions = JoinSet::new();
    for replica in &replicas {
        let (base, question) = (format!("http://{replica}"), json!({ "of": ids }));
        questions.spawn(async move {
            timeout(PATIENCE, client::post_json(&base, "/api/sessions", &question))
                .await
                .with_context(|| format!("{base} does not answer"))?
        });
    }
    while let Some(answer) = questions.join_next().await {
        answers.push(Some(Answer::deserialize(answer??)?));
    }
    let left = merged(ids, &answers);
    let empty = left.into_iter().filter(|(_, left)| left.is_empty()).map(|(id, _)| id);
    Ok((replicas, empty.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Empty {
        Empty {
            after: Duration::from_mins(1),
            ops_state: "WaitToBeDeleted".into(),
            label: ("tidegate.dev/empty".into(), "true".into()),
            peers: Vec::new(),
        }
    }

    fn noted(sessions: Option<&str>) -> Noted {
        Noted { sessions: sessions.map(Box::from), drained: true, ..Noted::default() }
    }

    #[test]
    fn an_annotation_is_written_when_it_is_far_off_and_once_a_minute() {
        let now = Instant::now();
        for (said, sessions, expected) in [
            (None, 0, false),
            (None, 1, true),
            (Some("100"), 110, false),
            (Some("100"), 111, true),
            (Some("100"), 89, true),
            (Some("100"), 90, false),
            (Some("3"), 3, false),
            (Some("3"), 0, true),
            (Some("0"), 1, true),
            (Some("many"), 1, true),
        ] {
            assert_eq!(Note::default().may_say(sessions, &noted(said), now), expected, "{said:?} {sessions}");
        }
        let lately = Note { written: Some(now), ..Note::default() };
        assert!(!lately.may_say(1, &noted(None), now + Duration::from_secs(59)));
        assert!(lately.may_say(1, &noted(None), now + Duration::from_mins(1)));
    }

    #[test]
    fn one_is_called_empty_after_it_was_all_the_time_and_everywhere() {
        let (start, empty) = (Instant::now(), empty());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut note = Note::default();
        note.watch(true, Some(0), at(0));
        note.confirmed = Some(at(59));
        assert_eq!(note.word(&noted(None), Some(0), &empty), None, "it was asked too early");
        note.confirmed = Some(at(60));
        assert_eq!(note.word(&noted(None), Some(0), &empty), Some(Word::Empty));
        for (drained, known) in [(true, Some(1)), (true, None), (false, Some(0))] {
            note.watch(drained, known, at(61));
            assert_eq!(note.word(&noted(None), known, &empty), None, "{drained} {known:?}");
            note.watch(true, Some(0), at(62));
            note.confirmed = Some(at(70));
            assert_eq!(note.word(&noted(None), Some(0), &empty), None, "the time begins again");
        }
    }

    #[test]
    fn a_replica_that_knows_nothing_leaves_it_to_the_others_and_one_that_doubts_does_not() {
        let none = Sessions::default();
        assert!(may_be_empty(&none), "no Envoy is here");
        assert!(may_be_empty(&Sessions { sessions: Some(0), ..none.clone() }));
        for doubtful in [
            Sessions { sessions: Some(1), reported_sessions: 1, ..none.clone() },
            Sessions { reported_sessions: 1, ..none.clone() },
            Sessions { unreported_by: vec!["late".into()], ..none.clone() },
            Sessions { uncounted_sessions: 1, ..none },
        ] {
            assert!(!may_be_empty(&doubtful), "{doubtful:?}");
        }
    }

    #[test]
    fn what_was_said_is_taken_back_when_it_is_no_longer_so() {
        let said = |drained| Noted { empty: Some("None".into()), drained, ..Noted::default() };
        let note = Note::default();
        assert_eq!(note.word(&said(true), Some(0), &empty()), None);
        assert_eq!(note.word(&said(true), None, &empty()), None, "an Envoy that is late says nothing");
        assert_eq!(note.word(&said(true), Some(1), &empty()), Some(Word::TakenBack), "somebody came back");
        assert_eq!(note.word(&said(false), Some(0), &empty()), Some(Word::TakenBack));
    }

    #[test]
    fn who_is_not_empty_at_every_replica_starts_again() {
        let key = Key { kind: Object::AgonesGameServer, namespace: "default".into(), name: "a".into() };
        let at = Instant::now();
        let note = || Note { empty_since: Some(at), ..Note::default() };
        let mut live = Live::default();
        let here = |port: u16| BTreeSet::from([SocketAddr::from(([10, 0, 0, 1], port))]);
        let poll = |found| Poll { at, asked: vec![key.clone()], found };
        live.notes.insert(key.clone(), note());
        live.hear(poll(Ok((here(1), [key.clone()].into()))));
        assert_eq!(live.notes[&key].confirmed, Some(at));
        live.hear(poll(Ok((here(2), [key.clone()].into()))));
        assert_eq!(live.notes[&key].empty_since, None, "these are other replicas");
        for found in [Ok((here(2), BTreeSet::new())), Err(anyhow::anyhow!("away"))] {
            live.notes.insert(key.clone(), note());
            live.hear(poll(found));
            assert_eq!(live.notes[&key].empty_since, None);
        }
    }
}
