//! A network as it was written: a type, and a list of names and values. Nothing is judged here but whether it
//! is such a list.

use serde_json::Value;

use super::{INGRESS_TYPE, NETWORK_CONF, NETWORK_TYPE, OWN_TYPE, SetNetwork};
use crate::kinds::Meta;
use crate::model::{Problem, ProblemKind};
use crate::spec::MAX_ITEMS;

/// Longest `network-conf` that is read, in bytes.
pub(super) const MAX_CONF: usize = 32 << 10;
/// Most entries of one that are read.
pub(super) const MAX_ENTRIES: usize = 512;
/// Most characters of a value that a problem shows.
const MAX_SHOWN: usize = 80;
/// Most names that one problem lists.
const MAX_LISTED: usize = 20;

/// Who is to make a network of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Type {
    /// Nobody.
    #[default]
    None,
    /// OpenKruiseGame makes an Ingress of it.
    Ingress,
    /// We, and nobody else.
    Own,
    /// OpenKruiseGame makes something else of it: host ports, a cloud's load balancer.
    Other,
}

/// One name and value, and which of the list it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    at: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// The list as it was written, and where.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) kind: Type,
    pub(super) field: String,
    pub(super) entries: Vec<Entry>,
    /// What is no such list.
    pub(super) problems: Vec<Problem>,
}

impl Declared {
    /// What the annotations of a pod, or of a template, say; `place` is where they stand.
    pub(super) fn of_annotations(meta: &Meta, place: &str) -> Self {
        let mut declared = Self {
            kind: meta.annotation(NETWORK_TYPE).map_or(Type::None, Type::of),
            field: format!("{place}[\"{NETWORK_CONF}\"]"),
            ..Self::default()
        };
        // Without a type nobody reads the conf.
        let text = meta.annotation(NETWORK_CONF).filter(|_| declared.kind != Type::None).unwrap_or_default();
        if text.len() > MAX_CONF {
            let why = format!("has more than {MAX_CONF} bytes; none of it is read");
            declared.wrong(ProblemKind::TooLarge, declared.field.clone(), why);
        } else if !text.trim().is_empty() {
            match serde_json::from_str(text) {
                Ok(value) => declared.read(&value),
                Err(error) => {
                    let why = format!(
                        "is not JSON ({error}); expected a list such as [{{\"name\":\"Port\",\"value\":\"5000\"}}]. \
                         The pod has no network for OpenKruiseGame either"
                    );
                    declared.wrong(ProblemKind::Unparsable, declared.field.clone(), why);
                }
            }
        }
        declared
    }

    /// Why nobody is routed by it, without an annotation of ours.
    pub(super) fn unclaimed(&self) -> String {
        match self.kind {
            Type::Ingress => crate::kinds::unclaimed(self.class()),
            Type::None => {
                format!("nothing asks for it: no {NETWORK_TYPE} and no tidegate.dev/ annotation")
            }
            Type::Own | Type::Other => {
                "its network is of a type that is not ours, and it has no tidegate.dev/ annotation".to_owned()
            }
        }
    }

    /// What `spec.network` of a set says.
    pub(super) fn of_set(network: &SetNetwork) -> Self {
        let field = "GameServerSet spec.network.networkConf".to_owned();
        let mut declared = Self { kind: Type::of(&network.network_type), field, ..Self::default() };
        declared.read(&network.network_conf);
        declared
    }

    fn read(&mut self, list: &Value) {
        let list = match list {
            Value::Null => return,
            Value::Array(list) => list,
            _ => {
                let why = "is not a list; expected one such as [{\"name\":\"Port\",\"value\":\"5000\"}]";
                self.wrong(ProblemKind::Unparsable, self.field.clone(), why);
                return;
            }
        };
        if list.len() > MAX_ENTRIES {
            let why = format!("has {} entries; the first {MAX_ENTRIES} are read", list.len());
            self.wrong(ProblemKind::TooLarge, self.field.clone(), why);
        }
        for (at, item) in list.iter().take(MAX_ENTRIES).enumerate() {
            let name = self.text(at, item, "name");
            let value = self.text(at, item, "value");
            self.entries.push(Entry { at, name, value });
        }
    }

    /// A text of an entry; one that is left out is empty, as in Go.
    fn text(&mut self, at: usize, item: &Value, key: &str) -> String {
        match item.get(key) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => {
                let field = format!("{}[{at}].{key}", self.field);
                let why = format!("{} is not a text; write it in quotes", shown(&other.to_string()));
                self.wrong(ProblemKind::BadValue, field, why);
                if other.is_number() || other.is_boolean() { other.to_string() } else { String::new() }
            }
        }
    }

    fn wrong(&mut self, kind: ProblemKind, field: String, why: impl Into<String>) {
        self.problems.push(Problem::new(kind, field, why));
    }

    /// All entries of a name, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.name == name)
    }

    /// The entry that counts, where one does.
    pub(super) fn last(&self, name: &str) -> Option<&Entry> {
        self.all(name).last()
    }

    /// How a problem names an entry.
    pub(super) fn at(&self, entry: &Entry) -> String {
        format!("{}[{}] {}", self.field, entry.at, entry.name)
    }

    /// The ingress class, from its own entry or the annotation that was before it.
    pub(super) fn class(&self) -> Option<&str> {
        let named = self.last("IngressClassName").map(|entry| &*entry.value);
        named.or_else(|| {
            self.all("Annotation")
                .filter_map(|entry| entry.value.strip_prefix("kubernetes.io/ingress.class: "))
                .last()
        })
    }

    /// `Fixed`: the address stays while the pod is away.
    pub(super) fn is_fixed(&self) -> bool {
        self.last("Fixed").and_then(|entry| truth(&entry.value)).unwrap_or(false)
    }

    /// `AllowNotReadyContainers`: containers that may be down.
    pub(super) fn allowed(&self) -> Vec<&str> {
        let list = self.last("AllowNotReadyContainers").map(|entry| entry.value.split(','));
        list.into_iter().flatten().map(str::trim).filter(|name| !name.is_empty()).take(MAX_ITEMS).collect()
    }
}

impl Type {
    fn of(name: &str) -> Self {
        match name {
            "" => Self::None,
            INGRESS_TYPE => Self::Ingress,
            OWN_TYPE => Self::Own,
            _ => Self::Other,
        }
    }
}
/// A value that was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) field: String,
    pub(super) text: String,
}

/// Go's `strconv.ParseBool`.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A value as a problem shows it.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Names as a problem lists them, each once; `None` when there are none.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut once: Vec<&str> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    let mut shown: Vec<_> =
        once.iter().take(MAX_LISTED).map(|name| shown(name).trim_matches('"').to_owned()).collect();
    if once.len() > MAX_LISTED {
        shown.push(format!("and {} more", once.len() - MAX_LISTED));
    }
    (!shown.is_empty()).then(|| shown.join(", "))
}
