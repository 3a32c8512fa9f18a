//! `steps:`: scripts and the built-in checkout.

use std::collections::HashSet;

use super::{
    common,
    literal::{literal, span},
    walk::{Fields, Table, Walk, shown},
};
use crate::{
    model::plan::{Action, CHECKOUT, Condition, EnvTemplate, Inputs, PlannedStep, Shell, Template},
    yaml::{Node, Value, nearest},
};

/// Steps of one job.
const MAX_STEPS: usize = 1000;
/// Characters of one script.
const MAX_SCRIPT: usize = 21_000;

const STEP: Table = Table {
    what: "a step",
    supported: &[
        "name",
        "id",
        "run",
        "uses",
        "with",
        "env",
        "shell",
        "working-directory",
        "timeout-minutes",
        "continue-on-error",
    ],
    not_yet: &["background", "cancel", "if", "parallel", "wait", "wait-all"],
};

const CHECKOUT_INPUTS: Table = Table {
    what: "`with` of `actions/checkout`",
    supported: &["fetch-depth", "path", "persist-credentials", "submodules", "lfs"],
    not_yet: &[
        "allow-unsafe-pr-checkout",
        "clean",
        "fetch-tags",
        "filter",
        "github-server-url",
        "ref",
        "repository",
        "set-safe-directory",
        "show-progress",
        "sparse-checkout",
        "sparse-checkout-cone-mode",
        "ssh-key",
        "ssh-known-hosts",
        "ssh-strict",
        "ssh-user",
        "token",
    ],
};

/// Servers whose `actions/checkout` is the same action.
const CHECKOUT_HOSTS: [&str; 4] = [
    "",
    "https://github.com/",
    "https://code.forgejo.org/",
    "https://data.forgejo.org/",
];

const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("sh", Shell::Sh), ("python", Shell::Python)];
const SHELLS_NOT_YET: [&str; 3] = ["cmd", "powershell", "pwsh"];

/// Reads the value of `steps:`.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node) -> Vec<PlannedStep> {
    let Some(items) = walk.sequence(node, "`steps`") else {
        return Vec::new();
    };
    if items.is_empty() {
        walk.error(node.span, "`steps` must have at least one step");
    }
    if let Some(item) = items.get(MAX_STEPS) {
        walk.error(item.span, format!("a job has at most {MAX_STEPS} steps"));
        return Vec::new();
    }
    let mut ids = HashSet::new();
    items.iter().filter_map(|item| one(walk, item, &mut ids)).collect()
}

fn one(walk: &mut Walk<'_>, node: &Node, ids: &mut HashSet<String>) -> Option<PlannedStep> {
    let fields = walk.fields(node, &STEP)?;
    let id = fields.get("id").and_then(|node| {
        let id = walk.required(node, "a step's `id`")?;
        if common::id(walk, node.span, &id, "step") && !ids.insert(id.to_lowercase()) {
            walk.error(
                node.span,
                format!("the step id `{id}` is already taken: ids are unique ignoring case"),
            );
        }
        Some(id)
    });
    let name = fields
        .get("name")
        .and_then(|node| Some(literal(node, walk.line(node, "a step's `name`")??)));
    let env = fields
        .get("env")
        .map_or_else(EnvTemplate::new, |node| common::env(walk, node));
    let timeout_minutes = fields.get("timeout-minutes").and_then(|node| {
        let minutes = walk.whole(node, "`timeout-minutes`", (1, common::MAX_MINUTES), false)?;
        Some(literal(node, minutes))
    });
    let continue_on_error = fields
        .get("continue-on-error")
        .and_then(|node| Some(literal(node, walk.boolean(node, "`continue-on-error`")?)));
    let action = match (fields.get("run"), fields.entry("uses")) {
        (Some(run), None) => script(walk, run, &fields),
        (None, Some((_, uses))) => uses_action(walk, uses, &fields),
        (Some(_), Some((key, _))) => {
            walk.error(key.span, "a step has either `run` or `uses`, not both");
            None
        }
        (None, None) => {
            if only_supported(node) {
                walk.error(node.span, "a step needs `run` or `uses`");
            }
            None
        }
    }?;
    Some(PlannedStep {
        id,
        span: span(node),
        name: name.unwrap_or_else(|| Template::default_of(default_name(&action))),
        condition: Template::default_of(Condition::Success),
        action,
        env,
        timeout_minutes,
        continue_on_error: continue_on_error.unwrap_or_else(|| Template::default_of(false)),
    })
}

/// Whether no key of the step was refused already; then what is missing needs saying.
fn only_supported(node: &Node) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries
            .iter()
            .all(|(key, _)| STEP.supported.contains(&key.text.as_str())),
        _ => false,
    }
}

fn default_name(action: &Action) -> String {
    match action {
        Action::Uses { action, .. } => action.clone(),
        Action::Script { path } => path.clone(),
        Action::Run { script, .. } => {
            let mut lines = script.shown().lines().map(str::trim);
            shown(lines.find(|line| !line.is_empty()).unwrap_or("run"))
        }
    }
}

