//! `tidegate check`: what fleet files and manifests would do, and every problem with its place. No control
//! plane needed.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::engine::Engine;
use crate::kinds::Rules;
use crate::model::{Event, Problem, RouteKey};
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
    /// What is no mistake but may surprise: objects that are not routed or not read, and why.
    pub notes: Vec<Problem>,
}

/// A server and where it stands.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedServer {
    /// The file it is in.
    pub file: PathBuf,
    /// The place in it: a line, and the position in a list that begins there.
    pub place: String,
    /// It does not exist: the set or fleet at this place would make it.
    pub sample: bool,
    /// How it would fare.
    #[serde(flatten)]
    pub row: ServerRow,
}

impl Checked {
    /// Reads files, and the fleet files of directories. Of sets and fleets that have no server in them it takes
    /// up to `samples` that they would make. Blocking.
    pub fn read(paths: &[PathBuf], rules: &Rules, samples: usize) -> Self {
        let files::Checked { servers, problems, notes } = files::read_paths(paths, rules, samples);
        let mut engine = Engine::new(files::SOURCES);
        engine.apply(servers.iter().map(|found| Event::Upsert(found.server.clone())));
        let servers = servers.into_iter().map(|found| CheckedServer {
            row: ServerRow::of(&engine, &found.server),
            file: found.file,
            place: found.place,
            sample: found.is_sample,
        });
        let keys = report::sorted_keys(report::keys(&engine), "", None);
        Self { servers: servers.collect(), routes: report::routes(&engine, &keys), problems, notes }
    }

    /// How many things somebody should mend.
    pub fn wrongs(&self) -> usize {
        let of_servers =
            self.servers.iter().map(|server| server.row.server.problems.len() + server.row.lost.len());
        self.problems.len() + of_servers.sum::<usize>() + self.of_routes().len()
    }

    /// What of the holders of a route does not fit together; each once, whatever gateways it has rows for.
    fn of_routes(&self) -> BTreeSet<(RouteKey, &str)> {
        let problems = self
            .routes
            .iter()
            .flat_map(|row| row.problems.iter().map(|problem| (row.key(), problem.as_str())));
        problems.collect()
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CheckedServer { file, place, sample, row } in &self.servers {
            let server = &row.server;
            let at = format!("{}:{place}", file.display());
            let routes: Vec<_> = server.desired.routes.iter().map(ToString::to_string).collect();
            let routes = if routes.is_empty() { "no route".to_owned() } else { routes.join(", ") };
            let endpoint =
                server.desired.endpoint.map_or("no address".to_owned(), |endpoint| endpoint.to_string());
            let (namespace, name) = (server.id.namespace(), server.id.name());
            if *sample {
                writeln!(f, "{namespace}/{name}: {routes}, a sample of what {at} would make")?;
            } else {
                writeln!(f, "{namespace}/{name}: {routes} -> {endpoint}, {}", server.desired.mode.word())?;
            }
            for problem in &server.problems {
                writeln!(f, "  {at}: {problem}")?;
            }
            for (key, winner) in &row.lost {
                writeln!(f, "  {at}: {key} is held by {winner}, which is older or comes first")?;
            }
        }
        for (key, problem) in self.of_routes() {
            writeln!(f, "{key}: {problem}")?;
        }
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let samples = self.servers.iter().filter(|server| server.sample).count();
        let (servers, routes) = (self.servers.len() - samples, self.routes.len());
        write!(f, "servers: {servers}, ")?;
        if samples > 0 {
            write!(f, "samples: {samples}, ")?;
        }
        writeln!(f, "routes: {routes}, problems: {}", self.wrongs())
    }
}
