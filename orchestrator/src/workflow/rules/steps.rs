//! Steps: their ids, the actions and shells that they name.

use std::collections::HashMap;

use super::{
    super::{
        code::Code,
        walk::{Walk, shown},
    },
    ids,
};
use crate::yaml::{Node, Value, nearest};

/// What GitHub has built in; any other shell is a command with `{0}` for the script's file.
const SHELLS: [&str; 6] = ["bash", "sh", "python", "pwsh", "powershell", "cmd"];

/// Checks the value of `steps`.
pub(super) fn check(walk: &mut Walk<'_>, node: &Node) {
    let mut ids = HashMap::new();
    each(walk, node, &mut ids);
}

fn each(walk: &mut Walk<'_>, node: &Node, seen: &mut HashMap<String, String>) {
    let Value::Sequence(items) = &node.value else { return };
    for step in items {
        if let Some(node) = step.get("id")
            && let Some(scalar) = node.scalar()
        {
            let id = scalar.text().into_owned();
            if !id.contains("${{") && ids::check(walk, node.span, &id, "step") {
                match seen.get(&id.to_lowercase()) {
                    Some(first) => {
                        let message =
                            format!("the step id `{id}` is already taken by `{first}`: ids are unique ignoring case");
                        walk.report(Code::DuplicateId, node.span, message);
                    }
                    None => {
                        seen.insert(id.to_lowercase(), id);
                    }
                }
            }
        }
        if let Some(node) = step.get("uses") {
            uses(walk, node);
        }
        if let Some(node) = step.get("shell") {
            shell(walk, node);
        }
        if let Some(node) = step.get("parallel") {
            each(walk, node, seen);
        }
    }
}

fn uses(walk: &mut Walk<'_>, node: &Node) {
    let Some(scalar) = node.scalar() else { return };
    let text = scalar.text();
    if text.contains("${{") || is_action(&text) {
        return;
    }
    let help = match text.split_once('@') {
        None if text.contains('/') && !text.contains("://") => {
            format!("add a version: `{}@…`, best a full commit id", shown(&text))
        }
        _ => "write `owner/name@version`, for example `actions/checkout@v4`, `./folder` or `docker://image`".to_owned(),
    };
    walk.report_help(
        Code::BadAction,
        node.span,
        format!("`{}` is not an action", shown(&text)),
        help,
    );
}

/// `./folder`, `$/folder`, `docker://image`, or `[https://host/]owner/name[/folder]@version`.
fn is_action(text: &str) -> bool {
    if let Some(image) = text.strip_prefix("docker://") {
        return !image.is_empty();
    }
    if text.starts_with("./") || text.starts_with(".\\") || text.starts_with("$/") {
        return true;
    }
    let Some((action, version)) = text.split_once('@') else {
        return false;
    };
    // Forgejo and Gitea take the whole address of an action.
    let path = match action
        .strip_prefix("https://")
        .or_else(|| action.strip_prefix("http://"))
    {
        Some(address) => match address.split_once('/') {
            Some((_, path)) => path,
            None => return false,
        },
        None => action,
    };
    let mut parts = path.split(['/', '\\']);
    let two = parts.by_ref().take(2).filter(|part| !part.is_empty()).count() == 2;
    two && !version.is_empty() && !version.contains('@')
}

fn shell(walk: &mut Walk<'_>, node: &Node) {
    let Some(scalar) = node.scalar() else { return };
    let text = scalar.text();
    if SHELLS.contains(&text.as_ref()) || text.contains("{0}") || text.contains("${{") {
        return;
    }
    let help = match nearest(&text, SHELLS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "a shell of your own says where the script's file goes: `{} {{0}}`",
            shown(&text)
        ),
    };
    let message = format!("unknown shell `{}`", shown(&text));
    walk.report_help(Code::UnknownShell, node.span, message, help);
}

/// The same rule where `defaults` name a shell.
pub(super) fn defaults(walk: &mut Walk<'_>, node: &Node) {
    if let Some(node) = node
        .get("defaults")
        .and_then(|node| node.get("run"))
        .and_then(|run| run.get("shell"))
    {
        shell(walk, node);
    }
}

#[cfg(test)]
mod tests {
    use super::is_action;

    #[test]
    fn what_uses_may_name() {
        for text in [
            "actions/checkout@v4",
            "actions/aws/ec2@main",
            "org with space/repo with space@v2",
            "./.github/actions/a",
            "$/actions/a",
            "docker://alpine:3.8",
            "https://code.forgejo.org/actions/checkout@v4",
        ] {
            assert!(is_action(text), "{text}");
        }
        for text in [
            "checkout",
            "actions/checkout",
            "actions/checkout@",
            "badrepo@invalid",
            "owner/name@release@2",
            "/checkout@v1",
            "docker://",
            "$$docker://alpine:3.8",
            "...docker://alpine:3.8",
            "https://code.forgejo.org@v1",
        ] {
            assert!(!is_action(text), "{text}");
        }
    }
}
