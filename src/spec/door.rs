//! Whom a server lets in: its mode, and where those go who are sent away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;

use super::values::{Written, truth};
use super::{MAX_TEXT, Reader, State};
use crate::model::{Host, Mode, PathPrefix, ProblemKind, Redirect, RouteKey};

impl Reader<'_> {
    pub(super) fn mode(&mut self, endpoint: Option<SocketAddr>, routes: &[RouteKey]) -> Mode {
        let maintenance = self.maintenance();
        let drain = self.drain(routes);
        match (self.facts.state, maintenance, drain) {
            (State::Stopped, _, _) => Mode::Stopped,
            (_, Some(Mode::Maintenance { text, paths }), _) if paths.is_empty() => {
                Mode::Maintenance { text, paths }
            }
            (_, _, Some(draining)) => draining,
            (State::Draining, _, None) => Mode::Draining { redirect: None },
            (State::Starting, _, _) => Mode::Starting,
            (State::Ready, _, _) if endpoint.is_none() => Mode::Misconfigured,
            (State::Ready, Some(maintenance), _) => maintenance,
            (State::Ready, None, None) => Mode::Open,
        }
    }

    /// A text that is too long is cut: it shuts the door whatever it says.
    fn maintenance(&mut self) -> Option<Mode> {
        let paths = self.maintenance_paths();
        let Some(Written { field, mut text, .. }) = self.read("maintenance") else {
            if let Some((field, _)) = paths {
                self.wrong(
                    ProblemKind::Missing,
                    field,
                    "does nothing without tidegate.dev/maintenance, the text that players are told",
                );
            }
            return None;
        };
        if text.len() > MAX_TEXT {
            let why = format!("has {} bytes; players are told the first {MAX_TEXT}", text.len());
            self.wrong(ProblemKind::TooLarge, field, why);
            text = &text[..text.floor_char_boundary(MAX_TEXT)];
        }
        match paths {
            // All of them were wrong: nothing is closed that nobody asked to close.
            Some((_, paths)) if paths.is_empty() => None,
            Some((_, paths)) => Some(Mode::Maintenance { text: text.into(), paths }),
            None => Some(Mode::Maintenance { text: text.into(), paths: Vec::new() }),
        }
    }

    fn maintenance_paths(&mut self) -> Option<(String, Vec<PathPrefix>)> {
        // An empty list names no path, so it is not the list: all are in maintenance. A list of which nothing
        // is left because it was too long named some.
        let written = self
            .listed("maintenance-paths")
            .filter(|written| written.is_long || !written.text.replace([',', ' '], "").is_empty())?;
        let mut paths = BTreeSet::new();
        for item in self.items(&written) {
            match PathPrefix::parse(item) {
                Ok(path) => _ = paths.insert(path),
                Err(why) => {
                    self.wrong(
                        ProblemKind::BadValue,
                        written.field.clone(),
                        format!("{item:?} {why}; this path is left out"),
                    );
                }
            }
        }
        Some((written.field, paths.into_iter().collect()))
    }

    /// What is neither a truth nor a URL drains: whoever wrote it wants the door shut, and a shut door
    /// loses nothing.
    fn drain(&mut self, routes: &[RouteKey]) -> Option<Mode> {
        let Written { field, text, is_long } = self.read("drain")?;
        if is_long {
            // A URL that was cut would lead where nobody wished.
            return Some(Mode::Draining { redirect: None });
        }
        if let Some(draining) = truth(text) {
            return draining.then_some(Mode::Draining { redirect: None });
        }
        let redirect = redirect(text);
        if let Some(own) =
            redirect.as_ref().and_then(|redirect| routes.iter().find(|key| leads_to(redirect, key)))
        {
            let why = format!("{text:?} leads to {own}, this server itself; it drains, with no redirect");
            self.wrong(ProblemKind::BadValue, field, why);
            return Some(Mode::Draining { redirect: None });
        }
        if redirect.is_none() {
            let why = format!(
                "{text:?} is neither \"true\", \"false\" nor a URL such as https://lobby.example.com/; it drains, with no redirect"
            );
            self.wrong(ProblemKind::BadValue, field, why);
        }
        Some(Mode::Draining { redirect })
    }
}

/// True when players who are redirected come to the same route again.
pub fn leads_to(redirect: &Redirect, key: &RouteKey) -> bool {
    let stays = redirect.path.as_deref().is_none_or(|path| is_under(path, &key.path));
    *redirect.host == *key.host.as_str() && stays
}

/// True when whoever asks for `path`, a URL's, asks for something under `prefix`. It may have characters that
/// no prefix may, and is walked by segments, as browsers and Envoy do: `//` is `/`, and `..` a step back.
fn is_under(path: &str, prefix: &PathPrefix) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let mut walked = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = walked.pop(),
            _ => walked.push(segment),
        }
    }
    let prefix: Vec<_> = prefix.as_str().split('/').filter(|segment| !segment.is_empty()).collect();
    walked.starts_with(&prefix)
}

/// The place that a URL sends players to; none when it is not one that a player can follow.
pub fn redirect(text: &str) -> Option<Redirect> {
    // What a browser would keep to itself, or Envoy pass on raw, is no place to send players.
    if !text.is_ascii() || text.contains('#') {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let https = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    // No user names or passwords: they would be shown to every player.
    let host = Host::parse(authority.host()).ok().filter(|host| !host.as_str().contains('*'))?;
    if authority.as_str().contains('@')
        || (authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0))
    {
        return None;
    }
    // The parser makes "/" of nothing, but "https://a" leaves players their path and "https://a/" does not.
    let behind = text.split_once("://")?.1.strip_prefix(authority.as_str())?;
    let path =
        (!behind.is_empty()).then(|| uri.path_and_query().map(|path| Arc::from(path.as_str()))).flatten();
    Some(Redirect { https, host: host.as_str().into(), port: authority.port_u16(), path })
}
