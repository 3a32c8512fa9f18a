//! `on:`: which events a file listens to, and whether this one is among them.

use super::{
    glob::{Glob, Globs, MAX_PATTERNS, Subject},
    walk::Walk,
};
use crate::{
    model::trigger::{Event, RefCause, RefEvent},
    yaml::{Node, Value},
};

/// What one file listens to.
#[derive(Debug, Default)]
pub(super) struct Listen {
    /// Names of all events, in file order.
    pub events: Vec<String>,
    push: Option<Push>,
}

#[derive(Debug, Default)]
struct Push {
    branches: Option<Filter>,
    tags: Option<Filter>,
}

#[derive(Debug)]
enum Filter {
    Only(Globs),
    Except(Globs),
}

impl Filter {
    fn passes(&self, name: &str) -> bool {
        match self {
            Self::Only(globs) => globs.matches(name),
            Self::Except(globs) => !globs.matches(name),
        }
    }
}

/// Reads the value of `on:`, which was checked before; of one event alone where the walk looks at one.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node) -> Listen {
    let mut listen = Listen::default();
    if let Value::Mapping(entries) = &node.value {
        for (key, value) in entries {
            if key.text == "push" && walk.looks_below("push") {
                listen.push = Some(if value.is_null() {
                    Push::default()
                } else {
                    push(walk, value)
                });
            }
            listen.events.push(key.text.clone());
        }
    } else {
        for (_, name) in walk.texts(node, "an event of `on`").unwrap_or_default() {
            if name == "push" {
                listen.push = Some(Push::default());
            }
            listen.events.push(name);
        }
    }
    listen
}

fn push(walk: &mut Walk<'_>, node: &Node) -> Push {
    let Some(fields) = walk.fields(node, "the `push` event") else {
        return Push::default();
    };
    let mut filter = |only: &str, except: &str| match (fields.get(only), fields.get(except)) {
        (Some(node), _) => Some(Filter::Only(globs(walk, node, only))),
        (None, Some(node)) => Some(Filter::Except(globs(walk, node, except))),
        (None, None) => None,
    };
    Push {
        branches: filter("branches", "branches-ignore"),
        tags: filter("tags", "tags-ignore"),
    }
}

fn globs(walk: &mut Walk<'_>, node: &Node, what: &str) -> Globs {
    let patterns = walk.texts(node, &format!("a pattern of `{what}`")).unwrap_or_default();
    // Too many, or one that is no pattern, was complained about.
    let globs = patterns
        .iter()
        .take(MAX_PATTERNS)
        .filter_map(|(_, pattern)| Glob::new(pattern, Subject::Ref).ok());
    Globs::new(globs.collect())
}

impl Listen {
    /// Why this event is not for the file; `None` when it is.
    pub fn why_not(&self, event: &Event) -> Option<String> {
        let name = event.name();
        if !self.events.iter().any(|e| e == name) {
            return Some(format!("it listens to {}, not to `{name}`", quoted(&self.events)));
        }
        let Event::Ref(RefEvent { ref_name, cause }) = event;
        match cause {
            RefCause::Push { .. } => {
                let push = self.push.as_ref()?;
                let filtered = push.branches.is_some() || push.tags.is_some();
                let (filter, what, short) = match (ref_name.branch(), ref_name.tag()) {
                    (Some(branch), _) => (&push.branches, "branch", branch),
                    (_, Some(tag)) => (&push.tags, "tag", tag),
                    _ => return Some(format!("`{ref_name}` is neither a branch nor a tag")),
                };
                let passes = match filter {
                    Some(filter) => filter.passes(short),
                    // With filters for the other kind alone, this kind never runs.
                    None => !filtered,
                };
                (!passes).then(|| format!("its `push` filters do not let the {what} `{short}` through"))
            }
            RefCause::Manual { .. } => None,
        }
    }
}

fn quoted(names: &[String]) -> String {
    let all: Vec<_> = names.iter().take(5).map(|n| format!("`{n}`")).collect();
    let more = if names.len() > 5 { " and more" } else { "" };
    format!("{}{more}", all.join(", "))
}
