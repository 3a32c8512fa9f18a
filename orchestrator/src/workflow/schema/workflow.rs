//! The whole file.

use super::{
    super::code::Code,
    Allowed,
    common::{CONCURRENCY, DEFAULTS, NAME_ABOUT, TEXT, VARIABLES, permissions},
    definition::{Definition, Key, Others},
    events::ON,
    job::JOB,
};

/// A workflow file.
pub static WORKFLOW: Definition = Definition::mapping(
    "a workflow",
    &[
        Key::new("name", &TEXT, NAME_ABOUT),
        Key::new("description", &TEXT, "What it is for."),
        Key::new(
            "run-name",
            &RUN_NAME,
            "What one run is called, instead of the commit's title.",
        )
        .not_yet(Code::UnsupportedKey),
        Key::new("on", &ON, "Which events start a run.").required(),
        permissions(),
        Key::new("env", &ENV, "Variables of every step.").bare(),
        Key::new(
            "defaults",
            &DEFAULTS,
            "What holds for every job that does not say otherwise.",
        )
        .not_yet(Code::UnsupportedDefaults),
        Key::new(
            "concurrency",
            &WORKFLOW_CONCURRENCY,
            "Of runs of one group, one runs at a time.",
        )
        .not_yet(Code::UnsupportedConcurrency),
        Key::new(
            "enable-email-notifications",
            &super::common::BOOLEAN,
            "Forgejo: whether failures are mailed.",
        )
        .not_yet(Code::UnsupportedKey),
        Key::new(
            "enable-openid-connect",
            &super::common::BOOLEAN,
            "Forgejo: as for each job.",
        )
        .not_yet(Code::UnsupportedKey),
        Key::new("jobs", &JOBS, "The jobs. They run side by side but for their `needs`.").required(),
    ],
);

static RUN_NAME: Definition = Definition::text().with(Allowed::RUN);
static ENV: Definition = Definition::one_of(&[&VARIABLES]).with(Allowed::RUN.and(Allowed::SECRETS));
static WORKFLOW_CONCURRENCY: Definition = Definition::one_of(&[&TEXT, &CONCURRENCY]).with(Allowed::RUN);
static JOBS: Definition = Definition::open(
    "`jobs`",
    &[],
    Others::new("<job-id>", "One job, under an id by which others name it.", &JOB),
);
