//! Label selectors, in the grammar of Kubernetes: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Longest selector that is read, in bytes.
const MAX_SELECTOR: usize = 4096;

/// What an object's labels must be. Every part must hold; without any, all do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Is(String),
    IsNot(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} {why}; expected parts such as key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
)]
pub struct BadSelector {
    part: String,
    why: String,
}

impl Selector {
    /// True when an object with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// The selector of all others, where one part says it.
    pub fn inverse(&self) -> Option<Self> {
        let [Requirement { key, test }] = &self.0[..] else { return None };
        let test = match test.clone() {
            Test::Is(value) => Test::IsNot(value),
            Test::IsNot(value) => Test::Is(value),
            Test::In(values) => Test::NotIn(values),
            Test::NotIn(values) => Test::In(values),
            Test::Exists => Test::Absent,
            Test::Absent => Test::Exists,
        };
        Some(Self(vec![Requirement { key: key.clone(), test }]))
    }

    /// The keys that it asks for.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|requirement| requirement.key.as_str())
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let held = labels.get(&self.key);
        match &self.test {
            Test::Is(value) => held == Some(value),
            // As Kubernetes has it: what lacks the label is not equal to anything.
            Test::IsNot(value) => held != Some(value),
            Test::In(values) => held.is_some_and(|held| values.contains(held)),
            Test::NotIn(values) => held.is_none_or(|held| !values.contains(held)),
            Test::Exists => held.is_some(),
            Test::Absent => held.is_none(),
        }
    }

    fn parse(part: &str) -> Result<Self, String> {
        let (key, test) = if let Some(key) = part.strip_prefix('!') {
            (key, Test::Absent)
        } else if let Some((key, value)) = part.split_once("!=") {
            (key, Test::IsNot(self::value(value)?))
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (key, Test::Is(self::value(value)?))
        } else if let Some((head, list)) = part.split_once('(') {
            let list = list.strip_suffix(')').ok_or("has a ( without a ) at its end")?;
            let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
            match head.split_whitespace().collect::<Vec<_>>()[..] {
                [key, "in"] => (key, Test::In(values)),
                [key, "notin"] => (key, Test::NotIn(values)),
                _ => return Err("has neither `in` nor `notin` before its list".to_owned()),
            }
        } else {
            (part, Test::Exists)
        };
        let key = key.trim();
        if !is_key(key) {
            return Err(format!("has {key:?}, which is no key of a label"));
        }
        Ok(Self { key: key.to_owned(), test })
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let bad = |part: &str, why: String| BadSelector { part: part.chars().take(80).collect(), why };
        if text.len() > MAX_SELECTOR {
            return Err(bad(text, format!("has {} characters; at most {MAX_SELECTOR} are read", text.len())));
        }
        if text.trim().is_empty() {
            return Err(bad(text, "names no label".to_owned()));
        }
        let parts = parts(text);
        let parts = parts.map(|part| Requirement::parse(part.trim()).map_err(|why| bad(part, why)));
        parts.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, test }) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::Is(value) => write!(f, "{key}={value}")?,
                Test::IsNot(value) => write!(f, "{key}!={value}")?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// The texts between commas; a comma in brackets parts values.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || is_word(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("has {text:?}, which is no value of a label"))
    }
}

/// An optional DNS prefix, a slash and a name.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    };
    is_word(name) && prefix.is_none_or(is_prefix)
}

/// Up to 63 letters, digits and `- _ .`, with a letter or digit at both ends.
fn is_word(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn selects(text: &str) -> bool {
        let labels = [("app.example.com/fleet", "lobby"), ("version", "v2"), ("empty", "")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let selector: Selector = text.parse().unwrap();
        // What is printed means the same.
        assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        if let Some(inverse) = selector.inverse() {
            assert_ne!(inverse.matches(&labels), selector.matches(&labels), "{inverse}");
            assert_eq!(inverse.inverse().as_ref(), Some(&selector));
        }
        selector.matches(&labels)
    }

    #[test]
    fn selectors_mean_what_they_mean_to_kubernetes() {
        for right in [
            "version=v2",
            "version==v2",
            "version = v2 , empty",
            "version!=v1",
            "missing!=x",
            "version in (v1, v2)",
            "version notin (v1,v3),app.example.com/fleet=lobby",
            "missing notin (a)",
            "empty=",
            "empty in (,x)",
            "!missing,version",
        ] {
            assert!(selects(right), "{right}");
        }
        for wrong in [
            "version=v1",
            "missing=",
            "missing",
            "!version",
            "version notin (v2)",
            "missing in (a)",
            "empty!=",
        ] {
            assert!(!selects(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_selector_is_said() {
        for (bad, why) in [
            ("", "names no label"),
            ("a=b,", "no key of a label"),
            ("=b", "no key of a label"),
            ("a in (b", "without a )"),
            ("a near (b)", "neither `in` nor `notin`"),
            ("a b", "\"a b\", which is no key"),
            ("a=b c", "no value of a label"),
            ("a>1", "no key of a label"),
            ("/a", "no key of a label"),
            ("-a", "no key of a label"),
        ] {
            let said = bad.parse::<Selector>().unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("expected parts such as"), "{bad:?}: {said}");
        }
        assert!("a,".repeat(5000).parse::<Selector>().unwrap_err().to_string().contains("at most 4096"));
        assert!(format!("a={}", "x".repeat(64)).parse::<Selector>().is_err());
    }
}
