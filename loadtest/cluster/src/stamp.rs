//! Names, uids and times, as the API writes them.

use jiff::{SignedDuration, Timestamp};

/// RFC 1123 subdomain.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            let is_inside =
                |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
            !label.is_empty()
                && label.chars().all(is_inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Five letters, as `generateName` appends them.
pub(crate) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())])).collect()
}

/// A random UUID, version 4.
pub(crate) fn uid() -> String {
    let random = (fastrand::u128(..) & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Now, as `metav1.Time` is written.
pub(crate) fn now() -> String {
    at(0)
}

/// `seconds` from now, as `metav1.Time` is written.
pub(crate) fn at(seconds: i64) -> String {
    let time = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
