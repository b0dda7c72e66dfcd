//! What people ask: who is there, what is routed where, and why a host can't be reached.
//!
//! Pure readings of the engine and the snapshot as rows that serialise. They cost what they list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::claims::Standing;
use crate::engine::Engine;
use crate::model::{
    Gateway, Gateways, Host, Mode, PathPrefix, Problem, Redirect, RouteKey, Server, ServerId,
};
use crate::snapshot::{Kind, Name, Revision, Snapshot};
use crate::translate;

mod members;

pub use members::Member;

/// Most servers that an explanation lists.
const MAX_HINTS: usize = 20;

/// A server and how it fares.
#[derive(Clone, Debug, Serialize)]
pub struct ServerRow {
    /// The server.
    #[serde(flatten)]
    pub server: Arc<Server>,
    /// Its fleet, within its namespace.
    pub fleet: String,
    /// Its cluster at Envoy.
    pub cluster: String,
    /// Routes it claims and does not hold, with the server that does.
    pub lost: BTreeMap<String, String>,
}

impl ServerRow {
    /// How this server fares in this engine.
    pub fn of(engine: &Engine, server: &Arc<Server>) -> Self {
        let lost =
            server.desired.routes.iter().filter_map(|key| match engine.claims().standing(server, key)? {
                Standing::LostTo(winner) => Some((key.to_string(), winner.to_string())),
                Standing::Holds => None,
            });
        Self {
            server: server.clone(),
            fleet: server.fleet().to_owned(),
            cluster: translate::cluster_name(&server.id),
            lost: lost.collect(),
        }
    }
}

/// Of these servers those whose id contains `filter` and stands behind `after` (an id, or nothing), by id.
/// Needs no engine, so that whoever owns it need not wait for a large fleet to be sorted.
pub fn sorted(mut servers: Vec<Arc<Server>>, filter: &str, after: &str) -> Vec<Arc<Server>> {
    let mut parts = after.splitn(3, '/');
    let (source, namespace, name) = (parts.next(), parts.next(), parts.next());
    let is_behind = |id: &ServerId| {
        (Some(id.namespace()), Some(id.name()), Some(id.source().0)) > (namespace, name, source)
    };
    servers.retain(|server| is_behind(&server.id) && server.id.to_string().contains(filter));
    servers.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    servers
}

/// How these servers fare.
pub fn servers(engine: &Engine, servers: &[Arc<Server>]) -> Vec<ServerRow> {
    servers.iter().map(|server| ServerRow::of(engine, server)).collect()
}

/// A path of a host, as the Envoys of one gateway see it.
#[derive(Clone, Debug, Serialize)]
pub struct RouteRow {
    /// The host.
    pub host: Host,
    /// The prefix on it.
    pub path: PathPrefix,
    /// The gateway; none: every gateway that has no row of its own.
    pub gateway: Option<Gateway>,
    /// The scope it is in.
    pub scope: String,
    /// Whom it lets in: `open`, or why not.
    pub state: &'static str,
    /// Who holds it.
    pub holders: Vec<String>,
    /// Who claims it and lost.
    pub lost: Vec<String>,
    /// What each holder has of the players; none where it is not shared.
    pub members: Vec<Member>,
    /// What of the holders does not fit together.
    pub problems: Vec<String>,
}

impl RouteRow {
    /// What it is about.
    pub fn key(&self) -> RouteKey {
        RouteKey { host: self.host.clone(), path: self.path.clone() }
    }
}

/// Every route that is claimed, in no order.
pub fn keys(engine: &Engine) -> Vec<RouteKey> {
    let claims = engine.claims();
    let key = |host: &Host, path: &PathPrefix| RouteKey { host: host.clone(), path: path.clone() };
    claims.hosts().flat_map(|host| claims.paths(host).map(move |path| key(host, path))).collect()
}

/// Of these routes those whose `host/path` contains `filter` and that stand behind `after`, in order.
pub fn sorted_keys(mut keys: Vec<RouteKey>, filter: &str, after: Option<&RouteKey>) -> Vec<RouteKey> {
    keys.retain(|key| after.is_none_or(|after| key > after) && key.to_string().contains(filter));
    keys.sort_unstable();
    keys
}

