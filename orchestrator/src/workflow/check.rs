//! The strict walk: a tree against the table of the language. It says what is wrong in the order of the file, and
//! names what is right but not acted on here. Each value is looked at once for every form that it may have.

use std::fmt;

use super::{
    code::Code,
    schema::{Allowed, Definition, Kind, Mapping},
    walk::{Walk, quoted_list, shown},
};
use crate::{
    model::diagnostic::Severity,
    yaml::{Key, Kind as ScalarKind, Node, Scalar, Span, Value, nearest},
};

/// Checks a tree against what may stand there.
pub(super) fn check(walk: &mut Walk<'_>, node: &Node, definition: &'static Definition) {
    value(walk, node, definition, Allowed::NONE, &Named::Root);
}

/// As [`check`], of what stands below a key.
pub(super) fn check_below(walk: &mut Walk<'_>, key: &str, node: &Node, definition: &'static Definition) {
    value(walk, node, definition, Allowed::NONE, &Named::Key(key));
}

/// What a value is called.
enum Named<'a> {
    Root,
    Key(&'a str),
    Item(&'a str),
}

impl Named<'_> {
    fn key(&self) -> &str {
        match self {
            Self::Root => "",
            Self::Key(key) | Self::Item(key) => key,
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("a workflow"),
            Self::Key(key) => write!(f, "`{}`", shown(key)),
            Self::Item(key) => write!(f, "an item of `{}`", shown(key)),
        }
    }
}

