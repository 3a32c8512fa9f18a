//! The configuration's text as a small tree that knows where everything stands, so that every message
//! can point at its place. Anchors, aliases and tags are refused: a configuration has no need of them.

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::problem::Place;

/// Deepest nesting; the configuration itself needs five.
const MAX_DEPTH: usize = 16;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing was written: the same as leaving the key out.
    Nothing,
    /// A scalar's text.
    Scalar {
        text: String,
        /// Written without quotes, so that it may also be a number or a truth value.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
}

impl Node {
    /// The value of a key of a mapping; none where it is left out or empty, and for everything else.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(known, value)| known.text == key && !matches!(value.value, Value::Nothing))
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Scalar { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Text that is not one plain document.
#[derive(Debug)]
pub(super) struct NotYaml {
    pub(super) place: Place,
    pub(super) reason: String,
}

/// Reads the whole text.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
    };
    let (mut root, mut documents) = (None, 0);
    while let Some((event, span)) = builder.next()? {
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(refuse(
                        span,
                        "a configuration is one document, but a second one begins here",
                    ));
                }
            }
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(..) => {
                root = Some(builder.node(event, span, 0)?);
            }
            _ => {}
        }
    }
    Ok(root.unwrap_or(Node {
        place: Place::start(),
        value: Value::Nothing,
    }))
}

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
}

fn refuse(span: Span, reason: &str) -> NotYaml {
    NotYaml {
        place: place(span),
        reason: reason.to_owned(),
    }
}

fn place(span: Span) -> Place {
    let range = span.byte_range().unwrap_or(0..0);
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
        offset: range.start,
        length: range.end.saturating_sub(range.start),
    }
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, NotYaml> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(error)) => Err(NotYaml {
                place: Place {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                    offset: error.marker().byte_offset().unwrap_or(0),
                    length: 0,
                },
                reason: error.info(),
            }),
        }
    }

    /// The next event of a collection that was begun.
    fn inside(&mut self, start: Span) -> Result<(Event<'a>, Span), NotYaml> {
        self.next()?.ok_or_else(|| refuse(start, "this never ends"))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, NotYaml> {
        if event.anchor_id().is_some() || event.is_alias() {
            return Err(refuse(
                span,
                "anchors and aliases are not allowed here: write the value out",
            ));
        }
        if event.tag().is_some() {
            return Err(refuse(span, "tags are not allowed here"));
        }
        if depth > MAX_DEPTH {
            return Err(refuse(span, "this is nested too deeply"));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                if plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
                    Value::Nothing
                } else {
                    Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    }
                }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, inner) = self.inside(span)?;
                    if matches!(event, Event::SequenceEnd) {
                        break Value::List(items);
                    }
                    items.push(self.node(event, inner, depth + 1)?);
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    let (event, inner) = self.inside(span)?;
                    let text = match event {
                        Event::MappingEnd => break Value::Map(entries),
                        Event::Scalar(text, ..) => text.into_owned(),
                        _ => return Err(refuse(inner, "a key must be a single word")),
                    };
                    let key = Key {
                        place: place(inner),
                        text,
                    };
                    let (event, inner) = self.inside(span)?;
                    entries.push((key, self.node(event, inner, depth + 1)?));
                }
            }
            _ => return Err(refuse(span, "a value was expected here")),
        };
        Ok(Node {
            place: place(span),
            value,
        })
    }
}
