use serde_json::json;

use super::super::declared::{MAX_CONF, MAX_ENTRIES};
use super::super::{INGRESS_TYPE, NETWORK_CONF, NETWORK_TYPE, OWN_TYPE};
use super::*;
use crate::kinds::Meta;

fn declared(kind: &str, conf: &str) -> Declared {
    let mut meta = Meta::default();
    meta.annotations.insert(NETWORK_TYPE.into(), kind.into());
    meta.annotations.insert(NETWORK_CONF.into(), conf.into());
    Declared::of_annotations(&meta, "annotations")
}

fn conf_of(kind: &str, entries: &[(&str, &str)]) -> Conf {
    let list: Vec<_> = entries.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    read(declared(kind, &json!(list).to_string()), Some("3"))
}

fn ingress(entries: &[(&str, &str)]) -> Conf {
    conf_of(INGRESS_TYPE, entries)
}

/// Each port with its paths, as `5000:/a,/b`.
fn groups(conf: &Conf) -> Vec<String> {
    let group = |group: &Group| {
        let paths: Vec<_> = group.paths.iter().map(PathPrefix::as_str).collect();
        let port = match group.port {
            Port::Unsaid => "-".to_owned(),
            Port::Bad => "bad".to_owned(),
            Port::Number(number) => number.to_string(),
        };
        format!("{port}:{}", paths.join(","))
    };
    conf.groups.iter().map(group).collect()
}

fn problems(conf: &Conf) -> Vec<String> {
    conf.problems.iter().map(ToString::to_string).collect()
}

fn host(conf: &Conf) -> Option<&str> {
    match &conf.hosts {
        Hosts::One(said) => Some(&said.text),
        _ => None,
    }
}

#[test]
fn what_go_wrote_is_json() {
    let text = r#"[{"name":"IngressClassName","value":"higress"},{"name":"Port","value":"5000"},{"name":"Path","value":"/"},
        {"name":"PathType","value":"Prefix"},{"name":"Host","value":"game\u003cid\u003e.postio.example.com"}]"#;
    let declared = declared(INGRESS_TYPE, text);
    assert_eq!(declared.class(), Some("higress"));
    let conf = read(declared, Some("3"));
    assert_eq!(problems(&conf), [""; 0]);
    assert_eq!(host(&conf), Some("game3.postio.example.com"));
    assert_eq!(groups(&conf), ["5000:/"]);
}

#[test]
fn types_and_ports_go_with_paths_or_are_the_first() {
    let conf = ingress(&[
        ("Path", "/game<id>"),
        ("Path", "/chat<id>"),
        ("Path", "/admin<id>"),
        ("Path", "/more<id>"),
        ("PathType", "Prefix"),
        ("Port", "80"),
        ("Port", "81"),
        ("Port", "80"),
    ]);
    assert_eq!(problems(&conf), [""; 0]);
    assert_eq!(groups(&conf), ["80:/game3,/admin3,/more3", "81:/chat3"]);
    let surplus =
        ingress(&[("Path", "/"), ("PathType", "Prefix"), ("Port", "80"), ("Port", "81"), ("Port", "82")]);
    assert_eq!(groups(&surplus), ["80:/"]);
    let types = ingress(&[
        ("Path", "/a"),
        ("Path", "/b"),
        ("PathType", "Prefix"),
        ("PathType", "Exact"),
        ("Port", "80"),
    ]);
    assert_eq!(
        problems(&types),
        [
            "annotations[\"game.kruise.io/network-conf\"][1] Path: \"/b\" is Exact; what is below it is served too"
        ]
    );
}

