//! `on:`: which events a file listens to, and whether this one is among them.

use super::{
    glob::{Glob, Globs, Subject},
    walk::{Table, Walk, shown},
};
use crate::{
    model::trigger::{Event, RefCause, RefEvent},
    yaml::{Kind, Node, Scalar, Span, Value, nearest},
};

/// Every event GitHub and Forgejo know. Those we never see yet are not an error: a file may list
/// them for other servers, and they simply never happen here.
const EVENTS: &[&str] = &[
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "fork",
    "gollum",
    "image_version",
    "issue_comment",
    "issues",
    "label",
    "merge_group",
    "milestone",
    "page_build",
    "public",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "status",
    "watch",
    "workflow_call",
    "workflow_dispatch",
    "workflow_run",
];

const PUSH: Table = Table {
    what: "the `push` event",
    supported: &["branches", "branches-ignore", "tags", "tags-ignore"],
    not_yet: &["paths", "paths-ignore"],
};

const DISPATCH: Table = Table {
    what: "the `workflow_dispatch` event",
    supported: &[],
    not_yet: &["inputs"],
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

/// Reads the value of `on:`.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node) -> Listen {
    let mut listen = Listen::default();
    match &node.value {
        Value::Mapping(entries) => {
            if entries.is_empty() {
                walk.error(node.span, "`on` names no event");
            }
            for (key, value) in entries {
                if walk.plain_key(key) && known(walk, key.span, &key.text) {
                    configure(walk, &mut listen, &key.text, value);
                    listen.events.push(key.text.clone());
                }
            }
        }
        _ => {
            let names = walk.texts(node, "an event of `on`").unwrap_or_default();
            if matches!(&node.value, Value::Sequence(items) if items.is_empty()) {
                walk.error(node.span, "`on` names no event");
            }
            for (node, name) in names {
                if known(walk, node.span, &name) {
                    if name == "push" {
                        listen.push = Some(Push::default());
                    }
                    listen.events.push(name);
                }
            }
        }
    }
    listen
}

fn known(walk: &mut Walk<'_>, at: Span, name: &str) -> bool {
    if EVENTS.contains(&name) {
        return true;
    }
    let help = match nearest(name, EVENTS.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "the events that start runs here are `push` and `workflow_dispatch`".into(),
    };
    walk.error_help(at, format!("unknown event `{}`", shown(name)), help);
    false
}

fn configure(walk: &mut Walk<'_>, listen: &mut Listen, event: &str, value: &Node) {
    let nothing = matches!(&value.value, Value::Scalar(Scalar { kind: Kind::Null, .. }));
    match event {
        "push" => listen.push = Some(if nothing { Push::default() } else { push(walk, value) }),
        "workflow_dispatch" if !nothing => {
            walk.fields(value, &DISPATCH);
        }
        _ => {}
    }
}

fn push(walk: &mut Walk<'_>, node: &Node) -> Push {
    let Some(fields) = walk.fields(node, &PUSH) else {
        return Push::default();
    };
    let mut filter = |only: &str, except: &str| {
        let (positive, negative) = (fields.entry(only), fields.entry(except));
        if let (Some(_), Some((key, _))) = (positive, negative) {
            walk.error_help(
                key.span,
                format!("`{only}` and `{except}` cannot both be given"),
                format!("put `!` before the patterns to exclude, under `{only}`"),
            );
        }
        match (positive, negative) {
            (Some((_, node)), _) => Some(Filter::Only(globs(walk, node, only))),
            (None, Some((_, node))) => Some(Filter::Except(globs(walk, node, except))),
            (None, None) => None,
        }
    };
    Push {
        branches: filter("branches", "branches-ignore"),
        tags: filter("tags", "tags-ignore"),
    }
}

fn globs(walk: &mut Walk<'_>, node: &Node, what: &str) -> Globs {
    let patterns = walk.texts(node, &format!("a pattern of `{what}`")).unwrap_or_default();
    let mut globs = Vec::new();
    for (node, pattern) in patterns {
        match Glob::new(&pattern, Subject::Ref) {
            Ok(glob) => globs.push(glob),
            Err(reason) => walk.error(node.span, format!("`{}` is not a pattern: {reason}", shown(&pattern))),
        }
    }
    Globs::new(globs)
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