/// These routes as Envoys see them: a row a route, and one more for each gateway that is named there.
pub fn routes(engine: &Engine, keys: &[RouteKey]) -> Vec<RouteRow> {
    let claims = engine.claims();
    let rows = keys.iter().flat_map(|key| {
        let named: BTreeSet<_> = claims.named(&key.host).collect();
        let views = [None].into_iter().chain(named.into_iter().map(Some));
        views.filter_map(move |view| route(engine, key, view))
    });
    rows.collect()
}

fn route(engine: &Engine, key: &RouteKey, view: Option<&Gateway>) -> Option<RouteRow> {
    let claims = engine.claims();
    let holders = claims.holders(&key.host, &key.path, view);
    let first = holders.first()?;
    let state = if translate::open(&holders).is_empty() { closed_word(first) } else { "open" };
    let scope = scope(engine, key, view);
    let seen = claims.claimants(&key.host, &key.path).filter(|server| server.desired.gateways.include(view));
    let lost = seen
        .filter(|server| !holders.iter().any(|holder| holder.id == server.id))
        .map(|server| server.id.to_string());
    Some(RouteRow {
        host: key.host.clone(),
        path: key.path.clone(),
        gateway: view.cloned(),
        scope: scope.to_string(),
        state,
        lost: lost.collect(),
        members: members::members(&holders),
        problems: members::problems(&holders),
        holders: holders.iter().map(|server| server.id.to_string()).collect(),
    })
}

/// Where a game server stands: what whoever waits for it should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The routes that it holds, sorted.
    pub held: Vec<RouteKey>,
    /// Those that it lost, and to whom.
    pub lost: Vec<(RouteKey, ServerId)>,
    /// What Envoys must hold to reach it: type and name.
    pub resources: BTreeSet<(Kind, Name)>,
    /// The last change of any of these.
    pub revision: Revision,
    /// It takes players on some route.
    pub open: bool,
}

/// How these servers stand together. `None` while the engine does not hold just them: what was told of them
/// is still on its way. Costs what they hold.
pub fn placement(engine: &Engine, snapshot: &Snapshot, servers: &[Arc<Server>]) -> Option<Placement> {
    let mut placement = Placement::default();
    for server in servers {
        if !engine.server(&server.id).is_some_and(|known| Arc::ptr_eq(known, server)) {
            return None;
        }
        let views: Vec<_> = match &server.desired.gateways {
            Gateways::Every => vec![None],
            Gateways::Named(named) => named.iter().map(Some).collect(),
        };
        placement.resources.insert((Kind::Cluster, translate::cluster_name(&server.id).into()));
        for key in &server.desired.routes {
            match engine.claims().standing(server, key) {
                Some(Standing::Holds) => placement.held.push(key.clone()),
                Some(Standing::LostTo(winner)) => {
                    placement.lost.push((key.clone(), winner));
                    continue;
                }
                None => continue,
            }
            placement.open |= translate::is_open(server) && server.desired.weight.0 > 0;
            let scopes = views.iter().map(|view| (Kind::Scope, scope(engine, key, *view)));
            placement.resources.extend(scopes);
        }
    }
    placement.held.sort();
    let revisions = placement.resources.iter().filter_map(|(kind, name)| snapshot.revision_of(*kind, name));
    placement.revision = revisions.max().unwrap_or_default();
    Some(placement)
}

/// The scope that a route stands in, for one gateway.
fn scope(engine: &Engine, key: &RouteKey, view: Option<&Gateway>) -> Name {
    let rooted = !engine.claims().holders(&key.host, &PathPrefix::root(), view).is_empty();
    translate::scope_name(&key.host, (!rooted).then(|| key.path.first_segment()))
}

/// An open mode that takes nobody has a weight of 0, or no address.
fn closed_word(server: &Server) -> &'static str {
    match server.desired.mode.word() {
        "open" if server.desired.endpoint.is_some() => "draining",
        "open" => "misconfigured",
        word => word,
    }
}

/// One rung of the listener's ladder.
#[derive(Clone, Debug, Serialize)]
pub struct Rung {
    /// The scope it looks for.
    pub scope: String,
    /// True when the gateway has it.
    pub found: bool,
}

