//! Routes found through maps: of prefixes, for paths by the thousand on one host, and of players who come back.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::{Route, RouteList};
use envoy_types::pb::envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as XdsExtension;

use super::routes::routes;
use super::share::PLAYER_HEADER;
use super::{Held, any};

/// `xds.type.matcher.v3.Matcher` with its maps in the order of their keys: prost's own would be encoded
/// in hash order, and the version would differ from replica to replica.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Matcher {
    #[prost(message, optional, tag = "2")]
    matcher_tree: Option<MatcherTree>,
    #[prost(message, optional, boxed, tag = "3")]
    on_no_match: Option<Box<OnMatch>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatcherTree {
    #[prost(message, optional, tag = "1")]
    input: Option<XdsExtension>,
    #[prost(message, optional, tag = "2")]
    exact_match_map: Option<MatchMap>,
    #[prost(message, optional, tag = "3")]
    prefix_match_map: Option<MatchMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatchMap {
    #[prost(btree_map = "string, message", tag = "1")]
    map: BTreeMap<String, OnMatch>,
}

/// One of the two is set.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OnMatch {
    #[prost(message, optional, boxed, tag = "1")]
    matcher: Option<Box<Matcher>>,
    #[prost(message, optional, tag = "2")]
    action: Option<XdsExtension>,
}

/// The first of these that matches, or a 404.
pub(super) fn list(routes: Vec<Route>) -> OnMatch {
    let list = RouteList { routes };
    let action = XdsExtension { name: "routes".into(), typed_config: Some(any(&list)) };
    OnMatch { action: Some(action), ..Default::default() }
}

pub(super) fn prefix_map(held: &[&Held]) -> Matcher {
    let by_path: BTreeMap<&str, &Held> = held.iter().map(|held| (held.path.as_str(), *held)).collect();
    let map = by_path.keys().map(|path| {
        // The map finds the longest key that the path begins with, be it /game-1 for /game-10: each key
        // holds the routes of all keys it begins with itself, so that a miss falls to the next shorter.
        let shorter = (1..=path.len()).rev().filter_map(|end| by_path.get(path.get(..end)?));
        ((*path).to_owned(), list(shorter.flat_map(|held| routes(held)).collect()))
    });
    let prefix_match_map = Some(MatchMap { map: map.collect() });
    let tree = MatcherTree { input: Some(header("path", ":path")), prefix_match_map, ..Default::default() };
    Matcher { matcher_tree: Some(tree), ..Default::default() }
}

/// Players who come back to their members, in one look-up however many there are; all others go on.
pub(super) fn player_map(players: impl Iterator<Item = (String, Vec<Route>)>, others: OnMatch) -> Matcher {
    let map = players.map(|(player, routes)| (player, list(routes))).collect();
    let exact_match_map = Some(MatchMap { map });
    let tree =
        MatcherTree { input: Some(header("player", PLAYER_HEADER)), exact_match_map, ..Default::default() };
    Matcher { matcher_tree: Some(tree), on_no_match: Some(Box::new(others)) }
}

impl From<Matcher> for OnMatch {
    fn from(matcher: Matcher) -> Self {
        Self { matcher: Some(Box::new(matcher)), ..Default::default() }
    }
}

fn header(name: &str, header: &str) -> XdsExtension {
    let input = HttpRequestHeaderMatchInput { header_name: header.into() };
    XdsExtension { name: name.into(), typed_config: Some(any(&input)) }
}
