//! A fleet directory, and the objects in it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A fleet directory; it goes with the test.
pub struct Fleet {
    folder: TempDir,
}

impl Fleet {
    /// A directory with a file for each server.
    pub fn of(servers: &[Value]) -> Self {
        let fleet = Self::missing();
        fs::create_dir(fleet.path()).expect("the fleet directory is made");
        for server in servers {
            fleet.put(server);
        }
        fleet
    }

    /// A path where there is no directory yet.
    pub fn missing() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    /// Where it can be moved away to.
    pub fn elsewhere(&self) -> PathBuf {
        self.folder.path().join("elsewhere")
    }

    /// Writes a server into the file that has its name.
    pub fn put(&self, server: &Value) {
        self.write(&file_of(server), &server.to_string());
    }

    /// Deletes the file of a server.
    pub fn remove(&self, server: &Value) {
        self.delete(&file_of(server));
    }

    /// Writes a file of many servers, one a line.
    pub fn put_all(&self, file: &str, servers: impl IntoIterator<Item = Value>) {
        let mut lines = String::new();
        for server in servers {
            writeln!(lines, "{server}").expect("a String takes all");
        }
        self.write(file, &lines);
    }

    /// Writes a file as careful people do: whole, and then into place.
    pub fn write(&self, file: &str, text: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, text).expect("the file is written");
        fs::rename(draft, self.path().join(file)).expect("the file is put in place");
    }

    /// Deletes a file.
    pub fn delete(&self, file: &str) {
        fs::remove_file(self.path().join(file)).expect("the file is deleted");
    }
}

fn file_of(server: &Value) -> String {
    Path::new(server["metadata"]["name"].as_str().expect("a name"))
        .with_extension("json")
        .display()
        .to_string()
}

/// A server at `name.localhost`.
pub fn server(name: &str, port: u16) -> Value {
    server_with(name, port, &[("host", &format!("{name}.localhost"))])
}

/// A server with these annotations, named without their prefix.
pub fn server_with(name: &str, port: u16, annotations: &[(&str, &str)]) -> Value {
    let mut object = json!({
        "apiVersion": "tidegate.dev/v1",
        "kind": "Server",
        "metadata": { "name": name, "namespace": "default", "annotations": {} },
        "spec": { "address": "127.0.0.1", "port": port, "state": "Ready" },
    });
    for (key, value) in annotations {
        annotate(&mut object, key, value);
    }
    object
}

/// The same with one annotation more, or another.
pub fn annotated(server: &Value, key: &str, value: &str) -> Value {
    let mut object = server.clone();
    annotate(&mut object, key, value);
    object
}

/// The same in another state of life.
pub fn in_state(server: &Value, state: &str) -> Value {
    let mut object = server.clone();
    object["spec"]["state"] = state.into();
    object
}

/// The same, made at this time of 2026-01-01.
pub fn made_at(server: &Value, time: &str) -> Value {
    let mut object = server.clone();
    object["metadata"]["creationTimestamp"] = format!("2026-01-01T{time}Z").into();
    object
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][format!("tidegate.dev/{key}")] = value.into();
}
