//! The printed bootstraps before a real Envoy: it must accept each of them, and its scope ladder must find the right
//! scope for any spelling of a host and path.
//!
//! For the ladder only the source of the scopes is changed, from the control plane to a file; each scope answers with
//! its own key, so that an answer says which rung found it.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::envoy::{Answer, Envoy, exchange, validate};
use tidegate::bootstrap::page::Page;
use tidegate::bootstrap::{Clusters, Options, Routes, bootstrap};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The default options, on ports of Envoy's choice.
fn options(routes: Routes) -> Options {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Options { http: any, envoy_admin: any, routes, ..Options::default() }
}

#[test]
fn envoy_accepts_every_bootstrap() {
    let v6 = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let some = [
        Options::default(),
        Options { routes: Routes::Table, ..Options::default() },
        Options { clusters: Clusters::OnDemand, ..Options::default() },
        Options { clusters: Clusters::OnDemand, routes: Routes::Table, ..Options::default() },
        Options { load_reports: false, ..Options::default() },
        Options { xds: "tidegate.games.svc.cluster.local:18000".parse().unwrap(), ..Options::default() },
        Options {
            xds: "[fd00::7]:18000".parse().unwrap(),
            http: v6(80),
            envoy_admin: v6(19000),
            ..Options::default()
        },
        Options { node_id: "a: {b} # %c [d] & *e".parse().unwrap(), ..Options::default() },
        Options {
            unknown_page: Some(Page::read("%".repeat(65536).as_bytes()).unwrap()),
            ..Options::default()
        },
    ];
    for options in some {
        if let Err(why) = validate(&bootstrap(&options)) {
            panic!("{options:?}\n{why}");
        }
    }
}

/// The bootstrap with its control plane taken out, and with scopes (or one table) from a file in `folder`.
fn alone(
    options: &Options,
    folder: &Path,
    resource_type: &str,
    resources: &[Value],
    clusters: &[Value],
) -> String {
    let mut config: Value = serde_saphyr::from_str(&bootstrap(options)).unwrap();
    config.as_object_mut().unwrap().remove("dynamic_resources").unwrap();
    config["cluster_manager"].as_object_mut().unwrap().remove("load_stats_config").unwrap();
    config["static_resources"]["clusters"] = json!(clusters);

    let mut answer = json!({ "version_info": "1", "resources": resources });
    for resource in answer["resources"].as_array_mut().unwrap() {
        resource["@type"] = json!(format!("type.googleapis.com/{resource_type}"));
    }
    let file = folder.join("routes.json");
    std::fs::write(&file, answer.to_string()).unwrap();
    let source = json!({ "path_config_source": { "path": file }, "resource_api_version": "V3" });
    let manager =
        &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    match options.routes {
        Routes::Scopes => {
            manager["scoped_routes"]["scoped_rds"]["scoped_rds_config_source"] = source.clone();
            manager["scoped_routes"]["rds_config_source"] = source;
        }
        Routes::Table => manager["rds"]["config_source"] = source,
    }
    config.to_string()
}

fn virtual_host(routes: &[Value]) -> Value {
    let hidden = json!(["x-tidegate-scope"]);
    json!({ "name": "all", "domains": ["*"], "routes": routes, "request_headers_to_remove": hidden })
}

fn scope(key: &str, routes: &[Value]) -> Value {
    json!({
        "name": key,
        "key": { "fragments": [{ "string_key": key }] },
        "route_configuration": { "name": key, "validate_clusters": false, "virtual_hosts": [virtual_host(routes)] },
    })
}

/// A scope that answers with its key, below its own path if it has one.
fn told(key: &str) -> Value {
    let prefix = match key.split_once('/') {
        Some((_, segment)) => json!({ "path_separated_prefix": format!("/{segment}") }),
        None => json!({ "prefix": "/" }),
    };
    let answer = json!({ "status": 200, "body": { "inline_string": key } });
    scope(key, &[json!({ "name": key, "match": prefix, "direct_response": answer })])
}

fn to_cluster(prefix: &str, cluster: &str) -> Value {
    json!({ "name": cluster, "match": { "prefix": prefix }, "route": { "cluster": cluster, "timeout": "5s" } })
}

