//! What players are told who are not let in: JSON in the route, its sentence for browsers beside it.
//!
//! The page that browsers get stands in the bootstrap (`bootstrap/replies.yaml`), and a refusal brings nothing but its
//! words. So a server that is open pays nothing for it, and one that is shut a sentence.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, Metadata, data_source};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{DirectResponseAction, HeaderMatcher, RedirectAction, Route};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use serde_json::json;

use super::routes::{Door, below, header, open};
use super::{TEXT_FIELD, TEXT_SPACE};
use crate::model::{Mode, PathPrefix, Redirect, Server};

/// The routes of a path that nobody new is let into.
pub(super) fn closed(door: &Door<'_>, oldest: &Server) -> Vec<Route> {
    let mut routes = returning(door);
    routes.push(match &oldest.desired.mode {
        Mode::Draining { redirect: Some(redirect) } => {
            door.route(oldest, below(&door.held.path), Action::Redirect(redirection(redirect)))
        }
        mode => {
            let (status, text) = words(mode, oldest.desired.endpoint.is_some());
            refuse(door, oldest, &door.held.path, status, text)
        }
    });
    routes
}

/// The routes of the paths that are in maintenance on a server that is open.
pub(super) fn maintained(door: &Door<'_>) -> Vec<Route> {
    let Mode::Maintenance { paths, .. } = &door.first.desired.mode else { return Vec::new() };
    let (status, text) = words(&door.first.desired.mode, true);
    paths.iter().map(|below| refuse(door, door.first, &door.held.path.join(below), status, text)).collect()
}

/// Who brings a cookie comes back into a server that drains. Of servers of a share that are all shut the oldest that knows
/// the cookie takes them: which of them it was is not in its name.
fn returning(door: &Door<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for (cookie, server) in doors(&door.held.holders) {
        for mut route in door.to(&[server]) {
            if let Some(matches) = &mut route.r#match {
                matches.headers.push(sends_cookie(cookie));
            }
            routes.push(route);
        }
    }
    routes
}

/// Cookies that let players back into these holders of a path; none while one of them is open to all.
pub fn cookies(holders: &[Arc<Server>]) -> impl Iterator<Item = &str> {
    let shut = if open(holders).is_empty() { holders } else { &[] };
    doors(shut).into_iter().map(|(cookie, _)| cookie)
}

/// Each cookie once, with the oldest that knows it.
fn doors(holders: &[Arc<Server>]) -> Vec<(&str, &Server)> {
    let mut known = BTreeSet::new();
    let draining = holders.iter().map(|server| &**server).filter(|server| drains(server));
    let named = draining.filter_map(|server| Some((server.desired.drain_cookie.as_deref()?, server)));
    named.filter(|(cookie, _)| known.insert(*cookie)).collect()
}

/// True when it is shut to new players alone: players of before may come back.
fn drains(server: &Server) -> bool {
    let shut = match &server.desired.mode {
        Mode::Draining { .. } => true,
        Mode::Open => server.desired.weight.0 == 0,
        Mode::Starting | Mode::Maintenance { .. } | Mode::Misconfigured | Mode::Stopped => false,
    };
    shut && server.desired.endpoint.is_some()
}

/// A cookie of this name, with any value: what it says is between the game and its player. Envoy has a matcher of cookies
/// too, but one that is too old for it would leave it out, and let everybody in.
fn sends_cookie(name: &str) -> HeaderMatcher {
    let name = name.replace('.', "\\."); // the only character of such a name that has a meaning there
    // \C is any byte: another cookie of the site need not be UTF-8.
    let regex = RegexMatcher { regex: format!("(?:\\C*;)?[ \\t]*{name}=\\C*"), ..Default::default() };
    HeaderMatcher {
        name: "cookie".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::SafeRegex(regex)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Why nobody is let in: a word for programs, a sentence for people.
fn words(mode: &Mode, has_endpoint: bool) -> (&'static str, &str) {
    match mode {
        Mode::Starting => ("starting", "this server is starting"),
        Mode::Maintenance { text, .. } if text.is_empty() => ("maintenance", "this server is in maintenance"),
        Mode::Maintenance { text, .. } => ("maintenance", text),
        Mode::Misconfigured => ("misconfigured", "this server has no usable address"),
        Mode::Open if !has_endpoint => ("misconfigured", "this server has no usable address"),
        // Open with a weight of 0 is a drain by another name.
        Mode::Draining { .. } | Mode::Open | Mode::Stopped => {
            ("draining", "this server takes no new players")
        }
    }
}

/// A route that answers 503: a word for programs, a sentence for people.
pub(super) fn refuse(door: &Door<'_>, server: &Server, path: &PathPrefix, status: &str, text: &str) -> Route {
    let body = json!({ "status": status, "message": text }).to_string();
    let action = DirectResponseAction {
        status: 503,
        body: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(body)),
            ..Default::default()
        }),
        ..Default::default()
    };
    Route {
        response_headers_to_add: vec![
            header("retry-after", &server.desired.retry_after.as_secs().to_string()),
            header("content-type", "application/json"),
        ],
        metadata: Some(for_pages(text)),
        ..door.route(server, below(path), Action::DirectResponse(action))
    }
}

/// One field in one namespace: maps of protobuf's have no order, and need none that way.
fn for_pages(text: &str) -> Metadata {
    let value = Value { kind: Some(Kind::StringValue(escaped(text))) };
    let fields = Struct { fields: [(TEXT_FIELD.to_owned(), value)].into() };
    Metadata { filter_metadata: [(TEXT_SPACE.to_owned(), fields)].into(), ..Default::default() }
}

/// Text that HTML takes for text, in an element or in an attribute. What a page can't show is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("<br>"),
            character if character.is_control() => {}
            character => out.push(character),
        }
    }
    out
}

fn redirection(redirect: &Redirect) -> RedirectAction {
    RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::SchemeRedirect(
            if redirect.https { "https" } else { "http" }.into(),
        )),
        host_redirect: redirect.host.to_string(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        path_rewrite_specifier: redirect
            .path
            .as_ref()
            .map(|path| PathRewriteSpecifier::PathRedirect(path.to_string())),
        response_code: RedirectResponseCode::TemporaryRedirect.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn no_text_is_read_as_html() {
        let text = "\"a\" & 'b' <script>alert(1)</script>\u{0}\r\nç ☀ %RESP(X)%";
        assert_eq!(
            escaped(text),
            "&quot;a&quot; &amp; &#39;b&#39; &lt;script&gt;alert(1)&lt;/script&gt;<br>ç ☀ %RESP(X)%"
        );
    }
}
