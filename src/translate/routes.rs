//! The routes of one held path: who takes its players, and what the others are told.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
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
use prost::Message;

use super::pace::pace;
use super::refusal::{closed, maintained, refuse};
use super::share::{Ticket, lots, of_versions};
use super::{Held, cluster_name, duration, uint, wire};
use crate::model::{Desired, Mode, PathPrefix, Server};
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
    let door = Door::of(held, open.first().copied().unwrap_or(oldest));
    let mut routes = door.before();
    if open.is_empty() {
        routes.extend(closed(&door, oldest));
        return routes;
    }
    if door.ticket.is_none() {
        routes.extend(door.to(&open));
        return routes;
    }
    for lot in lots(&open) {
        let mut some = match &lot.takers[..] {
            [] => {
                let message = "the servers of your version are being updated";
                vec![refuse(&door, door.first, &held.path, "updating", message)]
            }
            takers => door.to(takers),
        };
        if let Some(versions) = &lot.versions {
            for matches in some.iter_mut().filter_map(|route| route.r#match.as_mut()) {
                matches.headers.push(of_versions(versions));
            }
        }
        routes.extend(some);
    }
    routes
}

/// Field numbers of `envoy.config.route.v3.Route` and of the messages in it.
mod tags {
    pub(super) const MATCH: u32 = 1;
    pub(super) const ROUTE: u32 = 2;
    pub(super) const NAME: u32 = 14;
    /// `RouteMatch`
    pub(super) const PREFIX: u32 = 1;
    pub(super) const PATH_SEPARATED_PREFIX: u32 = 14;
    /// `RouteAction`
    pub(super) const CLUSTER: u32 = 1;
    pub(super) const TIMEOUT: u32 = 8;
    pub(super) const IDLE_TIMEOUT: u32 = 24;
}

/// Writes the routes of a held path as this field of a message.
pub(super) fn write(held: &Held, field: u32, buffer: &mut Vec<u8>) {
    if let Some(server) = plain(held) {
        wire::message(field, buffer, |route| write_plain(server, &held.path, route));
        return;
    }
    for route in routes(held) {
        wire::bytes(field, &route.encode_to_vec(), buffer);
    }
}

/// The holder whose path has one route to it and nothing else to say: nearly all are so, and a `Route` of envoy-types
/// costs more than all the rest of their translation.
fn plain(held: &Held) -> Option<&Server> {
    let [server] = &held.holders[..] else { return None };
    let Desired { mode, weight, share, https_redirect, strip_prefix, new_sessions_per_second, .. } =
        &server.desired;
    let has_more = share.is_some()
        || *https_redirect
        || (*strip_prefix && !held.path.is_root())
        || new_sessions_per_second.is_some();
    (*mode == Mode::Open && is_open(server) && weight.0 > 0 && !has_more).then_some(server)
}

/// What [`routes`] says of such a one.
fn write_plain(server: &Server, path: &PathPrefix, route: &mut Vec<u8>) {
    wire::message(tags::MATCH, route, |matches| {
        let (field, text) =
            if path.is_root() { (tags::PREFIX, "/") } else { (tags::PATH_SEPARATED_PREFIX, path.as_str()) };
        wire::bytes(field, text.as_bytes(), matches);
    });
    let Desired { response_timeout, idle_timeout, .. } = &server.desired;
    wire::message(tags::ROUTE, route, |action| {
        wire::bytes(tags::CLUSTER, cluster_name(&server.id).as_bytes(), action);
        wire::duration(tags::TIMEOUT, response_timeout.unwrap_or_default(), action);
        if *idle_timeout != IDLE_TIMEOUT {
            wire::duration(tags::IDLE_TIMEOUT, *idle_timeout, action);
        }
    });
    let name = format!("{}/{}", server.id.namespace(), server.id.name());
    wire::bytes(tags::NAME, name.as_bytes(), route);
}

/// What players who come back are known by, and the routes that lead each to its member; nothing without affinity.
pub(super) fn sticky(held: &Held) -> Vec<(String, Vec<Route>)> {
    let open = open(&held.holders);
    let Some(first) = open.first() else { return Vec::new() };
    let door = Door::of(held, first);
    let Some(ticket) = door.ticket.as_ref().filter(|ticket| ticket.is_sticky()) else { return Vec::new() };
    let to = |server: &&Server| {
        let mut routes = door.before();
        routes.extend(door.to(&[*server]));
        (ticket.player(server), routes)
    };
    open.iter().map(to).collect()
}

/// A held path as its players find it; `first` decides what all holders have in common.
pub(super) struct Door<'a> {
    pub(super) held: &'a Held,
    pub(super) first: &'a Server,
    ticket: Option<Ticket<'a>>,
}

impl<'a> Door<'a> {
    fn of(held: &'a Held, first: &'a Server) -> Self {
        Self { held, first, ticket: Ticket::of(held, first) }
    }

    /// What comes before the question who takes a player.
    fn before(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        if self.first.desired.https_redirect {
            routes.push(self.to_https());
        }
        routes.extend(maintained(self));
        routes
    }

