//! Whom a command is for: servers by name, by label or by fleet.

use super::{Member, Selector};

/// Most names that an error lists.
const SHOWN: usize = 5;

/// A server as people name it: `game-0` or `eu/game-0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its namespace, if it was said.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These.
    Names(Vec<Name>),
    /// All of a fleet, all with these labels, or all of a fleet with these labels.
    Those {
        /// The fleet.
        of: Option<String>,
        /// The labels.
        labels: Option<Selector>,
    },
}

impl Name {
    /// Reads `NAME` or `NAMESPACE/NAME`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace.is_some_and(str::is_empty) {
            return Err(format!(
                "{text:?} names no server; expected NAME or NAMESPACE/NAME, such as game-0 or eu/game-0"
            ));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl Target {
    /// The members that are meant, by their places. `namespace` is that of names which say none; none looks in all.
    pub fn of(&self, members: &[Member], namespace: Option<&str>) -> Result<Vec<usize>, String> {
        let mut found = match self {
            Self::Names(names) => {
                let mut found = Vec::new();
                for name in names {
                    found.extend(named(name, members, namespace)?);
                }
                found
            }
            Self::Those { of, labels } => {
                let is_meant = |member: &Member| {
                    namespace.is_none_or(|namespace| namespace == member.namespace)
                        && of.as_ref().is_none_or(|of| member.fleet.as_ref() == Some(of))
                        && labels.as_ref().is_none_or(|labels| labels.matches(&member.labels))
                };
                let found: Vec<usize> = (0..members.len()).filter(|at| is_meant(&members[*at])).collect();
                if found.is_empty() {
                    return Err(nobody(of.as_deref(), labels.as_ref(), members, namespace));
                }
                found
            }
        };
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn named(name: &Name, members: &[Member], namespace: Option<&str>) -> Result<Vec<usize>, String> {
    let wanted = name.namespace.as_deref().or(namespace);
    let is_inside = |member: &Member| wanted.is_none_or(|wanted| wanted == member.namespace);
    let is_meant = |at: &usize| members[*at].name == name.name && is_inside(&members[*at]);
    let found: Vec<usize> = (0..members.len()).filter(is_meant).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let place = wanted.map_or_else(|| "any namespace".to_owned(), |wanted| format!("namespace {wanted:?}"));
    let elsewhere: Vec<_> = members.iter().filter(|member| member.name == name.name).collect();
    if !elsewhere.is_empty() {
        let names = elsewhere.iter().map(|member| format!("{}/{}", member.namespace, member.name));
        return Err(format!("no server {:?} is in {place}; there is {}", name.name, listed(names)));
    }
    let mut near: Vec<_> = members.iter().filter(|member| is_inside(member)).collect();
    if near.is_empty() {
        return Err(format!(
            "no server {:?} is in {place}, and no other either; {}",
            name.name,
            spaces(members)
        ));
    }
    near.sort_by_key(|member| strsim::damerau_levenshtein(&member.name, &name.name));
    let names = near.iter().take(3).map(|member| member.name.clone());
    Err(format!(
        "no server {:?} is in {place}; the nearest of {} there: {}",
        name.name,
        near.len(),
        listed(names)
    ))
}

fn nobody(
    of: Option<&str>,
    labels: Option<&Selector>,
    members: &[Member],
    namespace: Option<&str>,
) -> String {
    let asked = [
        of.map(|of| format!("--of {of}")),
        labels.map(|labels| format!("-l {labels:?}", labels = labels.to_string())),
    ];
    let asked = asked.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let inside: Vec<_> =
        members.iter().filter(|member| namespace.is_none_or(|space| space == member.namespace)).collect();
    let place = namespace.map_or_else(|| "any namespace".to_owned(), |space| format!("namespace {space:?}"));
    if inside.is_empty() {
        return format!("{asked} matches no server, for none is in {place}; {}", spaces(members));
    }
    let there = match (of, labels) {
        (Some(of), _) if !inside.iter().any(|member| member.fleet.as_deref() == Some(of)) => {
            let mut fleets: Vec<_> = inside.iter().filter_map(|member| member.fleet.clone()).collect();
            fleets.sort();
            fleets.dedup();
            fleets.sort_by_key(|fleet| strsim::damerau_levenshtein(fleet, of));
            format!("its fleets are {}", listed(fleets.into_iter()))
        }
        (_, Some(labels)) => held(labels, &inside),
        _ => String::new(),
    };
    format!("{asked} matches none of the {} servers in {place}; {there}", inside.len())
}

/// What the labels of a selector are on those that there are.
pub(super) fn held(labels: &Selector, members: &[&Member]) -> String {
    let values = labels.keys().map(|key| {
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for value in members.iter().filter_map(|member| member.labels.get(key)) {
            *counts.entry(value).or_default() += 1;
        }
        if counts.is_empty() {
            let mut known: Vec<_> = members.iter().flat_map(|member| member.labels.keys()).collect();
            known.sort();
            known.dedup();
            known.sort_by_key(|known| strsim::damerau_levenshtein(known, key));
            let known = known.into_iter().map(String::to_owned);
            return format!("none has a label {key}; their labels are {}", listed(known));
        }
        let values = counts.into_iter().map(|(value, count)| format!("{key}={value} ({count})"));
        format!("they have {}", listed(values))
    });
    values.collect::<Vec<_>>().join("; ")
}

fn spaces(members: &[Member]) -> String {
    let mut spaces: Vec<_> = members.iter().map(|member| member.namespace.clone()).collect();
    spaces.sort();
    spaces.dedup();
    if spaces.is_empty() {
        return "no server was found at all".to_owned();
    }
    format!("there are servers in {}: name one with -n, or all with -A", listed(spaces.into_iter()))
}

/// The first of a list that may be long.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}
