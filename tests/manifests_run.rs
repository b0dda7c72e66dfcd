//! The Kubernetes manifests before the programs that they run: what a container is told, and what the examples say, is
//! asked of the real `tidegate` and a real Envoy.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::envoy;
use testkit::manifests::{Offer, arguments, container, container_port, list, offers, render, text, texts};
use testkit::tidegate::{BINARY, Tidegate};

/// Every probe, and the path that Prometheus is told, before the real control plane.
#[tokio::test]
async fn probes_ask_for_pages_that_there_are() {
    let fleet = testkit::fleet::Fleet::of(&[]);
    let tidegate = Tidegate::start(&fleet.path()).await;
    for Offer { objects, .. } in offers() {
        let serve = container(objects, "tidegate", "tidegate");
        let template = &objects.one("Deployment", "tidegate")["spec"]["template"]["metadata"]["annotations"];
        let scraped = text(&template["prometheus.io/path"]);
        assert_eq!(template["prometheus.io/port"], container_port(serve, "admin").to_string());
        for (probe, page) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(serve[probe]["httpGet"], json!({ "path": page, "port": "admin" }));
            assert_eq!(tidegate.get(page).await.status, 200);
        }
        assert_eq!(tidegate.get(scraped).await.status, 200);
        let ready = &container(objects, "envoy", "envoy")["readinessProbe"];
        assert_eq!(ready["tcpSocket"]["port"], "http", "it opens when the control plane has answered");
    }
}

fn said(run: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
}

/// Each flag as the binary reads it: what stands before `--help` must be right for help to come.
#[test]
fn the_binary_knows_every_flag() {
    let help = |arguments: &[&str]| Command::new(BINARY).args(arguments).arg("--help").output().unwrap();
    for Offer { objects, write_back, .. } in offers() {
        let served = arguments(container(objects, "tidegate", "tidegate"));
        assert_eq!(served.contains(&"--write-back"), *write_back);
        let bootstrap = expanded(container(objects, "envoy", "bootstrap"));
        let bootstrap: Vec<&str> = bootstrap.iter().map(String::as_str).collect();
        let hook =
            &texts(&container(objects, "envoy", "envoy")["lifecycle"]["preStop"]["exec"]["command"])[1..];
        for (command, line) in [("serve", &served[..]), ("bootstrap", &bootstrap), ("drain-envoy", hook)] {
            assert_eq!(line[0], command);
            let run = help(line);
            assert!(run.status.success() && said(&run).contains("Usage:"), "{line:?}: {}", said(&run));
        }
    }
    assert!(!help(&["serve", "--no-such-flag"]).status.success(), "a flag that is unknown is found");
}

/// Arguments with the container's variables, which the kubelet fills in.
fn expanded(container: &Value) -> Vec<String> {
    let fill = |argument: &str| {
        list(&container["env"]).fold(argument.to_owned(), |argument, variable| {
            let name = text(&variable["name"]);
            argument.replace(&format!("$({name})"), &format!("that-{}", name.to_lowercase()))
        })
    };
    arguments(container).into_iter().map(fill).collect()
}

