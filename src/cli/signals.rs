//! What fleet managers are told of live sessions, beside the marks of a routed server.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::live::between;

/// Longest time that a server is watched before it is called empty.
const MAX_EMPTY: Duration = Duration::from_hours(24);
/// What a GameServer of OpenKruiseGame that nobody plays on is called.
const OPS_STATE: &str = "WaitToBeDeleted";
/// The label of such a GameServer of Agones.
const LABEL: (&str, &str) = ("tidegate.dev/empty", "true");
/// In place of peers: this is the only replica.
const NO_PEERS: &str = "none";
/// Longest name and value of a label (Kubernetes, `metadata.labels`), its prefix left out.
const MAX_LABEL: usize = 63;

/// The flags.
#[derive(Debug, Default, Args)]
pub(super) struct TypedSignals {
    /// Write a server's live sessions to its object, as the annotation tidegate.dev/sessions: at most once a minute, and
    /// only when they changed by a tenth. Needs --write-back
    #[arg(long, env = "TIDEGATE_WRITE_SESSIONS")]
    pub(super) write_sessions: bool,
    /// Tell the fleet manager of a drained server that nobody has played on for so long, such as 60s: by spec.opsState
    /// `WaitToBeDeleted` of OpenKruiseGame, or the label tidegate.dev/empty of Agones. Needs --write-back and --peers
    #[arg(long, value_name = "TIME", value_parser = empty_for)]
    empty_for: Option<Duration>,
    /// An admin URL whose name stands for every replica, this one too, as each counts its own Envoys alone: all must
    /// find a server empty. Say it again for more, or `none` where there is a single replica. Needs --write-back
    #[arg(long, value_name = "URL")]
    peers: Vec<String>,
}

impl TypedSignals {
    /// The first flag that was said.
    pub(super) fn said(&self) -> Option<&'static str> {
        let Self { write_sessions, empty_for, peers } = self;
        let flags = [
            (*write_sessions, "--write-sessions"),
            (empty_for.is_some(), "--empty-for"),
            (!peers.is_empty(), "--peers"),
        ];
        flags.into_iter().find(|(is_said, _)| *is_said).map(|(_, flag)| flag)
    }
}

/// What the configuration file says of it.
#[derive(Debug, Default)]
pub(super) struct InFile {
    pub(super) empty_for: Option<String>,
    pub(super) ops_state: Option<String>,
    pub(super) label: Option<String>,
    pub(super) peers: Option<Vec<String>>,
}

/// When and how a drained server is called empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Empty {
    /// Nobody was there for so long.
    pub after: Duration,
    /// The `spec.opsState` that says so.
    pub ops_state: String,
    /// The label that says so, and its value.
    pub label: (String, String),
    /// Admin URLs of all replicas; none: this is the only one.
    pub peers: Vec<String>,
}

pub(super) fn empty(typed: TypedSignals, file: InFile) -> anyhow::Result<Option<Empty>> {
    let in_file = match file.empty_for.as_deref().map(empty_for) {
        Some(Err(why)) => bail!("kube.emptyFor: {:?}: {why}", file.empty_for.unwrap_or_default()),
        Some(Ok(time)) => Some(time),
        None => None,
    };
    let Some(after) = typed.empty_for.or(in_file) else { return Ok(None) };
    let peers = if typed.peers.is_empty() { file.peers.unwrap_or_default() } else { typed.peers };
    let peers = match peers.as_slice() {
        [] => bail!(
            "--empty-for: each replica counts the Envoys that are connected to it; name all of them by --peers, such as http://tidegate-replicas:18080, or say --peers none if there is one"
        ),
        [none] if none == NO_PEERS => Vec::new(),
        _ => peers,
    };
    if let Some(bad) = peers.iter().find(|url| !url.starts_with("http://")) {
        bail!("--peers {bad:?} is not a URL; expected one such as http://tidegate-replicas:18080");
    }
    let ops_state = file.ops_state.unwrap_or_else(|| OPS_STATE.to_owned());
    if ops_state.is_empty() || ops_state == "None" {
        bail!("kube.emptyOpsState: {ops_state:?} says nothing; expected an ops state such as {OPS_STATE}");
    }
    let label = match &file.label {
        None => (LABEL.0.to_owned(), LABEL.1.to_owned()),
        Some(text) => label(text).ok_or_else(|| {
            anyhow::anyhow!(
                "kube.emptyLabel: {text:?} is not a label; expected one such as {}={}",
                LABEL.0,
                LABEL.1
            )
        })?,
    };
    Ok(Some(Empty { after, ops_state, label, peers }))
}

fn empty_for(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), MAX_EMPTY)
}

fn label(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let name = key.rsplit('/').next().unwrap_or(key);
    let is_word = |word: &str| {
        (1..=MAX_LABEL).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    (is_word(name) && is_word(value) && key.matches('/').count() < 2)
        .then(|| (key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(peers: &[&str], file: InFile) -> Result<Option<Empty>, String> {
        let peers = peers.iter().map(|url| (*url).to_owned()).collect();
        let typed = TypedSignals { write_sessions: false, empty_for: Some(Duration::from_mins(1)), peers };
        empty(typed, file).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_is_called_empty_by_one_replica_of_several() {
        assert!(read(&[], InFile::default()).unwrap_err().contains("--peers none"));
        assert!(read(&["none"], InFile::default()).unwrap().unwrap().peers.is_empty());
        assert_eq!(read(&["http://a:1"], InFile::default()).unwrap().unwrap().peers, ["http://a:1"]);
        assert!(read(&["https://a:1"], InFile::default()).unwrap_err().contains("is not a URL"));
    }

    #[test]
    fn the_words_are_checked() {
        let label = |text: &str| read(&["none"], InFile { label: Some(text.into()), ..InFile::default() });
        assert_eq!(label("x.io/idle=yes").unwrap().unwrap().label, ("x.io/idle".into(), "yes".into()));
        for bad in ["", "x", "x=", "=y", "a/b/c=d", "a b=c"] {
            assert!(label(bad).is_err(), "{bad}");
        }
        let state =
            |text: &str| read(&["none"], InFile { ops_state: Some(text.into()), ..InFile::default() });
        assert!(state("").is_err() && state("None").is_err());
        assert_eq!(state("Idle").unwrap().unwrap().ops_state, "Idle");
        let late = InFile { empty_for: Some("2d".into()), ..InFile::default() };
        assert!(empty(TypedSignals::default(), late).unwrap_err().to_string().contains("kube.emptyFor"));
    }
}
