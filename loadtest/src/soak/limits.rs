//! File descriptors: a player costs two here and two in the front, which takes over this limit.

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Besides players and servers.
const SPARE: u64 = 1_000;

/// What so many players and servers need, in this process and in Envoy alike.
fn needed(players: u32, servers: u32) -> u64 {
    // A server has a listener; the churn and the askers need some more each.
    2 * u64::from(players) + 3 * u64::from(servers) + SPARE
}

/// Raises the limit as far as it must be and may be.
pub(super) fn descriptors(players: u32, servers: u32) -> anyhow::Result<()> {
    let needed = needed(players, servers);
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if now.maximum.is_some_and(|maximum| maximum < needed) {
        bail!(
            "{players} players on {servers} servers need {needed} open files, and the hard limit is {}: raise it \
             (`ulimit -Hn {needed}` as root, or LimitNOFILE= of the service), or take fewer --players",
            now.maximum.unwrap_or_default()
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: now.maximum })
        .with_context(|| format!("raising the limit of open files to {needed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_missing_is_named() {
        assert!(descriptors(1, 1).is_ok());
        let Some(hard) = getrlimit(Resource::Nofile).maximum else { return };
        if let Ok(players) = u32::try_from(hard) {
            let error = descriptors(players, 1).unwrap_err().to_string();
            assert!(error.contains(&hard.to_string()) && error.contains("--players"), "{error}");
        }
    }
}
