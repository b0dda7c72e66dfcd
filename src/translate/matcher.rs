//! Routes found through a map of prefixes, for paths by the thousand on one host.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::RouteList;
use envoy_types::pb::envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as XdsExtension;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{OnMatch, on_match};

use super::routes::routes;
use super::{Held, any};

/// `xds.type.matcher.v3.Matcher` with its map in the order of its keys: prost's own would be encoded
/// in hash order, and the version would differ from replica to replica.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Matcher {
    #[prost(message, optional, tag = "2")]
    matcher_tree: Option<MatcherTree>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatcherTree {
    #[prost(message, optional, tag = "1")]
    input: Option<XdsExtension>,
    #[prost(message, optional, tag = "3")]
    prefix_match_map: Option<MatchMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MatchMap {
    #[prost(btree_map = "string, message", tag = "1")]
    map: BTreeMap<String, OnMatch>,
}

pub(super) fn prefix_map(held: &[&Held]) -> Matcher {
    let by_path: BTreeMap<&str, &Held> = held.iter().map(|held| (held.path.as_str(), *held)).collect();
    let map = by_path.keys().map(|path| {
        // The map finds the longest key that the path begins with, be it /game-1 for /game-10: each key
        // holds the routes of all keys it begins with itself, so that a miss falls to the next shorter.
        let shorter = (1..=path.len()).rev().filter_map(|end| by_path.get(path.get(..end)?));
        let list = RouteList { routes: shorter.flat_map(|held| routes(held)).collect() };
        let action = XdsExtension { name: "routes".into(), typed_config: Some(any(&list)) };
        (
            (*path).to_owned(),
            OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..Default::default() },
        )
    });
    let input = HttpRequestHeaderMatchInput { header_name: ":path".into() };
    Matcher {
        matcher_tree: Some(MatcherTree {
            input: Some(XdsExtension { name: "path".into(), typed_config: Some(any(&input)) }),
            prefix_match_map: Some(MatchMap { map: map.collect() }),
        }),
    }
}
