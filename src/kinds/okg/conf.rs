//! What a network says of hosts, paths and ports.
//!
//! The rules of the `Kubernetes-Ingress` plugin are kept to the letter, so that both agree on what is valid:
//! one `<id>` in a value at most, the last `Host` counts, the n-th `Path` goes with the n-th `PathType` and
//! `Port` or, where there is none, with the first. No `Host` means all hosts, as in an Ingress. What is wrong
//! becomes a problem and never another server's route: what can't be read is left out, not guessed.

use super::declared::{Declared, Entry, Said, Type, listed, shown, truth};
use super::ingress::Annotations;
use crate::model::{Host, PathPrefix, Problem, ProblemKind};
use crate::spec::{MAX_ITEMS, MAX_VALUE};

/// What was said of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Hosts {
    /// Nothing that would ask for one.
    #[default]
    Unsaid,
    /// All: an Ingress without a host.
    All,
    /// This one.
    One(Said),
    /// One that can't be read.
    Bad,
}

/// What was said of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Port {
    /// Nothing: the containers' first is meant.
    #[default]
    Unsaid,
    /// This one.
    Number(u16),
    /// One that can't be read.
    Bad,
}

/// The paths of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) port: Port,
    /// None when those that were written can't be read: that must not become `/`.
    pub(super) paths: Vec<PathPrefix>,
    /// Where the first of them stands.
    pub(super) field: String,
    /// Its server sees `/` in place of the prefix.
    pub(super) strip: Option<Said>,
}

/// A network, read.
#[derive(Debug, Default)]
pub(super) struct Conf {
    pub(super) hosts: Hosts,
    /// One a distinct port, in the order they are named; never none.
    pub(super) groups: Vec<Group>,
    pub(super) idle: Option<Said>,
    pub(super) redirect: Option<Said>,
    pub(super) problems: Vec<Problem>,
}

/// Reads what was declared, for the server with this number.
pub(super) fn read(declared: Declared, ordinal: Option<&str>) -> Conf {
    let mut reader = Reader { ordinal, conf: Conf::default(), declared: &declared };
    match declared.kind {
        Type::None => reader.conf.groups.push(Group { paths: vec![PathPrefix::root()], ..Group::default() }),
        Type::Other => {
            let port = reader.port_protocols().into_iter().next().unwrap_or_default();
            let paths = vec![PathPrefix::root()];
            reader.conf.groups.push(Group { port, paths, ..Group::default() });
        }
        Type::Ingress | Type::Own => reader.read(),
    }
    let mut conf = reader.conf;
    let mut problems = declared.problems;
    problems.append(&mut conf.problems);
    Conf { problems, ..conf }
}

struct Reader<'a> {
    ordinal: Option<&'a str>,
    declared: &'a Declared,
    conf: Conf,
}

/// The parameters of an Ingress.
const NAMES: [&str; 10] = [
    "Path",
    "PathType",
    "Port",
    "Host",
    "IngressClassName",
    "TlsHosts",
    "TlsSecretName",
    "Annotation",
    "Fixed",
    "AllowNotReadyContainers",
];
/// What only other networks, and our own, have.
const PORT_PROTOCOLS: &str = "PortProtocols";
/// The path that OpenKruiseGame's manual has, `/game<id>(/|$)(.*)`, ends so: all that is below the prefix.
const BELOW: &str = "(/|$)(.*)";
/// What makes a path a regular expression, where it may be one.
const REGEX: &str = "()[]{}|*+?$^\\";