#[test]
fn the_last_of_a_name_counts() {
    let conf = ingress(&[
        ("Host", "a.example.com"),
        ("Path", "/"),
        ("PathType", "Prefix"),
        ("Port", "80"),
        ("Host", "b<id>.example.com"),
    ]);
    assert_eq!(host(&conf), Some("b3.example.com"));
    let class = declared(
        INGRESS_TYPE,
        r#"[{"name":"IngressClassName","value":"a"},{"name":"IngressClassName","value":"b"}]"#,
    );
    assert_eq!(class.class(), Some("b"));
    let old = declared(INGRESS_TYPE, r#"[{"name":"Annotation","value":"kubernetes.io/ingress.class: c"}]"#);
    assert_eq!(old.class(), Some("c"));
}

#[test]
fn no_host_is_every_host() {
    for host in [None, Some(("Host", ""))] {
        let entries: Vec<_> =
            [("Path", "/game<id>"), ("PathType", "Prefix"), ("Port", "80")].into_iter().chain(host).collect();
        assert_eq!(ingress(&entries).hosts, Hosts::All);
    }
    assert_eq!(conf_of(OWN_TYPE, &[("Port", "80")]).hosts, Hosts::Unsaid, "our own asks for none so");
    assert_eq!(conf_of(OWN_TYPE, &[("Path", "/game<id>")]).hosts, Hosts::All);
}

#[test]
fn every_mistake_names_its_entry() {
    const GOOD: [(&str, &str); 4] =
        [("Host", "a.example.com"), ("Path", "/"), ("PathType", "Prefix"), ("Port", "80")];
    // The place of the entry in GOOD, what is written there, and the words of the problem.
    let table: [(usize, &str, &str); 14] = [
        (0, "<id>.<id>.example.com", "[0] Host: \"<id>.<id>.example.com\" has <id> more than once"),
        (0, "<name>.example.com", "[0] Host: \"<name>.example.com\" has a bad label at position 0"),
        (0, "a.example.com,b.example.com", "[0] Host: \"a.example.com,b.example.com\" has a bad label"),
        (0, "a.example.com:80", "[0] Host: \"a.example.com:80\" names a port"),
        (1, "/<id>/<id>", "[1] Path: \"/<id>/<id>\" has <id> more than once"),
        (1, "game", "[1] Path: \"game\" does not begin with /; it is left out"),
        (1, "", "[1] Path: \"\" does not begin with /; it is left out"),
        (1, "/a,/b", "[1] Path: \"/a,/b\" has the character ','"),
        (
            1,
            "/(a|b)/.*",
            "[1] Path: \"/(a|b)/.*\" is a regular expression; only prefixes are served, and /game<id>(/|$)(.*)",
        ),
        (
            2,
            "prefix",
            "[2] PathType: \"prefix\" is not Prefix, Exact or ImplementationSpecific; Prefix is used",
        ),
        (2, "Exact", "[1] Path: \"/\" is Exact; what is below it is served too"),
        (3, "abc", "[3] Port: \"abc\" is not a port; expected a number from 1 to 65535"),
        (3, " 80", "[3] Port: \" 80\" is not a port"),
        (3, "65536", "[3] Port: \"65536\" is not a port"),
    ];
    for (at, value, expected) in table {
        let mut entries = GOOD;
        entries[at].1 = value;
        let conf = ingress(&entries);
        let [problem] = &problems(&conf)[..] else { panic!("{value}: {:?}", conf.problems) };
        let rest =
            problem.strip_prefix("annotations[\"game.kruise.io/network-conf\"]").expect("the annotation");
        assert!(rest.starts_with(expected), "{problem}");
        if at == 0 {
            assert_eq!(conf.hosts, Hosts::Bad, "{value}");
        }
        if at == 1 {
            assert_eq!(groups(&conf), ["80:"], "{value} must not become /");
        }
        if at == 3 {
            assert_eq!(groups(&conf), ["bad:/"], "{value}");
        }
    }
}

#[test]
fn an_ingress_needs_a_path_its_type_and_a_port() {
    let conf = ingress(&[("Host", "a.example.com")]);
    let all = problems(&conf);
    assert_eq!(all.len(), 3, "{all:?}");
    for (problem, name) in all.iter().zip(["Path", "PathType", "Port"]) {
        assert!(
            problem.starts_with(&format!("annotations[\"game.kruise.io/network-conf\"] {name}: is missing")),
            "{problem}"
        );
    }
    assert_eq!(groups(&conf), ["bad:"]);
    let own = conf_of(OWN_TYPE, &[("Host", "a.example.com")]);
    assert_eq!((problems(&own), groups(&own)), (vec![], vec!["-:/".to_owned()]), "our own type needs none");
}

#[test]
fn the_pattern_of_the_manual_is_a_prefix() {
    const REWRITE: &str = "nginx.ingress.kubernetes.io/rewrite-target: /$2";
    let table: [(&str, &str, &[&str], &str, bool); 5] = [
        ("/game<id>(/|$)(.*)", "ImplementationSpecific", &[REWRITE], "80:/game3", true),
        ("/game<id>(/|$)(.*)", "Prefix", &["higress.io/rewrite-target: /$2"], "80:/game3", true),
        (
            "/game<id>(/|$)(.*)",
            "Prefix",
            &["alb.ingress.kubernetes.io/rewrite-target: /${2}"],
            "80:/game3",
            true,
        ),
        (
            "/game<id>(/|$)(.*)",
            "Prefix",
            &["nginx.ingress.kubernetes.io/use-regex: true"],
            "80:/game3",
            false,
        ),
        ("(/|$)(.*)", "Prefix", &[REWRITE], "80:/", true),
    ];
    for (path, kind, annotations, expected, strips) in table {
        let mut entries = vec![("Path", path), ("PathType", kind), ("Port", "80")];
        entries.extend(annotations.iter().map(|annotation| ("Annotation", *annotation)));
        let conf = ingress(&entries);
        assert_eq!(problems(&conf), [""; 0], "{path}");
        assert_eq!(groups(&conf), [expected], "{path}");
        assert_eq!(conf.groups[0].strip.is_some(), strips, "{path} {annotations:?}");
    }
    for (path, rewrite) in [("/game<id>", "/$2"), ("/game<id>(/|$)(.*)", "/"), ("/game<id>", "/")] {
        let annotation = format!("nginx.ingress.kubernetes.io/rewrite-target: {rewrite}");
        let conf =
            ingress(&[("Path", path), ("PathType", "Prefix"), ("Port", "80"), ("Annotation", &annotation)]);
        let [problem] = &problems(&conf)[..] else { panic!("{:?}", conf.problems) };
        assert!(problem.contains("[3] Annotation: ") && problem.contains("only /$2 is"), "{problem}");
        assert!(conf.groups[0].strip.is_none());
    }
}

#[test]
fn annotations_of_an_ingress_are_read_as_nginx_does() {
    let with = |annotations: &[&str], tls: bool| {
        let mut entries = vec![("Path", "/"), ("PathType", "Prefix"), ("Port", "80")];
        entries.extend(annotations.iter().map(|annotation| ("Annotation", *annotation)));
        if tls {
            entries.extend([("TlsHosts", "*.example.com"), ("TlsSecretName", "cert")]);
        }
        ingress(&entries)
    };
    let idle = |annotations: &[&str]| with(annotations, false).idle.map(|said| said.text);
    assert_eq!(
        idle(&[
            "nginx.ingress.kubernetes.io/proxy-read-timeout: 60",
            "nginx.ingress.kubernetes.io/proxy-send-timeout: 3600"
        ]),
        Some("3600s".into())
    );
    assert_eq!(
        idle(&[
            "nginx.ingress.kubernetes.io/proxy-read-timeout: 60",
            "nginx.ingress.kubernetes.io/proxy-read-timeout: 70"
        ]),
        Some("70s".into()),
        "the last of a key counts"
    );
    let redirects = |annotation: &str, tls| with(&[annotation], tls).redirect.is_some();
    for (annotation, tls, expected) in [
        ("nginx.ingress.kubernetes.io/ssl-redirect: true", true, true),
        ("nginx.ingress.kubernetes.io/ssl-redirect: true", false, false),
        ("nginx.ingress.kubernetes.io/ssl-redirect: false", true, false),
        ("nginx.ingress.kubernetes.io/force-ssl-redirect: true", false, true),
        ("higress.io/ssl-redirect: true", true, true),
        ("alb.ingress.kubernetes.io/ssl-redirect: true", true, true),
    ] {
        assert_eq!(redirects(annotation, tls), expected, "{annotation} {tls}");
    }
    assert_eq!(problems(&with(&[], true)), [""; 0], "a certificate is no mistake");

    let conf = with(
        &[
            "nginx.ingress.kubernetes.io/auth-url: https",
            "nginx.ingress.kubernetes.io/affinity: cookie",
            "cert-manager.io/issuer: x",
            "kubernetes.io/ingress.class: nginx",
        ],
        false,
    );
    let [problem] = &conf.problems[..] else { panic!("{:?}", conf.problems) };
    assert_eq!(problem.kind, ProblemKind::UnknownField);
    assert_eq!(
        problem.why,
        "ignored: cert-manager.io/issuer, nginx.ingress.kubernetes.io/affinity, nginx.ingress.kubernetes.io/auth-url"
    );

    for bad in [
        "nginx.ingress.kubernetes.io/proxy-read-timeout: 1h",
        "nginx.ingress.kubernetes.io/ssl-redirect: yes",
        "no colon",
        "a: b: c",
    ] {
        let all = problems(&with(&[bad], true));
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("[3] Annotation: "), "{all:?}");
    }
}

