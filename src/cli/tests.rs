use clap::CommandFactory;

use super::*;
use crate::kinds::{Door, Upstream};

fn read(line: &str) -> anyhow::Result<Command> {
    let typed = Typed::try_parse_from(["tidegate"].into_iter().chain(line.split_whitespace()))?;
    Ok(meaning(typed)?.command)
}

#[test]
fn the_command_line_is_sound() {
    Typed::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_readme() {
    let Command::Serve(serve) = read("serve").unwrap() else { panic!() };
    assert_eq!(serve, Serve::default());
    let Command::Bootstrap { options, output, install } = read("bootstrap").unwrap() else { panic!() };
    assert_eq!((options, output, install), (Options::default(), None, None));
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, "fleet: /srv/fleet\nxds: 127.0.0.1:1\nhostTemplate: \"<name>.x\"\n").unwrap();
    let Command::Serve(serve) =
        read(&format!("serve --config {} --xds 127.0.0.1:2", path.display())).unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (serve.fleet.as_deref().and_then(Path::to_str), serve.xds.port(), serve.admin.port()),
        (Some("/srv/fleet"), 2, 18080)
    );
    assert_eq!(serve.rules.host_template.as_deref(), Some("<name>.x"));
}

#[test]
fn a_bad_file_is_named_with_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    for (text, expected) in
        [("fleeet: x\n", "fleeet"), ("xds: nowhere\n", "xds"), ("maxFileBytes: 0\n", "maxFileBytes")]
    {
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", read(&format!("serve --config {}", path.display())).unwrap_err());
        assert!(error.contains("tidegate.yaml") && error.contains(expected), "{error}");
    }
    let error = format!("{:#}", read("serve --config /nowhere/tidegate.yaml").unwrap_err());
    assert!(error.contains("/nowhere/tidegate.yaml"), "{error}");
}

#[test]
fn a_gateway_that_no_server_could_name_is_refused() {
    let error = Typed::try_parse_from(["tidegate", "bootstrap", "--gateway", "a b"]).unwrap_err().to_string();
    assert!(error.contains("like edge-eu"), "{error}");
}

#[test]
fn a_target_is_what_a_player_types() {
    let Command::Ask(ask) = read("explain http://a.x:10000/p/q?r").unwrap() else { panic!() };
    let Question::Explain { host, path, .. } = ask.question else { panic!() };
    assert_eq!((&*host, &*path), ("a.x:10000", "/p/q?r"));
}

#[test]
fn tls_needs_a_certificate_and_a_file_to_name_it_in() {
    for (line, missing) in [
        ("bootstrap --https 0.0.0.0:443", "--tls-dir"),
        ("bootstrap --https 0.0.0.0:443 --tls-dir /tls", "--output"),
        ("bootstrap --tls-dir /tls", "--https"),
        ("bootstrap --https 443 --tls-dir /tls -o x.yaml", "--https"),
        ("bootstrap --https [::]:443 --tls-dir /t\u{e9} -o x.yaml", "--tls-dir"),
        ("bootstrap --https [::]:443 --tls-dir /tls -o it's.yaml", "--output"),
    ] {
        let error = format!("{:#}", read(line).unwrap_err());
        assert!(error.contains(missing), "{line}: {error}");
    }
    let read = read("bootstrap --https [::]:443 --tls-dir certs/ -o /etc/envoy/envoy.yaml").unwrap();
    let Command::Bootstrap { options: Options { https: Some(https), .. }, .. } = read else { panic!() };
    let here = std::env::current_dir().unwrap();
    assert_eq!(https.folder.as_str(), here.join("certs").to_str().unwrap());
    assert_eq!(https.secret.as_str(), "/etc/envoy/envoy.tls.yaml");
}

#[test]
fn a_page_is_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lost.html");
    std::fs::write(&path, "<p>100%").unwrap();
    let line = format!("bootstrap --unknown-page {}", path.display());
    let Command::Bootstrap { options, .. } = read(&line).unwrap() else { panic!() };
    assert_eq!(options.unknown_page, Some(Page::read(b"<p>100%").unwrap()));
    for (bytes, why) in [
        (&b"\xff"[..], "is not UTF-8 at byte 0"),
        (b"", "is empty"),
        (&vec![b'x'; MAX_PAGE + 7], "at most 65536 are taken"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", read(&line).unwrap_err());
        assert!(error.contains("--unknown-page") && error.contains("lost.html"), "{error}");
        assert!(error.contains(why), "{error}");
    }
    let error = format!("{:#}", read("bootstrap --unknown-page /nowhere/lost.html").unwrap_err());
    assert!(error.contains("--unknown-page /nowhere/lost.html"), "{error}");
}