impl Reader<'_> {
    fn read(&mut self) {
        self.unknown();
        let said = Annotations::read(
            self.declared
                .all("Annotation")
                .map(|entry| Said { field: self.declared.at(entry), text: entry.value.clone() }),
        );
        self.conf.problems.extend(said.problems);
        let has_tls = ["TlsHosts", "TlsSecretName"]
            .iter()
            .any(|name| self.declared.last(name).is_some_and(|entry| !entry.value.is_empty()));
        self.conf.redirect = said.force_redirect.or_else(|| said.redirect.filter(|_| has_tls));
        self.conf.idle = said.idle;
        if let Some(entry) = self.declared.last("Fixed").filter(|entry| truth(&entry.value).is_none()) {
            self.bad(entry, format!("{} is not \"true\" or \"false\"; false is used", shown(&entry.value)));
        }
        self.paths(said.rewrite);
        self.hosts();
    }

    fn bad(&mut self, entry: &Entry, why: impl Into<String>) {
        let field = self.declared.at(entry);
        self.conf.problems.push(Problem::new(ProblemKind::BadValue, field, why));
    }

    fn missing(&mut self, name: &str, expected: &str) {
        let field = format!("{} {name}", self.declared.field);
        let why = format!("is missing; expected {expected}. OpenKruiseGame refuses such a network");
        self.conf.problems.push(Problem::new(ProblemKind::Missing, field, why));
    }

    /// OpenKruiseGame passes over names it does not know, and with them every typing error.
    fn unknown(&mut self) {
        let is_known =
            |name: &str| NAMES.contains(&name) || (name == PORT_PROTOCOLS && self.declared.kind == Type::Own);
        let names: Vec<&str> = self.declared.entries.iter().map(|entry| &*entry.name).collect();
        let unknown = listed(names.into_iter().filter(|name| !is_known(name)));
        if let Some(unknown) = unknown {
            let why = format!("has names that nobody reads: {unknown}; expected {}", NAMES.join(", "));
            self.conf.problems.push(Problem::new(
                ProblemKind::UnknownField,
                self.declared.field.clone(),
                why,
            ));
        }
    }

    /// The server's number in place of `<id>`, which may stand once.
    fn expand(&mut self, entry: &Entry) -> Option<String> {
        let mut parts = entry.value.split("<id>");
        let (before, behind) = (parts.next().unwrap_or_default(), parts.next());
        let Some(behind) = behind else { return Some(before.to_owned()) };
        if parts.next().is_some() {
            let why = format!("{} has <id> more than once; OpenKruiseGame refuses that", shown(&entry.value));
            self.bad(entry, why);
            return None;
        }
        let Some(id) = self.ordinal else {
            let why = format!("{} has <id>, and the pod's name ends in no number", shown(&entry.value));
            self.bad(entry, why);
            return None;
        };
        Some(format!("{before}{id}{behind}"))
    }

    fn hosts(&mut self) {
        let declared = self.declared;
        // Our own type may be chosen for a port alone, and leave hosts to annotations.
        let asks = declared.kind == Type::Ingress || declared.last("Path").is_some();
        let Some(entry) = declared.last("Host").filter(|entry| !entry.value.is_empty()) else {
            if asks {
                self.conf.hosts = Hosts::All;
            }
            return;
        };
        self.conf.hosts = Hosts::Bad;
        let Some(text) = self.expand(entry) else { return };
        match Host::parse(&text) {
            Ok(host) => {
                let said = Said { field: declared.at(entry), text: host.as_str().to_owned() };
                self.conf.hosts = Hosts::One(said);
            }
            Err(why) => {
                self.bad(entry, format!("{} {why}; it has no route there until then", shown(&text)));
            }
        }
    }

    /// Puts each path to its port.
    fn paths(&mut self, rewrite: Option<Said>) {
        let declared = self.declared;
        let ports = self.ports();
        let types: Vec<_> = declared.all("PathType").collect();
        let paths: Vec<_> = declared.all("Path").collect();
        if declared.kind == Type::Ingress {
            for (name, is_there, expected) in [
                ("Path", !paths.is_empty(), "a path such as /"),
                ("PathType", !types.is_empty(), "Prefix"),
                ("Port", !ports.is_empty(), "a port from 1 to 65535"),
            ] {
                if !is_there {
                    self.missing(name, expected);
                }
            }
        }
        let unsaid = if declared.kind == Type::Own { Port::Unsaid } else { Port::Bad };
        let port_of = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(unsaid);
        let strips = rewrite.as_ref().is_some_and(|rewrite| matches!(&*rewrite.text, "/$2" | "/${2}"));
        let mut below = false;
        for (at, entry) in paths.iter().enumerate() {
            let group = self.group(port_of(at));
            let Some((path, is_below)) = self.path(entry, types.get(at).or(types.first()).copied()) else {
                continue;
            };
            let field = declared.at(entry);
            let Some(group) = self.conf.groups.get_mut(group) else { continue };
            below |= is_below;
            if group.paths.is_empty() {
                group.field = field;
            }
            group.paths.push(path);
            if is_below && strips && group.strip.is_none() {
                group.strip = rewrite.as_ref().map(|said| Said { text: "true".into(), ..said.clone() });
            }
        }
        if let Some(said) = rewrite.filter(|_| !(strips && below)) {
            let why = format!(
                "{} is not read; only /$2 is, with a path such as /game<id>{BELOW}. The server sees whole paths",
                shown(&said.text)
            );
            self.conf.problems.push(Problem::new(ProblemKind::BadValue, said.field, why));
        }
        if self.conf.groups.is_empty() {
            // Our own type asks for no path; of an Ingress without one nobody knows which it should be.
            let paths = if declared.kind == Type::Own { vec![PathPrefix::root()] } else { Vec::new() };
            self.conf.groups.push(Group { port: port_of(0), paths, ..Group::default() });
        }
        self.limit();
    }

    /// The place of a port's group.
    fn group(&mut self, port: Port) -> usize {
        let held = self.conf.groups.iter().position(|group| group.port == port);
        held.unwrap_or_else(|| {
            self.conf.groups.push(Group { port, ..Group::default() });
            self.conf.groups.len() - 1
        })
    }

    /// `spec` would cut a list that is too long, and not say which paths it lost.
    fn limit(&mut self) {
        for group in &mut self.conf.groups {
            let mut bytes = 0;
            let fits = |path: &&PathPrefix| {
                bytes += path.as_str().len() + 1;
                bytes <= MAX_VALUE
            };
            let fitting = group.paths.iter().take(MAX_ITEMS).take_while(fits).count();
            if fitting < group.paths.len() {
                let why = format!("is one of {} paths; the first {fitting} are used", group.paths.len());
                self.conf.problems.push(Problem::new(ProblemKind::TooLarge, group.field.clone(), why));
                group.paths.truncate(fitting);
            }
        }
    }

    /// A path as a prefix, and whether it was written as the pattern for all below it.
    fn path(&mut self, entry: &Entry, kind: Option<&Entry>) -> Option<(PathPrefix, bool)> {
        let text = self.expand(entry)?;
        let mut prefix = &*text;
        let mut is_below = false;
        match kind.map(|kind| (&*kind.value, kind)) {
            None | Some(("Prefix" | "ImplementationSpecific", _)) => {
                if let Some(before) = text.strip_suffix(BELOW) {
                    (prefix, is_below) = (if before.is_empty() { "/" } else { before }, true);
                }
            }
            Some(("Exact", _)) => {
                let why = format!("{} is Exact; what is below it is served too", shown(&text));
                self.bad(entry, why);
            }
            Some((other, kind)) => {
                let why = format!(
                    "{} is not Prefix, Exact or ImplementationSpecific; Prefix is used",
                    shown(other)
                );
                self.bad(kind, why);
            }
        }
        match PathPrefix::parse(prefix) {
            Ok(path) => return Some((path, is_below)),
            Err(_) if prefix.contains(|c| REGEX.contains(c)) => {
                let why = format!(
                    "{} is a regular expression; only prefixes are served, and /game<id>{BELOW}. It is left out",
                    shown(&text)
                );
                self.bad(entry, why);
            }
            Err(why) => self.bad(entry, format!("{} {why}; it is left out", shown(&text))),
        }
        None
    }

    fn ports(&mut self) -> Vec<Port> {
        let declared = self.declared;
        let ports: Vec<_> = declared.all("Port").map(|entry| self.port(entry, &entry.value)).collect();
        if ports.is_empty() && declared.kind == Type::Own { self.port_protocols() } else { ports }
    }

    fn port(&mut self, entry: &Entry, text: &str) -> Port {
        match text.parse() {
            Ok(number) if number != 0 => Port::Number(number),
            _ => {
                self.bad(entry, format!("{} is not a port; expected a number from 1 to 65535", shown(text)));
                Port::Bad
            }
        }
    }

    /// `80,443/UDP,9000/TCPUDP`, those that speak TCP.
    fn port_protocols(&mut self) -> Vec<Port> {
        let declared = self.declared;
        let Some(entry) = declared.last(PORT_PROTOCOLS) else { return Vec::new() };
        let mut ports = Vec::new();
        for item in entry.value.split(',').map(str::trim).filter(|item| !item.is_empty()).take(MAX_ITEMS) {
            let (number, protocol) = item.split_once('/').unwrap_or((item, "TCP"));
            match protocol {
                "TCP" | "TCPUDP" => ports.push(self.port(entry, number)),
                "UDP" => {}
                _ => {
                    let why = format!("{} is not TCP, UDP or TCPUDP; the port is left out", shown(protocol));
                    self.bad(entry, why);
                }
            }
        }
        ports
    }
}

#[cfg(test)]
mod tests;
