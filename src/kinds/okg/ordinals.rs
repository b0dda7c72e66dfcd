//! The numbers of a set's servers: the first `replicas` of them, without those that are reserved.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::GameServerSet;

/// The annotation with the reserved numbers that OpenKruiseGame applied last, such as `3,5-7`.
pub(super) const RESERVE_IDS: &str = "game.kruise.io/reserve-ids";
/// Most entries that are read of a set's reserved numbers.
const MAX_RESERVED: usize = 100_000;

/// How many servers a set wants.
pub(super) fn count(set: &GameServerSet) -> u64 {
    set.spec.replicas.try_into().unwrap_or_default()
}

/// The number of a set's server, from its name.
pub(super) fn of(name: &str, set: &str) -> Option<u64> {
    let digits = name.strip_prefix(set)?.strip_prefix('-')?;
    // No other number has this name: "07" is none.
    digits.parse().ok().filter(|ordinal: &u64| ordinal.to_string() == digits)
}

/// Numbers that a set leaves out. Ranges stay ranges: `"0-2000000000"` is one entry.
#[derive(Debug, Default)]
pub(super) struct Reserved(Vec<RangeInclusive<u64>>);

impl Reserved {
    /// What a set reserves: in `spec.reserveGameServerIds`, and in what was applied last. What is neither a
    /// number nor a range is passed over, as OpenKruiseGame does.
    pub(super) fn of(set: &GameServerSet) -> Self {
        let ids = set.spec.reserve_game_server_ids.iter().filter_map(|id| match id {
            Value::Number(number) => number.as_u64().map(|id| id..=id),
            Value::String(text) => range(text),
            _ => None,
        });
        let applied = set.metadata.annotation(RESERVE_IDS).unwrap_or_default().split(',').filter_map(range);
        let mut ranges: Vec<_> = ids.chain(applied).take(MAX_RESERVED).collect();
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u64>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The first `count` numbers that are not reserved.
    pub(super) fn free(self, count: u64) -> impl Iterator<Item = u64> {
        let mut ranges = self.0.into_iter().peekable();
        let mut next = Some(0);
        let numbers = std::iter::from_fn(move || {
            let mut at: u64 = next?;
            while let Some(range) = ranges.next_if(|range| *range.start() <= at) {
                at = range.end().checked_add(1)?;
            }
            next = at.checked_add(1);
            Some(at)
        });
        numbers.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// True of a number among the first `count` that are not reserved.
    // O(ranges), not O(count): asked for each of a set's pods.
    pub(super) fn is_within(&self, ordinal: u64, count: u64) -> bool {
        let below = self.0.iter().take_while(|range| *range.start() <= ordinal);
        let mut taken: u64 = 0;
        for range in below {
            if range.contains(&ordinal) {
                return false;
            }
            taken += range.end() - range.start() + 1;
        }
        ordinal - taken < count
    }
}

fn range(text: &str) -> Option<RangeInclusive<u64>> {
    let text = text.trim();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(ids: &Value, applied: &str) -> Reserved {
        let set = serde_json::json!({
            "metadata": { "name": "s", "annotations": { RESERVE_IDS: applied } },
            "spec": { "reserveGameServerIds": ids },
        });
        Reserved::of(&serde_json::from_value(set).expect("a set"))
    }

    #[test]
    fn reserved_numbers_are_left_out() {
        for (ids, applied, expected) in [
            (serde_json::json!(null), "", [0, 1, 2, 3, 4]),
            (serde_json::json!([1, "3-6"]), "", [0, 2, 7, 8, 9]),
            (serde_json::json!(["0-1", "1-2", 2]), "", [3, 4, 5, 6, 7]),
            (serde_json::json!([0, null, -1, "x", "5-1", 1.5, true]), "2,4-5, ,", [1, 3, 6, 7, 8]),
        ] {
            let free: Vec<_> = reserved(&ids, applied).free(5).collect();
            assert_eq!(free, expected, "{ids} {applied}");
            let within: Vec<_> = (0..20).filter(|at| reserved(&ids, applied).is_within(*at, 5)).collect();
            assert_eq!(within, expected, "{ids} {applied}");
        }
    }

    #[test]
    fn a_range_may_be_as_long_as_it_likes() {
        let all = serde_json::json!(["0-18446744073709551615"]);
        assert_eq!(reserved(&all, "").free(5).count(), 0);
        assert!(!reserved(&all, "").is_within(u64::MAX, 5));
        let most = serde_json::json!(["1-18446744073709551614"]);
        assert_eq!(reserved(&most, "").free(5).collect::<Vec<_>>(), [0, u64::MAX]);
        assert!(reserved(&most, "").is_within(u64::MAX, 2));
    }

    #[test]
    fn a_name_has_one_number() {
        assert_eq!(of("s-7", "s"), Some(7));
        for other in ["s-07", "s-+7", "s", "s-", "t-7", "s-7-1", "s-99999999999999999999"] {
            assert_eq!(of(other, "s"), None, "{other}");
        }
    }
}
