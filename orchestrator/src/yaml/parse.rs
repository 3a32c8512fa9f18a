//! Text → tree: events of a span-keeping parser, with the limits that keep a hostile text cheap. Aliases are expanded
//! within a budget; merge keys, equal keys and foreign tags are errors that do not end the reading.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span as ParserSpan, Tag};

use crate::foreign_text::one_line;

use super::{
    scalar::{Kind, resolve},
    tree::{Key, Node, Scalar, Span, Value},
};

/// What does not end the reading is collected up to here; the rest is counted.
const MAX_FAULTS: usize = 200;

/// The longest tag that is read: the parser makes each from its prefix, which may be as long as the text.
const MAX_TAG: usize = 1024;

/// How much of YAML a text may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// All that workflow files may: anchors, aliases, tags of the core schema. Equal keys are refused here.
    Full,
    /// Neither anchors nor aliases nor tags; a configuration has no need of them. Equal keys are left to the reader, who
    /// goes on and finds what else is wrong.
    Plain,
}

/// What a text may be.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What it is, for messages: `a workflow file`.
    pub what: &'static str,
    /// How much of YAML it may use.
    pub dialect: Dialect,
    /// How deep lists and mappings may nest.
    pub max_depth: usize,
    /// Values, aliases expanded.
    pub max_nodes: usize,
    /// Bytes of text, aliases expanded.
    pub max_text: usize,
}

/// What kind of thing is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is no YAML.
    Syntax,
    /// A key stands twice in one mapping.
    DuplicateKey,
    /// The merge key `<<`.
    MergeKey,
    /// A tag that is not of the core schema, or that does not fit its value.
    Tag,
    /// A number that fits into nothing.
    Number,
    /// It holds more than the rules let it.
    TooLarge,
    /// It nests deeper than the rules let it.
    TooDeep,
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Of which kind.
    pub kind: FaultKind,
    /// Where.
    pub span: Span,
    /// What.
    pub message: String,
}

/// What a text holds, as far as it could be read.
#[derive(Debug)]
pub struct Document {
    /// The tree; of equal keys the first. None when there is no document, or when it could not be read to its end.
    pub root: Option<Node>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// How many more faults there are.
    pub omitted: usize,
    /// How many values it holds, aliases expanded: what a walk through the tree costs.
    pub nodes: usize,
}

/// Reads one document; `None` when there is none.
///
/// # Errors
/// With what is wrong.
pub fn parse(source: &str, rules: &Rules) -> Result<Option<Node>, Vec<Fault>> {
    let document = read(source, rules);
    match document.faults.is_empty() {
        true => Ok(document.root),
        false => Err(document.faults),
    }
}

/// Reads one document and goes on behind what is wrong, where it can: a reader finds the rest of what is wrong in the
/// tree.
#[must_use]
pub fn read(source: &str, rules: &Rules) -> Document {
    let mut builder = Builder {
        rules: *rules,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        documents: 0,
        nodes: 0,
        text: 0,
        faults: Vec::new(),
        omitted: 0,
    };
    let options = granit_parser::options! { emit_comments: false };
    for next in Parser::new_from_str_with_options(source, options) {
        let step = match next {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => Err(unreadable(&error)),
        };
        if let Err(fault) = step {
            builder.faults.push(fault);
            builder.root = None;
            break;
        }
    }
    Document {
        root: builder.root,
        faults: builder.faults,
        omitted: builder.omitted,
        nodes: builder.nodes,
    }
}

fn unreadable(error: &ScanError) -> Fault {
    Fault {
        kind: FaultKind::Syntax,
        span: span(*error.marker(), error.marker().byte_offset().unwrap_or(0)..0),
        message: format!("this is not valid YAML: {}", one_line(&error.info(), 200)),
    }
}

/// The parser counts lines from 1 and columns from 0.
fn span(marker: Marker, bytes: Range<usize>) -> Span {
    Span {
        line: u32::try_from(marker.line().max(1)).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
        offset: bytes.start,
        length: bytes.end.saturating_sub(bytes.start),
    }
}

struct Builder {
    rules: Rules,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
    text: usize,
    faults: Vec<Fault>,
    omitted: usize,
}