/// A cluster of one loopback port; the cap is on open requests.
fn cluster(name: &str, port: u16, cap: u32) -> Value {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    json!({
        "name": name,
        "type": "STATIC",
        "circuit_breakers": { "thresholds": [{ "max_requests": cap }] },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

const SCOPE: &str = "envoy.config.route.v3.ScopedRouteConfiguration";
const TABLE: &str = "envoy.config.route.v3.RouteConfiguration";

async fn scoped(scopes: &[Value], clusters: &[Value]) -> (Envoy, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = options(Routes::Scopes);
    let mut envoy = Envoy::start(&alone(&options, folder.path(), SCOPE, scopes, clusters)).await;
    envoy.ready().await;
    (envoy, folder)
}

async fn get(envoy: &Envoy, host: &str, path: &str, more: &str) -> Answer {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n");
    exchange(envoy.http, head.as_bytes()).await.unwrap()
}

/// A port of this machine where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_ladder_finds_each_rung() {
    let keys = [
        "one.example.com",
        "two.example.com/game-1",
        "three.example.com/both",
        "*.wild.net",
        "*.paths.net/lobby",
    ];
    let more = ["*.mixed.net", "own.mixed.net/lobby", "solo"];
    let scopes: Vec<Value> = keys.into_iter().chain(more).map(told).collect();
    let (envoy, _folder) = scoped(&scopes, &[]).await;

    let unknown = "";
    for (host, path, expected) in [
        // The host, however it is spelled.
        ("one.example.com", "/", "one.example.com"),
        ("one.example.com", "/any/path?q=1", "one.example.com"),
        ("one.example.com:10000", "/", "one.example.com"),
        ("ONE.Example.COM", "/", "one.example.com"),
        ("one.example.com.", "/", "one.example.com"),
        ("One.example.com.:443", "/", "one.example.com"),
        ("One.example.com:port", "/", "one.example.com"),
        ("solo", "/", "solo"),
        ("SOLO:1", "/", "solo"),
        // The host and first segment.
        ("two.example.com", "/game-1", "two.example.com/game-1"),
        ("two.example.com", "/game-1/", "two.example.com/game-1"),
        ("two.example.com", "/game-1/a/b", "two.example.com/game-1"),
        ("two.example.com", "/game-1?x=/y", "two.example.com/game-1"),
        ("two.example.com", "//game-1/a", "two.example.com/game-1"),
        ("two.example.com", "/x/../game-1", "two.example.com/game-1"),
        ("TWO.example.com.:80", "/game-1", "two.example.com/game-1"),
        ("two.example.com", "/game-10", unknown),
        ("two.example.com", "/game-", unknown),
        ("two.example.com", "/Game-1", unknown),
        ("two.example.com", "/", unknown),
        ("two.example.com", "/?game-1", unknown),
        ("two.example.com", "/x/game-1", unknown),
        // The parent domain, one label up.
        ("any.wild.net", "/", "*.wild.net"),
        ("ANY.wild.net:5", "/deep/path", "*.wild.net"),
        ("any.wild.net.", "/", "*.wild.net"),
        ("wild.net", "/", unknown),
        ("a.b.wild.net", "/", unknown),
        // The parent domain and first segment.
        ("any.paths.net", "/lobby", "*.paths.net/lobby"),
        ("any.paths.net", "/lobby/x?y", "*.paths.net/lobby"),
        ("any.paths.net", "/lobby2", unknown),
        ("any.paths.net", "/", unknown),
        // The nearest wins, and what it does not have goes on to the next.
        ("own.mixed.net", "/lobby", "own.mixed.net/lobby"),
        ("own.mixed.net", "/other", "*.mixed.net"),
        ("own.mixed.net", "/", "*.mixed.net"),
        // Nobody.
        ("nobody.example.com", "/", unknown),
        ("nobody", "/game-1", unknown),
    ] {
        let answer = get(&envoy, host, path, "").await;
        if expected == unknown {
            assert_eq!(answer.status, 404, "{host} {path}: {answer:?}");
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body, json!({ "status": "unknown", "message": "no server is known here" }));
            assert_eq!(answer.header("content-type"), Some("application/json"));
        } else {
            assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{host} {path}");
            assert_eq!(answer.header("content-type"), Some("text/plain"));
        }
        assert_eq!(answer.header("server"), None);
    }
}

#[tokio::test]
async fn the_last_rungs_take_what_no_host_took() {
    let (envoy, _folder) =
        scoped(&[told("*/lobby"), told("one.example.com/a"), told("*.wild.net/b")], &[]).await;
    for (host, path, expected) in [
        ("any.example.com", "/lobby", (200, "*/lobby")),
        ("solo", "/lobby/x", (200, "*/lobby")),
        ("one.example.com", "/lobby", (200, "*/lobby")),
        ("one.example.com", "/a", (200, "one.example.com/a")),
        ("x.wild.net", "/lobby", (200, "*/lobby")),
        ("[::1]:80", "/lobby", (200, "*/lobby")),
        ("10.0.0.1", "/lobby", (200, "*/lobby")),
    ] {
        let answer = get(&envoy, host, path, "").await;
        assert_eq!((answer.status, answer.body.as_str()), expected, "{host} {path}");
    }
    assert_eq!(get(&envoy, "any.example.com", "/lobby2", "").await.status, 404);
    assert_eq!(get(&envoy, "any.example.com", "/", "").await.status, 404);

    let (envoy, _folder) = scoped(&[told("*"), told("one.example.com"), told("*.wild.net")], &[]).await;
    for (host, path, expected) in [
        ("nobody.example.com", "/", "*"),
        ("solo", "/a/b", "*"),
        ("one.example.com", "/a", "one.example.com"),
        ("x.wild.net", "/a", "*.wild.net"),
        ("wild.net", "/a", "*"),
        ("[::1]", "/", "*"),
    ] {
        let answer = get(&envoy, host, path, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{host} {path}");
    }
}

#[tokio::test]
async fn a_client_cannot_choose_its_scope() {
    let (envoy, _folder) = scoped(&[told("one.example.com"), told("secret.example.com")], &[]).await;
    for name in ["x-tidegate-scope", "X-Tidegate-Scope"] {
        let forged = format!("{name}: secret.example.com\r\n");
        assert_eq!(get(&envoy, "one.example.com", "/", &forged).await.body, "one.example.com");
        for host in ["", "nobody", "nobody.example.com", "[::1]", ":", "."] {
            for headers in [forged.clone(), forged.repeat(2)] {
                let answer = get(&envoy, host, "/", &headers).await;
                assert_eq!(answer.status / 100, 4, "{host:?}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_request_makes_the_ladder_fail() {
    let (envoy, _folder) = scoped(&[told("one.example.com")], &[]).await;
    let long = "x".repeat(20_000);
    let hosts = [
        "",
        ":",
        ".",
        "..",
        ":80",
        "[::1]",
        "[::1]:80",
        "[",
        "]",
        "*",
        "*.",
        "*/",
        "/",
        "a/b",
        "*.example.com",
        "%",
        "%s%d",
        "-",
        "a:b:c",
        "é",
        "nobody:port",
        "..example.com",
        "example..com",
        &long,
    ];
    let paths = [
        "/", "//", "/%", "/%2f", "/%00", "/.", "/..", "/?", "/??", "/*", "/:", "/a:b", "/#", "/%25s", "*",
        "nothing",
    ];
    for host in hosts {
        for path in paths {
            let answer = get(&envoy, host, path, "").await;
            assert!((300..500).contains(&answer.status), "{host:?} {path:?}: {answer:?}");
        }
    }
    for head in [
        "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "CONNECT one.example.com:80 HTTP/1.1\r\nhost: one.example.com:80\r\nconnection: close\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: nobody\r\nconnection: close\r\n\r\n",
        "GET http://nobody/x HTTP/1.1\r\nhost: one.example.com\r\nconnection: close\r\n\r\n",
        "\r\n\r\nnonsense\r\n\r\n",
    ] {
        let answer = exchange(envoy.http, head.as_bytes()).await.unwrap();
        assert!((400..500).contains(&answer.status), "{head:?}: {answer:?}");
    }
    assert_eq!(
        envoy.stats("http.http.lua.errors").await,
        [("http.http.lua.errors".to_owned(), 0)],
        "{}",
        envoy.log()
    );
}

#[tokio::test]
async fn envoy_answers_in_json_where_a_server_cannot() {
    let dead = cluster("gs/dead", closed_port().await, 100);
    // Envoy counts a request against the cap when it has a connection for it: the server must listen.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let full = cluster("gs/full", server.local_addr().unwrap().port(), 0);
    let closed = json!({ "status": 503, "body": { "inline_string": "back at noon" } });
    let routes = [
        to_cluster("/dead", "gs/dead"),
        to_cluster("/full", "gs/full"),
        to_cluster("/gone", "gs/gone"),
        json!({ "name": "closed", "match": { "prefix": "/closed" }, "direct_response": closed }),
    ];
    let (envoy, _folder) = scoped(&[scope("one", &routes)], &[dead, full]).await;

    let unreachable = json!({ "status": "unreachable", "message": "the server does not answer" });
    for (path, retry, body) in [
        ("/dead", "2", unreachable.clone()),
        ("/gone", "2", unreachable),
        ("/full", "5", json!({ "status": "full", "message": "server full" })),
    ] {
        let answer = get(&envoy, "one", path, "").await;
        eprintln!("{}", envoy.log());
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some(retry)), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), body);
    }
    let answer = get(&envoy, "one", "/closed", "").await;
    assert_eq!(
        (answer.status, answer.body.as_str(), answer.header("retry-after")),
        (503, "back at noon", None)
    );
    assert_eq!(envoy.stats("cluster.gs/").await, [], "stats of single servers are excluded");
}

/// As browsers ask for a page; what scripts ask for is anything.
const BROWSER: &str = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

#[tokio::test]
async fn browsers_get_a_page_where_a_server_cannot_answer() {
    let dead = cluster("gs/dead", closed_port().await, 100);
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let full = cluster("gs/full", server.local_addr().unwrap().port(), 0);
    let refusal = json!({ "status": 503, "body": { "inline_string": "{\"status\":\"closed\"}" } });
    let text =
        json!({ "filter_metadata": { "tidegate": { "text": "&lt;b&gt; 100% %START_TIME% &quot;☀&quot;" } } });
    let closed = json!({ "name": "closed", "match": { "prefix": "/closed" }, "direct_response": refusal, "metadata": text });
    let away = json!({ "name": "away", "match": { "prefix": "/away" }, "redirect": { "host_redirect": "b.example.com" } });
    let routes = [to_cluster("/dead", "gs/dead"), to_cluster("/full", "gs/full"), closed, away];
    let (envoy, _folder) = scoped(&[scope("one", &routes)], &[dead, full]).await;
    for (path, status, retry, text) in [
        ("/dead", 503, Some("2"), "the server does not answer"),
        ("/full", 503, Some("5"), "this server is full"),
        ("/closed", 503, None, "&lt;b&gt; 100% %START_TIME% &quot;☀&quot;"),
        ("/other", 404, None, "no server is known here"),
    ] {
        for accept in [BROWSER, "ACCEPT: Text/HTML\r\n"] {
            let answer = get(&envoy, "one", path, accept).await;
            assert_eq!((answer.status, answer.header("retry-after")), (status, retry), "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert!(answer.body.contains(&format!("<h1 dir=\"auto\">{text}</h1>")), "{}", answer.body);
            let refresh = format!("<meta http-equiv=\"refresh\" content=\"{}\">", retry.unwrap_or_default());
            assert!(answer.body.contains(&refresh), "{}", answer.body);
            assert!(answer.body.contains("min(32rem, 100%)"), "{}", answer.body);
        }
        for accept in ["", "accept: */*\r\n", "accept: application/json\r\n"] {
            let answer = get(&envoy, "one", path, accept).await;
            assert_eq!((answer.status, answer.header("cache-control")), (status, Some("no-store")));
            assert!(serde_json::from_str::<Value>(&answer.body).unwrap()["status"].is_string(), "{answer:?}");
        }
    }
    for accept in ["", BROWSER] {
        let answer = get(&envoy, "one", "/away", accept).await;
        assert_eq!((answer.status, answer.body.as_str()), (301, ""), "{answer:?}");
        assert_eq!(answer.header("cache-control"), None);
    }
}

#[tokio::test]
async fn an_operator_may_have_a_page_of_their_own_for_unknown_hosts() {
    let page = "<!doctype html>\r\n\n  <p>100% \"lost\" \\ 'é' ☀ %START_TIME% {{x}} # </p> \n\n";
    let options =
        Options { unknown_page: Some(Page::read(page.as_bytes()).unwrap()), ..options(Routes::Scopes) };
    let folder = tempfile::tempdir().unwrap();
    let scopes = [scope("one", &[to_cluster("/a", "gs/gone")])];
    let mut envoy = Envoy::start(&alone(&options, folder.path(), SCOPE, &scopes, &[])).await;
    envoy.ready().await;
    for (host, path) in [("nobody.example.com", "/"), ("one", "/b")] {
        let answer = get(&envoy, host, path, BROWSER).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, page), "{host}{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        let answer = get(&envoy, host, path, "accept: */*\r\n").await;
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
    }
    let answer = get(&envoy, "one", "/a", BROWSER).await;
    assert!(answer.status == 503 && answer.body.contains("the server does not answer"), "{answer:?}");
}

#[tokio::test]
async fn a_websocket_passes_the_ladder() {
    let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = game.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = game.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let accept = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(accept).await.unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        (head, stream, game)
    });
    let scopes = [scope("*.example.com/game", &[to_cluster("/game", "gs/game")])];
    let (envoy, _folder) = scoped(&scopes, &[cluster("gs/game", port, 1)]).await;

    let hello = "GET /game?token=1 HTTP/1.1\r\nhost: One.example.com:10000\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let mut player = TcpStream::connect(envoy.http).await.unwrap();
    player.write_all(hello.as_bytes()).await.unwrap();
    assert!(read_head(&mut player).await.starts_with("HTTP/1.1 101 "));
    player.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    player.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");

    let (head, _stream, _game) = served.await.unwrap();
    let head = head.to_lowercase();
    assert!(head.contains("host: one.example.com:10000\r\n"), "games compare Origin and Host: {head}");
    assert!(head.contains("/game?token=1") && !head.contains("x-tidegate-scope"), "{head}");

    // The one place is taken as long as this player stays.
    assert_eq!(get(&envoy, "one.example.com", "/game", "").await.header("retry-after"), Some("5"));
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_table_answers_without_a_ladder() {
    let answer = json!({ "status": 200, "body": { "inline_string": "here" } });
    let mut host =
        virtual_host(&[json!({ "name": "r", "match": { "prefix": "/" }, "direct_response": answer })]);
    host["domains"] = json!(["one.example.com"]);
    let table = json!({ "name": "tidegate", "ignore_port_in_host_matching": true, "virtual_hosts": [host] });
    let folder = tempfile::tempdir().unwrap();
    let mut envoy = Envoy::start(&alone(&options(Routes::Table), folder.path(), TABLE, &[table], &[])).await;
    envoy.ready().await;
    assert_eq!(get(&envoy, "ONE.example.com.:80", "/x", "").await.body, "here");
    let answer = get(&envoy, "two.example.com", "/x", "").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
}

/// The printed bootstrap, as it is: a fresh Envoy shuts nobody out with a 404, it is not there until it knows its fleet.
#[tokio::test]
async fn without_a_control_plane_envoy_does_not_serve() {
    let xds = SocketAddr::from(([127, 0, 0, 1], closed_port().await)).into();
    let envoy = Envoy::start(&bootstrap(&Options { xds, ..options(Routes::Scopes) })).await;
    assert_ne!(envoy.http.port(), 0);
    assert!(envoy.admin_get("/server_info").await.contains("PRE_INITIALIZING"));
}
