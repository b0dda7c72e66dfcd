use std::time::Duration;

use super::*;

const NAME: &str = "lobby-xk2p4-7vq9z";
const PATH: [(&str, &str); 2] = [
    ("octops.io/gameserver-ingress-mode", "path"),
    ("octops.io/gameserver-ingress-fqdn", "servers.example.com"),
];

fn domain(list: &str) -> Server {
    ready_with(&[
        ("octops.io/gameserver-ingress-mode", "domain"),
        ("octops.io/gameserver-ingress-domain", list),
    ])
}

fn path(list: &str) -> Server {
    ready_with(&[PATH[0], ("octops.io/gameserver-ingress-fqdn", list)])
}

/// A GameServer in path mode, with these annotations besides.
fn with(annotations: &[(&str, &str)]) -> Server {
    ready_with(&[&PATH, annotations].concat())
}

fn field(key: &str) -> String {
    format!("metadata.annotations[\"{key}\"]")
}

#[test]
fn domains_and_paths_are_as_octops_makes_them() {
    for (list, hosts) in [
        ("example.com", &["example.com"][..]),
        ("example.com,example.gg", &["example.com", "example.gg"]),
        // Octops' API server refuses these; here the good entries count.
        (" Example.com , example.gg,, ", &["example.com", "example.gg"]),
    ] {
        let server = domain(list);
        let expected: Vec<_> = hosts.iter().map(|host| format!("{NAME}.{host}")).collect();
        assert_eq!((routes(&server), problems(&server)), (expected, vec![]), "{list:?}");
        let server = path(list);
        let expected: Vec<_> = hosts.iter().map(|host| format!("{host}/{NAME}")).collect();
        assert_eq!((routes(&server), problems(&server)), (expected, vec![]), "{list:?}");
        assert!(!server.desired.strip_prefix);
    }
    assert_eq!(domain("example.com").desired.endpoint.unwrap().to_string(), "10.0.0.7:8010");
    assert!(with(&[("tidegate.dev/strip-prefix", "true")]).desired.strip_prefix);
}

#[test]
fn a_name_with_a_dot_is_a_name() {
    let mut object = object("Ready", &PATH);
    object["metadata"]["name"] = json!("a.b");
    assert_eq!(routes(&read(object.clone()).unwrap()), ["servers.example.com/a.b"]);
    object["metadata"]["annotations"]["octops.io/gameserver-ingress-mode"] = json!("domain");
    object["metadata"]["annotations"]["octops.io/gameserver-ingress-domain"] = json!("example.com");
    assert_eq!(routes(&read(object).unwrap()), ["a.b.example.com"]);
}

#[test]
fn one_bad_entry_costs_that_entry() {
    let server = domain("example.com,bad_.example.com");
    assert_eq!(routes(&server), [format!("{NAME}.example.com")]);
    let why = problem(&server);
    let expected = format!(
        "{}: \"{NAME}.bad_.example.com\" has a bad label",
        field("octops.io/gameserver-ingress-domain")
    );
    assert!(why.starts_with(&expected), "{why}");
}

