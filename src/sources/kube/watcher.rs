//! One watch: a kind in a namespace, from its first list on, for as long as the process lives.

use std::pin::pin;
use std::time::Duration;

use ::kube::runtime::watcher::{Config, Error, Event, watcher};
use ::kube::{Api, Client};
use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::object::{Content, Watchable, Watched};
use crate::kinds::{Key, Kind, Object, agones, okg, pod};

/// The API server ends a watch after so long, and it is asked for anew. kube takes one for dead that is silent for five
/// seconds more; what waits for the head of an answer ends as every request does (`connect`).
pub(super) const WATCH_SECONDS: u32 = 60;
/// A watch that did not fail again for so long is taken for one that hears.
const QUIET: Duration = Duration::from_secs(3);
/// The first and the longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// Which watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
    pub(super) selector: String,
}

/// What a watch has to say.
#[derive(Debug)]
pub(super) enum News {
    /// All there is, and the keys of those that could not be read.
    Listed(Vec<Object>, Vec<(Key, String)>),
    /// A new version.
    Put(Box<Object>),
    /// It is gone.
    Gone(Key),
    /// A version that could not be read.
    Unreadable(Option<Key>, String),
    /// A list or a watch failed; it tries again.
    Failed(String),
    /// It failed no more for a while.
    Quiet,
}

/// Watches until nobody listens.
pub(super) async fn run(client: Client, id: Id, news: mpsc::Sender<(Id, News)>) {
    match id.kind {
        Kind::Pod | Kind::AgonesPod => follow::<pod::Pod>(client, id, news).await,
        Kind::OkgGameServer => follow::<okg::GameServer>(client, id, news).await,
        Kind::GameServerSet => follow::<okg::GameServerSet>(client, id, news).await,
        Kind::AgonesGameServer => follow::<agones::GameServer>(client, id, news).await,
        // A fleet is only explained: it makes no server.
        Kind::AgonesFleet => {}
    }
}

async fn follow<T: Watchable>(client: Client, id: Id, news: mpsc::Sender<(Id, News)>) {
    let api: Api<Watched<T>> = match &id.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = Config { timeout: Some(WATCH_SECONDS), ..Config::default() }.labels(&id.selector);
    // kube's own back-off begins anew at each attempt to list, as that attempt is an event.
    let mut events = pin!(watcher(api, config));
    let mut retry = pauses();
    let (mut listed, mut unread) = (Vec::new(), Vec::new());
    let mut failed = false;
    loop {
        // A watch that was taken up again says nothing until something happens: no failure is the news.
        let event = if failed {
            if let Ok(event) = tokio::time::timeout(QUIET, events.next()).await {
                event
            } else {
                failed = false;
                if news.send((id.clone(), News::Quiet)).await.is_err() {
                    return;
                }
                continue;
            }
        } else {
            events.next().await
        };
        let Some(event) = event else { return };
        let word = match event {
            Ok(Event::Init) => {
                (listed, unread) = (Vec::new(), Vec::new());
                continue;
            }
            Err(error) => {
                let word = News::Failed(words(&error));
                if news.send((id.clone(), word)).await.is_err() {
                    return;
                }
                failed = true;
                tokio::time::sleep(retry.next().unwrap_or(RETRY.1)).await;
                continue;
            }
            Ok(Event::InitApply(Watched { content, .. })) => match content {
                Content::Good(object) => {
                    listed.push(*object);
                    continue;
                }
                Content::Bad(key, why) => {
                    unread.push((key, why));
                    continue;
                }
                Content::Nameless(why) => News::Unreadable(None, why),
            },
            Ok(Event::InitDone) => News::Listed(std::mem::take(&mut listed), std::mem::take(&mut unread)),
            Ok(Event::Apply(Watched { content, .. })) => match content {
                Content::Good(object) => News::Put(object),
                Content::Bad(key, why) => News::Unreadable(Some(key), why),
                Content::Nameless(why) => News::Unreadable(None, why),
            },
            Ok(Event::Delete(Watched { content, .. })) => match content {
                Content::Good(object) => News::Gone(object.key()),
                Content::Bad(key, _) => News::Gone(key),
                Content::Nameless(why) => News::Unreadable(None, why),
            },
        };
        (retry, failed) = (pauses(), false);
        if news.send((id.clone(), word)).await.is_err() {
            return;
        }
    }
}

/// The API server's words for what went wrong, without those of the libraries between.
fn words(error: &Error) -> String {
    let source = match error {
        Error::InitialListFailed(source) | Error::WatchStartFailed(source) | Error::WatchFailed(source) => {
            source
        }
        Error::WatchError(status) => return format!("{} ({})", status.message, status.code),
        Error::NoResourceVersion => return error.to_string(),
    };
    match source {
        ::kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => {
            // The last of a chain is what the operating system said.
            let mut deepest: &dyn std::error::Error = other;
            while let Some(below) = deepest.source() {
                deepest = below;
            }
            format!("{other}: {deepest}")
        }
    }
}

/// Doubling pauses.
fn pauses() -> impl Iterator<Item = Duration> + Send {
    let pauses = ExponentialBuilder::new().with_min_delay(RETRY.0).with_max_delay(RETRY.1);
    pauses.with_jitter().without_max_times().build()
}
