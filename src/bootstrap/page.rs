//! Pages for browsers, in the listener's local replies: one for all refusals, and one of an operator's own for hosts
//! that nobody has.
//!
//! They stand in the bootstrap once. A route brings its text and no page, so that a refusal costs a server a sentence.

use std::fmt::Write;

/// Our own page, in Envoy's format of access logs: `%RESP(X)%` is filled in, `%%` is a percent sign.
pub(super) const PAGE: &str = include_str!("page.html");
/// Largest page that is taken, in bytes: the whole of it is in every answer.
pub const MAX_PAGE: usize = 64 << 10;

const UNKNOWN: &str = "body: { inline_string: no server is known here }";

/// What browsers are shown at a host that nobody has, in place of our own page: HTML in UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page(String);

/// Why bytes are not a [`Page`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadPage {
    /// There is nothing in it.
    #[error("is empty; expected HTML in UTF-8")]
    Empty,
    /// More than [`MAX_PAGE`] bytes.
    #[error("has {0} bytes, and is sent whole to everybody who is lost; at most {MAX_PAGE} are taken")]
    Long(usize),
    /// A byte at this offset does not belong to a character.
    #[error("is not UTF-8 at byte {0}; save it as UTF-8")]
    Encoding(usize),
}

impl Page {
    /// Reads a page from the bytes of a file. A byte order mark is left out: the answer says itself that it is UTF-8.
    pub fn read(bytes: &[u8]) -> Result<Self, BadPage> {
        if bytes.len() > MAX_PAGE {
            return Err(BadPage::Long(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|why| BadPage::Encoding(why.valid_up_to()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() { Err(BadPage::Empty) } else { Ok(Self(text.to_owned())) }
    }
}

/// What a browser gets at an unknown host: fields of a mapper, as YAML.
pub(super) fn unknown(page: Option<&Page>) -> String {
    let Some(Page(text)) = page else { return UNKNOWN.to_owned() };
    format!(
        "body_format_override:\n  content_type: text/html; charset=utf-8\n  text_format_source:\n    inline_string: {}",
        quoted(&text.replace('%', "%%"), "      ")
    )
}

/// A text in YAML's double quotes, a line of it a line. Letters stay as they are, all that a reader of YAML could
/// take for something else is escaped (YAML 1.2, section 5.7).
fn quoted(text: &str, depth: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    out.push('"');
    // Spaces at the beginning of a line would be read as its depth, those at its end be folded.
    let mut at_edge = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        at_edge |= matches!(characters.peek(), None | Some('\n' | '\r'));
        match character {
            '\n' if characters.peek().is_some() => {
                _ = write!(out, "\\n\\\n{depth}");
                at_edge = true;
                continue;
            }
            '\n' => out.push_str("\\n"),
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            ' ' if at_edge => {
                out.push_str("\\x20");
                continue;
            }
            ' '..='~' => out.push(character),
            _ if character.is_alphanumeric() => out.push(character),
            _ => _ = write!(out, "\\U{:08x}", u32::from(character)),
        }
        at_edge = false;
    }
    out.push('"');
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bootstrap::{Options, bootstrap};

    /// The text of the page for unknown hosts, as Envoy's YAML has it.
    fn printed(page: &str) -> String {
        let unknown_page = Some(Page::read(page.as_bytes()).unwrap());
        let yaml: Value =
            serde_saphyr::from_str(&bootstrap(&Options { unknown_page, ..Options::default() })).unwrap();
        let manager =
            &yaml["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        let mappers = manager["local_reply_config"]["mappers"].as_array().unwrap();
        let texts: Vec<_> = mappers
            .iter()
            .filter(|mapper| mapper["body_format_override"]["content_type"] == "text/html; charset=utf-8")
            .map(|mapper| {
                mapper["body_format_override"]["text_format_source"]["inline_string"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        let [text] = &texts[..] else { panic!("{texts:?}") };
        text.clone()
    }

    #[test]
    fn a_page_comes_back_from_the_yaml_as_it_was() {
        for page in [
            "x",
            "<!doctype html>\n<p class=\"a\">it's \\ {{page}} {{unknown}} # & * ! | > - : ? </p>\n",
            "  \n \n\t\n  a  \n\n b\t\n",
            "a\r\nb\r\n",
            "\n\na\n\n\n",
            "naïve ☀ 🎮 日本語 \u{a0}\u{85}\u{2028}\u{2029}\u{feff}\u{7f}\u{0}\u{1b}\u{10ffff}",
        ] {
            assert_eq!(printed(page), page, "{page:?}");
        }
        assert_eq!(printed("100% %START_TIME% %%"), "100%% %%START_TIME%% %%%%", "Envoy makes one of two");
        assert_eq!(printed("\u{feff}<p>"), "<p>");
    }

    /// Every character, at every place of a line.
    #[test]
    fn no_character_is_misread() {
        let plane = (0..=0x3000).chain([0xd7ff, 0xe000, 0xfeff, 0xfffd, 0xfffe, 0xffff, 0x1_f3ae]);
        let characters: Vec<char> = plane.filter_map(char::from_u32).filter(|c| *c != '%').collect();
        for part in characters.chunks(2000) {
            let lines: Vec<_> = part.iter().map(|c| format!("x{c}{c}{c}x{c}\n{c}")).collect();
            let page = lines.concat();
            assert_eq!(printed(&page), page);
        }
    }

    #[test]
    fn a_bad_page_says_why() {
        for (bytes, why) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            ("\u{feff}".as_bytes(), "is empty"),
            (b"ab\xff", "not UTF-8 at byte 2"),
            (&vec![b'x'; MAX_PAGE + 1], "has 65537 bytes"),
        ] {
            let error = Page::read(bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(Page::read(&vec![b'x'; MAX_PAGE]).is_ok());
    }

    #[test]
    fn our_own_page_is_there_and_loads_nothing() {
        for word in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(bootstrap(&Options::default()).contains("<h1 dir=\"auto\">%LOCAL_REPLY_BODY%"));
    }
}
