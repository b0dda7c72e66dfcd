//! What the end-to-end tests share. Each test file takes what it needs, so what is unused in one is used in another.
#![allow(dead_code, unreachable_pub)]

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub mod envoy;
pub mod fleet;
pub mod gate;
pub mod ground;
pub mod joins;
pub mod kube;
pub mod manifests;
pub mod players;
pub mod proxy;
pub mod tidegate;
pub mod wire;

/// How long a wait may take before the test fails. Generous: it is a limit, not a pause.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Asks until the answer is as it should be, and returns it; fails the test with the last answer when the time is over.
pub async fn eventually<T: Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if is_right(&answer) {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not in {LIMIT:?}: {what}; at last: {answer:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
