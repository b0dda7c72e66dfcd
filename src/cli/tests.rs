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
    let Command::Bootstrap(options) = read("bootstrap").unwrap() else { panic!() };
    assert_eq!(options, Options::default());
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
    assert_eq!(serve.host_template.as_deref(), Some("<name>.x"));
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
fn a_cluster_is_watched_when_flags_or_the_file_say_so() {
    let Command::Serve(serve) = read("serve").unwrap() else { panic!() };
    assert_eq!(serve.kube, None);
    let Command::Serve(serve) = read("serve --kube").unwrap() else { panic!() };
    assert_eq!(serve.fleet, None, "nobody has a ./fleet in a cluster");
    let kube = serve.kube.unwrap();
    assert_eq!((kube.managers.len(), kube.namespaces.len(), kube.write_back), (2, 0, None));
    assert!(
        kube.rules.claims(Some("tidegate")) && !kube.rules.claims(None) && !kube.rules.claims(Some("nginx"))
    );
    let line = "serve --kube --fleet f --namespace a --namespace b --ingress-class nginx --ingress-class= --write-back";
    let Command::Serve(serve) = read(line).unwrap() else { panic!() };
    let kube = serve.kube.unwrap();
    assert!(serve.fleet.is_some() && kube.namespaces.len() == 2);
    assert!(
        kube.rules.claims(Some("nginx")) && kube.rules.claims(None) && !kube.rules.claims(Some("tidegate"))
    );
    assert_eq!(kube.write_back, Some(WriteBack::default()));
    assert!(read("serve --write-back").is_err(), "without a cluster there is nothing to write to");
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
    let rules = serve.kube.unwrap().rules;
    let said: Vec<_> = rules.ops_states.iter().map(|(state, door)| (state.as_str(), *door)).collect();
    assert_eq!(said, [("Kill", Door::Drain), ("Maintaining", Door::Open), ("WaitToBeDeleted", Door::Drain)]);
    assert_eq!(rules.upstream, Upstream::Node);
    for (text, expected) in [
        ("kube: {sources: []}\n", "kube.sources"),
        ("kube: {sources: [gke]}\n", "gke"),
        ("kube: {publicUrl: https://x}\n", "kube.publicUrl"),
        ("kube: {namespaces: [A_b]}\n", "A_b"),
        ("kube: {opsStates: {Kill: shut}}\n", "shut"),
        ("kube: {leese: x}\n", "leese"),
    ] {
        let error = format!("{:#}", read_with(text).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}
