//! `tidegate check`: what fleet files would do, and every problem with its place. No control plane needed.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::engine::Engine;
use crate::model::{Event, Problem};
use crate::report::{self, RouteRow, ServerRow};
use crate::sources::files;

/// What the files come to.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The servers, with what is wrong with each.
    pub servers: Vec<CheckedServer>,
    /// The routes they would hold.
    pub routes: Vec<RouteRow>,
    /// What is wrong with the files.
    pub problems: Vec<Problem>,
}

/// A server and where it stands.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedServer {
    /// The file it is in.
    pub file: PathBuf,
    /// How it would fare.
    #[serde(flatten)]
    pub row: ServerRow,
}

impl Checked {
    /// Reads files, and the fleet files of directories. Blocking.
    pub fn read(paths: &[PathBuf], host_template: Option<&str>) -> Self {
        let files::Checked { servers, problems } = files::read_paths(paths, host_template);
        let mut engine = Engine::new([files::SOURCE]);
        let all = servers.iter().map(|(_, server)| server.clone()).collect();
        engine.apply([Event::Reset { source: files::SOURCE, servers: all }]);
        let servers = servers
            .into_iter()
            .map(|(file, server)| CheckedServer { file, row: ServerRow::of(&engine, &server) });
        let keys = report::sorted_keys(report::keys(&engine), "", None);
        Self { servers: servers.collect(), routes: report::routes(&engine, &keys), problems }
    }

    /// How many things somebody should mend.
    pub fn wrongs(&self) -> usize {
        let of_servers =
            self.servers.iter().map(|server| server.row.server.problems.len() + server.row.lost.len());
        self.problems.len() + of_servers.sum::<usize>()
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CheckedServer { file, row } in &self.servers {
            let server = &row.server;
            let routes: Vec<_> = server.desired.routes.iter().map(ToString::to_string).collect();
            let routes = if routes.is_empty() { "no route".to_owned() } else { routes.join(", ") };
            let endpoint =
                server.desired.endpoint.map_or("no address".to_owned(), |endpoint| endpoint.to_string());
            let (namespace, name) = (server.id.namespace(), server.id.name());
            writeln!(f, "{namespace}/{name}: {routes} -> {endpoint}, {}", server.desired.mode.word())?;
            for problem in &server.problems {
                writeln!(f, "  {}: {problem}", file.display())?;
            }
            for (key, winner) in &row.lost {
                writeln!(
                    f,
                    "  {}: {key} is held by {winner}, which is older or comes first",
                    file.display()
                )?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let (servers, routes) = (self.servers.len(), self.routes.len());
        writeln!(f, "servers: {servers}, routes: {routes}, problems: {}", self.wrongs())
    }
}
