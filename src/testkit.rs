//! What the tests of several rooms share: seeds that can be replayed, and servers in one line.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Affinity, Age, Desired, GameVersion, Gateways, Host, Mode, PathPrefix, Priority, Protocol, RouteKey,
    Server, ServerId, Source, Weight,
};

pub(crate) const SOURCE: Source = Source("test");

/// The seed of a random test: new each time, or the one in `TIDEGATE_SEED`. Tests print it when they fail.
pub(crate) fn seed() -> u64 {
    match std::env::var("TIDEGATE_SEED") {
        Ok(text) => text.parse().expect("TIDEGATE_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

/// `host` or `host/path`.
pub(crate) fn key(text: &str) -> RouteKey {
    let at = text.find('/').unwrap_or(text.len());
    let path = if at == text.len() { "/" } else { &text[at..] };
    RouteKey {
        host: Host::parse(&text[..at]).expect("a host"),
        path: PathPrefix::parse(path).expect("a path"),
    }
}

pub(crate) fn id(name: &str) -> ServerId {
    ServerId::new(SOURCE, "default", name)
}

/// An open server that claims these keys.
pub(crate) fn server(name: &str, keys: &[&str]) -> Arc<Server> {
    server_with(name, keys, |_| ())
}

pub(crate) fn server_with(name: &str, keys: &[&str], change: impl FnOnce(&mut Server)) -> Arc<Server> {
    let mut routes: Vec<_> = keys.iter().map(|text| key(text)).collect();
    routes.sort();
    routes.dedup();
    let mut server = Server {
        id: id(name),
        age: Age::Unknown,
        desired: Desired {
            endpoint: Some(([10, 0, 0, 1], 7000).into()),
            protocol: Protocol::Http1,
            gateways: Gateways::Every,
            routes,
            strip_prefix: false,
            idle_timeout: Duration::from_hours(1),
            share: None,
            weight: Weight::default(),
            priority: Priority::default(),
            affinity: Affinity::default(),
            version: GameVersion::default(),
            response_timeout: None,
            https_redirect: false,
            max_sessions: None,
            max_connections: None,
            max_pending: None,
            new_sessions_per_second: None,
            drain_cookie: None,
            retry_after: Duration::from_secs(5),
            mode: Mode::Open,
        },
        problems: Vec::new(),
    };
    change(&mut server);
    Arc::new(server)
}
