//! The Kubernetes manifests, in each combination that is offered: rights, walls, probes, and that what one object says of
//! another is true. `manifests_run.rs` asks the programs that they run.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::manifests::{
    Objects, Offer, arguments, container, container_port, flag, list, offers, pod, port_of, render, root,
    text, texts,
};

/// Who may do what, a line a right: `role: verb resource.group`.
fn rights(objects: &Objects) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for role in objects.of("ClusterRole").chain(objects.of("Role")) {
        for rule in list(&role["rules"]) {
            assert!(rule["resourceNames"].is_null() && rule["nonResourceURLs"].is_null(), "{rule}");
            for verb in texts(&rule["verbs"]) {
                for resource in texts(&rule["resources"]) {
                    for group in texts(&rule["apiGroups"]) {
                        let kind = if role["kind"] == "Role" { "here" } else { "everywhere" };
                        rights.insert(format!("{kind}: {verb} {resource}.{group}"));
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn rights_are_those_that_are_listed_and_no_other() {
    let reads =
        ["pods.", "gameservers.game.kruise.io", "gameserversets.game.kruise.io", "gameservers.agones.dev"];
    let read: BTreeSet<String> = reads
        .iter()
        .flat_map(|what| ["get", "list", "watch"].map(|verb| format!("everywhere: {verb} {what}")))
        .collect();
    let written = [
        "everywhere: patch pods.",
        "everywhere: patch gameservers.game.kruise.io",
        "everywhere: patch gameservers.agones.dev",
        "everywhere: create events.events.k8s.io",
        "everywhere: patch events.events.k8s.io",
        "here: get leases.coordination.k8s.io",
        "here: create leases.coordination.k8s.io",
        "here: patch leases.coordination.k8s.io",
    ];
    for Offer { objects, write_back, .. } in offers() {
        let mut expected = read.clone();
        expected.extend(written.iter().filter(|_| *write_back).map(|right| (*right).to_owned()));
        assert_eq!(rights(objects), expected);
        for role in objects.of("Role").chain(objects.of("RoleBinding")) {
            assert_eq!(role["metadata"]["namespace"], "tidegate-system");
        }
        let mut bound = BTreeSet::new();
        for binding in objects.of("ClusterRoleBinding").chain(objects.of("RoleBinding")) {
            let account =
                json!([{ "kind": "ServiceAccount", "name": "tidegate", "namespace": "tidegate-system" }]);
            assert_eq!(binding["subjects"], account, "{binding}");
            bound.insert((text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"])));
        }
        let roles = objects.of("ClusterRole").chain(objects.of("Role"));
        let roles: BTreeSet<_> =
            roles.map(|role| (text(&role["kind"]), text(&role["metadata"]["name"]))).collect();
        assert_eq!(bound, roles, "each role is bound");
    }
}

#[test]
fn no_container_can_do_more_than_it_must() {
    for Offer { objects, .. } in offers() {
        for (deployment, container) in objects.containers() {
            let expected = json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            });
            assert_eq!(container["securityContext"], expected, "{container}");
            for part in ["requests", "limits"] {
                assert!(container["resources"][part]["memory"].is_string(), "{part} of {container}");
            }
            let pod = pod(deployment);
            let own = &pod["securityContext"];
            assert_eq!(
                (&own["runAsNonRoot"], &own["seccompProfile"]["type"]),
                (&json!(true), &json!("RuntimeDefault"))
            );
            assert!(own["runAsUser"].as_u64().unwrap() > 0 && own["runAsGroup"].as_u64().unwrap() > 0);
            for shared in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[shared].is_null(), "{shared}");
            }
            // Only the control plane speaks to the API server.
            let is_control_plane = deployment["metadata"]["name"] == "tidegate";
            assert_eq!(pod["automountServiceAccountToken"], is_control_plane);
            assert_eq!(pod["enableServiceLinks"], false, "a Service may not set our variables by its name");
            let image = text(&container["image"]);
            assert!(image.rsplit('/').next().unwrap().contains(':'), "{image} has no tag");
        }
        let namespace = objects.one("Namespace", "tidegate-system");
        assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    }
}

/// What a type of Kubernetes does not know, it does not keep: a misspelled field is one that got lost.
#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for Offer { objects, .. } in offers() {
        for object in &objects.0 {
            let kept = match text(&object["kind"]) {
                "ClusterRole" => kept::<ClusterRole>(object),
                "ClusterRoleBinding" => kept::<ClusterRoleBinding>(object),
                "ConfigMap" => kept::<ConfigMap>(object),
                "Deployment" => kept::<Deployment>(object),
                "HorizontalPodAutoscaler" => kept::<HorizontalPodAutoscaler>(object),
                "Namespace" => kept::<Namespace>(object),
                "NetworkPolicy" => kept::<NetworkPolicy>(object),
                "PodDisruptionBudget" => kept::<PodDisruptionBudget>(object),
                "Role" => kept::<Role>(object),
                "RoleBinding" => kept::<RoleBinding>(object),
                "Service" => kept::<Service>(object),
                "ServiceAccount" => kept::<ServiceAccount>(object),
                "GameServerSet" | "Fleet" => continue,
                other => panic!("{other} is checked nowhere"),
            };
            is_within(object, &kept, text(&object["kind"]));
        }
    }
}

fn kept<K: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

fn is_within(object: &Value, kept: &Value, at: &str) {
    match object {
        Value::Object(fields) => {
            for (name, value) in fields {
                is_within(value, &kept[name], &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                is_within(item, &kept[index], &format!("{at}[{index}]"));
            }
        }
        // An empty object such as `emptyDir: {}` may come back as nothing that was said.
        _ => assert_eq!(object, kept, "{at}"),
    }
}

#[test]
fn selectors_find_what_they_mean() {
    for Offer { objects, .. } in offers() {
        let labels: BTreeMap<&str, &Value> = objects
            .of("Deployment")
            .map(|one| (text(&one["metadata"]["name"]), &one["spec"]["template"]["metadata"]["labels"]))
            .collect();
        assert_eq!(labels.keys().copied().collect::<Vec<_>>(), ["envoy", "tidegate"]);
        let found = |selector: &Value| -> Vec<&str> {
            let wanted = selector.as_object().unwrap();
            assert!(!wanted.is_empty());
            let has = |labels: &Value| wanted.iter().all(|(key, value)| labels[key] == *value);
            labels.iter().filter(|(_, labels)| has(labels)).map(|(name, _)| *name).collect()
        };
        for object in &objects.0 {
            let selector = match text(&object["kind"]) {
                "Deployment" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
                "Service" => &object["spec"]["selector"],
                "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
                _ => continue,
            };
            let own = text(&object["metadata"]["name"]).trim_end_matches("-admin");
            assert_eq!(found(selector), [own], "{object}");
            for spread in list(&pod(object)["topologySpreadConstraints"]) {
                assert_eq!(found(&spread["labelSelector"]["matchLabels"]), [own]);
            }
        }
        let allowed = &objects.one("NetworkPolicy", "tidegate")["spec"]["ingress"][0]["from"];
        assert_eq!(found(&allowed[0]["podSelector"]["matchLabels"]), ["envoy"]);
        assert_eq!(
            objects.one("HorizontalPodAutoscaler", "envoy")["spec"]["scaleTargetRef"]["name"],
            "envoy"
        );
    }
}

#[test]
fn ports_and_files_agree_from_end_to_end() {
    for Offer { objects, tls, .. } in offers() {
        let serve = container(objects, "tidegate", "tidegate");
        let bootstrap = container(objects, "envoy", "bootstrap");
        let envoy = container(objects, "envoy", "envoy");
        let (served, written) = (arguments(serve), arguments(bootstrap));
        for port in ["xds", "admin"] {
            assert_eq!(port_of(flag(&served, &format!("--{port}"))), container_port(serve, port));
        }
        let listeners = if *tls { vec!["http", "https"] } else { vec!["http"] };
        for port in &listeners {
            assert_eq!(port_of(flag(&written, &format!("--{port}"))), container_port(envoy, port));
        }
        let names = |ports: &Value, field: &str| -> Vec<String> {
            list(ports).map(|port| text(&port[field]).to_owned()).collect()
        };
        assert_eq!(names(&envoy["ports"], "name"), listeners);

        // Ports have a name in the Pod, and Services and policies say that name.
        for (service, expected) in
            [("tidegate", vec!["xds"]), ("tidegate-admin", vec!["admin"]), ("envoy", listeners.clone())]
        {
            assert_eq!(names(&objects.one("Service", service)["spec"]["ports"], "targetPort"), expected);
        }
        let policy = &objects.one("NetworkPolicy", "envoy")["spec"]["ingress"];
        assert_eq!(names(&policy[0]["ports"], "port"), listeners);
        assert_eq!(policy.as_array().unwrap().len(), 1);
        let policy = &objects.one("NetworkPolicy", "tidegate")["spec"]["ingress"];
        assert_eq!([0, 1].map(|at| names(&policy[at]["ports"], "port")), [["xds"], ["admin"]]);

        // Envoy asks for the control plane by the name of its Service.
        let service = objects.one("Service", "tidegate");
        let place = &service["metadata"];
        let (name, namespace) = (text(&place["name"]), text(&place["namespace"]));
        let port = &service["spec"]["ports"][0]["port"];
        assert_eq!(flag(&written, "--xds"), format!("{name}.{namespace}.svc:{port}"));
        assert_eq!(service["spec"]["clusterIP"], "None");
        assert_eq!(port.as_u64(), Some(container_port(serve, "xds")), "there is no proxy to change it");

        // Files are where they are looked for.
        let mounts = |container: &Value, file: &str| {
            list(&container["volumeMounts"])
                .any(|mount| file.starts_with(&format!("{}/", text(&mount["mountPath"]))))
        };
        let config = flag(&served, "--config");
        let map = objects.one("ConfigMap", "tidegate");
        assert!(
            mounts(serve, config)
                && map["data"][Path::new(config).file_name().unwrap().to_str().unwrap()].is_string()
        );
        assert_eq!(
            pod(objects.one("Deployment", "tidegate"))["volumes"][0]["configMap"]["name"],
            map["metadata"]["name"]
        );
        assert_eq!(flag(&written, "--output"), flag(&arguments(envoy), "--config-path"));
        let hook = texts(&envoy["lifecycle"]["preStop"]["exec"]["command"]);
        assert_eq!((hook[0], hook[1]), (flag(&written, "--install"), "drain-envoy"));
        for file in [flag(&written, "--output"), flag(&written, "--install")] {
            assert!(mounts(bootstrap, file) && mounts(envoy, file), "{file}");
        }
        if *tls {
            assert!(mounts(envoy, &format!("{}/tls.crt", flag(&written, "--tls-dir"))));
        }
        // The admin page of Envoy, which can end it, is nobody else's.
        assert!(flag(&written, "--envoy-admin").starts_with("127.0.0.1:"));
        assert_eq!(flag(&hook, "--envoy-admin"), flag(&written, "--envoy-admin"));
    }
}

#[test]
fn players_get_the_time_they_need() {
    for Offer { objects, .. } in offers() {
        let deployment = objects.one("Deployment", "envoy");
        let grace = pod(deployment)["terminationGracePeriodSeconds"].as_u64().unwrap();
        let hook = texts(&container(objects, "envoy", "envoy")["lifecycle"]["preStop"]["exec"]["command"]);
        let most: u64 = flag(&hook, "--at-most").parse().unwrap();
        let least: u64 = flag(&hook, "--at-least").parse().unwrap();
        assert!(grace >= 3600 && most + 60 <= grace && most + 120 >= grace && (10..60).contains(&least));
        for name in ["envoy", "tidegate"] {
            let rolling = &objects.one("Deployment", name)["spec"]["strategy"]["rollingUpdate"];
            assert_eq!(*rolling, json!({ "maxSurge": 1, "maxUnavailable": 0 }), "{name}");
        }
        assert!(
            container(objects, "envoy", "envoy")["livenessProbe"].is_null(),
            "a restart cuts every player"
        );
        assert!(deployment["spec"]["replicas"].is_null(), "that number is the autoscaler's");
        let least = &objects.one("HorizontalPodAutoscaler", "envoy")["spec"]["minReplicas"];
        assert!(least.as_u64() >= Some(2));
        assert_eq!(objects.one("PodDisruptionBudget", "tidegate")["spec"]["minAvailable"], 1);
        assert_eq!(objects.one("PodDisruptionBudget", "envoy")["spec"]["maxUnavailable"], 1);
    }
}

/// As `manifests/README.md` tells: a second gateway is a suffix and a label.
#[test]
fn a_second_gateway_shares_nothing_with_the_first() {
    let guide = std::fs::read_to_string(root().join("manifests/README.md")).unwrap();
    let block =
        guide.split("```yaml\n").find(|block| block.contains("nameSuffix: -eu")).expect("the example");
    let objects = render(&block.split("```").next().unwrap().replace("../../envoy", "{manifests}/envoy"));
    let deployment = objects.one("Deployment", "envoy-eu");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["tidegate.dev/gateway"], "eu");
    assert_eq!(labels["app.kubernetes.io/name"], "envoy", "the control plane lets it in");
    for object in &objects.0 {
        assert!(text(&object["metadata"]["name"]).ends_with("-eu"), "{object}");
        let rendered = object.to_string();
        assert!(!rendered.contains(r#""tidegate.dev/gateway":"default""#), "{rendered}");
    }
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &objects.one("Service", "envoy-eu")["spec"]["selector"],
        &objects.one("PodDisruptionBudget", "envoy-eu")["spec"]["selector"]["matchLabels"],
        &objects.one("NetworkPolicy", "envoy-eu")["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(selector["tidegate.dev/gateway"], "eu");
    }
    assert_eq!(
        objects.one("HorizontalPodAutoscaler", "envoy-eu")["spec"]["scaleTargetRef"]["name"],
        "envoy-eu"
    );
}
