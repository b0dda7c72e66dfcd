//! The templates of Octops' custom annotations, as far as they are used: `{{ .Name }}` and `{{ .Port }}`,
//! with any spaces and with the trim markers of Go's `text/template`.

use std::borrow::Cow;

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// The text with the server's name and port in it; `None` when it has any other action.
///
/// As in Octops, a text is only a template when it has both `{{` and `}}`.
pub(super) fn fill<'a>(text: &'a str, name: &str, port: &str) -> Option<Cow<'a, str>> {
    if !(text.contains("{{") && text.contains("}}")) {
        return Some(Cow::Borrowed(text));
    }
    let mut filled = String::with_capacity(text.len());
    let (mut rest, mut is_trimmed) = (text, false);
    while let Some((before, behind)) = rest.split_once("{{") {
        let (action, behind) = behind.split_once("}}")?;
        // `{{- ` takes the spaces before it, ` -}}` those behind it.
        let inner = action.strip_prefix('-').filter(|inner| inner.starts_with(SPACES));
        let before = if is_trimmed { before.trim_start_matches(SPACES) } else { before };
        filled.push_str(if inner.is_some() { before.trim_end_matches(SPACES) } else { before });
        let action = inner.unwrap_or(action);
        let inner = action.strip_suffix('-').filter(|inner| inner.ends_with(SPACES));
        is_trimmed = inner.is_some();
        match inner.unwrap_or(action).trim_matches(SPACES) {
            ".Name" => filled.push_str(name),
            ".Port" => filled.push_str(port),
            _ => return None,
        }
        rest = behind;
    }
    filled.push_str(if is_trimmed { rest.trim_start_matches(SPACES) } else { rest });
    Some(Cow::Owned(filled))
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn names_and_ports_are_put_in() {
        for (text, expected) in [
            ("/", Some("/")),
            ("", Some("")),
            ("{{", Some("{{")),
            ("}}", Some("}}")),
            ("/{{ .Name }}", Some("/lobby-1")),
            ("/{{.Name}}/{{   .Port\t}}", Some("/lobby-1/7123")),
            ("a {{- .Name -}} b", Some("alobby-1b")),
            ("a {{- .Name }} b", Some("alobby-1 b")),
            ("a {{ .Name -}} \n {{ .Port }}", Some("a lobby-17123")),
            ("}}{{ .Name }}", Some("}}lobby-1")),
            ("{{ .Name", Some("{{ .Name")),
            ("}}{{ .Name", None),
            ("{{-.Name}}", None),
            ("{{.Name-}}", None),
            ("{{ .Nope }}", None),
            ("{{ printf \"%d\" .Port }}", None),
            ("{{}}", None),
            ("{{-}}", None),
            ("{{ - }}", None),
            ("{{ .Name }}{{ if .Port }}", None),
        ] {
            assert_eq!(fill(text, "lobby-1", "7123").as_deref(), expected, "{text:?}");
        }
    }
}
