//! The Dockerfile, as far as it can be checked without building it: what it copies is there, what it builds is what the
//! manifests run.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The instructions, each in one line, comments left out.
fn instructions() -> Vec<String> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What stands behind a word, of the last instruction that starts with it.
fn last(word: &str) -> String {
    let mut found =
        instructions().into_iter().filter_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
    found.next_back().unwrap_or_else(|| panic!("no {word}"))
}

#[test]
fn it_builds_with_the_rust_that_cargo_asks_for() {
    let cargo = read("Cargo.toml");
    let version = cargo.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(instructions()[0], format!("FROM rust:{version}-alpine AS build"));
}

#[test]
fn what_it_copies_is_there_and_not_ignored() {
    let ignored: Vec<String> =
        read(".dockerignore").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert!(ignored.contains(&"target".to_owned()) && ignored.contains(&".*".to_owned()));
    let mut copied = Vec::new();
    for line in instructions() {
        let Some(rest) = line.strip_prefix("COPY ") else { continue };
        let words: Vec<&str> = rest.split(' ').filter(|word| !word.starts_with("--")).collect();
        if !rest.starts_with("--from=") {
            copied.extend(words[..words.len() - 1].iter().map(|word| (*word).to_owned()));
        }
    }
    assert_eq!(copied, [".", "LICENSE"]);
    // All that `cargo build` reads: the manifest, the lock, the source, and every member of the workspace.
    for needed in ["Cargo.toml", "Cargo.lock", "LICENSE", "src", "loadtest"] {
        assert!(root().join(needed).exists(), "{needed}");
        assert!(!ignored.iter().any(|pattern| pattern == needed), "{needed} is ignored");
    }
    let outside = |file: &Path| {
        let text = fs::read_to_string(file).unwrap();
        text.contains("include_str!(\"../") || text.contains("include_bytes!(\"../")
    };
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.is_file() || !outside(&path), "{} includes what is not copied", path.display());
    }
}

#[test]
fn the_program_is_the_one_that_cargo_names_and_runs_as_nobody() {
    let cargo = read("Cargo.toml");
    let package = cargo.split("[package]").nth(1).unwrap();
    let name = package.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let build = last("RUN");
    assert!(build.contains(&format!("--locked --bin {name} ")), "{build}");
    assert!(build.contains(&format!("cp target/release/{name} /{name}")), "{build}");
    assert_eq!(last("COPY"), format!("--from=build /{name} /{name}"));
    assert_eq!(last("FROM"), "scratch");
    assert_eq!(serde_json::from_str::<Vec<String>>(&last("ENTRYPOINT")).unwrap(), [format!("/{name}")]);
    let (user, group) = last("USER").split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    for file in ["manifests/base/deployment.yaml", "manifests/envoy/deployment.yaml"] {
        let deployment: Value = serde_saphyr::from_str(&read(file)).unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsUser"].to_string(), user, "{file}");
        assert_eq!(pod["securityContext"]["runAsGroup"].to_string(), group, "{file}");
        for containers in ["containers", "initContainers"] {
            for container in
                pod[containers].as_array().into_iter().flatten().filter(|one| one["image"] == name)
            {
                assert!(container["command"].is_null(), "the image knows its program: {container}");
            }
        }
    }
    let licence = package.contains("license.workspace = true") && cargo.contains("license = \"Apache-2.0\"");
    assert!(licence && last("LABEL").contains("org.opencontainers.image.licenses=\"Apache-2.0\""));
}
