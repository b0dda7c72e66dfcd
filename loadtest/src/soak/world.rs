//! The fleet as it should be: which servers there are, what stands in their files, and where players find them.
//! Pure: a change in, files out. Where a server listens is known to whoever runs it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::front::{End, Routes};

/// Hosts end so; they need no DNS, for players name them to Envoy themselves.
const DOMAIN: &str = "soak.localhost";
/// One server in so many is in a share too.
const SHARED: u32 = 20;
/// How many shares there are.
const SHARES: u32 = 4;

/// What is done to the fleet. Numbers are those of servers, but for rivals and litter, which have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A server starts, and has a file.
    Come(u32),
    /// Its file goes; it runs on, for those inside.
    Leave(u32),
    /// It ends, and whoever is inside with it. It has no file any more, so no file changes.
    Stop(u32),
    /// It ends, and is back under its name at another address.
    Restart(u32),
    /// An annotation that Envoy must hear of.
    Edit(u32),
    /// Words that are no matter to Tidegate: nothing may be pushed.
    Touch(u32),
    /// It has another host, and not the old one.
    Move(u32),
    /// No new players.
    Close(u32, Door),
    /// New players again.
    Open(u32),
    /// Its part of its share's players.
    Weigh(u32, u32),
    /// A younger server claims the host of another: it gets nobody.
    Rival { rival: u32, of: u32 },
    /// It gives up.
    Yield(u32),
    /// A file that nobody can read.
    Litter(u32),
    /// The file goes.
    Clear(u32),
    /// The file of a server is cut in half.
    Garble(u32),
    /// An annotation with a value that means nothing, and one that nobody knows.
    Misspell(u32),
    /// The file is well again.
    Mend(u32),
}

/// Whether new players get in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Door {
    #[default]
    Open,
    /// `tidegate.dev/drain`
    Drained,
    /// The state of life.
    Draining,
    /// `tidegate.dev/maintenance`
    Maintenance,
    /// A port that it does not have.
    Misconfigured,
}

/// A game server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// How often it was restarted.
    pub(crate) life: u32,
    pub(crate) is_listed: bool,
    moves: u32,
    door: Door,
    weight: u32,
    edits: u32,
    touches: u32,
    is_garbled: bool,
    is_misspelt: bool,
}

impl Server {
    fn fresh() -> Self {
        Self {
            life: 0,
            is_listed: true,
            moves: 0,
            door: Door::Open,
            weight: 100,
            edits: 0,
            touches: 0,
            is_garbled: false,
            is_misspelt: false,
        }
    }
}

/// Where a player may go: a host, and the servers one of which must answer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) servers: Vec<String>,
}

/// A file to write, or to delete where it has no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) text: Option<String>,
}

/// Where servers listen.
pub(crate) trait Addresses {
    /// Of a server by its number.
    fn of(&self, server: u32) -> Option<SocketAddr>;
    /// Of whoever claims what is not his.
    fn rival(&self) -> SocketAddr;
}

/// All servers that run, and what lies about besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) servers: BTreeMap<u32, Server>,
    /// Whom each rival envies.
    pub(crate) rivals: BTreeMap<u32, u32>,
    litter: BTreeSet<u32>,
}

/// What a server is called.
pub(crate) fn name(server: u32) -> String {
    format!("soak-{server}")
}

