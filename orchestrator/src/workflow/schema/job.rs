//! One job: steps on a machine, or a call of another workflow.

use super::{
    super::code::Code,
    Allowed,
    common::{
        ANY, BOOLEAN, CONCURRENCY, CONTAINER, DEFAULTS, FILLED, FILLED_OR_LIST, NAME_ABOUT, NUMBER, SCALAR, SERVICES,
        TEXT, VARIABLES, permissions,
    },
    definition::{Definition, Key, Others},
    step::STEPS,
};

pub(super) static JOB: Definition = Definition::one_of(&[&STEPS_JOB, &CALLING_JOB]);

const fn name() -> Key {
    Key::new("name", &JOB_TEXT, NAME_ABOUT)
}
const fn needs() -> Key {
    Key::new(
        "needs",
        &FILLED_OR_LIST,
        "The jobs that must end well before this one starts.",
    )
}
const fn condition() -> Key {
    Key::new(
        "if",
        &JOB_IF,
        "Whether it runs; without it, when all that it needs ended well.",
    )
    .not_yet(Code::UnsupportedIf)
}
const fn strategy() -> Key {
    Key::new("strategy", &STRATEGY, "Makes several jobs of this one.").not_yet(Code::UnsupportedMatrix)
}
const fn concurrency() -> Key {
    Key::new(
        "concurrency",
        &JOB_CONCURRENCY,
        "Of jobs of one group, one runs at a time.",
    )
    .not_yet(Code::UnsupportedConcurrency)
}

static STEPS_JOB: Definition = Definition::mapping(
    "a job",
    &[
        name(),
        needs(),
        condition(),
        strategy(),
        Key::new(
            "runs-on",
            &RUNS_ON,
            "The machine: a label of this server, and perhaps a size after it.",
        ),
        permissions(),
        Key::new(
            "environment",
            &ENVIRONMENT,
            "The deployment environment that the job works for.",
        )
        .not_yet(Code::UnsupportedEnvironment),
        concurrency(),
        Key::new("outputs", &OUTPUTS, "What jobs that need this one may read of it.").not_yet(Code::UnsupportedOutputs),
        Key::new("env", &JOB_ENV, "Variables of every step of the job.").bare(),
        Key::new(
            "defaults",
            &JOB_DEFAULTS,
            "What holds for every step that does not say otherwise.",
        )
        .not_yet(Code::UnsupportedDefaults),
        Key::new(
            "timeout-minutes",
            &JOB_NUMBER,
            "The longest that all steps together may take.",
        ),
        Key::new(
            "cancel-timeout-minutes",
            &JOB_NUMBER,
            "How long a cancelled job may still clean up.",
        )
        .not_yet(Code::UnsupportedKey),
        Key::new(
            "continue-on-error",
            &JOB_BOOLEAN,
            "Whether the run goes on as if this job had not failed.",
        )
        .not_yet(Code::UnsupportedContinue),
        Key::new("container", &CONTAINER, "An image in which the steps run.").not_yet(Code::UnsupportedContainer),
        Key::new("services", &SERVICES, "Containers that run beside the job.").not_yet(Code::UnsupportedContainer),
        Key::new(
            "snapshot",
            &SNAPSHOT,
            "Makes an image of the machine when the job has ended.",
        )
        .not_yet(Code::UnsupportedKey),
        Key::new(
            "enable-openid-connect",
            &BOOLEAN,
            "Forgejo: whether the job gets a token that proves which job asks.",
        )
        .not_yet(Code::UnsupportedKey),
        Key::new("steps", &STEPS, "What is done, one after the other, in one machine."),
    ],
);

static CALLING_JOB: Definition = Definition::mapping(
    "a job that calls a workflow",
    &[
        name(),
        needs(),
        condition(),
        strategy(),
        permissions(),
        concurrency(),
        Key::new(
            "uses",
            &FILLED,
            "The workflow to call: `./.github/workflows/x.yml`, or one of another repository.",
        )
        .required()
        .not_yet(Code::UnsupportedCall),
        Key::new("with", &CALL_INPUTS, "Its inputs.").not_yet(Code::UnsupportedCall),
        Key::new(
            "secrets",
            &CALL_SECRETS,
            "Its secrets, or `inherit` for all of this workflow's.",
        )
        .not_yet(Code::UnsupportedCall),
    ],
);