#[test]
fn a_drain_has_an_end_behind_its_beginning() {
    let Command::DrainEnvoy(drain) = read("drain-envoy --at-least 0 --at-most 0").unwrap() else { panic!() };
    assert_eq!(
        (drain.at_least, drain.at_most, drain.envoy_admin.port()),
        (Duration::ZERO, Duration::ZERO, 19000)
    );
    for line in [
        "drain-envoy --at-least 3541",
        "drain-envoy --at-most=-1",
        "drain-envoy --at-most 604801",
        "drain-envoy --envoy-admin x",
    ] {
        let error = format!("{:#}", read(line).unwrap_err());
        assert!(error.contains("--at-") || error.contains("--envoy-admin"), "{line}: {error}");
    }
}

#[test]
fn the_configurations_in_the_manifests_are_read() {
    for folder in ["base", "overlays/okg", "overlays/agones"] {
        let file = format!("{}/manifests/{folder}/tidegate.yaml", env!("CARGO_MANIFEST_DIR"));
        let Command::Serve(serve) = read(&format!("serve --kube --config {file}")).unwrap() else { panic!() };
        let kube = serve.kube.unwrap();
        assert!(kube.write_back.is_none(), "{folder}: that is the component's to say");
        assert!(serve.rules.claims(Some("tidegate")) && !serve.rules.claims(Some("nginx")), "{folder}");
    }
}

#[test]
fn a_cluster_is_watched_when_flags_or_the_file_say_so() {
    let Command::Serve(serve) = read("serve").unwrap() else { panic!() };
    assert_eq!(serve.kube, None);
    let Command::Serve(serve) = read("serve --kube").unwrap() else { panic!() };
    assert_eq!(serve.fleet, None, "nobody has a ./fleet in a cluster");
    let kube = serve.kube.unwrap();
    assert_eq!((kube.managers.len(), kube.namespaces.len(), kube.write_back), (2, 0, None));
    let rules = serve.rules;
    assert!(rules.claims(Some("tidegate")) && !rules.claims(None) && !rules.claims(Some("nginx")));
    let line = "serve --kube --fleet f --namespace a --namespace b --ingress-class nginx --ingress-class= --write-back";
    let Command::Serve(serve) = read(line).unwrap() else { panic!() };
    let kube = serve.kube.unwrap();
    assert!(serve.fleet.is_some() && kube.namespaces.len() == 2);
    let rules = serve.rules;
    assert!(rules.claims(Some("nginx")) && rules.claims(None) && !rules.claims(Some("tidegate")));
    assert_eq!(kube.write_back, Some(WriteBack::default()));
    assert!(read("serve --write-back").is_err(), "without a cluster there is nothing to write to");
}

#[test]
fn what_would_be_written_is_refused_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let read_with = |text: &str, flags: &str| {
        std::fs::write(&path, text).unwrap();
        read(&format!("serve --config {} {flags}", path.display()))
    };
    for (text, flags, said, missing) in [
        ("", "--write-sessions", "--write-sessions ", "add --kube --write-back"),
        ("", "--kube --empty-for 60s --peers none", "--empty-for ", "add --write-back"),
        ("", "--kube --peers http://a:1", "--peers ", "add --write-back"),
        ("kube: {}\n", "--write-sessions", "--write-sessions ", "writeBack: true"),
        ("kube: {watch: false, writeBack: true}\n", "--write-sessions", "--write-sessions ", "add --kube"),
    ] {
        let error = format!("{:#}", read_with(text, flags).unwrap_err());
        assert!(error.starts_with(said) && error.contains(missing), "{text} {flags}: {error}");
    }
    for (text, flags) in [
        ("", "--kube --write-back --write-sessions --empty-for 60s --peers none"),
        ("kube: {writeBack: true}\n", "--write-sessions"),
        ("kube: {watch: false, writeSessions: true, emptyFor: 60s, peers: [none]}\n", ""),
    ] {
        assert!(read_with(text, flags).is_ok(), "{text} {flags}");
    }
}

#[test]
fn a_wait_is_for_servers_in_the_namespace_that_is_named() {
    let wait = |line: &str| match read(line) {
        Ok(Command::Wait(wait)) => *wait,
        other => panic!("{line}: {other:?}"),
    };
    let named = wait("wait-empty a eu/b files/eu/c -n us");
    assert_eq!((named.targets.join(" ").as_str(), named.labelled), ("us/a eu/b files/eu/c", None));
    assert_eq!(wait("wait-empty --of a --of eu/b -n us").fleets, ["us/a", "eu/b"]);
    assert_eq!(wait("wait-empty a -A").targets, ["a"]);
    let both = wait("wait-empty --of eu/lobby -l version=v1 -n us");
    assert!(both.targets.is_empty() && both.fleets.is_empty(), "the look-up names them");
    let labelled = both.labelled.unwrap();
    let lobby = crate::plan::Name { namespace: Some("eu".into()), name: "lobby".into() };
    assert_eq!(labelled.fleets, [lobby]);
    assert_eq!(labelled.place.namespace.as_deref(), Some("us"));
}