/// The init container and Envoy as they would run in the Pod, in a folder of the test.
#[tokio::test]
async fn envoy_takes_what_its_init_container_writes() {
    let pair = rcgen::generate_simple_self_signed(["game.example.com".to_owned()]).unwrap();
    for Offer { objects, tls, .. } in offers().iter().filter(|offer| offer.overlay == "okg") {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["envoy", "tls"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("tls/tls.crt"), pair.cert.pem()).unwrap();
        std::fs::write(at("tls/tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let bootstrap = container(objects, "envoy", "bootstrap");
        let here = |argument: &str| {
            argument.replace("/etc/envoy/", &at("envoy/")).replace("/etc/tidegate/tls", &at("tls"))
        };
        let line: Vec<String> = expanded(bootstrap).iter().map(|argument| here(argument)).collect();
        let run = Command::new(BINARY).args(&line).output().unwrap();
        assert!(run.status.success() && said(&run).is_empty(), "{line:?}: {}", said(&run));
        let written = std::fs::read_to_string(at("envoy/envoy.yaml")).unwrap();
        assert!(
            written.contains("id: \"that-pod_name\"") && written.contains("cluster: \"that-gateway\""),
            "{written}"
        );
        assert_eq!(written.contains("name: https"), *tls);
        assert_eq!(envoy::validate(&written), Ok(()));

        // Envoy's own flags, on the file that the init container wrote.
        let envoy = container(objects, "envoy", "envoy");
        let line: Vec<String> = arguments(envoy).into_iter().map(here).collect();
        let run = Command::new(envoy::binary()).args(&line).args(["--mode", "validate"]).output().unwrap();
        assert!(run.status.success(), "{line:?}: {}", said(&run));
        assert!(Path::new(&at("envoy/tidegate")).is_file());
    }
}

const CONFIG: [&str; 5] = ["fleet", "xds", "admin", "hostTemplate", "maxFileBytes"];
const CONFIG_KUBE: [&str; 13] = [
    "namespaces",
    "selector",
    "sources",
    "ingressClasses",
    "opsStates",
    "readiness",
    "upstream",
    "publishAt",
    "writeBack",
    "writesPerSecond",
    "leaseNamespace",
    "leaseName",
    "publicUrl",
];

#[test]
fn the_configuration_says_what_can_be_said() {
    let base = render("resources: [ \"{manifests}/base\" ]");
    let mut maps = vec![("base", &base)];
    maps.extend(offers().iter().map(|offer| (offer.overlay, &offer.objects)));
    for (name, objects) in maps {
        let map = objects.one("ConfigMap", "tidegate");
        let config: Value = serde_saphyr::from_str(text(&map["data"]["tidegate.yaml"])).unwrap();
        for (key, value) in config.as_object().unwrap() {
            assert!(key == "kube" || CONFIG.contains(&key.as_str()), "{name}: {key}: {value}");
        }
        let kube = config["kube"].as_object().unwrap();
        for key in kube.keys() {
            assert!(CONFIG_KUBE.contains(&key.as_str()), "{name}: kube.{key}");
        }
        for (state, door) in kube.get("opsStates").and_then(Value::as_object).into_iter().flatten() {
            assert!(["open", "drain"].contains(&text(door)), "{name}: {state}");
        }
        let sources = texts(&config["kube"]["sources"]);
        let expected = if name == "base" { vec!["okg", "agones"] } else { vec![name] };
        assert_eq!(sources, expected);
        assert!(texts(&config["kube"]["ingressClasses"]).contains(&"tidegate"));
        if name == "base" {
            assert_eq!(config["kube"]["leaseNamespace"], map["metadata"]["namespace"], "the Role is there");
            let all: BTreeSet<&str> = CONFIG_KUBE.into();
            assert_eq!(kube.keys().map(String::as_str).collect::<BTreeSet<_>>(), all, "it explains each");
        }
    }
}

/// The annotations of the example, as if a server had them: `tidegate check` finds nothing wrong.
#[test]
fn the_examples_are_what_tidegate_serves() {
    for Offer { objects, .. } in offers() {
        for set in objects.of("GameServerSet") {
            let network = &set["spec"]["network"];
            assert_eq!(network["networkType"], "Kubernetes-Ingress");
            let said: BTreeMap<&str, &str> =
                list(&network["networkConf"]).map(|one| (text(&one["name"]), text(&one["value"]))).collect();
            assert_eq!(said["IngressClassName"], "tidegate");
            let ports = &set["spec"]["gameServerTemplate"]["spec"]["containers"][0]["ports"];
            assert_eq!(ports[0]["containerPort"].to_string(), said["Port"]);
        }
        let fleets: Vec<&Value> = objects.of("Fleet").collect();
        for fleet in &fleets {
            let annotations = &fleet["spec"]["template"]["metadata"]["annotations"];
            if let Some(class) = annotations["octops.io/ingress-class-name"].as_str() {
                assert_eq!(class, "tidegate");
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("server.json");
            let server = json!({
                "apiVersion": "tidegate.dev/v1",
                "kind": "Server",
                "metadata": { "name": "party-1", "annotations": annotations },
                "spec": { "address": "10.0.0.1", "port": 8080 },
            });
            std::fs::write(&file, server.to_string()).unwrap();
            let run = Command::new(BINARY).arg("check").arg(&file).output().unwrap();
            assert!(run.status.success() && said(&run).contains("play.example.com"), "{}", said(&run));
        }
    }
}
