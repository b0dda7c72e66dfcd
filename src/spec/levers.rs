//! What an operator turns while people play: who comes back into a server that drains, how many may come in a
//! second, and what those outside are told to wait.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::Reader;

/// What players are told to wait who are refused by a server that says nothing of it.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// Most new sessions a second that can be asked for: more than an Envoy takes.
const MAX_NEW_SESSIONS: u32 = 100_000;
/// Longest name of a cookie, in bytes.
const MAX_COOKIE: usize = 64;

impl Reader<'_> {
    pub(super) fn new_sessions_per_second(&mut self) -> Option<u32> {
        self.value("new-sessions-per-second", "a whole number from 1 to 100000", |text| {
            text.parse().ok().filter(|count| (1..=MAX_NEW_SESSIONS).contains(count))
        })
    }

    pub(super) fn drain_cookie(&mut self) -> Option<Arc<str>> {
        let expected = format!("the name of a cookie: 1 to {MAX_COOKIE} letters, digits and - . _");
        self.value("drain-allow-cookie", &expected, |text| is_cookie(text).then(|| text.into()))
    }

    pub(super) fn retry_after(&mut self) -> Duration {
        self.value("retry-after", "a duration of whole seconds from 1s to 24h such as 30s or 5m", retry_after)
            .unwrap_or(RETRY_AFTER)
    }
}

/// Fewer characters than RFC 6265, section 4.1.1, allows: these have no meaning in any grammar that a name passes.
fn is_cookie(text: &str) -> bool {
    (1..=MAX_COOKIE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// `retry-after` has whole seconds (RFC 9110, section 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    let signed: SignedDuration = text.parse().ok()?;
    let is_said = |wait: &Duration| {
        wait.subsec_nanos() == 0 && (Duration::from_secs(1)..=MAX_RETRY_AFTER).contains(wait)
    };
    Duration::try_from(signed).ok().filter(is_said)
}
