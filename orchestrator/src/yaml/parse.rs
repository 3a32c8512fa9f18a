//! YAML text → the tree: events of a span-keeping parser, with the limits that keep a hostile file
//! cheap. Equal keys, merge keys and foreign tags are errors; aliases are expanded within a budget.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{
    MAX_FILE,
    tree::{Key, Kind, Mark, Node, Scalar, Value, resolve},
};

/// How deep lists and mappings may nest.
pub(super) const MAX_DEPTH: usize = 50;
/// Values of one file, aliases expanded.
pub(super) const MAX_NODES: usize = 50_000;
/// Bytes of text of one file, aliases expanded.
const MAX_TEXT: usize = 4 << 20;
/// Equal keys are collected up to here.
const MAX_ERRORS: usize = 10;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub mark: Mark,
    pub message: String,
}

/// Reads one document.
pub(super) fn parse(source: &str) -> Result<Node, Vec<Fault>> {
    if source.len() > MAX_FILE {
        let message = format!("the file is longer than {MAX_FILE} bytes");
        return Err(vec![Fault {
            mark: Mark::START,
            message,
        }]);
    }
    let mut builder = Builder::default();
    let options = granit_parser::options! { emit_comments: false };
    for next in Parser::new_from_str_with_options(source, options) {
        let step = match next {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => Err(unreadable(&error)),
        };
        if let Err(fault) = step {
            builder.faults.push(fault);
            break;
        }
    }
    match builder.root {
        Some(root) if builder.faults.is_empty() => Ok(root),
        None if builder.faults.is_empty() => Err(vec![Fault {
            mark: Mark::START,
            message: "the file is empty".into(),
        }]),
        _ => Err(builder.faults),
    }
}

fn unreadable(error: &ScanError) -> Fault {
    Fault {
        mark: mark(*error.marker()),
        message: format!("this is not valid YAML: {}", error.info()),
    }
}

/// The parser counts lines from 1 and columns from 0.
fn mark(marker: Marker) -> Mark {
    Mark {
        line: u32::try_from(marker.line().max(1)).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
    }
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
    text: usize,
    faults: Vec<Fault>,
}

struct Frame {
    mark: Mark,
    anchor: usize,
    open: Open,
}

