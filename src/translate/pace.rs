//! How many new sessions a second a server takes, for the listener's rate limit.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, TokenBucket};
use envoy_types::pb::google::protobuf::Any;

use super::{any, uint};
use crate::model::Server;

const FILTER: &str = "envoy.filters.http.local_ratelimit";

/// What a route, or a server's part of one, says to the filter; nothing for a server without a limit. A bucket of this many
/// players, which fills all the time: that many at once, and that many a second. Envoy's workers share it. Each route has its
/// own, each host and path of a server therefore, and a full one when its scope changes.
pub(super) fn pace(server: &Server) -> HashMap<String, Any> {
    let Some(limit) = server.desired.new_sessions_per_second else { return HashMap::new() };
    let always = RuntimeFractionalPercent {
        default_value: Some(FractionalPercent { numerator: 100, ..Default::default() }),
        ..Default::default()
    };
    let bucket = TokenBucket {
        max_tokens: limit,
        tokens_per_fill: Some(uint(limit)),
        fill_interval: Some(super::duration(std::time::Duration::from_secs(1))),
    };
    let limit = LocalRateLimit {
        stat_prefix: "sessions".into(), // must be there; the same for all servers, so that stats don't grow
        token_bucket: Some(bucket),
        filter_enabled: Some(always.clone()),
        filter_enforced: Some(always),
        ..Default::default()
    };
    // One entry: a map of protobuf's has no order.
    [(FILTER.to_owned(), any(&limit))].into()
}