#[test]
fn the_file_tells_how_a_cluster_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let read_with = |text: &str| {
        std::fs::write(&path, text).unwrap();
        read(&format!("serve --config {}", path.display()))
    };
    let text = "kube:\n  sources: [okg]\n  opsStates: {WaitToBeDeleted: drain, Maintaining: open}\n  upstream: node\n";
    let Command::Serve(serve) = read_with(text).unwrap() else { panic!() };
    let rules = serve.rules;
    let said: Vec<_> = rules.ops_states.iter().map(|(state, door)| (state.as_str(), *door)).collect();
    assert_eq!(said, [("Kill", Door::Drain), ("Maintaining", Door::Open), ("WaitToBeDeleted", Door::Drain)]);
    assert_eq!(rules.upstream, Upstream::Node);
    for (text, expected) in [
        ("kube: {sources: []}\n", "kube.sources"),
        ("kube: {sources: [gke]}\n", "gke"),
        ("kube: {publicUrl: https://x}\n", "kube.publicUrl"),
        ("kube: {publicUrl: \"ftp://{host}\"}\n", "kube.publicUrl"),
        ("kube: {publicUrl: \"http://{host}:0\"}\n", "kube.publicUrl"),
        ("kube: {publicAddress: edge.example.com}\n", "publicAddress"),
        ("kube: {writesPerSecond: 0}\n", "kube.writesPerSecond"),
        ("kube: {namespaces: [A_b]}\n", "A_b"),
        ("kube: {opsStates: {Kill: shut}}\n", "shut"),
        ("kube: {leese: x}\n", "leese"),
    ] {
        let error = format!("{:#}", read_with(text).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn files_are_read_by_the_same_rules_without_a_cluster() {
    let Command::Serve(serve) = read("serve --fleet dump --ingress-class nginx").unwrap() else { panic!() };
    assert!(serve.kube.is_none() && serve.rules.claims(Some("nginx")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let text =
        "hostTemplate: <name>.x\nkube: {watch: false, ingressClasses: [alb], opsStates: {Full: drain}}\n";
    std::fs::write(&path, text).unwrap();
    let config = path.display();
    let Command::Serve(serve) = read(&format!("serve --config {config}")).unwrap() else { panic!() };
    assert_eq!((serve.kube, serve.fleet.as_deref()), (None, Some(Path::new("fleet"))));
    assert!(serve.rules.claims(Some("alb")) && serve.rules.ops_states["Full"] == Door::Drain);
    let Command::Serve(watching) = read(&format!("serve --kube --config {config}")).unwrap() else {
        panic!()
    };
    assert!(watching.kube.is_some() && watching.rules == serve.rules, "a flag wins over the file");
    let Command::Check { rules, samples, .. } = read(&format!("check --config {config} dump")).unwrap()
    else {
        panic!()
    };
    assert_eq!((rules, samples), (serve.rules, 3));
    let Command::Check { rules, .. } = read("check dump --ingress-class a --ingress-class b").unwrap() else {
        panic!()
    };
    assert_eq!(rules.classes.len(), 2);
    assert!(read("check dump --samples 0").is_err());
}

#[test]
fn operators_say_where_servers_stand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, "kube: { sources: [agones] }\n").unwrap();
    let ground = |line: &str| match read(line) {
        Ok(Command::Operate(operate)) => Ok(operate.place.ground),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(format!("{error:#}")),
    };
    let files = |dir: &str| Ground::Files { dir: dir.into(), max_file_bytes: MAX_FILE_BYTES };
    let config = path.display();
    assert_eq!(ground("drain a"), Ok(files("fleet")));
    assert_eq!(ground("drain a --fleet x"), Ok(files("x")));
    assert_eq!(ground(&format!("drain a --config {config} --fleet x")), Ok(files("x")));
    let agones = Ground::Kube { managers: vec![crate::kinds::Manager::Agones] };
    assert_eq!(ground(&format!("undrain a --config {config}")), Ok(agones));
    assert_eq!(ground("drain a --kube"), Ok(Ground::Kube { managers: crate::kinds::Manager::ALL.into() }));
    assert!(ground("drain a --kube --fleet x").unwrap_err().contains("name two places"));
    for (line, part) in [
        ("drain a -l b", "cannot be used with"),
        ("maintenance a", "--text"),
        ("maintenance a --text b --off", "cannot be used with"),
        ("weight", "SERVER... WEIGHT"),
        ("weight 5", "nobody is named"),
        ("switch a.b", "--to"),
        ("switch a.b --to c --percent 101", "101 is not in 0..=100"),
        ("switch a.b --to c --step 0", "0 is not in 1..=100"),
        ("switch a.b --to c --every 25h", "up to 24h"),
        ("drain a -n b -A", "cannot be used with"),
    ] {
        let said = ground(line).unwrap_err();
        assert!(said.contains(part), "{line}: {said}");
    }
}