    /// The routes to some of the holders.
    pub(super) fn to(&self, takers: &[&Server]) -> Vec<Route> {
        let Self { held, first, .. } = self;
        let (target, headers) = self.target(takers);
        let idle_timeout = first.desired.idle_timeout;
        let action = |rewrite: &str| {
            Action::Route(RouteAction {
                cluster_specifier: Some(target.clone()),
                prefix_rewrite: rewrite.to_owned(),
                // Games hold requests open for as long as they like; only silence ends one, unless they ask.
                timeout: Some(duration(first.desired.response_timeout.unwrap_or_default())),
                // The listener knows the default, and lets WebSockets through: what nearly all routes would say
                // is not said a hundred thousand times.
                idle_timeout: (idle_timeout != IDLE_TIMEOUT).then(|| duration(idle_timeout)),
                ..Default::default()
            })
        };
        let mut routes = if first.desired.strip_prefix && !held.path.is_root() {
            // Two matches, for one would make "//x" of "/game-0/x", or not match "/game-0".
            let folder = PathSpecifier::Prefix(format!("{}/", held.path));
            let file = PathSpecifier::Path(held.path.to_string());
            vec![self.route(first, folder, action("/")), self.route(first, file, action("/"))]
        } else {
            vec![self.route(first, below(&held.path), action(""))]
        };
        for route in &mut routes {
            route.response_headers_to_add.extend(headers.iter().cloned());
            if let [one] = takers {
                route.typed_per_filter_config = pace(one);
            }
        }
        routes
    }

    /// Some of the holders as a route's target, and what it says to those who go there.
    fn target(&self, takers: &[&Server]) -> (ClusterSpecifier, Option<HeaderValueOption>) {
        let cookie = |server: &Server| self.ticket.as_ref().and_then(|ticket| ticket.cookie(server));
        if let [one] = takers {
            return (ClusterSpecifier::Cluster(cluster_name(&one.id)), cookie(one));
        }
        let clusters = takers.iter().map(|server| ClusterWeight {
            name: cluster_name(&server.id),
            weight: Some(uint(server.desired.weight.0.into())),
            response_headers_to_add: cookie(server).into_iter().collect(),
            typed_per_filter_config: pace(server),
            ..Default::default()
        });
        let weighted = WeightedCluster { clusters: clusters.collect(), ..Default::default() };
        (ClusterSpecifier::WeightedClusters(weighted), None)
    }

    /// Envoy writes `x-forwarded-proto` itself, or a load balancer that it trusts did.
    fn to_https(&self) -> Route {
        let redirect = RedirectAction {
            scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
            response_code: RedirectResponseCode::PermanentRedirect.into(),
            ..Default::default()
        };
        let mut route = self.route(self.first, below(&self.held.path), Action::Redirect(redirect));
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

    pub(super) fn route(&self, server: &Server, path: PathSpecifier, action: Action) -> Route {
        Route {
            // Never empty: the listener's ladder takes an empty name for "no route found". What stands behind ~ is
            // the tag that the listener looks for in the cookie.
            name: match (&server.desired.share, &self.ticket) {
                (Some(share), Some(ticket)) => format!("{}/{}~{}", share.namespace, share.name, ticket.tag),
                _ => format!("{}/{}", server.id.namespace(), server.id.name()),
            },
            r#match: Some(RouteMatch { path_specifier: Some(path), ..Default::default() }),
            action: Some(action),
            ..Default::default()
        }
    }
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

/// Matches the path and what is below it, but not `/game-10` for `/game-1`.
pub(super) fn below(path: &PathPrefix) -> PathSpecifier {
    if path.is_root() {
        PathSpecifier::Prefix("/".into())
    } else {
        PathSpecifier::PathSeparatedPrefix(path.to_string())
    }
}

pub(super) fn header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Weight;
    use crate::testkit::server_with;

    #[test]
    fn a_plain_route_is_written_as_any_other() {
        let mut plains = 0;
        for path in ["/", "/eu/game-1"] {
            for number in 0..128_u32 {
                let has = |bit: u32| number & (1 << bit) != 0;
                let server = server_with("a", &["x"], |server| {
                    let desired = &mut server.desired;
                    desired.response_timeout = has(0).then_some(Duration::from_millis(1500));
                    desired.idle_timeout = if has(1) { Duration::ZERO } else { IDLE_TIMEOUT };
                    desired.https_redirect = has(2);
                    desired.strip_prefix = has(3);
                    desired.new_sessions_per_second = has(4).then_some(5);
                    desired.weight = Weight(if has(5) { 0 } else { 100 });
                    desired.mode = if has(6) { Mode::Draining { redirect: None } } else { Mode::Open };
                });
                let held = Held { path: PathPrefix::parse(path).unwrap(), holders: vec![server] };
                plains += usize::from(plain(&held).is_some());
                let (mut written, mut built) = (Vec::new(), Vec::new());
                write(&held, 3, &mut written);
                for route in routes(&held) {
                    wire::bytes(3, &route.encode_to_vec(), &mut built);
                }
                assert_eq!(written, built, "{path} {number:b}");
            }
        }
        assert_eq!(plains, 4 + 4 + 4, "those without bits 2 to 6; at the root bit 3 says nothing");
    }
}