#[test]
fn names_that_nobody_reads_are_listed_once() {
    let conf = ingress(&[
        ("Path", "/"),
        ("PathType", "Prefix"),
        ("Port", "80"),
        ("host", "a"),
        ("host", "b"),
        ("PortProtocols", "80"),
        ("", ""),
    ]);
    let [problem] = &conf.problems[..] else { panic!("{:?}", conf.problems) };
    assert_eq!(problem.kind, ProblemKind::UnknownField);
    assert!(
        problem
            .why
            .starts_with("has names that nobody reads: host, PortProtocols, ; expected Path, PathType"),
        "{problem}"
    );
    let own =
        conf_of(OWN_TYPE, &[("PortProtocols", "80,443/UDP,9000/TCPUDP"), ("Path", "/a"), ("Path", "/b")]);
    assert_eq!((problems(&own), groups(&own)), (vec![], vec!["80:/a".to_owned(), "9000:/b".to_owned()]));
    let bad = conf_of(OWN_TYPE, &[("PortProtocols", "80/SCTP,x")]);
    assert_eq!(problems(&bad).len(), 2);
    assert_eq!(groups(&bad), ["bad:/"]);
    let other = conf_of("Kubernetes-NodePort", &[("PortProtocols", "7000,7001/UDP"), ("Whatever", "x")]);
    assert_eq!((problems(&other), groups(&other)), (vec![], vec!["7000:/".to_owned()]));
}

