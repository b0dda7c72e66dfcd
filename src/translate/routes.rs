//! The routes of one held path: who takes its players, and what the others are told.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, RedirectAction, Route, RouteAction, RouteMatch, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::pace::pace;
use super::refusal::{closed, maintained};
use super::{Held, cluster_name, duration, uint};
use crate::model::{Mode, PathPrefix, Server};
use crate::spec::IDLE_TIMEOUT;

/// The holders that take players.
pub fn open(holders: &[Arc<Server>]) -> Vec<&Server> {
    holders
        .iter()
        .map(|server| &**server)
        .filter(|server| is_open(server) && server.desired.weight.0 > 0)
        .collect()
}

/// The routes of one held path, in the order they are tried.
pub(super) fn routes(held: &Held) -> Vec<Route> {
    let Some(oldest) = held.holders.first() else { return Vec::new() };
    let open = open(&held.holders);
    let first = open.first().copied().unwrap_or(oldest);
    let mut routes = Vec::new();
    if first.desired.https_redirect {
        routes.push(to_https(first, &held.path));
    }
    if open.is_empty() {
        routes.extend(closed(held, oldest));
    } else {
        routes.extend(maintained(first, &held.path));
        routes.extend(to_servers(first, &held.path, &open));
    }
    routes
}

/// The routes of a path to these servers; the first of them says how.
pub(super) fn to_servers(first: &Server, path: &PathPrefix, servers: &[&Server]) -> Vec<Route> {
    let idle_timeout = first.desired.idle_timeout;
    let action = |rewrite: &str| {
        Action::Route(RouteAction {
            cluster_specifier: Some(target(servers)),
            prefix_rewrite: rewrite.to_owned(),
            // Games hold requests open for as long as they like; only silence ends one, unless they ask.
            timeout: Some(duration(first.desired.response_timeout.unwrap_or_default())),
            // The listener knows the default, and lets WebSockets through: what nearly all routes would say
            // is not said a hundred thousand times.
            idle_timeout: (idle_timeout != IDLE_TIMEOUT).then(|| duration(idle_timeout)),
            ..Default::default()
        })
    };
    let mut routes = if first.desired.strip_prefix && !path.is_root() {
        // Two matches, for one would make "//x" of "/game-0/x", or not match "/game-0".
        let folder = PathSpecifier::Prefix(format!("{path}/"));
        let itself = PathSpecifier::Path(path.to_string());
        vec![route(first, folder, action("/")), route(first, itself, action("/"))]
    } else {
        vec![route(first, below(path), action(""))]
    };
    if let [one] = servers {
        for route in &mut routes {
            route.typed_per_filter_config = pace(one);
        }
    }
    routes
}

/// True when it takes players on some path.
pub fn is_open(server: &Server) -> bool {
    server.desired.endpoint.is_some()
        && match &server.desired.mode {
            Mode::Open => true,
            Mode::Maintenance { paths, .. } => !paths.is_empty(),
            Mode::Starting | Mode::Draining { .. } | Mode::Misconfigured | Mode::Stopped => false,
        }
}

/// Envoy writes `x-forwarded-proto` itself, or a load balancer that it trusts did.
fn to_https(server: &Server, path: &PathPrefix) -> Route {
    let redirect = RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
        response_code: RedirectResponseCode::PermanentRedirect.into(),
        ..Default::default()
    };
    let mut route = route(server, below(path), Action::Redirect(redirect));
    let plain = HeaderMatcher {
        name: "x-forwarded-proto".into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::Exact("http".into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    if let Some(matches) = &mut route.r#match {
        matches.headers.push(plain);
    }
    route
}

pub(super) fn route(server: &Server, path: PathSpecifier, action: Action) -> Route {
    Route {
        // Never empty: the listener's ladder takes an empty name for "no route found".
        name: match &server.desired.share {
            Some(share) => format!("{}/{}", share.namespace, share.name),
            None => format!("{}/{}", server.id.namespace(), server.id.name()),
        },
        r#match: Some(RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(action),
        ..Default::default()
    }
}

/// Matches the path and what is below it, but not `/game-10` for `/game-1`.
pub(super) fn below(path: &PathPrefix) -> PathSpecifier {
    if path.is_root() {
        PathSpecifier::Prefix("/".into())
    } else {
        PathSpecifier::PathSeparatedPrefix(path.to_string())
    }
}

fn target(open: &[&Server]) -> ClusterSpecifier {
    match open {
        [one] => ClusterSpecifier::Cluster(cluster_name(&one.id)),
        many => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: many
                .iter()
                .map(|server| ClusterWeight {
                    name: cluster_name(&server.id),
                    weight: Some(uint(server.desired.weight.0.into())),
                    typed_per_filter_config: pace(server),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    }
}
