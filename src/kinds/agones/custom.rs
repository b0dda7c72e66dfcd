//! Octops' custom annotations: `octops-<X>` was put as `<X>` on an Ingress, `octops.service-<X>` on a
//! Service, for Contour (or Traefik) to read. What they ask for and we can do is put into our words;
//! the others are named once.

use std::borrow::Cow;

use super::{At, GameServer, Words, listed, octops, short, template};
use crate::model::ProblemKind;
use crate::spec::MAX_VALUE;

const SERVICE: &str = "octops.service-";
const INGRESS: &str = "octops-";
const CONTOUR: &str = "projectcontour.io/";
/// The name that Octops gives to the one port of its Service.
const PORT_NAME: &str = "gameserver";

/// Adds what the custom annotations ask for.
pub(super) fn words(server: &GameServer, words: &mut Words, at: At) {
    let mut reader = Reader { server, words, at, wanted: None };
    let mut ignored = Vec::new();
    for (full, value) in &server.metadata.annotations {
        let is_read = if let Some(key) = full.strip_prefix(SERVICE) {
            reader.service(full, key, value)
        } else if let Some(key) = full.strip_prefix(INGRESS) {
            reader.ingress(full, key, value)
        } else {
            // Of other tools; or of Octops' own, where no other key is read either.
            !full.starts_with("octops") || octops::is_known(full)
        };
        if !is_read {
            ignored.push(full.as_str());
        }
    }
    reader.protocol();
    if !ignored.is_empty() {
        let why = format!("{} are not read: they do nothing here, and may go", listed(ignored.into_iter()));
        words.wrong(ProblemKind::UnknownField, at.annotations.to_owned(), why);
    }
}

/// What is wanted of the way to the server: how strongly, as which protocol, and where that stands.
struct Wanted<'a> {
    rank: u8,
    protocol: &'static str,
    full: &'a str,
}

struct Reader<'a, 'w> {
    server: &'a GameServer,
    words: &'w mut Words,
    at: At,
    wanted: Option<Wanted<'a>>,
}

impl<'a> Reader<'a, '_> {
    /// False for what is not read.
    fn ingress(&mut self, full: &str, key: &str, value: &str) -> bool {
        match key {
            "" => {
                let why = "custom annotation does not contain a suffix; expected a key of the Ingress behind octops-";
                self.words.wrong(ProblemKind::BadValue, self.at.annotation(full), why);
            }
            "projectcontour.io/response-timeout" => self.timeout(full, value),
            // Its older name.
            "projectcontour.io/request-timeout" => {
                if self.server.metadata.annotation("octops-projectcontour.io/response-timeout").is_none() {
                    self.timeout(full, value);
                }
            }
            "ingress.kubernetes.io/force-ssl-redirect" => self.say("https-redirect", full, value),
            // Every route takes WebSockets.
            "projectcontour.io/websocket-routes" => {}
            _ => return full == octops::LEGACY_CLASS,
        }
        true
    }

    /// False for what is not read.
    fn service(&mut self, full: &'a str, key: &str, value: &str) -> bool {
        match key {
            "" => {
                let why = format!(
                    "custom annotation {full} does not contain a suffix; expected a key of the Service behind it"
                );
                self.words.wrong(ProblemKind::BadValue, self.at.annotation(full), why);
            }
            "projectcontour.io/max-connections" => self.say("max-connections", full, value),
            "projectcontour.io/max-pending-requests" => self.say("max-pending-requests", full, value),
            // Of HTTP/1.1, WebSockets among it, a session is a request.
            "projectcontour.io/max-requests" => self.say("max-sessions", full, value),
            "traefik.ingress.kubernetes.io/service.serversscheme" => self.scheme(full, value),
            _ => {
                let protocol =
                    key.strip_prefix(CONTOUR).and_then(|key| key.strip_prefix("upstream-protocol."));
                match protocol {
                    Some("h2") => self.upstream(full, value, "h2", 1),
                    Some("h2c") => self.upstream(full, value, "h2c", 2),
                    Some("tls") => self.upstream(full, value, "tls", 3),
                    _ => return false,
                }
            }
        }
        true
    }

    /// The value with its templates filled in; `None`, and said so, when they can't be.
    fn filled<'v>(&mut self, full: &str, value: &'v str) -> Option<Cow<'v, str>> {
        if value.len() > MAX_VALUE {
            // It is reported where it is read.
            return Some(Cow::Borrowed(value));
        }
        let port = self.server.status.ports.first().map_or(0, |port| port.port);
        let filled = template::fill(value, &self.server.metadata.name, &port.to_string());
        if filled.is_none() {
            let key = full.strip_prefix(SERVICE).or_else(|| full.strip_prefix(INGRESS)).unwrap_or(full);
            let why = format!(
                "{key}:{} does not contain a valid template; {{{{ .Name }}}} and {{{{ .Port }}}} are read, and this annotation is left out",
                short(value)
            );
            self.words.wrong(ProblemKind::BadValue, self.at.annotation(full), why);
        }
        filled
    }

    fn say(&mut self, key: &str, full: &str, value: &str) {
        if let Some(filled) = self.filled(full, value) {
            self.words.say(key, filled, self.at.annotation(full));
        }
    }

    /// Go's durations are read as ours; Contour has two words for none, and takes 0 for its default.
    fn timeout(&mut self, full: &str, value: &str) {
        match self.filled(full, value).as_deref().map(str::trim) {
            None | Some("" | "0") => {}
            Some("infinity" | "infinite") => {
                self.words.say("response-timeout", "0s", self.at.annotation(full));
            }
            Some(filled) => self.words.say("response-timeout", filled, self.at.annotation(full)),
        }
    }

    /// A comma list of the ports, by name or number, that speak a protocol. Octops' Service has one.
    fn upstream(&mut self, full: &'a str, value: &str, protocol: &'static str, rank: u8) {
        let Some(filled) = self.filled(full, value) else { return };
        let port = self.server.status.ports.first().map_or(0, |port| port.port);
        let mut items = filled.split(',').map(str::trim);
        // Contour asks for the name first.
        let rank = if filled.split(',').any(|item| item.trim() == PORT_NAME) {
            rank + 10
        } else if items.any(|item| item == port.to_string()) {
            rank
        } else {
            if port != 0 {
                let why = format!(
                    "{:?} names neither {PORT_NAME} nor the port {port}, so that it changes nothing; expected {{{{ .Port }}}} or {PORT_NAME}",
                    short(&filled)
                );
                self.words.wrong(ProblemKind::BadValue, self.at.annotation(full), why);
            }
            return;
        };
        self.want(Wanted { rank, protocol, full });
    }

    fn scheme(&mut self, full: &'a str, value: &str) {
        let Some(filled) = self.filled(full, value) else { return };
        match filled.trim() {
            "h2c" => self.want(Wanted { rank: 0, protocol: "h2c", full }),
            "https" => self.want(Wanted { rank: 0, protocol: "tls", full }),
            "http" => {}
            other => {
                let why = format!("{:?} is not a scheme; expected http, https or h2c", short(other));
                self.words.wrong(ProblemKind::BadValue, self.at.annotation(full), why);
            }
        }
    }

    fn want(&mut self, wanted: Wanted<'a>) {
        if self.wanted.as_ref().is_none_or(|held| held.rank < wanted.rank) {
            self.wanted = Some(wanted);
        }
    }

    fn protocol(&mut self) {
        if let Some(Wanted { protocol, full, .. }) = self.wanted.take() {
            self.words.say("protocol", protocol, self.at.annotation(full));
        }
    }
}
