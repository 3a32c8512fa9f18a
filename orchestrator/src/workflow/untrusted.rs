//! Which values of an event outsiders choose: titles, messages, names of branches. The list is GitHub's own, of its
//! guide to secure use, with `*` for any name or index.

const UNTRUSTED: &[&str] = &[
    "github.event.comment.body",
    "github.event.commits.*.author.email",
    "github.event.commits.*.author.name",
    "github.event.commits.*.message",
    "github.event.discussion.body",
    "github.event.discussion.title",
    "github.event.head_commit.author.email",
    "github.event.head_commit.author.name",
    "github.event.head_commit.message",
    "github.event.issue.body",
    "github.event.issue.title",
    "github.event.pages.*.page_name",
    "github.event.pull_request.body",
    "github.event.pull_request.head.label",
    "github.event.pull_request.head.ref",
    "github.event.pull_request.head.repo.default_branch",
    "github.event.pull_request.title",
    "github.event.review.body",
    "github.event.review_comment.body",
    "github.event.workflow_run.head_branch",
    "github.event.workflow_run.head_commit.author.email",
    "github.event.workflow_run.head_commit.author.name",
    "github.event.workflow_run.head_commit.message",
    "github.event.workflow_run.head_repository.description",
    "github.head_ref",
];

/// Functions whose result says something about a text and holds none of it.
const HARMLESS: [&str; 4] = ["contains", "endswith", "hashfiles", "startswith"];

/// The first value in an expression that an outsider chooses, and that may become part of its result.
pub(super) fn path(expression: &str) -> Option<String> {
    let chars: Vec<char> = expression.chars().collect();
    let mut at = 0;
    // Of each parenthesis around, whether it is a harmless function's, and how many are.
    let mut around: Vec<bool> = Vec::new();
    let mut harmless: usize = 0;
    while let Some(&c) = chars.get(at) {
        match c {
            '\'' => at = behind_text(&chars, at),
            '(' => {
                around.push(false);
                at += 1;
            }
            ')' => {
                harmless -= usize::from(around.pop() == Some(true));
                at += 1;
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let (name, end) = access(&chars, at);
                if next_word(&chars, end) == Some('(') {
                    let is_harmless = HARMLESS.contains(&name.as_str());
                    around.push(is_harmless);
                    harmless += usize::from(is_harmless);
                    at = end + chars[end..].iter().take_while(|c| **c != '(').count() + 1;
                    continue;
                }
                let is_compared = || is_comparison(&chars, end) || follows_comparison(&chars, at);
                if harmless == 0 && UNTRUSTED.iter().any(|known| covers(known, &name)) && !is_compared() {
                    return Some(name);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

fn behind_text(chars: &[char], at: usize) -> usize {
    at + 1 + chars[at + 1..].iter().take_while(|c| **c != '\'').count() + 1
}

/// A name with all that is taken of it, as `a.b.*`, in lower case, and where it ends.
fn access(chars: &[char], from: usize) -> (String, usize) {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*');
    let (mut path, mut at) = (String::new(), from);
    loop {
        let name: String = chars[at..].iter().take_while(|c| is_name(c)).collect();
        at += name.chars().count();
        path.push_str(&name.to_lowercase());
        match chars.get(at) {
            Some('.') => {
                path.push('.');
                at += 1;
            }
            Some('[') => {
                let inside: String = chars[at + 1..].iter().take_while(|c| **c != ']').collect();
                let text = inside.trim();
                let name = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                path.push('.');
                // An index may be anything.
                path.push_str(&name.map_or_else(|| "*".to_owned(), str::to_lowercase));
                at = (at + 1 + inside.chars().count() + 1).min(chars.len());
                if chars.get(at) == Some(&'.') {
                    path.push('.');
                    at += 1;
                } else if chars.get(at) != Some(&'[') {
                    return (path, at);
                }
            }
            _ => return (path, at),
        }
    }
}

fn next_word(chars: &[char], from: usize) -> Option<char> {
    chars[from.min(chars.len())..]
        .iter()
        .copied()
        .find(|c| !c.is_whitespace())
}

fn is_comparison(chars: &[char], from: usize) -> bool {
    let mut rest = chars[from.min(chars.len())..].iter().filter(|c| !c.is_whitespace());
    matches!(
        (rest.next(), rest.next()),
        (Some('=' | '!'), Some('=')) | (Some('<' | '>'), _)
    )
}

fn follows_comparison(chars: &[char], at: usize) -> bool {
    let before = chars[..at].iter().rev().find(|c| !c.is_whitespace());
    matches!(before, Some('=' | '<' | '>' | '!'))
}

fn covers(known: &str, path: &str) -> bool {
    let (mut known, mut path) = (known.split('.'), path.split('.'));
    loop {
        match (known.next(), path.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::path;

    #[test]
    fn what_outsiders_choose_is_found_where_it_becomes_text() {
        for (expression, found) in [
            ("github.event.issue.title", Some("github.event.issue.title")),
            (" GitHub.Event['issue'].Title ", Some("github.event.issue.title")),
            (
                "github.event.commits[0].message",
                Some("github.event.commits.*.message"),
            ),
            ("github.event.commits.*.message", Some("github.event.commits.*.message")),
            ("format('x {0}', github.head_ref)", Some("github.head_ref")),
            ("github.head_ref || github.ref", Some("github.head_ref")),
            ("toJSON(github.event.comment.body)", Some("github.event.comment.body")),
            ("(github.head_ref)", Some("github.head_ref")),
            ("github.event.issue.number", None),
            ("github.sha", None),
            ("'github.head_ref'", None),
            ("contains(github.event.issue.title, 'x')", None),
            ("github.head_ref == 'main'", None),
            ("'main' != github.head_ref", None),
            ("steps.github.outputs.head_ref", None),
            ("github.event.issue", None),
            ("contains(('x' || github.head_ref), 'y')", None),
            ("contains(a, b) || github.head_ref", Some("github.head_ref")),
            ("x(contains(a, (b)), github.head_ref)", Some("github.head_ref")),
            (")) || github.head_ref", Some("github.head_ref")),
            ("", None),
        ] {
            assert_eq!(path(expression).as_deref(), found, "{expression}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_through_to_its_end(text in "([a-z.*'\\[\\]() =!<>]|\\PC){0,60}") {
            let _found = path(&text);
        }
    }
}