/// What Octops says of a Failed event, behind `Failed to create Ingress for gameserver eu/…: `.
#[test]
fn mistakes_are_told_in_octops_words() {
    const MODE: &str = "octops.io/gameserver-ingress-mode";
    const DOMAIN: &str = "octops.io/gameserver-ingress-domain";
    const FQDN: &str = "octops.io/gameserver-ingress-fqdn";
    let rules = Rules { host_template: Some("<name>.games.example.com".into()), ..Rules::default() };
    for (annotations, at, why) in [
        (
            &[(MODE, "Domain")][..],
            MODE,
            format!("routing mode 'Domain' from gameserver eu/{NAME} is not recognised"),
        ),
        (&[(MODE, "")], MODE, format!("routing mode '' from gameserver eu/{NAME} is not recognised")),
        (
            &[(MODE, "domain ")],
            MODE,
            format!("routing mode 'domain ' from gameserver eu/{NAME} is not recognised"),
        ),
        (&[(MODE, "domain")], DOMAIN, format!("gameserver eu/{NAME} is missing annotation {DOMAIN}")),
        (
            &[(MODE, "domain"), (DOMAIN, "")],
            DOMAIN,
            format!("gameserver eu/{NAME} has annotation {DOMAIN} but it is empty"),
        ),
        (
            &[(MODE, "domain"), (DOMAIN, " , ")],
            DOMAIN,
            format!("gameserver eu/{NAME} has annotation {DOMAIN} but it is empty"),
        ),
        (&[(MODE, "path")], FQDN, format!("gameserver eu/{NAME} is missing annotation {FQDN}")),
        (
            &[(MODE, "path"), (FQDN, "")],
            FQDN,
            format!("gameserver eu/{NAME} has annotation {FQDN} but it is empty"),
        ),
    ] {
        let server = read_by(&rules, object("Ready", annotations)).unwrap();
        let told = problem(&server);
        let expected = format!("{}: {why}; expected ", field(at));
        assert!(told.starts_with(&expected), "{told}\n{expected}");
        assert_eq!(routes(&server), [""; 0], "and no other route stands in");
        // Our own word is nearer than Octops'.
        let own = [annotations, &[HOST]].concat();
        let server = read_by(&rules, object("Ready", &own)).unwrap();
        assert!(routes(&server)[0].starts_with("lobby.example.com"), "{:?}", routes(&server));
    }
    let long = "x".repeat(60_000);
    let server = ready_with(&[(MODE, &long)]);
    assert!(problem(&server).len() < 512);
}

#[test]
fn a_long_list_has_the_limits_of_every_list() {
    let list = |count: usize| (0..count).map(|at| format!("g{at}.io")).collect::<Vec<_>>().join(",");
    assert_eq!((domain(&list(64)).desired.routes.len(), domain(&list(64)).problems.len()), (64, 0));
    let server = domain(&list(65));
    assert_eq!(server.desired.routes.len(), 64);
    assert!(problem(&server).ends_with("has 65 items; the first 64 are used"));
    let server = domain(&list(2000));
    assert_eq!(server.desired.routes.len(), 64);
    assert!(problem(&server).contains("at most 4096 are read"), "{}", problem(&server));
}

#[test]
fn certificates_are_the_listeners() {
    const TLS: &str = "octops.io/terminate-tls";
    const SECRET: &str = "octops.io/tls-secret-name";
    const ISSUER: &str = "octops.io/issuer-tls-name";
    for quiet in [
        &[(TLS, "true")][..],
        &[(TLS, "true"), (SECRET, "wildcard-cert")],
        &[(TLS, "")],
        &[(TLS, "false"), (ISSUER, "letsencrypt"), (SECRET, "")],
        &[(ISSUER, "letsencrypt")],
    ] {
        assert_eq!(problems(&with(quiet)), [""; 0], "{quiet:?}");
    }
    for (wrong, at, start) in [
        (&[(TLS, "yes")][..], TLS, format!("annotation {TLS} for {NAME} must be \"true\" or \"false\"")),
        (
            &[(TLS, "T"), (SECRET, "")],
            SECRET,
            format!("gameserver eu/{NAME} has annotation {SECRET} but it is empty"),
        ),
        (
            &[(TLS, "1"), (ISSUER, "letsencrypt")],
            ISSUER,
            "is not read, and no certificate is asked for".into(),
        ),
    ] {
        let server = with(wrong);
        let why = problem(&server);
        assert!(why.starts_with(&format!("{}: {start}", field(at))), "{why}");
        assert_eq!(routes(&server).len(), 1, "the route stands");
    }
}

#[test]
fn the_gateway_backend_is_served_by_every_envoy() {
    let backend = ("octops.io/router-backend", "gateway");
    let name = ("octops.io/gateway-name", "octops");
    assert_eq!(problems(&with(&[backend])), [""; 0]);
    assert_eq!(problems(&with(&[name])), [""; 0], "the ingress backend does not read it");
    let server = with(&[backend, name, ("octops.io/gateway-section-name", "wss")]);
    assert_eq!(server.desired.gateways, crate::model::Gateways::Every);
    let why = problem(&server);
    assert!(why.starts_with(&format!("{}: chooses no Envoys here", field(name.0))), "{why}");
    assert_eq!(problems(&with(&[backend, name, ("tidegate.dev/gateway", "eu")])), [""; 0]);
}

