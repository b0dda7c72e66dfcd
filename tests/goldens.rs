//! Fleet files to what Envoys are sent, as text: a change of a translation is read as a diff of
//! `tests/goldens/*.txt`. `TIDEGATE_BLESS=1 cargo test --test goldens` writes them anew.
//!
//! A fleet file's first lines say what is shown: `# gateways: a b`, `# table: a`, `# clusters: names`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, RouteList, ScopedRouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{
    MatcherType, OnMatch, matcher_tree::TreeType, on_match,
};
use prost::Message;
use tidegate::engine::Engine;
use tidegate::model::{Event, Gateway};
use tidegate::snapshot::{Kind, Resource, Snapshot};
use tidegate::sources::files;
use tidegate::translate::{CLUSTER, ROUTES, SCOPE};

#[test]
fn what_envoys_are_sent_is_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut fleets: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    fleets.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    fleets.sort();
    assert!(fleets.len() >= 10, "goldens are missing");
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    let mut failed = Vec::new();
    for fleet in fleets {
        let rendered = render(&fleet);
        let golden = fleet.with_extension("txt");
        if bless {
            fs::write(&golden, rendered).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != rendered {
            let at = expected.lines().zip(rendered.lines()).take_while(|(one, other)| one == other).count();
            let line = |text: &str| text.lines().nth(at).unwrap_or("(its end)").to_owned();
            failed.push(format!(
                "{}:{}: {} became {}",
                golden.display(),
                at + 1,
                line(&expected),
                line(&rendered)
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{}\nIf that is right: TIDEGATE_BLESS=1, and read the diff.",
        failed.join("\n")
    );
}

/// The words behind `# key:` in a fleet file.
fn words<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(':'));
    line.into_iter().flat_map(str::split_whitespace).collect()
}

fn render(fleet: &Path) -> String {
    let text = fs::read_to_string(fleet).unwrap();
    let checked = files::read_paths(&[fleet.to_owned()], &tidegate::kinds::Rules::default(), 1);
    assert_eq!(checked.problems, [], "{}", fleet.display());
    let servers: Vec<_> = checked.servers.into_iter().map(|found| found.server).collect();
    let mut out = String::new();
    for (server, problem) in
        servers.iter().flat_map(|server| server.problems.iter().map(move |p| (server, p)))
    {
        writeln!(out, "problem of {}: {problem}", server.id).unwrap();
    }
    let mut engine = Engine::new([files::SOURCE]);
    let commit = engine.apply([Event::Reset { source: files::SOURCE, servers }]);
    let mut snapshot = Snapshot::default();
    snapshot.apply(commit.changes);

    for gateway in words(&text, "gateways") {
        for kind in [Kind::Cluster, Kind::Scope] {
            let mut names: Vec<_> =
                snapshot.changed_since(kind, 0).map(|entry| entry.name().to_owned()).collect();
            names.sort();
            for name in names {
                let Some(resource) = snapshot.get(kind, &name, gateway) else { continue };
                writeln!(out, "=== gateway {gateway}: {kind:?} {name}").unwrap();
                if kind == Kind::Scope || words(&text, "clusters") != ["names"] {
                    let url = if kind == Kind::Cluster { CLUSTER } else { SCOPE };
                    out.push_str(&content(url, &name, resource));
                }
            }
        }
    }
    for gateway in words(&text, "table") {
        writeln!(out, "=== gateway {gateway}: the table").unwrap();
        out.push_str(&content(ROUTES, "tidegate", &engine.table(&Gateway(gateway.into()))));
    }
    out
}

/// A resource, decoded.
fn content(url: &str, name: &str, resource: &Resource) -> String {
    assert_eq!(resource.name(), name);
    let content = resource.content();
    match url {
        CLUSTER => pretty(&Cluster::decode(content).unwrap()),
        SCOPE => {
            let mut scope = ScopedRouteConfiguration::decode(content).unwrap();
            let routes = scope.route_configuration.take().map(configuration).unwrap_or_default();
            pretty(&scope) + &routes
        }
        ROUTES => configuration(RouteConfiguration::decode(content).unwrap()),
        other => panic!("{other}"),
    }
}

/// Routes, with the maps of matchers in the order of their keys: protobuf's own have none.
fn configuration(mut configuration: RouteConfiguration) -> String {
    let mut maps = String::new();
    for host in &mut configuration.virtual_hosts {
        let Some(matcher) = host.matcher.take() else { continue };
        write!(maps, "matcher of {}", host.name).unwrap();
        render_matcher(matcher, &mut maps);
    }
    pretty(&configuration) + &maps
}

fn render_matcher(matcher: Matcher, out: &mut String) {
    let Some(MatcherType::MatcherTree(tree)) = matcher.matcher_type else { panic!() };
    writeln!(out, ": {}", pretty(&tree.input.unwrap()).trim_end()).unwrap();
    let (word, map) = match tree.tree_type {
        Some(TreeType::PrefixMatchMap(map)) => ("prefix", map),
        Some(TreeType::ExactMatchMap(map)) => ("exactly", map),
        other => panic!("{other:?}"),
    };
    let mut map: Vec<_> = map.map.into_iter().collect();
    map.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (key, matched) in map {
        write!(out, "{word} {key:?}").unwrap();
        render_match(matched, out);
    }
    if let Some(others) = matcher.on_no_match {
        write!(out, "others").unwrap();
        render_match(*others, out);
    }
}

fn render_match(matched: OnMatch, out: &mut String) {
    match matched.on_match {
        Some(on_match::OnMatch::Matcher(matcher)) => render_matcher(*matcher, out),
        Some(on_match::OnMatch::Action(action)) => {
            let Any { type_url, value } = action.typed_config.unwrap();
            assert!(type_url.ends_with("/envoy.config.route.v3.RouteList"), "{type_url}");
            writeln!(out, ": {}", pretty(&RouteList::decode(&*value).unwrap()).trim_end()).unwrap();
        }
        None => panic!("no action"),
    }
}

/// Lines that say nothing: the value that protobuf has for a field that was not set.
fn is_default(line: &str) -> bool {
    const ENUMS: [&str; 9] = [
        "lb_policy: RoundRobin",
        "dns_lookup_family: Auto",
        "protocol_selection: UseConfiguredProtocol",
        "protocol: Tcp",
        "health_status: Unknown",
        "priority: Default",
        "require_tls: None",
        "internal_redirect_action: PassThroughInternalRedirect",
        "cluster_not_found_response_code: ServiceUnavailable",
    ];
    let Some((_, value)) = line.split_once(": ") else { return false };
    matches!(value, "None" | "\"\"" | "[]" | "{}" | "0" | "0.0" | "false") || ENUMS.contains(&line)
}

/// A message's `{:#?}` without defaults and wrappers, with what is packed in an `Any` unpacked, and what
/// fits on a line on one line.
fn pretty(message: &dyn Debug) -> String {
    let debug = format!("{message:#?}");
    let mut lines = debug.lines().map(str::trim);
    let mut out: Vec<String> = Vec::new();
    // The lines of brackets that are shown; `None` for the parentheses of `Some(` and oneofs, which are not.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut prefix = String::new();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_suffix('(') {
            let name = name.strip_suffix("Some").unwrap_or(name).trim_end();
            prefix = format!("{prefix}{name} ");
            open.push(None);
            continue;
        }
        let line = line.trim_end_matches(',');
        let indent = "  ".repeat(open.iter().flatten().count());
        if line.starts_with([')', '}', ']']) {
            let Some(start) = open.pop().unwrap() else { continue };
            close(&mut out, start, line);
        } else if let Some(before) = line.strip_suffix("Any {") {
            let url = lines.next().unwrap().split('"').nth(1).unwrap();
            // Every byte has a line, unless there are none.
            let bytes = match lines.next().unwrap() {
                "value: [" => lines
                    .by_ref()
                    .map(|byte| byte.trim_end_matches(',').parse().ok())
                    .map_while(|byte| byte)
                    .collect(),
                _ => Vec::new(),
            };
            lines.next();
            let unpacked = format!("{indent}{prefix}{before}{}", unpacked(url, &bytes).trim_end());
            prefix.clear();
            let mut unpacked = unpacked.lines();
            out.extend(unpacked.next().map(str::to_owned));
            out.extend(unpacked.map(|line| format!("{indent}{line}")));
        } else if !prefix.is_empty() || !is_default(line) {
            if line.ends_with(['{', '[']) {
                open.push(Some(out.len()));
            }
            out.push(format!("{indent}{prefix}{line}"));
            prefix.clear();
        }
    }
    out.join("\n") + "\n"
}

