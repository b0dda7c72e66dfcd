use super::*;

fn fleet(annotations: &Value) -> Fleet {
    serde_json::from_value(json!({
        "apiVersion": "agones.dev/v1",
        "kind": "Fleet",
        "metadata": { "name": "arena", "namespace": "eu", "labels": { "cluster": "one" } },
        "spec": {
            "replicas": 3,
            "strategy": { "type": "Recreate" },
            "template": {
                "metadata": { "creationTimestamp": null, "labels": { "cluster": "one" }, "annotations": annotations },
                "spec": {
                    "ports": [{ "name": "default", "containerPort": 8088, "protocol": "TCPUDP" }],
                    "template": { "spec": { "containers": [{ "name": "gameserver", "image": "arena:1" }] } },
                },
            },
        },
    }))
    .unwrap()
}

#[test]
fn a_fleet_is_shown_by_examples() {
    let domains = fleet(&json!({
        "octops.io/gameserver-ingress-mode": "domain",
        "octops.io/gameserver-ingress-domain": "example.com,example.gg",
        "octops.io/terminate-tls": "true",
        "octops.io/issuer-tls-name": "selfsigned-issuer",
        "octops-kubernetes.io/ingress.class": "contour",
    }));
    let rules = Rules { classes: ["contour".to_owned()].into(), ..Rules::default() };
    let servers = sample(&domains, 2, &rules, SOURCE);
    assert_eq!(sample(&domains, 2, &Rules::default(), SOURCE), [], "another controller's");
    assert_eq!(domains.spec.replicas, 3);
    assert_eq!(servers[0].id, ServerId::new(SOURCE, "eu", "arena-xxxxx-aaaaa"));
    assert_eq!(
        servers.iter().map(routes).collect::<Vec<_>>(),
        [
            ["arena-xxxxx-aaaaa.example.com", "arena-xxxxx-aaaaa.example.gg"],
            ["arena-xxxxx-aaaab.example.com", "arena-xxxxx-aaaab.example.gg"],
        ]
    );
    assert_eq!((&servers[0].desired.mode, servers[0].desired.endpoint), (&Mode::Starting, None));
    let why = problem(&servers[0]);
    let at =
        "spec.template.metadata.annotations[\"octops.io/issuer-tls-name\"]: is not read, and no certificate";
    assert!(why.starts_with(at), "{why}");

    let paths = fleet(&json!({
        "octops.io/gameserver-ingress-mode": "path",
        "octops.io/gameserver-ingress-fqdn": "servers.example.com",
        "octops-projectcontour.io/websocket-routes": "/{{ .Name }}",
        "octops.service-traefik.ingress.kubernetes.io/service.serversscheme": "h2c",
        "octops.service-projectcontour.io/upstream-protocol.tls": "30001",
        "tidegate.dev/host": "<fleet>.example.com, servers.example.com",
    }));
    for rules in [Rules::default(), by_node()] {
        let servers = sample(&paths, 1, &rules, SOURCE);
        assert_eq!(
            routes(&servers[0]),
            ["arena.example.com/arena-xxxxx-aaaaa", "servers.example.com/arena-xxxxx-aaaaa"]
        );
        assert_eq!((servers[0].desired.protocol, &servers[0].desired.mode), (Protocol::H2c, &Mode::Starting));
        assert_eq!(problems(&servers[0]), [""; 0]);
    }
    assert_eq!(sample(&paths, 0, &Rules::default(), SOURCE), []);
}

#[test]
fn a_fleets_mistakes_are_seen_before_it_has_servers() {
    let mut wrong = fleet(&json!({ "tidegate.dev/hots": "a.example.com", "tidegate.dev/port": "voice" }));
    wrong.spec.template.spec.ports[0].container_port = 0;
    let told = problems(&sample(&wrong, 1, &Rules::default(), SOURCE)[0]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0]
            .starts_with("spec.template.metadata.annotations[\"tidegate.dev/hots\"]: is not an annotation")
    );
    assert!(
        told[1]
            .starts_with("spec.template.metadata.annotations[\"tidegate.dev/port\"]: \"voice\" is neither")
    );
    wrong.spec.template.metadata.annotations.remove("tidegate.dev/port");
    let told = problems(&sample(&wrong, 1, &Rules::default(), SOURCE)[0]);
    assert!(told[0].starts_with("spec.template.spec.ports[0].containerPort: 0 is not a port"), "{told:?}");
    wrong.spec.template.spec.ports.clear();
    let told = problems(&sample(&wrong, 1, &Rules::default(), SOURCE)[0]);
    assert!(told[0].starts_with("spec.template.spec.ports: is empty"), "{told:?}");
}

#[test]
fn annotations_on_the_fleet_itself_reach_nobody() {
    let mut stray = fleet(&json!({}));
    assert_eq!(sample(&stray, 1, &Rules::default(), SOURCE), []);
    stray.metadata.annotations.insert("tidegate.dev/host".into(), "a.example.com".into());
    let servers = sample(&stray, 1, &Rules::default(), SOURCE);
    assert_eq!(routes(&servers[0]), [""; 0]);
    let expected = "metadata.annotations: tidegate.dev/host stand on the Fleet itself, and Agones copies them to no GameServer; write them in spec.template.metadata.annotations";
    assert_eq!(problem(&servers[0]), expected);
    stray.spec.template.metadata.annotations.insert("tidegate.dev/host".into(), "b.example.com".into());
    let servers = sample(&stray, 1, &Rules::default(), SOURCE);
    assert_eq!((routes(&servers[0]), problem(&servers[0])), (vec!["b.example.com".into()], expected.into()));
}