fn value(walk: &mut Walk<'_>, node: &Node, definition: &'static Definition, around: Allowed, named: &Named<'_>) {
    walk.visit();
    let leaves = definition.leaves(around);
    match &node.value {
        Value::Scalar(scalar) => one_scalar(walk, node.span, scalar, &leaves, named),
        Value::Sequence(items) => {
            if let Some((item, allowed)) = leaves.iter().find_map(|(leaf, allowed)| match &leaf.kind {
                Kind::Sequence(item) => Some((*item, *allowed)),
                _ => None,
            }) {
                for node in items {
                    value(walk, node, item, allowed, &Named::Item(named.key()));
                }
            } else if is_any(&leaves) {
                anything(walk, node, leaves[0].1);
            } else {
                wrong_type(walk, node, &leaves, named);
            }
        }
        Value::Mapping(entries) => {
            let forms: Vec<(&'static Mapping, Allowed)> = leaves
                .iter()
                .filter_map(|(leaf, allowed)| match &leaf.kind {
                    Kind::Mapping(mapping) => Some((mapping, *allowed)),
                    _ => None,
                })
                .collect();
            if !forms.is_empty() {
                mapping(walk, node, entries, forms);
            } else if is_any(&leaves) {
                anything(walk, node, leaves[0].1);
            } else {
                wrong_type(walk, node, &leaves, named);
            }
        }
    }
}

type Leaves = [(&'static Definition, Allowed)];

fn is_any(leaves: &Leaves) -> bool {
    leaves.iter().any(|(leaf, _)| matches!(leaf.kind, Kind::Any))
}

/// A value of no form: only its expressions are checked.
fn anything(walk: &mut Walk<'_>, node: &Node, allowed: Allowed) {
    match &node.value {
        Value::Scalar(scalar) => {
            has_expression(walk, node.span, scalar, allowed);
        }
        Value::Sequence(items) => {
            for item in items {
                walk.visit();
                anything(walk, item, allowed);
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                walk.visit();
                free_key(walk, key, allowed);
                anything(walk, value, allowed);
            }
        }
    }
}

fn one_scalar(walk: &mut Walk<'_>, at: Span, scalar: &Scalar, leaves: &Leaves, named: &Named<'_>) {
    let allowed = leaves.iter().fold(Allowed::NONE, |all, (_, allowed)| all.and(*allowed));
    if has_expression(walk, at, scalar, allowed) || leaves.iter().any(|(leaf, _)| fits(scalar, &leaf.kind)) {
        return;
    }
    let words = leaves.iter().find_map(|(leaf, _)| match &leaf.kind {
        Kind::Word(words) => Some(*words),
        _ => None,
    });
    let empty = matches!(scalar.kind, ScalarKind::Null) || scalar.text().is_empty();
    match words {
        // A file of etcd's says so, and runs.
        Some(words) if words.contains(&"number") && matches!(scalar.text().as_ref(), "int" | "integer") => {
            let message = format!("{named} is `{}`, which only GitHub's service takes", scalar.text());
            walk.report_help(Code::LooseType, at, message, "write `number`");
        }
        _ if walk.is_full() => walk.omit(),
        _ if empty => {
            let message = format!("{named} cannot be empty");
            walk.report_help(
                Code::EmptyValue,
                at,
                message,
                format!("it must be {}", expected(leaves)),
            );
        }
        Some(words) => {
            let text = scalar.text();
            let (code, what) = match named.key() {
                "on" => (Code::UnknownEvent, "event ".to_owned()),
                _ => (Code::UnknownValue, format!("value for {named}: ")),
            };
            let help = match nearest(&text, words.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("possible here: {}", quoted_list(words)),
            };
            walk.report_help(code, at, format!("unknown {what}`{}`", shown(&text)), help);
        }
        None => {
            let noun = match scalar.kind {
                ScalarKind::Bool(_) => "a boolean",
                ScalarKind::Number(_) => "a number",
                ScalarKind::Null | ScalarKind::Text => "a text",
            };
            let message = format!("{named} must be {}, not {noun}", expected(leaves));
            let only = |wanted: fn(&Kind) -> bool| leaves.iter().all(|(leaf, _)| wanted(&leaf.kind));
            let is_quoted_number = !scalar.plain && scalar.text().trim().parse::<f64>().is_ok();
            match only(|kind| matches!(kind, Kind::Boolean)) {
                true if matches!(scalar.text().to_lowercase().as_str(), "yes" | "no" | "on" | "off") => {
                    let help = "YAML 1.2 knows `true` and `false` alone; `yes`, `no`, `on` and `off` are texts";
                    walk.report_help(Code::WrongType, at, message, help);
                }
                true if matches!(scalar.text().as_ref(), "true" | "false") => {
                    walk.report_help(Code::WrongType, at, message, "write it without quotes");
                }
                false if only(|kind| matches!(kind, Kind::Number)) && is_quoted_number => {
                    walk.report_help(Code::WrongType, at, message, "write it without quotes");
                }
                _ => walk.report(Code::WrongType, at, message),
            }
        }
    }
}

/// Whether a scalar is of this kind; what is no text becomes one where a text is wanted.
fn fits(scalar: &Scalar, kind: &Kind) -> bool {
    match kind {
        Kind::Any => true,
        Kind::Null => matches!(scalar.kind, ScalarKind::Null),
        Kind::Boolean => matches!(scalar.kind, ScalarKind::Bool(_)),
        Kind::Number => matches!(scalar.kind, ScalarKind::Number(_)),
        Kind::Text { empty } => *empty || !scalar.text().is_empty(),
        Kind::Word(words) => words.contains(&scalar.text().as_ref()),
        Kind::Sequence(_) | Kind::Mapping(_) | Kind::OneOf(_) => false,
    }
}

fn wrong_type(walk: &mut Walk<'_>, node: &Node, leaves: &Leaves, named: &Named<'_>) {
    if walk.is_full() {
        return walk.omit();
    }
    let message = format!("{named} must be {}, not {}", expected(leaves), node.noun());
    walk.report(Code::WrongType, node.span, message);
}

/// The forms that a value may have, for a person: `a text or a list`.
fn expected(leaves: &Leaves) -> String {
    let mut nouns: Vec<String> = Vec::new();
    for (leaf, _) in leaves {
        let noun = match &leaf.kind {
            Kind::Any | Kind::OneOf(_) => "a value".to_owned(),
            // Nothing is what may be left out, not what to write.
            Kind::Null => continue,
            Kind::Boolean => "`true` or `false`".to_owned(),
            Kind::Number => "a number".to_owned(),
            Kind::Text { .. } => "a text".to_owned(),
            Kind::Word(words) if words.len() > 6 => "a word".to_owned(),
            Kind::Word(words) => format!("`{}`", words.join("` or `")),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
        };
        if !nouns.contains(&noun) {
            nouns.push(noun);
        }
    }
    match nouns.as_slice() {
        [] => "nothing".to_owned(),
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        [only, ..] => only.clone(),
    }
}

/// Whether a scalar holds an expression. Says so where it cannot, and what is wrong with it as a text.
fn has_expression(walk: &mut Walk<'_>, at: Span, scalar: &Scalar, allowed: Allowed) -> bool {
    if matches!(scalar.kind, ScalarKind::Text) && scalar.written.contains("${{") {
        let inside = |walk: &Walk<'_>, code| walk.span_inside(code, at, &scalar.bytes, "${{");
        if allowed.is_none() {
            let span = inside(walk, Code::ExpressionNotAllowed);
            let help = "this is read before any expression is; write the value itself";
            walk.report_help(
                Code::ExpressionNotAllowed,
                span,
                "an expression cannot be used here",
                help,
            );
        } else if let Some(wrong) = expressions(&scalar.written).find_map(|text| wrong_text(text, true)) {
            let span = inside(walk, Code::ExpressionSyntax);
            walk.report(Code::ExpressionSyntax, span, wrong);
        }
        return true;
    }
    false
}

/// What is wrong with an expression's text as far as it can be told without parsing it.
fn wrong_text(text: Option<&str>, in_value: bool) -> Option<&'static str> {
    match text.map(str::trim) {
        None => Some("the expression is not closed: there is no `}}` after `${{`"),
        Some("") => Some("the expression is empty"),
        Some("insert") if in_value => Some("`insert` can stand as a key only: it inserts a mapping's entries"),
        Some(_) => None,
    }
}

/// The texts between `${{` and `}}`; none for one that is not closed. Quotes hide braces.
pub(super) fn expressions(text: &str) -> impl Iterator<Item = Option<&str>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let begin = rest.find("${{")? + 3;
        let body = &rest[begin..];
        let mut quoted = false;
        let end = body.char_indices().find_map(|(at, c)| {
            quoted ^= c == '\'';
            (!quoted && body[at..].starts_with("}}")).then_some(at)
        });
        rest = end.map_or("", |end| &body[end + 2..]);
        Some(end.map(|end| &body[..end]))
    })
}