/// Why a request ends where it does.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The rungs that were tried, in their order; the last one decided.
    pub tried: Vec<Rung>,
    /// The route that takes the request; none is a 404.
    pub route: Option<RouteRow>,
    /// The same in a sentence.
    pub verdict: String,
    /// Servers that have to do with it: holders, losers, and those whose host or path has a problem.
    pub servers: Vec<ServerRow>,
}

/// Walks the scope ladder as the listener does (`envoy/README.md`) for a host and path on a gateway.
pub fn explain(
    engine: &Engine,
    snapshot: &Snapshot,
    host: &Host,
    path: &str,
    gateway: &Gateway,
) -> Explanation {
    let path = &normalized(path);
    let segment = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    let parent = host.as_str().split_once('.').map(|(_, parent)| format!("*.{parent}"));
    let hosts = [Some(host.as_str().to_owned()), parent, Some("*".to_owned())];
    let mut tried = Vec::new();
    for rung in hosts.into_iter().flatten() {
        let Ok(rung) = Host::parse(&rung) else { continue };
        let with_segment = (!segment.is_empty()).then_some(Some(segment));
        for segment in [None].into_iter().chain(with_segment) {
            let scope = translate::scope_name(&rung, segment);
            let found = snapshot.get(Kind::Scope, &scope, &gateway.0).is_some();
            tried.push(Rung { scope: scope.to_string(), found });
            if let Some(row) = found.then(|| longest(engine, &rung, path, gateway)).flatten() {
                return explained(engine, tried, row, path);
            }
        }
    }
    let servers = engine.servers().filter(|server| {
        let about = |problem: &Problem| problem.field.contains("/host") || problem.field.contains("/path");
        server.problems.iter().any(about) || server.desired.routes.iter().any(|key| key.host == *host)
    });
    Explanation {
        tried,
        route: None,
        verdict: format!("404: no server is known at {host}{path} on gateway {}", gateway.0),
        servers: servers.take(MAX_HINTS).map(|server| ServerRow::of(engine, server)).collect(),
    }
}

/// A path as Envoy has it after the listener's `normalize_path` and `merge_slashes`: unreserved characters
/// decoded (RFC 3986, section 6.2.2.2), dot segments and empty segments gone, the query left out.
fn normalized(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('%') {
        decoded.push_str(before);
        let byte = behind.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let unreserved = byte.map(char::from).filter(|c| c.is_ascii_alphanumeric() || "-._~".contains(*c));
        decoded.push(unreserved.unwrap_or('%'));
        rest = if unreserved.is_some() { &behind[2..] } else { behind };
    }
    decoded.push_str(rest);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn longest(engine: &Engine, host: &Host, path: &str, gateway: &Gateway) -> Option<RouteRow> {
    let mut prefixes: Vec<_> = engine.claims().paths(host).filter(|prefix| is_below(path, prefix)).collect();
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.as_str().len()));
    prefixes.into_iter().find_map(|prefix| {
        route(engine, &RouteKey { host: host.clone(), path: prefix.clone() }, Some(gateway))
    })
}

