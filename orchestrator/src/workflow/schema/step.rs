//! One step, in its six forms.

use super::{
    super::code::Code,
    Allowed,
    common::{BOOLEAN, FILLED, FILLED_OR_LIST, NAME_ABOUT, NULL, VARIABLES},
    definition::{Definition, Key, Others},
};

pub(super) static STEPS: Definition = Definition::sequence(&STEP);
static STEP: Definition = Definition::one_of(&[&RUN, &USES, &WAIT, &WAIT_ALL, &CANCEL, &PARALLEL]);

static STEP_TEXT: Definition = Definition::text().with(Allowed::STEP);
static STEP_NUMBER: Definition = Definition::number().with(Allowed::STEP);
static STEP_BOOLEAN: Definition = Definition::boolean().with(Allowed::STEP);
static STEP_IF: Definition = Definition::text().with(
    Allowed::JOB
        .and(Allowed::RUNNING)
        .and(Allowed::HASH_FILES)
        .and(Allowed::STATUS),
);
static STEP_ENV: Definition = Definition::one_of(&[&VARIABLES]).with(Allowed::STEP);
static STEP_WITH: Definition = Definition::open(
    "`with`",
    &[],
    Others::new("<input>", "The value of this input.", &super::common::TEXT),
)
.with(Allowed::STEP);
static WAIT_ALL_VALUE: Definition = Definition::one_of(&[&NULL, &BOOLEAN]);

const fn name() -> Key {
    Key::new("name", &STEP_TEXT, NAME_ABOUT)
}
const fn id() -> Key {
    Key::new("id", &FILLED, "By which expressions and other steps name it.")
}
const fn condition() -> Key {
    Key::new(
        "if",
        &STEP_IF,
        "Whether it runs; without it, when no step before it failed.",
    )
    .not_yet(Code::UnsupportedIf)
}
const fn timeout() -> Key {
    Key::new("timeout-minutes", &STEP_NUMBER, "The longest that it may take.")
}
const fn continue_on_error() -> Key {
    Key::new(
        "continue-on-error",
        &STEP_BOOLEAN,
        "Whether the job goes on as if it had not failed.",
    )
}
const fn env() -> Key {
    Key::new("env", &STEP_ENV, "Variables of this step.").bare()
}
const fn background() -> Key {
    Key::new("background", &BOOLEAN, "Whether the next step starts at once.").not_yet(Code::UnsupportedBackground)
}

static RUN: Definition = Definition::mapping(
    "a step",
    &[
        name(),
        id(),
        condition(),
        Key::new("run", &STEP_TEXT, "The script.").required(),
        Key::new(
            "shell",
            &FILLED,
            "What runs it: `bash`, `sh`, `python`, or a command with `{0}` for the script's file.",
        ),
        Key::new("working-directory", &STEP_TEXT, "Where it starts, below the workspace."),
        env(),
        timeout(),
        continue_on_error(),
        background(),
    ],
);
static USES: Definition = Definition::mapping(
    "a step",
    &[
        name(),
        id(),
        condition(),
        Key::new(
            "uses",
            &FILLED,
            "The action: `owner/name@version`, `./folder` or `docker://image`.",
        )
        .required(),
        Key::new("with", &STEP_WITH, "The action's inputs.").bare(),
        env(),
        timeout(),
        continue_on_error(),
        background(),
    ],
);
static WAIT: Definition = Definition::mapping(
    "a step",
    &[
        name(),
        id(),
        continue_on_error(),
        Key::new("wait", &FILLED_OR_LIST, "The background steps to wait for, by id.")
            .required()
            .not_yet(Code::UnsupportedBackground),
    ],
);
static WAIT_ALL: Definition = Definition::mapping(
    "a step",
    &[
        name(),
        id(),
        continue_on_error(),
        Key::new("wait-all", &WAIT_ALL_VALUE, "Waits for all background steps.")
            .required()
            .not_yet(Code::UnsupportedBackground),
    ],
);
static CANCEL: Definition = Definition::mapping(
    "a step",
    &[
        name(),
        id(),
        continue_on_error(),
        Key::new("cancel", &FILLED, "The background step to cancel, by id.")
            .required()
            .not_yet(Code::UnsupportedBackground),
    ],
);
static PARALLEL: Definition = Definition::mapping(
    "a step",
    &[Key::new("parallel", &STEPS, "Steps that run side by side.")
        .required()
        .not_yet(Code::UnsupportedBackground)],
);
