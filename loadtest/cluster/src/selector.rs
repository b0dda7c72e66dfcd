//! Label and field selectors: which objects a list or a watch is about.

use std::collections::BTreeMap;

use crate::refusal::Refusal;

/// An object's labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a list or a watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<(Field, bool, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selection {
    /// Reads both selectors of a request.
    pub(crate) fn parse(
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Refusal> {
        let labels = terms(labels.unwrap_or_default()).map(requirement).collect::<Result<_, _>>()?;
        let fields = terms(fields.unwrap_or_default()).map(field).collect::<Result<_, _>>()?;
        Ok(Self { namespace: namespace.map(str::to_owned), labels, fields })
    }

    /// Whether it may leave objects of the namespace out.
    pub(crate) fn is_narrow(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    pub(crate) fn matches(&self, namespace: &str, name: &str, labels: &Labels) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.fields.iter().all(|(field, is, value)| {
                let held = match field {
                    Field::Name => name,
                    Field::Namespace => namespace,
                };
                (held == value) == *is
            })
            && self.labels.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
        }
    }
}

/// The terms between commas, where a comma in brackets does not count.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |letter| {
        match letter {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        letter == ',' && !inside
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Result<Requirement, Refusal> {
    let refused = || Refusal::of(400, format!("unable to parse requirement: {term:?}"));
    let word = |text: &str| {
        let text = text.trim();
        let is_word = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter));
        is_word.then(|| text.to_owned()).ok_or_else(refused)
    };
    let key = |text: &str| word(text).and_then(|key| if key.is_empty() { Err(refused()) } else { Ok(key) });
    if let Some(absent) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(key(absent)?));
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![word(value)?]));
    }
    if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![word(value)?]));
    }
    if let Some((head, list)) = term.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(refused)?;
        let values = list.split(',').map(word).collect::<Result<Vec<_>, _>>()?;
        let head: Vec<&str> = head.split_whitespace().collect();
        return match head.as_slice() {
            [name, "in"] => Ok(Requirement::In(key(name)?, values)),
            [name, "notin"] => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(refused()),
        };
    }
    Ok(Requirement::Exists(key(term)?))
}

fn field(term: &str) -> Result<(Field, bool, String), Refusal> {
    let (name, is, value) = if let Some((name, value)) = term.split_once("!=") {
        (name, false, value)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, true, value)
    } else {
        return Err(Refusal::of(400, format!("invalid field selector: {term:?}; can't understand it")));
    };
    let field = match name {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        _ => return Err(Refusal::of(400, format!("field label not supported: {name}"))),
    };
    Ok((field, is, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selection::parse(None, Some(selector), None).unwrap().matches("games", "a", &labels)
    }

    #[test]
    fn labels_are_compared_as_the_api_does() {
        let labels = [("game.kruise.io/owner-gss", "arena"), ("tier", "")];
        for right in [
            "",
            "game.kruise.io/owner-gss",
            "game.kruise.io/owner-gss=arena",
            "game.kruise.io/owner-gss==arena,tier=",
            "game.kruise.io/owner-gss in (lobby, arena)",
            "game.kruise.io/owner-gss notin (lobby),tier",
            "!other, other!=x",
        ] {
            assert!(selects(right, &labels), "{right}");
        }
        for wrong in ["other", "tier=x", "!tier", "tier in (x,y)", "tier!=", "other in (a)"] {
            assert!(!selects(wrong, &labels), "{wrong}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        for bad in ["a in (b", "a near (b)", "=b", "a b", "a>1"] {
            assert_eq!(Selection::parse(None, Some(bad), None).unwrap_err().code, 400, "{bad}");
        }
        for bad in ["metadata.name", "spec.replicas=3"] {
            assert_eq!(Selection::parse(None, None, Some(bad)).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn fields_name_an_object() {
        let only = Selection::parse(None, None, Some("metadata.name=a,metadata.namespace!=lab")).unwrap();
        assert!(only.matches("games", "a", &Labels::new()));
        assert!(!only.matches("games", "b", &Labels::new()));
        assert!(!only.matches("lab", "a", &Labels::new()));
    }
}
