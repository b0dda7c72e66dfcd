use fastrand::Rng;

use super::*;

const WORDS: [&str; 40] = [
    "",
    " ",
    ",",
    "*",
    "<name>",
    "<",
    "{{",
    "{{ .Name }}",
    "{{ .Port }}",
    "{{- .Port -}}",
    "}}",
    "true",
    "false",
    "domain",
    "path",
    "example.com",
    "example.com, example.gg,",
    "servers.example.com",
    "-",
    "0",
    "1",
    "65536",
    "-1",
    "game",
    "game-tcp",
    "h2c",
    "infinity",
    "1m30s",
    "1h",
    "tidegate",
    "contour",
    "gateway",
    "10.0.0.7",
    "fd00::7",
    "10.0.0.300",
    "PodIP",
    "InternalIP",
    "ExternalDNS",
    "Passthrough",
    "é∞\u{0}",
];
const STATES: [&str; 14] = [
    "PortAllocation",
    "Creating",
    "Starting",
    "Scheduled",
    "RequestReady",
    "Ready",
    "Reserved",
    "Allocated",
    "Shutdown",
    "Error",
    "Unhealthy",
    "Frozen",
    "",
    "ready",
];
const KEYS: [&str; 44] = [
    "octops.io/gameserver-ingress-mode",
    "octops.io/gameserver-ingress-domain",
    "octops.io/gameserver-ingress-fqdn",
    "octops.io/terminate-tls",
    "octops.io/tls-secret-name",
    "octops.io/issuer-tls-name",
    "octops.io/ingress-class-name",
    "octops.io/ingress-ready",
    "octops.io/router-backend",
    "octops.io/gateway-name",
    "octops.io/gateway-section-name",
    "octops.io/nothing",
    "octops-kubernetes.io/ingress.class",
    "octops-",
    "octops.service-",
    "octops-projectcontour.io/response-timeout",
    "octops-projectcontour.io/request-timeout",
    "octops-projectcontour.io/websocket-routes",
    "octops-ingress.kubernetes.io/force-ssl-redirect",
    "octops-nginx.ingress.kubernetes.io/rewrite-target",
    "octops.service-projectcontour.io/upstream-protocol.h2",
    "octops.service-projectcontour.io/upstream-protocol.h2c",
    "octops.service-projectcontour.io/upstream-protocol.tls",
    "octops.service-projectcontour.io/max-connections",
    "octops.service-projectcontour.io/max-pending-requests",
    "octops.service-projectcontour.io/max-requests",
    "octops.service-traefik.ingress.kubernetes.io/service.serversscheme",
    "agones.dev/sdk-tidegate-drain",
    "agones.dev/sdk-tidegate-host",
    "agones.dev/sdk-tidegate-maintenance",
    "agones.dev/sdk-tidegate",
    "agones.dev/dev-address",
    "agones.dev/last-allocated",
    "tidegate.dev/host",
    "tidegate.dev/path",
    "tidegate.dev/port",
    "tidegate.dev/drain",
    "tidegate.dev/url",
    "tidegate.dev/strip-prefix",
    "tidegate.dev/protocol",
    "tidegate.dev/gateway",
    "tidegate.dev/maintenance",
    "tidegate.dev/nothing",
    "example.com/other",
];

fn pick(rng: &mut Rng, from: &[&str]) -> String {
    from[rng.usize(..from.len())].to_owned()
}

fn text(rng: &mut Rng) -> Value {
    match rng.u8(..20) {
        0 => Value::Null,
        1 => json!(pick(rng, &WORDS).repeat(rng.usize(..3000))),
        2 => json!((0..rng.usize(..12)).map(|_| rng.char(..)).collect::<String>()),
        3..6 => json!(format!("{}{}", pick(rng, &WORDS), pick(rng, &WORDS))),
        _ => json!(pick(rng, &WORDS)),
    }
}