#[test]
fn what_is_no_list_is_said_once() {
    for (text, expected) in [
        ("{", "is not JSON (EOF while parsing an object at line 1 column 1)"),
        ("{}", "is not a list"),
        ("\"x\"", "is not a list"),
        ("[1]", ""),
        ("null", ""),
        ("", ""),
        ("[null,{}]", ""),
    ] {
        let all: Vec<_> = declared(OWN_TYPE, text).problems.iter().map(ToString::to_string).collect();
        assert_eq!(all.len(), usize::from(!expected.is_empty()), "{text}: {all:?}");
        assert!(all.iter().all(|problem| problem.contains(expected)), "{text}: {all:?}");
    }
    let odd = declared(OWN_TYPE, r#"[{"name":"Port","value":5000},{"name":"Host","value":["a"]}]"#);
    let all: Vec<_> = odd.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        all,
        [
            "annotations[\"game.kruise.io/network-conf\"][0].value: \"5000\" is not a text; write it in quotes",
            "annotations[\"game.kruise.io/network-conf\"][1].value: \"[\\\"a\\\"]\" is not a text; write it in quotes",
        ]
    );
    assert_eq!(groups(&read(odd, None)), ["5000:/"]);
    assert_eq!(declared("", "{").problems, [], "without a type nobody reads it");
}

#[test]
fn everything_has_a_limit() {
    let long = declared(INGRESS_TYPE, &format!("[{}]", " ".repeat(MAX_CONF)));
    assert_eq!(long.problems.len(), 1);
    assert_eq!(long.problems[0].kind, ProblemKind::TooLarge);

    let many = declared(OWN_TYPE, &format!("[{}]", vec!["{}"; MAX_ENTRIES + 1].join(",")));
    assert_eq!(many.entries.len(), MAX_ENTRIES);
    assert_eq!(many.problems[0].kind, ProblemKind::TooLarge);

    let paths: Vec<_> = (0..70).map(|at| format!("/{at}")).collect();
    let mut entries = vec![("PathType", "Prefix"), ("Port", "80")];
    entries.extend(paths.iter().map(|path| ("Path", path.as_str())));
    let conf = ingress(&entries);
    assert_eq!(conf.groups[0].paths.len(), MAX_ITEMS);
    assert!(
        problems(&conf)[0].contains("[2] Path: is one of 70 paths; the first 64 are used"),
        "{:?}",
        conf.problems
    );
    let long: Vec<_> = (0..30).map(|at| format!("/{at}{}", "a".repeat(200))).collect();
    let mut entries = vec![("PathType", "Prefix"), ("Port", "80")];
    entries.extend(long.iter().map(|path| ("Path", path.as_str())));
    let conf = ingress(&entries);
    assert!(conf.groups[0].paths.iter().map(|path| path.as_str().len() + 1).sum::<usize>() <= MAX_VALUE);
    assert_eq!(problems(&conf).len(), 1);

    let names: Vec<_> = (0..40).map(|at| format!("x{at}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let conf = conf_of(OWN_TYPE, &entries);
    assert!(conf.problems[0].why.contains("x19, and 20 more;"), "{}", conf.problems[0]);
    assert!(shown(&"ä".repeat(10_000)).len() < 200);
}

#[test]
fn truths_are_gos() {
    for (text, expected) in
        [("true", true), ("1", true), ("T", true), ("false", false), ("yes", false), ("", false)]
    {
        let declared = declared(OWN_TYPE, &json!([{ "name": "Fixed", "value": text }]).to_string());
        assert_eq!(declared.is_fixed(), expected, "{text}");
    }
    assert_eq!(problems(&conf_of(OWN_TYPE, &[("Fixed", "yes")])).len(), 1);
    let allowed = declared(OWN_TYPE, r#"[{"name":"AllowNotReadyContainers","value":"a, b,,c"}]"#);
    assert_eq!(allowed.allowed(), ["a", "b", "c"]);
}

#[test]
fn a_name_without_a_number_has_no_id() {
    let text = r#"[{"name":"Path","value":"/game<id>"},{"name":"PathType","value":"Prefix"},{"name":"Port","value":"80"}]"#;
    let conf = read(declared(INGRESS_TYPE, text), None);
    assert!(
        problems(&conf)[0].contains("[0] Path: \"/game<id>\" has <id>, and the pod's name ends in no number")
    );
    assert_eq!(groups(&conf), ["80:"]);
}