/// The server whose own host this is.
pub(crate) fn server_of(host: &str) -> Option<u32> {
    let rest = host.strip_prefix("game-")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn share_of(server: u32) -> Option<String> {
    server.is_multiple_of(SHARED).then(|| format!("lobby-{}", server / SHARED % SHARES))
}

fn share_host(share: &str) -> String {
    format!("{share}.{DOMAIN}")
}

impl World {
    /// Servers numbered from 0.
    pub(crate) fn of(servers: u32) -> Self {
        Self { servers: (0..servers).map(|n| (n, Server::fresh())).collect(), ..Self::default() }
    }

    /// Does it.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Come(n) => _ = self.servers.insert(n, Server::fresh()),
            Change::Stop(n) => _ = self.servers.remove(&n),
            Change::Rival { rival, of } => _ = self.rivals.insert(rival, of),
            Change::Yield(rival) => _ = self.rivals.remove(&rival),
            Change::Litter(n) => _ = self.litter.insert(n),
            Change::Clear(n) => _ = self.litter.remove(&n),
            Change::Leave(n)
            | Change::Restart(n)
            | Change::Edit(n)
            | Change::Touch(n)
            | Change::Move(n)
            | Change::Close(n, _)
            | Change::Open(n)
            | Change::Weigh(n, _)
            | Change::Garble(n)
            | Change::Misspell(n)
            | Change::Mend(n) => {
                if let Some(server) = self.servers.get_mut(&n) {
                    server.apply(change);
                }
            }
        }
    }

    /// The own host of a server.
    pub(crate) fn host(&self, n: u32) -> String {
        let moves = self.servers.get(&n).map_or(0, |server| server.moves);
        if moves == 0 { format!("game-{n}.{DOMAIN}") } else { format!("game-{n}-m{moves}.{DOMAIN}") }
    }

    /// How many servers have a file.
    pub(crate) fn listed(&self) -> usize {
        self.servers.values().filter(|server| server.is_listed).count()
    }

    fn open(&self) -> impl Iterator<Item = (u32, &Server)> {
        let all = self.servers.iter().map(|(n, server)| (*n, server));
        all.filter(|(_, server)| server.is_listed && server.door == Door::Open)
    }

    /// Where new players get in now.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut shares: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (n, _) in self.open() {
            targets.push(Target { host: self.host(n), servers: vec![name(n)] });
            if let Some(share) = share_of(n) {
                shares.entry(share_host(&share)).or_default().push(name(n));
            }
        }
        // Two control planes, one of them behind, may still know another member: all of them are right.
        for (host, _) in shares {
            let share = host.split('.').next().unwrap_or_default().to_owned();
            let members = self.servers.keys().filter(|n| share_of(**n).as_ref() == Some(&share));
            targets.push(Target { host, servers: members.map(|n| name(*n)).collect() });
        }
        targets
    }

    /// What a front should route.
    pub(crate) fn routes(&self, addresses: &impl Addresses) -> Routes {
        let mut routes = Routes::new();
        for (n, server) in self.open() {
            let Some(address) = addresses.of(n) else { continue };
            routes.insert(self.host(n), vec![End { address, weight: 1 }]);
            if let Some(share) = share_of(n) {
                let end = End { address, weight: server.weight };
                routes.entry(share_host(&share)).or_default().push(end);
            }
        }
        routes
    }

    /// The files that a change, which was just applied, writes.
    pub(crate) fn files(&self, change: Change, addresses: &impl Addresses) -> Vec<File> {
        let file = match change {
            Change::Stop(_) => return Vec::new(),
            Change::Rival { rival, .. } | Change::Yield(rival) => File {
                name: format!("soak-rival-{rival}.json"),
                text: self.rivals.get(&rival).map(|of| self.rival(rival, *of, addresses.rival()).to_string()),
            },
            Change::Litter(n) | Change::Clear(n) => File {
                name: format!("soak-litter-{n}.yaml"),
                text: self.litter.contains(&n).then(|| "kind: [Server\n\tspec: {".to_owned()),
            },
            Change::Come(n)
            | Change::Leave(n)
            | Change::Restart(n)
            | Change::Edit(n)
            | Change::Touch(n)
            | Change::Move(n)
            | Change::Close(n, _)
            | Change::Open(n)
            | Change::Weigh(n, _)
            | Change::Garble(n)
            | Change::Misspell(n)
            | Change::Mend(n) => self.file(n, addresses),
        };
        vec![file]
    }

    /// The file of a server as it should be.
    pub(crate) fn file(&self, n: u32, addresses: &impl Addresses) -> File {
        let listed = self.servers.get(&n).filter(|server| server.is_listed);
        let text = listed.zip(addresses.of(n)).map(|(server, address)| {
            let text = self.object(n, server, address);
            // Another layout of the same words, now and then.
            let text = if server.touches % 2 == 1 { format!("{text:#}") } else { format!("{text}") };
            let whole = text.len();
            if server.is_garbled { text.chars().take(whole / 2).collect() } else { text }
        });
        File { name: format!("{}.json", name(n)), text }
    }

    fn object(&self, n: u32, server: &Server, address: SocketAddr) -> Value {
        let share = share_of(n);
        let hosts = match &share {
            Some(share) => format!("{},{}", self.host(n), share_host(share)),
            None => self.host(n),
        };
        let mut annotations = json!({
            "tidegate.dev/host": hosts,
            "soak.test/touched": server.touches.to_string(),
        });
        let mut set = |key: &str, value: String| annotations[format!("tidegate.dev/{key}")] = value.into();
        if let Some(share) = share {
            set("share", share);
            set("weight", server.weight.to_string());
        }
        if server.edits > 0 {
            // In turn something of the route, and something of the cluster.
            set("idle-timeout", format!("{}s", 3600 + server.edits));
            set("max-sessions", (100_000 + server.edits / 2).to_string());
        }
        match server.door {
            Door::Open | Door::Draining => {}
            Door::Drained => set("drain", "true".to_owned()),
            Door::Maintenance => set("maintenance", "back soon".to_owned()),
            Door::Misconfigured => set("port", "no-such-port".to_owned()),
        }
        if server.is_misspelt {
            set("response-timeout", "soon".to_owned());
            set("hots", "typo".to_owned());
        }
        json!({
            "apiVersion": "tidegate.dev/v1",
            "kind": "Server",
            "metadata": {
                "name": name(n),
                "creationTimestamp": "2026-01-01T10:00:00Z",
                "labels": { "touched": server.touches.to_string() },
                "annotations": annotations,
            },
            "spec": {
                "address": address.ip(),
                "port": address.port(),
                "state": if server.door == Door::Draining { "Draining" } else { "Ready" },
            },
        })
    }

    fn rival(&self, rival: u32, of: u32, address: SocketAddr) -> Value {
        json!({
            "apiVersion": "tidegate.dev/v1",
            "kind": "Server",
            "metadata": {
                "name": format!("soak-rival-{rival}"),
                "creationTimestamp": "2026-06-01T10:00:00Z",
                "annotations": { "tidegate.dev/host": self.host(of) },
            },
            "spec": { "address": address.ip(), "port": address.port() },
        })
    }

    /// What must be done so that everything is well: files whole, litter cleared, rivals gone.
    pub(crate) fn tidy(&self) -> Vec<Change> {
        let garbled = self.servers.iter().filter(|(_, server)| server.is_garbled || server.is_misspelt);
        let mut changes: Vec<_> = garbled.map(|(n, _)| Change::Mend(*n)).collect();
        changes.extend(self.litter.iter().map(|n| Change::Clear(*n)));
        changes.extend(self.rivals.keys().map(|n| Change::Yield(*n)));
        changes
    }
}

impl Server {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Leave(_) => self.is_listed = false,
            Change::Restart(_) => self.life += 1,
            Change::Edit(_) => self.edits += 1,
            Change::Touch(_) => self.touches += 1,
            Change::Move(_) => self.moves += 1,
            Change::Close(_, door) => self.door = door,
            Change::Open(_) => self.door = Door::Open,
            Change::Weigh(_, weight) => self.weight = weight,
            Change::Garble(_) => self.is_garbled = true,
            Change::Misspell(_) => self.is_misspelt = true,
            // What Envoy may have refused before is other words now.
            Change::Mend(_) => {
                (self.is_garbled, self.is_misspelt) = (false, false);
                self.edits += 1;
            }
            _ => {}
        }
    }
}