fn script(walk: &mut Walk<'_>, run: &Node, fields: &Fields<'_>) -> Option<Action> {
    if let Some((key, _)) = fields.entry("with") {
        walk.error(key.span, "`with` belongs to a step with `uses`");
    }
    let shell = match fields.get("shell") {
        Some(node) => shell(walk, node).map(|shell| literal(node, shell)),
        None => Some(Template::default_of(Shell::Default)),
    };
    let working_directory = match fields.get("working-directory") {
        Some(node) => inside(walk, node, "`working-directory`"),
        None => Some(None),
    };
    let text = walk.required(run, "`run`")?;
    if text.chars().count() > MAX_SCRIPT {
        walk.error_help(
            run.span,
            format!("the script is longer than {MAX_SCRIPT} characters"),
            "put it into a file of the repository and run that",
        );
        return None;
    }
    Some(Action::Run {
        script: literal(run, text),
        shell: shell?,
        working_directory: working_directory?,
    })
}

fn shell(walk: &mut Walk<'_>, node: &Node) -> Option<Shell> {
    let text = walk.required(node, "`shell`")?;
    if let Some((_, shell)) = SHELLS.iter().find(|(name, _)| *name == text) {
        return Some(*shell);
    }
    let supported = "supported: `bash`, `sh` and `python`";
    if SHELLS_NOT_YET.contains(&text.as_str()) || text.contains("{0}") {
        walk.error_help(
            node.span,
            format!("the shell `{}` is not supported yet", shown(&text)),
            supported,
        );
        return None;
    }
    let help = match nearest(&text, SHELLS.iter().map(|(name, _)| *name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => supported.into(),
    };
    walk.error_help(node.span, format!("unknown shell `{}`", shown(&text)), help);
    None
}

fn uses_action(walk: &mut Walk<'_>, node: &Node, fields: &Fields<'_>) -> Option<Action> {
    for name in ["shell", "working-directory"] {
        if let Some((key, _)) = fields.entry(name) {
            walk.error(key.span, format!("`{name}` belongs to a step with `run`"));
        }
    }
    let text = walk.required(node, "`uses`")?;
    let Some((action, version)) = text.split_once('@').filter(|(a, v)| !a.is_empty() && !v.is_empty()) else {
        if text.starts_with("./") || text.starts_with("$/") || text.starts_with("docker://") {
            not_yet(walk, node, &text);
        } else {
            walk.error_help(
                node.span,
                format!("`{}` is not an action", shown(&text)),
                "write `owner/name@version`, for example `actions/checkout@v4`",
            );
        }
        return None;
    };
    let is_checkout = CHECKOUT_HOSTS
        .iter()
        .any(|host| action.strip_prefix(host) == Some(CHECKOUT));
    if !is_checkout || version.chars().any(|c| c.is_whitespace() || c.is_control()) {
        not_yet(walk, node, &text);
        return None;
    }
    checkout(walk, fields.get("with"))
}

fn not_yet(walk: &mut Walk<'_>, node: &Node, text: &str) {
    walk.error_help(
        node.span,
        format!("the action `{}` is not supported yet", shown(text)),
        "the only action so far is `actions/checkout`, built in; use `run` for everything else",
    );
}

fn checkout(walk: &mut Walk<'_>, with: Option<&Node>) -> Option<Action> {
    let mut inputs = Inputs::new();
    if let Some(with) = with.filter(|node| !node.is_null()) {
        let fields = walk.fields(with, &CHECKOUT_INPUTS)?;
        if let Some(node) = fields.get("fetch-depth") {
            // Values of `with` are texts by nature. What git takes for "everything" is the upper bound.
            let depth = walk.whole(node, "`fetch-depth`", (0, i32::MAX.unsigned_abs()), true)?;
            inputs.push(("fetch-depth".to_owned(), literal(node, depth.to_string())));
        }
        if let Some(node) = fields.get("path") {
            let path = inside(walk, node, "`path`")?;
            inputs.extend(path.map(|path| ("path".to_owned(), path)));
        }
        // Their `false` is what happens here anyway; anything else would be ignored silently.
        for name in ["persist-credentials", "submodules", "lfs"] {
            if let Some(node) = fields.get(name)
                && walk
                    .text(node, &format!("`{name}`"))
                    .is_some_and(|text| !text.eq_ignore_ascii_case("false"))
            {
                walk.error_help(
                    node.span,
                    format!("`{name}` of `actions/checkout` other than `false` is not supported yet"),
                    "no credential, submodule or large file of the forge reaches the machine",
                );
            }
        }
    }
    Some(Action::Uses {
        action: CHECKOUT.to_owned(),
        inputs,
        children: Vec::new(),
    })
}

/// A relative path that stays inside the workspace; `Some(None)` for the workspace itself.
fn inside(walk: &mut Walk<'_>, node: &Node, what: &str) -> Option<Option<Template<String>>> {
    let text = walk.required(node, what)?;
    let mut parts: Vec<&str> = Vec::new();
    let mut sound = !text.starts_with('/') && text.len() <= 1024 && !text.chars().any(char::is_control);
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => sound &= parts.pop().is_some(),
            part => parts.push(part),
        }
    }
    if !sound {
        walk.error_help(
            node.span,
            format!("{what} `{}` is not a path inside the workspace", shown(&text)),
            "write a relative path, such as `build`",
        );
        return None;
    }
    Some((!parts.is_empty()).then(|| literal(node, parts.join("/"))))
}
