//! A document as a tree of places: what is written where. Nothing is unescaped but scalars, and nothing is resolved.

use std::borrow::Cow;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};

use super::Identity;

/// Deeper nesting than this is not read, as it is not by the source.
const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Bytes of the text. That of a block begins at its first key or dash; its end is not to be relied on.
    pub(super) at: Range<usize>,
    /// It has an anchor: others may be the same.
    pub(super) has_anchor: bool,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Scalar(Cow<'a, str>, ScalarStyle),
    Map(Vec<(Node<'a>, Node<'a>)>, Style),
    List(Vec<Node<'a>>, Style),
    /// `*name`: what that is stands elsewhere.
    Alias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// By indentation.
    Block,
    /// In brackets.
    Flow,
}

impl From<StructureStyle> for Style {
    fn from(style: StructureStyle) -> Self {
        match style {
            StructureStyle::Block => Self::Block,
            StructureStyle::Flow => Self::Flow,
        }
    }
}

/// The documents of a text, or the line from which on it can't be read.
pub(super) struct Documents<'a> {
    parser: Parser<'a, StrInput<'a>>,
    is_over: bool,
}

type Failure = (usize, String);

impl<'a> Documents<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { parser: Parser::new_from_str(text), is_over: false }
    }

    fn event(&mut self) -> Result<Option<(Event<'a>, Span)>, Failure> {
        for event in self.parser.by_ref() {
            match event {
                Ok((Event::Comment(..), _)) => {}
                Ok(event) => return Ok(Some(event)),
                Err(error) => return Err((error.marker().line(), error.to_string())),
            }
        }
        Ok(None)
    }

    fn document(&mut self) -> Result<Option<Node<'a>>, Failure> {
        while let Some((event, span)) = self.event()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                event => return self.node(event, span, 0).map(Some),
            }
        }
        Ok(None)
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node<'a>, Failure> {
        let line = span.start.line();
        let wrong = |why: &str| (line, why.to_owned());
        if depth > MAX_DEPTH {
            return Err(wrong("it is nested too deeply"));
        }
        let at = span.byte_range().ok_or_else(|| wrong("it has no place"))?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (Value::Scalar(text, style), anchor),
            Event::Alias(_) => (Value::Alias, 0),
            Event::MappingStart(style, anchor, _) => {
                let (mut entries, mut end) = (Vec::new(), at.end);
                while let Some((event, span)) = self.event()? {
                    if matches!(event, Event::MappingEnd) {
                        end = span.byte_range().map_or(end, |at| at.end);
                        break;
                    }
                    let key = self.node(event, span, depth + 1)?;
                    let (event, span) = self.event()?.ok_or_else(|| wrong("a key has no value"))?;
                    entries.push((key, self.node(event, span, depth + 1)?));
                }
                let at = at.start..end;
                return Ok(Node { at, has_anchor: anchor != 0, value: Value::Map(entries, style.into()) });
            }
            Event::SequenceStart(style, anchor, _) => {
                let (mut items, mut end) = (Vec::new(), at.end);
                while let Some((event, span)) = self.event()? {
                    if matches!(event, Event::SequenceEnd) {
                        end = span.byte_range().map_or(end, |at| at.end);
                        break;
                    }
                    items.push(self.node(event, span, depth + 1)?);
                }
                let at = at.start..end;
                return Ok(Node { at, has_anchor: anchor != 0, value: Value::List(items, style.into()) });
            }
            _ => return Err(wrong("it is not understood")),
        };
        Ok(Node { at, has_anchor: anchor != 0, value })
    }
}

impl<'a> Iterator for Documents<'a> {
    type Item = Result<Node<'a>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let document = self.document().transpose();
        self.is_over = !matches!(document, Some(Ok(_)));
        document
    }
}

impl Node<'_> {
    /// The objects of a document: itself, or those of a list as kubectl prints them.
    pub(super) fn objects(&self) -> Vec<&Self> {
        let items = match &self.value {
            Value::List(items, _) => Some(items),
            Value::Map(..) if self.text("kind").is_some_and(|kind| kind.ends_with("List")) => {
                self.entry("items").and_then(|(_, items)| match &items.value {
                    Value::List(items, _) => Some(items),
                    _ => None,
                })
            }
            _ => None,
        };
        items.map_or_else(|| vec![self], |items| items.iter().collect())
    }

    /// Who an object is; none when it does not say so itself.
    pub(super) fn identity(&self) -> Option<Identity> {
        let (_, metadata) = self.entry("metadata")?;
        // A namespace that is merged from elsewhere would be missed here; what is read tells the two apart.
        Some(Identity {
            api_version: self.text("apiVersion")?.to_owned(),
            kind: self.text("kind")?.to_owned(),
            namespace: metadata.text("namespace").unwrap_or("default").to_owned(),
            name: metadata.text("name")?.to_owned(),
        })
    }

    /// The entry of a mapping that is written there itself.
    pub(super) fn entry(&self, key: &str) -> Option<&(Self, Self)> {
        let Value::Map(entries, _) = &self.value else { return None };
        entries.iter().find(|(name, _)| matches!(&name.value, Value::Scalar(text, _) if text == key))
    }

    fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.1.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Where its last character stands, if that can be told: a text in a block has no clear end.
    pub(super) fn last(&self) -> Option<usize> {
        match &self.value {
            Value::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded) => None,
            Value::Map(entries, Style::Block) => entries.last()?.1.last(),
            Value::List(items, Style::Block) => items.last()?.last(),
            _ => Some(self.at.end),
        }
    }
}