enum Open {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<(Key, Node)>,
        key: Option<Key>,
        seen: HashSet<String>,
    },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Fault> {
        let at = mark(span.tag_start().unwrap_or(span.start));
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(fault(at, "a workflow file is one YAML document; this begins another"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let kind = typed(&text, plain, tag.as_deref(), at)?;
                let is_merge = plain && text == "<<";
                let span = span.byte_range().unwrap_or(0..0);
                self.add(at, 1, text.len())?;
                self.place(at, anchor, Value::Scalar(Scalar { kind, span }), is_merge)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                expect_tag(tag.as_deref(), "seq", at)?;
                self.open(at, anchor, Open::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                expect_tag(tag.as_deref(), "map", at)?;
                self.open(
                    at,
                    anchor,
                    Open::Mapping {
                        entries: Vec::new(),
                        key: None,
                        seen: HashSet::new(),
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let value = match frame.open {
                        Open::Sequence(items) => Value::Sequence(items),
                        Open::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.place(frame.mark, frame.anchor, value, false)?;
                }
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err(fault(at, "this alias stands inside the value it names"));
                };
                let (nodes, text) = target.size();
                if self.stack.len() + target.depth() > MAX_DEPTH {
                    return Err(too_deep(at));
                }
                // Before the copy, so that a bomb costs nothing.
                self.nodes += nodes;
                self.text += text;
                self.within_budget(at)?;
                let value = target.value.clone();
                self.place(at, 0, value, false)?;
            }
            Event::UnresolvedAlias(name) => return Err(fault(at, &format!("there is no anchor `&{name}` above this"))),
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, at: Mark, nodes: usize, text: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        self.text += text;
        self.within_budget(at)
    }

    fn within_budget(&self, at: Mark) -> Result<(), Fault> {
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            return Err(fault(
                at,
                &format!("the file holds more than {MAX_NODES} values or {MAX_TEXT} bytes of text, aliases expanded"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, at: Mark, anchor: usize, open: Open) -> Result<(), Fault> {
        self.add(at, 1, 0)?;
        if self.stack.len() + 1 > MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.stack.push(Frame { mark: at, anchor, open });
        Ok(())
    }

    /// Puts a finished value where it belongs: document, list, key or value of a mapping.
    fn place(&mut self, at: Mark, anchor: usize, value: Value, is_merge: bool) -> Result<(), Fault> {
        let node = Node { mark: at, value };
        if anchor != 0 {
            let (nodes, text) = node.size();
            self.add(at, nodes, text)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::Sequence(items) => items.push(node),
            Open::Mapping { entries, key, seen } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let (text, span) = key_text(&node)?;
                    if is_merge {
                        return Err(fault(
                            at,
                            "the merge key `<<` is not supported; repeat the entries or alias the whole value",
                        ));
                    }
                    if !seen.insert(text.clone()) && self.faults.len() < MAX_ERRORS {
                        self.faults.push(fault(at, &format!("`{text}` is already defined")));
                    }
                    *key = Some(Key { mark: at, text, span });
                }
            },
        }
        Ok(())
    }
}

fn key_text(node: &Node) -> Result<(String, Range<usize>), Fault> {
    match &node.value {
        Value::Scalar(scalar) => Ok((scalar.text().into_owned(), scalar.span.clone())),
        _ => Err(fault(node.mark, &format!("a key must be a text, not {}", node.noun()))),
    }
}

fn fault(mark: Mark, message: &str) -> Fault {
    Fault {
        mark,
        message: message.into(),
    }
}

fn too_deep(at: Mark) -> Fault {
    fault(at, &format!("lists and mappings nest deeper than {MAX_DEPTH}"))
}

/// The type an explicit tag asks for, else what the core schema says of a plain scalar.
fn typed(text: &str, plain: bool, tag: Option<&Tag>, at: Mark) -> Result<Kind, Fault> {
    let wide = |()| fault(at, &format!("the number `{text}` does not fit into 32 bits"));
    let Some(tag) = tag else {
        return if plain {
            resolve(text).map_err(wide)
        } else {
            Ok(Kind::Text(text.into()))
        };
    };
    let kind = resolve(text).map_err(wide)?;
    let fits = match core_tag(tag) {
        Some("str") => return Ok(Kind::Text(text.into())),
        Some("null") => kind == Kind::Null,
        Some("bool") => matches!(kind, Kind::Bool(_)),
        Some("int") => matches!(kind, Kind::Number(n) if n.fract() == 0.0) && !text.contains(['.', 'e', 'E']),
        Some("float") => matches!(kind, Kind::Number(_)),
        _ => return Err(foreign_tag(tag, at)),
    };
    if fits {
        return Ok(kind);
    }
    Err(fault(
        at,
        &format!("the value `{text}` is not valid for the tag `!!{}`", tag.suffix()),
    ))
}

fn core_tag(tag: &Tag) -> Option<&str> {
    // The non-specific tag `!` makes a text of any scalar.
    let bare = matches!((tag.handle(), tag.suffix()), ("", "!") | ("!", ""));
    if bare { Some("str") } else { tag.core_suffix() }
}

fn expect_tag(tag: Option<&Tag>, core: &str, at: Mark) -> Result<(), Fault> {
    match tag {
        Some(tag) if core_tag(tag) != Some(core) => Err(foreign_tag(tag, at)),
        _ => Ok(()),
    }
}

fn foreign_tag(tag: &Tag, at: Mark) -> Fault {
    fault(
        at,
        &format!("the tag `{}{}` cannot be used here", tag.handle(), tag.suffix()),
    )
}
