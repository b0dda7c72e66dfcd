//! How values are read: the nearest object's, up to a length, and what each kind of value may be.

use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

use super::{MAX_ITEMS, MAX_VALUE, PREFIX, Reader};
use crate::model::{Affinity, GameVersion, Priority, ProblemKind, Protocol, Weight};

const MAX_IDLE_TIMEOUT: Duration = Duration::from_hours(30 * 24);

/// A value as it was written, and where.
pub(super) struct Written<'a> {
    pub(super) field: String,
    pub(super) text: &'a str,
    /// More was written than is read, and that was said.
    pub(super) is_long: bool,
}

impl<'a> Reader<'a> {
    /// The nearest value of an annotation, of any length; one that is too long is reported.
    pub(super) fn read(&mut self, key: &str) -> Option<Written<'a>> {
        let full = format!("{PREFIX}{key}");
        let (layer, text) =
            self.facts.layers.iter().find_map(|layer| Some((layer, layer.values.get(&full)?)))?;
        let field = layer.field_of(&full);
        let text = text.trim();
        let is_long = text.len() > MAX_VALUE;
        if is_long {
            let why = format!("has {} bytes; at most {MAX_VALUE} are read", text.len());
            self.wrong(ProblemKind::TooLarge, field.clone(), why);
        }
        Some(Written { field, text, is_long })
    }

    /// The same, but what is too long is passed over: for what has a default that harms nobody.
    pub(super) fn written(&mut self, key: &str) -> Option<Written<'a>> {
        self.read(key).filter(|written| !written.is_long)
    }

    /// The same, but of a comma list that is too long the whole items that fit are left: for what must not
    /// become the default, which would be the root, every gateway or all paths.
    pub(super) fn listed(&mut self, key: &str) -> Option<Written<'a>> {
        let mut written = self.read(key)?;
        if written.is_long {
            let fitting = &written.text[..written.text.floor_char_boundary(MAX_VALUE)];
            written.text = fitting.rsplit_once(',').map_or("", |(whole, _)| whole);
        }
        Some(written)
    }

    pub(super) fn value<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let Written { field, text, .. } = self.written(key)?;
        let value = parse(text);
        if value.is_none() {
            let why = format!("{text:?} is not {expected}; the default is used");
            self.wrong(ProblemKind::BadValue, field, why);
        }
        value
    }

    /// The items of a comma list, each once, in order.
    pub(super) fn items(&mut self, written: &Written<'a>) -> Vec<&'a str> {
        let mut items: Vec<&str> = Vec::new();
        for item in written.text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        if items.len() > MAX_ITEMS {
            // How many a list has that was cut, nobody counted; that it is too long was said.
            if !written.is_long {
                let why = format!("has {} items; the first {MAX_ITEMS} are used", items.len());
                self.wrong(ProblemKind::TooLarge, written.field.clone(), why);
            }
            items.truncate(MAX_ITEMS);
        }
        items
    }
}

pub(super) fn truth(text: &str) -> Option<bool> {
    bool::from_str(text).ok()
}

pub(super) fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "http1" => Some(Protocol::Http1),
        "h2c" => Some(Protocol::H2c),
        "h2" => Some(Protocol::H2),
        "tls" => Some(Protocol::Tls),
        _ => None,
    }
}

pub(super) fn weight(text: &str) -> Option<Weight> {
    text.parse().ok().filter(|weight| *weight <= Weight::MAX).map(Weight)
}

pub(super) fn priority(text: &str) -> Option<Priority> {
    text.parse().ok().filter(|priority| *priority <= Priority::MAX).map(Priority)
}

pub(super) fn affinity(text: &str) -> Option<Affinity> {
    match text {
        "none" => Some(Affinity::None),
        "cookie" => Some(Affinity::Cookie),
        _ => None,
    }
}

pub(super) fn version(text: &str) -> Option<GameVersion> {
    text.parse().ok().filter(|version| *version <= GameVersion::MAX).map(GameVersion)
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    let signed: SignedDuration = text.parse().ok()?;
    let is_said = |duration: &Duration| {
        duration.is_zero() || (Duration::from_secs(1)..=MAX_IDLE_TIMEOUT).contains(duration)
    };
    Duration::try_from(signed).ok().filter(is_said)
}

pub(super) fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| (1..=1_000_000).contains(count))
}