struct Frame {
    span: Span,
    anchor: usize,
    open: Open,
}

enum Open {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<(Key, Node)>,
        key: Option<Key>,
        seen: HashSet<String>,
        /// The value of a key that does not count.
        skip: bool,
    },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, found: &ParserSpan) -> Result<(), Fault> {
        let bytes = found.byte_range().unwrap_or(0..0);
        let at = span(found.tag_start().unwrap_or(found.start), bytes.clone());
        if self.rules.dialect == Dialect::Plain {
            plain_only(&event, at)?;
        }
        if let Some(tag) = event.tag()
            && tag.handle().len() + tag.suffix().len() > MAX_TAG
        {
            return Err(foreign_tag(tag, at));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = format!("{} is one YAML document; this begins another", self.rules.what);
                    return Err(fault(FaultKind::Syntax, at, &message));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let kind = self.kind(&text, plain, tag.as_deref(), at);
                let is_merge = plain && text == "<<" && self.rules.dialect == Dialect::Full;
                self.add(at, 1, text.len())?;
                let scalar = Scalar {
                    kind,
                    written: text.into_owned(),
                    plain,
                    bytes,
                };
                self.put(at, anchor, Value::Scalar(scalar), is_merge)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.expect_tag(tag.as_deref(), "seq", at);
                self.open(at, anchor, Open::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.expect_tag(tag.as_deref(), "map", at);
                self.open(
                    at,
                    anchor,
                    Open::Mapping {
                        entries: Vec::new(),
                        key: None,
                        seen: HashSet::new(),
                        skip: false,
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let value = match frame.open {
                        Open::Sequence(items) => Value::Sequence(items),
                        Open::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.put(frame.span, frame.anchor, value, false)?;
                }
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err(fault(
                        FaultKind::Syntax,
                        at,
                        "this alias stands inside the value it names",
                    ));
                };
                let (nodes, text) = target.size();
                if self.stack.len() + target.depth() > self.rules.max_depth {
                    return Err(self.too_deep(at));
                }
                // Before the copy, so that a bomb costs nothing.
                self.nodes += nodes;
                self.text += text;
                self.within_budget(at)?;
                let value = target.value.clone();
                self.put(at, 0, value, false)?;
            }
            Event::UnresolvedAlias(name) => {
                let message = format!("there is no anchor `&{}` above this", one_line(&name, 80));
                return Err(fault(FaultKind::Syntax, at, &message));
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, at: Span, nodes: usize, text: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        self.text += text;
        self.within_budget(at)
    }

    fn within_budget(&self, at: Span) -> Result<(), Fault> {
        let Rules {
            max_nodes, max_text, ..
        } = self.rules;
        if self.nodes > max_nodes || self.text > max_text {
            return Err(fault(
                FaultKind::TooLarge,
                at,
                &format!("the file holds more than {max_nodes} values or {max_text} bytes of text, aliases expanded"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, at: Span, anchor: usize, open: Open) -> Result<(), Fault> {
        self.add(at, 1, 0)?;
        if self.stack.len() + 1 > self.rules.max_depth {
            return Err(self.too_deep(at));
        }
        self.stack.push(Frame { span: at, anchor, open });
        Ok(())
    }

    fn too_deep(&self, at: Span) -> Fault {
        fault(
            FaultKind::TooDeep,
            at,
            &format!("lists and mappings nest deeper than {}", self.rules.max_depth),
        )
    }

    fn kind(&mut self, text: &str, plain: bool, tag: Option<&Tag>, at: Span) -> Kind {
        match self.rules.dialect {
            Dialect::Full => typed(text, plain, tag, at).unwrap_or_else(|fault| {
                self.note(fault);
                Kind::Text
            }),
            // Numbers are read where one is wanted.
            Dialect::Plain if plain => resolve(text).unwrap_or(Kind::Text),
            Dialect::Plain => Kind::Text,
        }
    }

    fn expect_tag(&mut self, tag: Option<&Tag>, core: &str, at: Span) {
        if let Some(tag) = tag.filter(|tag| core_tag(tag) != Some(core)) {
            self.note(foreign_tag(tag, at));
        }
    }

    /// Something wrong that does not keep the rest from being read.
    fn note(&mut self, fault: Fault) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        } else {
            self.omitted += 1;
        }
    }

    /// Puts a finished value where it belongs: document, list, key or value of a mapping.
    fn put(&mut self, at: Span, anchor: usize, value: Value, is_merge: bool) -> Result<(), Fault> {
        let node = Node { span: at, value };
        if anchor != 0 {
            let (nodes, text) = node.size();
            self.add(at, nodes, text)?;
            self.anchors.insert(anchor, node.clone());
        }
        let unique = self.rules.dialect == Dialect::Full;
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::Sequence(items) => items.push(node),
            Open::Mapping {
                entries,
                key,
                seen,
                skip,
            } => match key.take() {
                Some(_) if std::mem::take(skip) => {}
                Some(key) => entries.push((key, node)),
                None => {
                    let (text, bytes) = key_text(&node, self.rules.dialect)?;
                    let wrong = if is_merge {
                        Some(fault(
                            FaultKind::MergeKey,
                            at,
                            "the merge key `<<` is not supported; repeat the entries or alias the whole value",
                        ))
                    } else if unique && !seen.insert(text.clone()) {
                        Some(fault(
                            FaultKind::DuplicateKey,
                            at,
                            &format!("`{}` is already defined", one_line(&text, 80)),
                        ))
                    } else {
                        None
                    };
                    *skip = wrong.is_some();
                    *key = Some(Key { span: at, text, bytes });
                    if let Some(wrong) = wrong {
                        self.note(wrong);
                    }
                }
            },
        }
        Ok(())
    }
}

fn key_text(node: &Node, dialect: Dialect) -> Result<(String, Range<usize>), Fault> {
    match &node.value {
        Value::Scalar(scalar) if dialect == Dialect::Plain => Ok((scalar.written.clone(), scalar.bytes.clone())),
        Value::Scalar(scalar) => Ok((scalar.text().into_owned(), scalar.bytes.clone())),
        _ => Err(fault(
            FaultKind::Syntax,
            node.span,
            &format!("a key must be a text, not {}", node.noun()),
        )),
    }
}

fn fault(kind: FaultKind, span: Span, message: &str) -> Fault {
    Fault {
        kind,
        span,
        message: message.into(),
    }
}

/// Refuses what a plain dialect leaves out.
fn plain_only(event: &Event<'_>, at: Span) -> Result<(), Fault> {
    if event.anchor_id().is_some() || event.is_alias() {
        return Err(fault(
            FaultKind::Syntax,
            at,
            "anchors and aliases are not allowed here: write the value out",
        ));
    }
    if event.tag().is_some() {
        return Err(fault(FaultKind::Tag, at, "tags are not allowed here"));
    }
    Ok(())
}

/// The type an explicit tag asks for, else what the core schema says of a plain scalar.
fn typed(text: &str, plain: bool, tag: Option<&Tag>, at: Span) -> Result<Kind, Fault> {
    let wide = |()| {
        fault(
            FaultKind::Number,
            at,
            &format!("the number `{}` does not fit into 32 bits", one_line(text, 80)),
        )
    };
    let Some(tag) = tag else {
        return if plain {
            resolve(text).map_err(wide)
        } else {
            Ok(Kind::Text)
        };
    };
    let kind = resolve(text).map_err(wide)?;
    let fits = match core_tag(tag) {
        Some("str") => return Ok(Kind::Text),
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
        FaultKind::Tag,
        at,
        &format!(
            "the value `{}` is not valid for the tag `!!{}`",
            one_line(text, 80),
            one_line(tag.suffix(), 80)
        ),
    ))
}

fn core_tag(tag: &Tag) -> Option<&str> {
    // The non-specific tag `!` makes a text of any scalar.
    let bare = matches!((tag.handle(), tag.suffix()), ("", "!") | ("!", ""));
    if bare { Some("str") } else { tag.core_suffix() }
}

fn foreign_tag(tag: &Tag, at: Span) -> Fault {
    // The beginning is enough to be cut; the whole may be long.
    let name: String = tag.handle().chars().chain(tag.suffix().chars()).take(81).collect();
    fault(
        FaultKind::Tag,
        at,
        &format!("the tag `{}` cannot be used here", one_line(&name, 80)),
    )
}
