//! The annotations of Octops' GameServer Ingress Controller (0.5), put into our words.
//!
//! What Octops takes comes to the same hosts and paths. Where it refuses the whole object for one
//! mistake, only what the mistake is about is lost, and the problem begins with Octops' own words.

use std::collections::BTreeMap;

use super::{At, GameServer, Words, custom, short};
use crate::kinds::Meta;
use crate::model::ProblemKind;
use crate::spec::PREFIX;

/// Its presence asks for a route: `domain` or `path`.
pub(super) const MODE: &str = "octops.io/gameserver-ingress-mode";
/// Written once the server is routed.
pub(super) const READY: &str = "octops.io/ingress-ready";
const DOMAIN: &str = "octops.io/gameserver-ingress-domain";
const FQDN: &str = "octops.io/gameserver-ingress-fqdn";
const TERMINATE_TLS: &str = "octops.io/terminate-tls";
const TLS_SECRET: &str = "octops.io/tls-secret-name";
const TLS_ISSUER: &str = "octops.io/issuer-tls-name";
const CLASS: &str = "octops.io/ingress-class-name";
pub(super) const LEGACY_CLASS: &str = "octops-kubernetes.io/ingress.class";
const BACKEND: &str = "octops.io/router-backend";
const GATEWAY: [&str; 3] =
    ["octops.io/gateway-name", "octops.io/gateway-namespace", "octops.io/gateway-section-name"];

/// True when Octops' annotation asks for a route.
pub(super) fn is_asked(meta: &Meta) -> bool {
    meta.annotation(MODE).is_some()
}

/// The ingress class that is named, by the newer annotation if both are there. Octops refuses an empty
/// one; here a class is only for choosing among controllers, and an empty one chooses none.
pub(super) fn class(meta: &Meta) -> Option<&str> {
    meta.annotation(CLASS).or_else(|| meta.annotation(LEGACY_CLASS)).filter(|class| !class.is_empty())
}

/// True for a key of Octops' own that is read, if only to say that it does nothing.
pub(super) fn is_known(key: &str) -> bool {
    [MODE, READY, DOMAIN, FQDN, TERMINATE_TLS, TLS_SECRET, TLS_ISSUER, CLASS, BACKEND].contains(&key)
        || GATEWAY.contains(&key)
}

/// A truth as Go's `strconv.ParseBool` reads it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// All that Octops' annotations ask for; `own` are ours on the same object.
pub(super) fn words(server: &GameServer, own: &BTreeMap<String, String>, at: At) -> Words {
    let mut words = Words::default();
    routes(server, &mut words, at);
    tls(&server.metadata, &mut words, at);
    gateway(&server.metadata, own, &mut words, at);
    custom::words(server, &mut words, at);
    words
}

fn routes(server: &GameServer, words: &mut Words, at: At) {
    let meta = &server.metadata;
    let who = format!("{}/{}", meta.namespace, meta.name);
    // `<name>` and not the name: a long list keeps to the limit of a value.
    let (key, before) = match meta.annotation(MODE) {
        Some("domain") => (DOMAIN, "<name>."),
        Some("path") => {
            words.say("path", "/<name>", at.annotation(MODE));
            (FQDN, "")
        }
        mode => {
            let mode = short(mode.unwrap_or_default());
            let why = format!(
                "routing mode '{mode}' from gameserver {who} is not recognised; expected domain or path, and it has no route until then"
            );
            words.wrong(ProblemKind::BadValue, at.annotation(MODE), why);
            // An empty host, and not none: the host template is for servers that ask for nothing else.
            words.say("host", "", at.annotation(MODE));
            return;
        }
    };
    let list = meta.annotation(key);
    let items = list.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty());
    let hosts: Vec<_> = items.map(|item| format!("{before}{item}")).collect();
    if hosts.is_empty() {
        let expected = "expected a comma list such as example.com,example.gg, and it has no route until then";
        let (kind, why) = match list {
            None => {
                (ProblemKind::Missing, format!("gameserver {who} is missing annotation {key}; {expected}"))
            }
            Some(_) => (
                ProblemKind::BadValue,
                format!("gameserver {who} has annotation {key} but it is empty; {expected}"),
            ),
        };
        words.wrong(kind, at.annotation(key), why);
    }
    words.say("host", hosts.join(","), at.annotation(key));
}

/// Certificates belong to the listener, where a wildcard serves all servers of a domain: only who waits
/// for one of his own is told.
fn tls(meta: &Meta, words: &mut Words, at: At) {
    let is_terminated = match meta.annotation(TERMINATE_TLS) {
        None | Some("") => false,
        Some(text) => truth(text).unwrap_or_else(|| {
            let why = format!(
                "annotation {TERMINATE_TLS} for {} must be \"true\" or \"false\"; {:?} changes nothing",
                meta.name,
                short(text)
            );
            words.wrong(ProblemKind::BadValue, at.annotation(TERMINATE_TLS), why);
            false
        }),
    };
    if !is_terminated {
        return;
    }
    if meta.annotation(TLS_SECRET) == Some("") {
        let why = format!(
            "gameserver {}/{} has annotation {TLS_SECRET} but it is empty; take it out, the listener has the certificate",
            meta.namespace, meta.name
        );
        words.wrong(ProblemKind::BadValue, at.annotation(TLS_SECRET), why);
    }
    if meta.annotation(TLS_ISSUER).is_some_and(|issuer| !issuer.is_empty()) {
        let why = "is not read, and no certificate is asked for: there is no Ingress that cert-manager could see. Give Envoy's listener a certificate for all servers, such as *.example.com, and take this out";
        words.wrong(ProblemKind::UnknownField, at.annotation(TLS_ISSUER), why);
    }
}

/// A server of the gateway backend is served by every Envoy. Its Gateway is an object that is not read.
fn gateway(meta: &Meta, own: &BTreeMap<String, String>, words: &mut Words, at: At) {
    if meta.annotation(BACKEND) != Some("gateway") || own.contains_key(&format!("{PREFIX}gateway")) {
        return;
    }
    if let Some(key) =
        GATEWAY.into_iter().find(|key| meta.annotation(key).is_some_and(|name| !name.is_empty()))
    {
        let why = format!(
            "chooses no Envoys here: every gateway serves the server; to choose, name the Envoys' node clusters in {PREFIX}gateway"
        );
        words.wrong(ProblemKind::UnknownField, at.annotation(key), why);
    }
}