/// Checks a mapping against the forms that it may have: each key leaves only those that know it.
fn mapping(walk: &mut Walk<'_>, node: &Node, entries: &[(Key, Node)], all: Vec<(&'static Mapping, Allowed)>) {
    let mut forms = all.clone();
    for (key, node) in entries {
        walk.visit();
        let known: Vec<_> = forms
            .iter()
            .filter(|(form, _)| form.key(&key.text).is_some())
            .copied()
            .collect();
        if let Some((form, allowed)) = known.first().copied() {
            forms = known;
            // Those that are left agree on it, but for a choice that a later key makes.
            if let Some(row) = form.key(&key.text) {
                if form.noun == "`on`" && !walk.looks_below(row.name) {
                    continue;
                }
                if let Some(code) = row.unsupported
                    && !(row.may_be_bare && node.is_null())
                {
                    unsupported(walk, key, form, code);
                }
                if row.may_be_bare && node.is_null() {
                    let message = format!("there is nothing below `{}`", row.name);
                    walk.report_help(Code::EmptyMapping, key.span, message, "leave the key out");
                } else {
                    value(walk, node, row.value, allowed, &Named::Key(row.name));
                }
            }
            continue;
        }
        let others = forms
            .iter()
            .find_map(|(form, allowed)| Some((form.others.as_ref()?, *allowed)));
        if let Some((others, allowed)) = others {
            free_key(walk, key, allowed);
            value(walk, node, others.value, allowed, &Named::Key(&key.text));
            continue;
        }
        unexpected(walk, key, entries, &forms, &all);
    }
    missing(walk, node, entries, &forms);
}

/// A key that exists and is not acted on.
fn unsupported(walk: &mut Walk<'_>, key: &Key, form: &Mapping, code: Code) {
    let help = match code {
        Code::UnsupportedIf => {
            "every job and step runs as long as nothing before it failed; test inside the script instead"
        }
        Code::UnsupportedMatrix => "write one job for each combination",
        Code::UnsupportedContainer => {
            "each job has a machine of its own, without Docker: install what it needs in a step or in the image"
        }
        Code::UnsupportedPermissions => {
            "no token of the forge reaches the machine, so there is nothing to limit; remove it"
        }
        Code::UnsupportedCall => "copy the called workflow's jobs into this file",
        Code::UnsupportedRunsOn => {
            "write one label, and a size of the server after it if need be: `runs-on: [illumos, large]`"
        }
        Code::UnsupportedConcurrency => "without it, runs and jobs go side by side",
        Code::UnsupportedDefaults => "write `shell` and `working-directory` at each step",
        Code::UnsupportedOutputs => "do what the outputs are for in one job: its steps share the workspace",
        Code::UnsupportedPaths => "without it, every push that the other filters let through runs",
        Code::UnsupportedInputs => "write the values into the file",
        Code::UnsupportedBackground => "let the steps run one after the other, or use `&` and `wait` in one script",
        Code::IgnoredKey => "GitHub's service takes it there although its own rules do not; remove it",
        _ => "the file runs without it",
    };
    let message = match code.severity() {
        Severity::Warning => format!("`{}` means nothing in {}", key.text, form.noun),
        Severity::Error | Severity::Unsupported => format!("`{}` in {} is not supported yet", key.text, form.noun),
    };
    walk.report_help(code, key.span, message, help);
}