#[test]
fn what_contour_was_told_is_done() {
    let server = with(&[
        ("octops-projectcontour.io/response-timeout", "1m30s"),
        ("octops-projectcontour.io/request-timeout", "7s"),
        ("octops-projectcontour.io/websocket-routes", "/{{ .Name }}"),
        ("octops-ingress.kubernetes.io/force-ssl-redirect", "true"),
        ("octops-kubernetes.io/ingress.class", "tidegate"),
        ("octops.service-projectcontour.io/max-connections", "100"),
        ("octops.service-projectcontour.io/max-pending-requests", "10"),
        ("octops.service-projectcontour.io/max-requests", "64"),
        ("octops.service-projectcontour.io/upstream-protocol.h2c", "{{ .Port }}"),
    ]);
    assert_eq!(problems(&server), [""; 0]);
    let desired = &server.desired;
    assert_eq!(desired.response_timeout, Some(Duration::from_secs(90)));
    assert!(desired.https_redirect);
    assert_eq!(
        (desired.max_connections, desired.max_pending, desired.max_sessions),
        (Some(100), Some(10), Some(64))
    );
    assert_eq!(desired.protocol, Protocol::H2c);
    let server =
        with(&[("octops.service-projectcontour.io/max-requests", "64"), ("tidegate.dev/max-sessions", "8")]);
    assert_eq!(server.desired.max_sessions, Some(8), "our own word is nearer");
}

#[test]
fn timeouts_are_gos() {
    let timeout = |text: &str| with(&[("octops-projectcontour.io/response-timeout", text)]);
    for (text, expected) in [
        ("15s", Some(15)),
        ("1m30s", Some(90)),
        ("1.5h", Some(5400)),
        ("2h45m", Some(9900)),
        ("90000ms", Some(90)),
        ("infinity", Some(0)),
        ("infinite", Some(0)),
        ("0", None),
        ("", None),
    ] {
        let server = timeout(text);
        assert_eq!(server.desired.response_timeout, expected.map(Duration::from_secs), "{text:?}");
        assert_eq!(problems(&server), [""; 0], "{text:?}");
    }
    for bad in ["90", "soon", "-1s", "1ms"] {
        let server = timeout(bad);
        assert_eq!(server.desired.response_timeout, None);
        let why = problem(&server);
        let expected =
            format!("{}: {bad:?} is not a duration", field("octops-projectcontour.io/response-timeout"));
        assert!(why.starts_with(&expected), "{why}");
    }
    let server = with(&[("octops-projectcontour.io/request-timeout", "20s")]);
    assert_eq!(server.desired.response_timeout, Some(Duration::from_secs(20)), "the older name");
}

#[test]
fn a_bad_value_names_the_annotation_it_stands_in() {
    for (key, value) in [
        ("octops-ingress.kubernetes.io/force-ssl-redirect", "yes"),
        ("octops.service-projectcontour.io/max-connections", "many"),
        ("octops.service-projectcontour.io/max-pending-requests", "-1"),
        ("octops.service-projectcontour.io/max-requests", "0"),
        ("octops.service-traefik.ingress.kubernetes.io/service.serversscheme", "h3"),
    ] {
        let server = with(&[(key, value)]);
        let why = problem(&server);
        assert!(why.starts_with(&format!("{}: {value:?} is not ", field(key))), "{why}");
    }
}

