//! What the server says of itself: versions, groups, resources.

use serde_json::{Value, json};

use crate::kinds::Resource;

/// The answer to a discovery path; `None` if it is not one.
pub(crate) fn answer(resources: &[&Resource], path: &str) -> Option<Value> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["version"] => Some(json!({
            "major": "1",
            "minor": "34",
            "gitVersion": "v1.34.0-in-memory",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "2025-08-27T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "linux/amd64",
        })),
        ["api"] => {
            Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
        }
        ["apis"] => {
            let groups: Vec<Value> =
                groups(resources).iter().map(|(name, version)| group(name, version)).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", name] => {
            let found = groups(resources).into_iter().find(|(group, _)| group == name);
            let (name, version) = found?;
            let mut answer = group(name, version);
            answer["kind"] = "APIGroup".into();
            answer["apiVersion"] = "v1".into();
            Some(answer)
        }
        ["api", version] => resource_list(resources, "", version),
        ["apis", group, version] => resource_list(resources, group, version),
        _ => None,
    }
}

fn groups<'a>(resources: &[&'a Resource]) -> Vec<(&'a str, &'a str)> {
    let mut groups: Vec<_> = resources.iter().map(|of| (of.group.as_str(), of.version.as_str())).collect();
    groups.retain(|(group, _)| !group.is_empty());
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resource_list(resources: &[&Resource], group: &str, version: &str) -> Option<Value> {
    let of: Vec<_> = resources.iter().filter(|of| of.group == group && of.version == version).collect();
    let mut entries = Vec::new();
    for resource in &of {
        let entry = |name: String, verbs: &[&str]| {
            json!({
                "name": name,
                "singularName": resource.kind.to_lowercase(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": verbs,
            })
        };
        let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        entries.push(entry(resource.plural.clone(), &all));
        if resource.status {
            entries.push(entry(format!("{}/status", resource.plural), &["get", "patch", "update"]));
        }
    }
    let api_version = of.first()?.api_version();
    let kind = "APIResourceList";
    Some(json!({ "kind": kind, "apiVersion": "v1", "groupVersion": api_version, "resources": entries }))
}