/// True for the prefix itself and what is below it, but not for `/game-10` and `/game-1`.
fn is_below(path: &str, prefix: &PathPrefix) -> bool {
    prefix.is_root()
        || path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `path` is that of the request.
fn explained(engine: &Engine, tried: Vec<Rung>, row: RouteRow, path: &str) -> Explanation {
    let key = RouteKey { host: row.host.clone(), path: row.path.clone() };
    let holders = engine.claims().holders(&key.host, &key.path, row.gateway.as_ref());
    let cookies: Vec<_> =
        translate::cookies(&holders).map(|name| format!("; who sends the cookie {name} is let in")).collect();
    let shut = maintained(&holders, &key, path);
    let verdict = match (row.state, shut) {
        (_, Some(shut)) => format!("503: {shut} is in maintenance: {}", row.holders.join(", ")),
        ("open", None) if !row.members.is_empty() => {
            let taking: Vec<_> = row.members.iter().filter(|member| member.state == "open").collect();
            let named =
                taking.iter().take(MAX_HINTS).map(|member| format!("{} {}%", member.server, member.percent));
            let more = taking.len().saturating_sub(MAX_HINTS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{key} is open, new players go to {}{more}", named.collect::<Vec<_>>().join(", "))
        }
        ("open", None) => format!("{key} is open: {}", row.holders.join(", ")),
        (state, None) => {
            let (status, whither) = match redirect(&holders) {
                Some(redirect) => (307, format!(" to {}", url(redirect))),
                None => (503, String::new()),
            };
            format!("{status}: {key} is {state}{whither}: {}{}", row.holders.join(", "), cookies.concat())
        }
    };
    let claimants = engine.claims().claimants(&key.host, &key.path).take(MAX_HINTS);
    let servers = claimants.map(|server| ServerRow::of(engine, server)).collect();
    Explanation { tried, route: Some(row), verdict, servers }
}

/// The part of an open route that is in maintenance, where a request for `path` is in it. The oldest holder that is open
/// decides for all.
fn maintained(holders: &[Arc<Server>], key: &RouteKey, path: &str) -> Option<RouteKey> {
    let first = *translate::open(holders).first()?;
    let Mode::Maintenance { paths, .. } = &first.desired.mode else { return None };
    let mut shut = paths.iter().map(|below| key.path.join(below));
    let path = shut.find(|shut| is_below(path, shut))?;
    Some(RouteKey { host: key.host.clone(), path })
}

/// Where the oldest holder of a closed route sends new players, if it does.
fn redirect(holders: &[Arc<Server>]) -> Option<&Redirect> {
    match &holders.first()?.desired.mode {
        Mode::Draining { redirect } => redirect.as_ref(),
        _ => None,
    }
}

/// Where it leads, as an operator writes it.
fn url(redirect: &Redirect) -> String {
    let Redirect { https, host, port, path } = redirect;
    let scheme = if *https { "https" } else { "http" };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", path.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, ProblemKind};
    use crate::testkit::{SOURCE, server, server_with};

    fn explain_in(fleet: Vec<Arc<Server>>, host: &str, path: &str) -> Explanation {
        let mut engine = Engine::new([SOURCE]);
        let mut snapshot = Snapshot::default();
        snapshot.apply(engine.apply([Event::Reset { source: SOURCE, servers: fleet }]).changes);
        explain(&engine, &snapshot, &Host::parse(host).unwrap(), path, &Gateway("default".into()))
    }

    #[test]
    fn the_ladder_is_walked_as_the_listener_does() {
        let fleet = vec![server("a", &["*.example.com"]), server("b", &["a.example.com/game"])];
        let explanation = explain_in(fleet.clone(), "a.example.com", "/game/x?y");
        assert_eq!(explanation.verdict, "a.example.com/game is open: test/default/b");
        let explanation = explain_in(fleet.clone(), "a.example.com", "/other");
        assert_eq!(explanation.verdict, "*.example.com is open: test/default/a");
        let scopes: Vec<_> = explanation.tried.iter().map(|rung| (&*rung.scope, rung.found)).collect();
        assert_eq!(
            scopes,
            [("a.example.com", false), ("a.example.com/other", false), ("*.example.com", true)]
        );
        let explanation = explain_in(fleet, "example.com", "/");
        assert!(
            explanation.verdict.starts_with("404: no server is known at example.com/"),
            "{}",
            explanation.verdict
        );
    }

    #[test]
    fn a_path_is_explained_as_envoy_normalizes_it() {
        for (path, expected) in [
            ("/a/../b?c/d", "/b"),
            ("//a//./b/", "/a/b"),
            ("/a%2Db%2Fc", "/a-b%2Fc"),
            ("/../%2e%2e/a", "/a"),
            ("/%zz%", "/%zz%"),
            ("", "/"),
        ] {
            assert_eq!(normalized(path), expected, "{path}");
        }
    }

    #[test]
    fn a_closed_door_says_why() {
        let drained =
            server_with("a", &["a.x"], |server| server.desired.mode = Mode::Draining { redirect: None });
        assert_eq!(explain_in(vec![drained], "a.x", "/").verdict, "503: a.x is draining: test/default/a");
    }

    #[test]
    fn a_drain_that_sends_players_on_says_where_to() {
        let drained = |url: &str| {
            server_with("a", &["a.x"], |server| {
                server.desired.mode = Mode::Draining { redirect: crate::spec::redirect(url) };
            })
        };
        for url in ["https://b.example.com", "http://b.example.com:8080/lobby?x=1"] {
            assert_eq!(
                explain_in(vec![drained(url)], "a.x", "/").verdict,
                format!("307: a.x is draining to {url}: test/default/a")
            );
        }
    }

    #[test]
    fn a_path_in_maintenance_is_shut_and_its_neighbours_are_not() {
        let shop = server_with("a", &["a.x/game"], |server| {
            let paths = vec![PathPrefix::parse("/shop").unwrap()];
            server.desired.mode = Mode::Maintenance { text: "soon".into(), paths };
        });
        for path in ["/game/shop", "/game/shop/x?y", "/game//shop/"] {
            assert_eq!(
                explain_in(vec![shop.clone()], "a.x", path).verdict,
                "503: a.x/game/shop is in maintenance: test/default/a"
            );
        }
        for path in ["/game", "/game/shops", "/game/x/shop"] {
            let verdict = explain_in(vec![shop.clone()], "a.x", path).verdict;
            assert_eq!(verdict, "a.x/game is open: test/default/a");
        }
        // A weight of 0 shuts all of it.
        let mut shut = shop;
        Arc::make_mut(&mut shut).desired.weight = crate::model::Weight(0);
        let verdict = explain_in(vec![shut], "a.x", "/game").verdict;
        assert_eq!(verdict, "503: a.x/game is maintenance: test/default/a");
    }

    #[test]
    fn a_cookie_that_passes_a_drain_is_said() {
        let drained = server_with("a", &["a.x"], |server| {
            server.desired.mode = Mode::Draining { redirect: None };
            server.desired.drain_cookie = Some("seat".into());
        });
        assert_eq!(
            explain_in(vec![drained], "a.x", "/").verdict,
            "503: a.x is draining: test/default/a; who sends the cookie seat is let in"
        );
        let open = server_with("a", &["a.x"], |server| server.desired.drain_cookie = Some("seat".into()));
        assert_eq!(explain_in(vec![open], "a.x", "/").verdict, "a.x is open: test/default/a");
    }

    #[test]
    fn a_loser_and_a_mistyped_host_are_shown() {
        let explanation = explain_in(vec![server("a", &["a.x"]), server("b", &["a.x"])], "a.x", "/");
        assert_eq!(explanation.servers[1].lost["a.x"], "test/default/a");
        let mistyped = server_with("a", &[], |server| {
            server.problems.push(Problem::new(
                ProblemKind::BadValue,
                "metadata.annotations[\"tidegate.dev/host\"]",
                "bad",
            ));
        });
        assert_eq!(explain_in(vec![mistyped], "a.x", "/").servers.len(), 1);
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let mut engine = Engine::new([SOURCE]);
        let fleet = vec![server("b", &["b.x", "a.x/p"]), server("a", &["a.x"]), server("c", &["a.x"])];
        engine.apply([Event::Reset { source: SOURCE, servers: fleet }]);
        let listed = |filter, after: &str| {
            let after = (!after.is_empty()).then(|| crate::testkit::key(after));
            routes(&engine, &sorted_keys(super::keys(&engine), filter, after.as_ref()))
        };
        let keys: Vec<_> =
            listed("", "").iter().map(|row| format!("{}{} in {}", row.host, row.path, row.scope)).collect();
        assert_eq!(keys, ["a.x/ in a.x", "a.x/p in a.x", "b.x/ in b.x"]);
        assert_eq!(listed("a.x", "")[0].lost, ["test/default/c"]);
        assert_eq!(listed("", "a.x").iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["/p", "/"]);
        let names = |filter, after| {
            let found = sorted(engine.servers().cloned().collect(), filter, after);
            servers(&engine, &found).iter().map(|row| row.server.id.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("default/b", ""), ["b"]);
        assert_eq!(names("", ""), ["a", "b", "c"]);
        assert_eq!(names("", "test/default/a"), ["b", "c"]);
        assert_eq!(names("", "test/default/bb"), ["c"], "one that went between two pages");
        assert_eq!(names("", "test/default/c"), [""; 0]);
    }
}