static JOB_TEXT: Definition = Definition::text().with(Allowed::JOB);
static JOB_NUMBER: Definition = Definition::number().with(Allowed::JOB);
static JOB_BOOLEAN: Definition = Definition::boolean().with(Allowed::JOB);
static JOB_IF: Definition = Definition::text().with(Allowed::NEEDS.and(Allowed::STATUS));
static JOB_CONCURRENCY: Definition = Definition::one_of(&[&FILLED, &CONCURRENCY]).with(Allowed::JOB);
static JOB_ENV: Definition = Definition::one_of(&[&VARIABLES]).with(Allowed::JOB.and(Allowed::SECRETS));
static JOB_DEFAULTS: Definition = Definition::one_of(&[&DEFAULTS]).with(Allowed::JOB.and(Allowed::ENV));

static STRATEGY: Definition = Definition::mapping(
    "`strategy`",
    &[
        Key::new("matrix", &MATRIX, "Lists of values; one job for each combination."),
        Key::new(
            "fail-fast",
            &BOOLEAN,
            "Whether the first failure cancels the others; it does.",
        ),
        Key::new("max-parallel", &NUMBER, "How many of them run at once; all."),
    ],
)
.with(Allowed::NEEDS);
static MATRIX: Definition = Definition::open(
    "`matrix`",
    &[
        Key::new("include", &FILTER, "Combinations to add, or values to add to some."),
        Key::new("exclude", &FILTER, "Combinations to leave out."),
    ],
    Others::new("<name>", "The values of `matrix.<name>`.", &VECTOR),
);
static VECTOR: Definition = Definition::sequence(&ANY);
static FILTER: Definition = Definition::sequence(&FILTER_ITEM);
static FILTER_ITEM: Definition = Definition::open(
    "a combination",
    &[],
    Others::new("<name>", "The value of `matrix.<name>` in it.", &ANY),
);

static RUNS_ON: Definition = Definition::one_of(&[&FILLED_OR_LIST, &RUNS_ON_MAPPING]).with(Allowed::JOB);
static RUNS_ON_MAPPING: Definition = Definition::mapping(
    "`runs-on`",
    &[
        Key::new("group", &FILLED, "A group of runners.").not_yet(Code::UnsupportedRunsOn),
        Key::new("labels", &FILLED_OR_LIST, "Labels that a runner must have.").not_yet(Code::UnsupportedRunsOn),
    ],
);

static ENVIRONMENT: Definition = Definition::one_of(&[&TEXT, &ENVIRONMENT_MAPPING]).with(Allowed::JOB);
static ENVIRONMENT_MAPPING: Definition = Definition::mapping(
    "`environment`",
    &[
        Key::new("name", &TEXT, "Its name.").required(),
        Key::new("url", &ENVIRONMENT_URL, "Where the result can be seen."),
        Key::new("deployment", &BOOLEAN, "Whether a deployment is recorded."),
    ],
);
static ENVIRONMENT_URL: Definition = Definition::text().with(Allowed::JOB.and(Allowed::RUNNING));

static OUTPUTS: Definition = Definition::open(
    "`outputs`",
    &[],
    Others::new("<name>", "The value of this output.", &OUTPUT),
);
static OUTPUT: Definition = Definition::text().with(Allowed::JOB.and(Allowed::SECRETS).and(Allowed::RUNNING));

static SNAPSHOT: Definition = Definition::one_of(&[&FILLED, &SNAPSHOT_MAPPING]);
static SNAPSHOT_MAPPING: Definition = Definition::mapping(
    "`snapshot`",
    &[
        Key::new("image-name", &FILLED, "What the image is called.").required(),
        Key::new("version", &FILLED, "Its version: `1.*`."),
        Key::new("if", &JOB_TEXT, "Whether it is made."),
    ],
);

static CALL_INPUTS: Definition = Definition::open(
    "`with`",
    &[],
    Others::new("<input>", "The value of this input.", &CALL_INPUT),
);
static CALL_INPUT: Definition = Definition::one_of(&[&SCALAR]).with(Allowed::JOB);
static INHERIT: Definition = Definition::word(&["inherit"]);
static CALL_SECRETS: Definition = Definition::one_of(&[&CALL_SECRETS_MAPPING, &INHERIT]);
static CALL_SECRETS_MAPPING: Definition = Definition::open(
    "`secrets`",
    &[],
    Others::new("<secret>", "The value of this secret.", &CALL_SECRET),
);
static CALL_SECRET: Definition = Definition::one_of(&[&SCALAR]).with(Allowed::JOB.and(Allowed::SECRETS));