fn number(rng: &mut Rng) -> Value {
    match rng.u8(..8) {
        0 => json!(rng.i64(..)),
        1 => Value::Null,
        2 => json!([0, -1, 65535, 65536][rng.usize(..4)]),
        _ => json!(rng.u16(..)),
    }
}

fn list(rng: &mut Rng, item: impl Fn(&mut Rng) -> Value) -> Value {
    if rng.u8(..6) == 0 { Value::Null } else { (0..rng.usize(..4)).map(|_| item(rng)).collect() }
}

/// Often almost right, seldom of another type altogether.
fn spoil(rng: &mut Rng, value: Value) -> Value {
    match rng.u8(..200) {
        0 => json!([]),
        1 => json!({}),
        2 => json!("text"),
        3 => json!(true),
        4 => Value::Null,
        _ => value,
    }
}

fn metadata(rng: &mut Rng) -> Value {
    let annotations: serde_json::Map<_, _> =
        (0..rng.usize(..10)).map(|_| (pick(rng, &KEYS), text(rng))).collect();
    let mut metadata = json!({ "name": pick(rng, &["lobby-1", "a.b", "", "x"]), "annotations": spoil(rng, annotations.into()) });
    if rng.u8(..5) == 0 {
        metadata["deletionTimestamp"] = text(rng);
    }
    if rng.bool() {
        metadata["labels"] = json!({ "agones.dev/fleet": text(rng) });
    }
    spoil(rng, metadata)
}

fn spec(rng: &mut Rng) -> Value {
    let ports = list(rng, |rng| {
        let port = json!({ "name": pick(rng, &["game", "game-tcp", "web", ""]), "containerPort": number(rng),
            "portPolicy": pick(rng, &["Dynamic", "Static", "Passthrough", "None", "", "Other"]) });
        spoil(rng, port)
    });
    let spec = json!({ "ports": spoil(rng, ports) });
    spoil(rng, spec)
}

fn game_server(rng: &mut Rng) -> Value {
    let ports =
        list(rng, |rng| json!({ "name": pick(rng, &["game", "game-tcp", "web", ""]), "port": number(rng) }));
    let addresses = list(rng, |rng| json!({ "type": text(rng), "address": text(rng) }));
    let state = pick(rng, &STATES);
    let status = json!({ "state": spoil(rng, json!(state)), "ports": ports, "address": text(rng), "addresses": addresses });
    json!({ "metadata": metadata(rng), "spec": spec(rng), "status": spoil(rng, status) })
}

#[test]
fn no_object_is_too_strange() {
    let seed = crate::testkit::seed();
    println!("TIDEGATE_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut decoded, mut routed) = (0, 0);
    for _ in 0..4000 {
        let rules = Rules {
            upstream: if rng.bool() { Upstream::Pod } else { Upstream::Node },
            publish_at: if rng.bool() { PublishAt::Scheduled } else { PublishAt::Ready },
            host_template: rng.bool().then(|| "<name>.example.com".to_owned()),
            ..Rules::default()
        };
        if let Ok(server) = serde_json::from_value::<GameServer>(game_server(&mut rng)) {
            decoded += 1;
            _ = ready(&server);
            let once = servers(&server, None, &rules, SOURCE);
            assert_eq!(once, servers(&server, None, &rules, SOURCE), "{server:?}");
            for server in once {
                routed += usize::from(!server.desired.routes.is_empty());
                for problem in &server.problems {
                    assert!(problem.why.len() < 8192, "{} bytes at {}", problem.why.len(), problem.field);
                }
            }
        }
        let fleet = json!({ "metadata": metadata(&mut rng),
            "spec": { "replicas": number(&mut rng), "template": { "metadata": metadata(&mut rng), "spec": spec(&mut rng) } } });
        if let Ok(fleet) = serde_json::from_value::<Fleet>(fleet) {
            assert!(sample(&fleet, 2, &rules, SOURCE).len() <= 2);
        }
    }
    assert!(
        decoded > 1000 && routed > 100,
        "the generator has gone dull: {decoded} decoded, {routed} routed"
    );
}