/// Ends what was opened on line `start`, on that line if its inside fits there.
fn close(out: &mut Vec<String>, start: usize, bracket: &str) {
    let inside: Vec<&str> = out[start + 1..].iter().map(|line| line.trim()).collect();
    let joined = match inside.as_slice() {
        [] => format!("{}{bracket}", out[start]),
        inside => format!("{} {} {bracket}", out[start], inside.join(", ")),
    };
    let is_whole = inside.iter().all(|line| !line.ends_with(['{', '[']));
    if is_whole && joined.len() <= 120 {
        out.truncate(start);
        out.push(joined);
    } else {
        let indent = out[start].len() - out[start].trim_start().len();
        out.push(format!("{}{bracket}", " ".repeat(indent)));
    }
}

fn unpacked(url: &str, bytes: &[u8]) -> String {
    match url.rsplit('/').next().unwrap() {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" => {
            pretty(&HttpProtocolOptions::decode(bytes).unwrap())
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            pretty(&UpstreamTlsContext::decode(bytes).unwrap())
        }
        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" => {
            pretty(&HttpRequestHeaderMatchInput::decode(bytes).unwrap())
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            pretty(&LocalRateLimit::decode(bytes).unwrap())
        }
        other => panic!("{other} has no reader here"),
    }
}
