//! Fleets of any size: as fleet files, and as the servers that the control plane makes of them.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;
use tidegate::model::Server;
use tidegate::sources::files;

/// How a fleet is laid out on hosts, and how its routes reach Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// A host a server, a scope a host
    Scoped,
    /// A host a server, all of them in one RDS table
    Table,
    /// One host, a path a server, a scope a path
    Path,
}

impl Layout {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Scoped => "scoped",
            Self::Table => "table",
            Self::Path => "path",
        }
    }

    pub(crate) fn is_table(self) -> bool {
        self == Self::Table
    }
}

/// A fleet whose servers are told apart by their number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) layout: Layout,
    /// All servers are this port of loopback; else each has an address of its own, which nobody calls.
    pub(crate) port: Option<u16>,
}

/// What a player asks for.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Fleet {
    /// Where players find a server.
    pub(crate) fn door(self, number: usize) -> Door {
        match self.layout {
            Layout::Scoped | Layout::Table => {
                Door { host: format!("game{number}.example.com"), path: "/".to_owned() }
            }
            Layout::Path => Door { host: "play.example.com".to_owned(), path: format!("/game-{number}") },
        }
    }

    /// An NDJSON file of these servers.
    pub(crate) fn file(self, numbers: Range<usize>) -> String {
        let mut text = String::new();
        for number in numbers {
            let (address, port) = match self.port {
                Some(port) => ("127.0.0.1".to_owned(), port),
                None => (format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255), 7000),
            };
            let place = match self.layout {
                Layout::Scoped | Layout::Table => r#""tidegate.dev/host":"game<id>.example.com""#,
                Layout::Path => r#""tidegate.dev/host":"play.example.com","tidegate.dev/path":"/game-<id>""#,
            };
            // Writing to a String does not fail.
            _ = writeln!(
                text,
                r#"{{"apiVersion":"tidegate.dev/v1","kind":"Server","metadata":{{"name":"game-{number}","annotations":{{{place}}}}},"spec":{{"address":"{address}","port":{port}}}}}"#
            );
        }
        text
    }

    /// The servers that the control plane reads in such a file, in the order of their numbers.
    pub(crate) fn servers(self, numbers: Range<usize>) -> anyhow::Result<Vec<Arc<Server>>> {
        // A name that begins with a dot would not be taken for a fleet file.
        let file = tempfile::Builder::new().prefix("fleet").suffix(".ndjson").tempfile()?;
        std::fs::write(file.path(), self.file(numbers.clone()))?;
        read(file.path(), numbers.len())
    }
}

/// The servers in a fleet file, which must be as many, and right.
pub(crate) fn read(file: &Path, count: usize) -> anyhow::Result<Vec<Arc<Server>>> {
    let read = files::read_paths(&[file.to_owned()], &tidegate::kinds::Rules::default(), 1);
    if let Some(problem) = read.problems.first() {
        bail!("a fleet that should be right: {problem}");
    }
    let servers: Vec<_> = read.servers.into_iter().map(|found| found.server).collect();
    (servers.len() == count)
        .then_some(servers)
        .with_context(|| format!("{} does not hold {count} servers", file.display()))
}

/// Puts a file into a fleet directory whole, as careful people do. `draft` is beside the directory.
pub(crate) fn place(draft: &Path, directory: &Path, file: &str) -> std::io::Result<()> {
    std::fs::rename(draft, directory.join(file))
}
