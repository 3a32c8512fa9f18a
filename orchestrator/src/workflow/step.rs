//! `steps:`: scripts and the built-in checkout.

use super::{
    code::Code,
    common,
    literal::{literal, span},
    walk::{Fields, Walk, shown},
};
use crate::{
    model::plan::{Action, CHECKOUT, Condition, EnvTemplate, Inputs, PlannedStep, Shell, Template},
    yaml::{Key, Node, nearest},
};

/// Steps of one job.
const MAX_STEPS: usize = 1000;
/// Characters of one script.
pub(super) const MAX_SCRIPT: usize = 21_000;

/// What the built-in checkout reads.
const CHECKOUT_INPUTS: [&str; 5] = ["fetch-depth", "path", "persist-credentials", "submodules", "lfs"];
/// What GitHub's has besides.
const CHECKOUT_NOT_YET: [&str; 16] = [
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
];

/// Servers whose `actions/checkout` is the same action.
const CHECKOUT_HOSTS: [&str; 4] = [
    "",
    "https://github.com/",
    "https://code.forgejo.org/",
    "https://data.forgejo.org/",
];

const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("sh", Shell::Sh), ("python", Shell::Python)];

/// Reads the value of `steps:`, which was checked before.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node) -> Vec<PlannedStep> {
    let items = walk.sequence(node, "`steps`").unwrap_or_default();
    if let Some(item) = items.get(MAX_STEPS) {
        let message = format!("a job has at most {MAX_STEPS} steps");
        walk.report(Code::UnsupportedSize, item.span, message);
        return Vec::new();
    }
    items.iter().filter_map(|item| one(walk, item)).collect()
}

fn one(walk: &mut Walk<'_>, node: &Node) -> Option<PlannedStep> {
    let fields = walk.fields(node, "a step")?;
    let id = fields.get("id").and_then(|node| walk.text(node, "a step's `id`"));
    let name = fields
        .get("name")
        .and_then(|node| Some(literal(node, walk.line(node, "a step's `name`")??)));
    let env = fields
        .get("env")
        .map_or_else(EnvTemplate::new, |node| common::env(walk, node));
    let timeout_minutes = fields
        .get("timeout-minutes")
        .and_then(|node| common::minutes(walk, node));
    let continue_on_error = fields
        .get("continue-on-error")
        .and_then(|node| Some(literal(node, walk.boolean(node, "`continue-on-error`")?)));
    let action = match (fields.get("run"), fields.get("uses")) {
        (Some(run), None) => script(walk, run, &fields),
        (None, Some(uses)) => uses_action(walk, uses, &fields),
        // Both, or neither: said already, or a step that runs beside others.
        _ => None,
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
    let shell = match fields.get("shell") {
        Some(node) => shell(walk, node).map(|shell| literal(node, shell)),
        None => Some(Template::default_of(Shell::Default)),
    };
    let working_directory = match fields.get("working-directory") {
        Some(node) => inside(walk, node, "`working-directory`"),
        None => Some(None),
    };
    let text = walk.text(run, "`run`")?;
    if text.trim().is_empty() {
        walk.report(Code::UnsupportedEmptyRun, run.span, "`run` cannot be empty");
        return None;
    }
    if text.chars().count() > MAX_SCRIPT {
        walk.report_help(
            Code::UnsupportedSize,
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
    let text = walk.text(node, "`shell`")?;
    if let Some((_, shell)) = SHELLS.iter().find(|(name, _)| *name == text) {
        return Some(*shell);
    }
    walk.report_help(
        Code::UnsupportedShell,
        node.span,
        format!("the shell `{}` is not supported yet", shown(&text)),
        "supported: `bash`, `sh` and `python`",
    );
    None
}

fn uses_action(walk: &mut Walk<'_>, node: &Node, fields: &Fields<'_>) -> Option<Action> {
    let text = walk.text(node, "`uses`")?;
    let is_checkout = text.split_once('@').is_some_and(|(action, version)| {
        let is_ours = CHECKOUT_HOSTS
            .iter()
            .any(|host| action.strip_prefix(host) == Some(CHECKOUT));
        is_ours && !version.chars().any(|c| c.is_whitespace() || c.is_control())
    });
    if !is_checkout {
        not_yet(walk, node, &text);
        return None;
    }
    checkout(walk, fields.get("with"))
}

fn not_yet(walk: &mut Walk<'_>, node: &Node, text: &str) {
    walk.report_help(
        Code::UnsupportedAction,
        node.span,
        format!("the action `{}` is not supported yet", shown(text)),
        "the only action so far is `actions/checkout`, built in; use `run` for everything else",
    );
}

fn checkout(walk: &mut Walk<'_>, with: Option<&Node>) -> Option<Action> {
    let mut inputs = Inputs::new();
    if let Some(with) = with.filter(|node| !node.is_null()) {
        let entries = walk.mapping(with, "`with`")?;
        for (key, _) in entries {
            input_known(walk, key);
        }
        let fields = walk.fields(with, "`with`")?;
        if let Some(node) = fields.get("fetch-depth") {
            // Values of `with` are texts by nature. What git takes for "everything" is the upper bound.
            let depth = walk.whole(
                node,
                "`fetch-depth`",
                (0, i32::MAX.unsigned_abs()),
                true,
                Code::UnsupportedActionInput,
            )?;
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
                walk.report_help(
                    Code::UnsupportedActionInput,
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

/// An input that is not read would be ignored silently; GitHub warns of those that it does not know.
fn input_known(walk: &mut Walk<'_>, key: &Key) {
    let name = key.text.as_str();
    if CHECKOUT_INPUTS.contains(&name) || !walk.plain_key(key) {
        return;
    }
    let (what, help) = if CHECKOUT_NOT_YET.contains(&name) {
        let help = format!("supported here: `{}`", CHECKOUT_INPUTS.join("`, `"));
        (
            format!("the input `{name}` of `actions/checkout` is not supported yet"),
            help,
        )
    } else {
        let all = CHECKOUT_INPUTS.iter().chain(&CHECKOUT_NOT_YET).copied();
        let help = match nearest(name, all) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("supported here: `{}`", CHECKOUT_INPUTS.join("`, `")),
        };
        (format!("`actions/checkout` has no input `{}`", shown(name)), help)
    };
    walk.report_help(Code::UnsupportedActionInput, key.span, what, help);
}

/// A relative path that stays inside the workspace; `Some(None)` for the workspace itself.
fn inside(walk: &mut Walk<'_>, node: &Node, what: &str) -> Option<Option<Template<String>>> {
    let text = walk.text(node, what)?;
    let mut parts: Vec<&str> = Vec::new();
    let mut sound = !text.starts_with('/') && text.len() <= 1024 && !text.chars().any(char::is_control);
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => sound &= parts.pop().is_some(),
            part => parts.push(part),
        }
    }
    if !sound || text.trim().is_empty() {
        walk.report_help(
            Code::UnsupportedDirectory,
            node.span,
            format!("{what} `{}` is not a path inside the workspace", shown(&text)),
            "write a relative path, such as `build`",
        );
        return None;
    }
    Some((!parts.is_empty()).then(|| literal(node, parts.join("/"))))
}