#[test]
fn the_protocol_is_that_of_the_one_port() {
    let h2 = "octops.service-projectcontour.io/upstream-protocol.h2";
    let h2c = "octops.service-projectcontour.io/upstream-protocol.h2c";
    let tls = "octops.service-projectcontour.io/upstream-protocol.tls";
    let traefik = "octops.service-traefik.ingress.kubernetes.io/service.serversscheme";
    for (annotations, expected) in [
        (&[(tls, "{{ .Port }}")][..], Protocol::Tls),
        (&[(tls, "7123")], Protocol::Tls),
        (&[(h2, "gameserver")], Protocol::H2),
        (&[(h2c, "443, gameserver")], Protocol::H2c),
        (&[(h2c, "{{.Port}},{{ .Port }}")], Protocol::H2c),
        (&[(traefik, "h2c")], Protocol::H2c),
        (&[(traefik, "https")], Protocol::Tls),
        (&[(traefik, "http")], Protocol::Http1),
        // Contour asks for the name before the number; of one of them, the last of h2, h2c, tls counts.
        (&[(h2c, "gameserver"), (h2, "gameserver")], Protocol::H2c),
        (&[(h2c, "7123"), (tls, "7123")], Protocol::Tls),
        (&[(h2, "gameserver"), (tls, "7123")], Protocol::H2),
        (&[(traefik, "h2c"), (h2, "7123")], Protocol::H2),
        (&[(tls, "7123"), ("tidegate.dev/protocol", "h2c")], Protocol::H2c),
    ] {
        let server = with(annotations);
        assert_eq!((server.desired.protocol, problems(&server)), (expected, vec![]), "{annotations:?}");
    }
    let server = with(&[(h2c, "8010")]);
    assert_eq!(server.desired.protocol, Protocol::Http1);
    assert_eq!(
        problem(&server),
        format!(
            "{}: \"8010\" names neither gameserver nor the port 7123, so that it changes nothing; expected {{{{ .Port }}}} or gameserver",
            field(h2c)
        )
    );
}

#[test]
fn a_template_that_is_not_read_costs_its_annotation() {
    let key = "octops.service-projectcontour.io/upstream-protocol.tls";
    let server = with(&[(key, "{{ printf \"%d\" .Port }}")]);
    assert_eq!((routes(&server).len(), server.desired.protocol), (1, Protocol::Http1));
    assert_eq!(
        problem(&server),
        format!(
            "{}: projectcontour.io/upstream-protocol.tls:{{{{ printf \"%d\" .Port }}}} does not contain a valid template; {{{{ .Name }}}} and {{{{ .Port }}}} are read, and this annotation is left out",
            field(key)
        )
    );
}

#[test]
fn what_is_not_read_is_named_once() {
    let server = with(&[
        ("octops-nginx.ingress.kubernetes.io/proxy-read-timeout", "{{ nonsense"),
        ("octops-projectcontour.io/num-retries", "3"),
        ("octops.service-external-dns.alpha.kubernetes.io/hostname", "{{ .Name }}.example.com"),
        ("octops.io/gameserver-ingress-fqnd", "typo.example.com"),
    ]);
    assert_eq!(
        problem(&server),
        "metadata.annotations: octops-nginx.ingress.kubernetes.io/proxy-read-timeout, octops-projectcontour.io/num-retries, octops.io/gameserver-ingress-fqnd, octops.service-external-dns.alpha.kubernetes.io/hostname are not read: they do nothing here, and may go"
    );
    assert_eq!(server.problems[0].kind, ProblemKind::UnknownField);
    let keys: Vec<_> = (0..40).map(|at| format!("octops-example.com/{at:02}")).collect();
    let many: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
    let why = problem(&with(&many));
    assert!(why.contains("octops-example.com/07 and 32 more are not read"), "{why}");
    assert!(problem(&with(&[("octops-", "x")])).ends_with(
        "custom annotation does not contain a suffix; expected a key of the Ingress behind octops-"
    ));
    assert!(
        problem(&with(&[("octops.service-", "x")]))
            .contains("custom annotation octops.service- does not contain a suffix")
    );
}

#[test]
fn ready_is_gos_truth() {
    let ready = |annotations: &[(&str, &str)]| ready(&decode(object("Ready", annotations)));
    assert_eq!(ready(&[HOST, ("octops.io/ingress-ready", "true")]), None);
    assert_eq!(ready(&PATH), Some(false));
    for (text, expected) in
        [("true", true), ("1", true), ("T", true), ("false", false), ("yes", false), ("", false)]
    {
        assert_eq!(ready(&[PATH[0], ("octops.io/ingress-ready", text)]), Some(expected), "{text:?}");
    }
}