/// A key that the file chooses.
fn free_key(walk: &mut Walk<'_>, key: &Key, allowed: Allowed) {
    if key.text.contains("${{") {
        let code = if allowed.is_none() {
            Code::ExpressionNotAllowed
        } else {
            Code::ExpressionSyntax
        };
        let span = walk.span_inside(code, key.span, &key.bytes, "${{");
        if allowed.is_none() {
            let help = "this key is read before any expression is; write the name itself";
            walk.report_help(
                Code::ExpressionNotAllowed,
                span,
                "an expression cannot be used here",
                help,
            );
        } else if let Some(wrong) = expressions(&key.text).find_map(|text| wrong_text(text, false)) {
            walk.report(Code::ExpressionSyntax, span, wrong);
        }
    } else if key.text.is_empty() {
        walk.report(Code::EmptyValue, key.span, "a key cannot be empty here");
    }
}

/// A key that none of the forms has that are left.
fn unexpected(
    walk: &mut Walk<'_>,
    key: &Key,
    entries: &[(Key, Node)],
    forms: &[(&'static Mapping, Allowed)],
    all: &[(&'static Mapping, Allowed)],
) {
    if walk.is_full() {
        return walk.omit();
    }
    let noun = forms[0].0.noun;
    let shown_key = shown(&key.text);
    // Known in a form that an earlier key has ruled out.
    if all.iter().any(|(form, _)| form.key(&key.text).is_some()) {
        let rival = entries
            .iter()
            .take_while(|(before, _)| before.text != key.text)
            .find(|(before, _)| {
                all.iter()
                    .all(|(form, _)| form.key(&before.text).is_none() || form.key(&key.text).is_none())
            });
        let message = match rival {
            Some((rival, _)) => format!("`{}` and `{shown_key}` cannot both stand in {noun}", shown(&rival.text)),
            None => format!("`{shown_key}` cannot stand in {noun} beside the keys above it"),
        };
        return walk.report_help(Code::ConflictingKeys, key.span, message, "remove one of them");
    }
    let candidates = || all.iter().flat_map(|(form, _)| form.keys).map(|key| key.name);
    let (code, what) = match noun {
        "`on`" => (Code::UnknownEvent, "unknown event"),
        _ => (Code::UnknownKey, "unknown key"),
    };
    let message = match code {
        Code::UnknownEvent => format!("{what} `{shown_key}`"),
        _ => format!("{what} `{shown_key}` in {noun}"),
    };
    let help = match nearest(&key.text, candidates()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if code == Code::UnknownEvent => {
            "the events that start runs here are `push` and `workflow_dispatch`".to_owned()
        }
        None => {
            let mut names: Vec<&str> = Vec::new();
            for name in forms.iter().flat_map(|(form, _)| form.keys).map(|key| key.name) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            format!("possible here: {}", quoted_list(&names))
        }
    };
    walk.report_help(code, key.span, message, help);
}

/// What must be given and is not.
fn missing(walk: &mut Walk<'_>, node: &Node, entries: &[(Key, Node)], forms: &[(&'static Mapping, Allowed)]) {
    let is_given = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    let noun = forms[0].0.noun;
    if let [(form, _)] = forms {
        for row in form.keys.iter().filter(|row| row.required && !is_given(row.name)) {
            walk.report(Code::MissingKey, node.span, format!("{noun} has no `{}`", row.name));
        }
        return;
    }
    // An unknown key may be the one that is missing, misspelt.
    let all_known = entries
        .iter()
        .all(|(key, _)| forms.iter().any(|(form, _)| form.key(&key.text).is_some()));
    let wanted: Vec<&str> = forms
        .iter()
        .flat_map(|(form, _)| form.keys)
        .filter(|row| row.required)
        .map(|row| row.name)
        .collect();
    let all_want = forms.iter().all(|(form, _)| form.keys.iter().any(|row| row.required));
    if all_known && all_want && !wanted.iter().any(|name| is_given(name)) {
        let (first, rest) = wanted.split_first().unwrap_or((&"", &[]));
        let message = match rest.first() {
            Some(second) => format!("{noun} needs `{first}` or `{second}`"),
            None => format!("{noun} has no `{first}`"),
        };
        walk.report(Code::MissingKey, node.span, message);
    }
}
