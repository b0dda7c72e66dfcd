//! The annotations that a `networkConf` puts on its Ingress, as far as they say something of routes: those
//! of ingress-nginx, and of Higress and ALB where they mean the same. The rest is for other controllers.

use std::collections::BTreeMap;

use super::declared::{Said, listed, shown};
use crate::model::{Problem, ProblemKind};

/// What they come to.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// `rewrite-target`
    pub(super) rewrite: Option<Said>,
    /// `proxy-read-timeout` or `proxy-send-timeout`, the longer, as `3600s`: both of nginx's end a silent stream.
    pub(super) idle: Option<Said>,
    /// `ssl-redirect: "true"`: to HTTPS where the Ingress has a certificate. nginx does that unasked; here
    /// certificates belong to Envoy's listener, which may have none, so that it has to be written.
    pub(super) redirect: Option<Said>,
    /// `force-ssl-redirect: "true"`: to HTTPS even so.
    pub(super) force_redirect: Option<Said>,
    /// What can't be read.
    pub(super) problems: Vec<Problem>,
}

/// An annotation, by its owners' prefixes and its name.
const KNOWN: [(&[&str], &str); 6] = [
    (&[NGINX, HIGRESS, ALB], "rewrite-target"),
    (&[NGINX, HIGRESS, ALB], "use-regex"),
    (&[NGINX, HIGRESS, ALB], "ssl-redirect"),
    (&[NGINX, HIGRESS], "force-ssl-redirect"),
    (&[NGINX], "proxy-read-timeout"),
    (&[NGINX], "proxy-send-timeout"),
];
const NGINX: &str = "nginx.ingress.kubernetes.io/";
const HIGRESS: &str = "higress.io/";
const ALB: &str = "alb.ingress.kubernetes.io/";
/// What was written for a class before `ingressClassName`; read with the class.
const CLASS: &str = "kubernetes.io/ingress.class";

impl Annotations {
    /// Reads entries of the form `key: value`; the last of a key counts.
    pub(super) fn read(entries: impl Iterator<Item = Said>) -> Self {
        let mut read = Self::default();
        let mut by_key: BTreeMap<String, Said> = BTreeMap::new();
        for entry in entries {
            if let [key, value] = entry.text.split(": ").collect::<Vec<_>>()[..] {
                let said = Said { field: entry.field, text: value.to_owned() };
                by_key.insert(key.to_owned(), said);
            } else {
                let why = format!(
                    "{} is not of the form `key: value`, with one colon and space; OpenKruiseGame refuses that",
                    shown(&entry.text)
                );
                read.problems.push(Problem::new(ProblemKind::BadValue, entry.field, why));
            }
        }
        let mut idle: Option<(u64, Said)> = None;
        let mut ignored: Vec<(&str, &str)> = Vec::new();
        for (key, said) in &by_key {
            match name(key) {
                Some("rewrite-target") => read.rewrite = Some(said.clone()),
                // Paths are told by their form.
                Some("use-regex") => {}
                Some("ssl-redirect") => read.redirect = read.truth(said),
                Some("force-ssl-redirect") => read.force_redirect = read.truth(said),
                Some(_) => match said.text.parse() {
                    Ok(seconds) if idle.as_ref().is_none_or(|(longest, _)| seconds > *longest) => {
                        idle = Some((seconds, said.clone()));
                    }
                    Ok(_) => {}
                    Err(_) => {
                        let why = format!("{} is not a number of seconds; it is ignored", shown(&said.text));
                        read.problems.push(Problem::new(ProblemKind::BadValue, said.field.clone(), why));
                    }
                },
                None if key == CLASS => {}
                None => ignored.push((key, &said.field)),
            }
        }
        read.idle = idle.map(|(seconds, said)| Said { text: format!("{seconds}s"), ..said });
        if let (Some(keys), Some((_, field))) = (listed(ignored.iter().map(|(key, _)| *key)), ignored.first())
        {
            read.problems.push(Problem::new(ProblemKind::UnknownField, *field, format!("ignored: {keys}")));
        }
        read
    }

    /// `Some` when it says true.
    fn truth(&mut self, said: &Said) -> Option<Said> {
        match &*said.text {
            "true" => return Some(said.clone()),
            "false" => {}
            other => {
                let why = format!("{} is not \"true\" or \"false\"; false is used", shown(other));
                self.problems.push(Problem::new(ProblemKind::BadValue, said.field.clone(), why));
            }
        }
        None
    }
}

/// The name of an annotation that is read.
fn name(key: &str) -> Option<&'static str> {
    let (_, name) = KNOWN.into_iter().find(|(prefixes, name)| {
        prefixes.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest == *name))
    })?;
    Some(name)
}
