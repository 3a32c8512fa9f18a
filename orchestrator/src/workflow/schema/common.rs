//! What stands at several places.

use super::{
    super::code::Code,
    Allowed,
    definition::{Definition, Key, Others},
};

pub(super) static ANY: Definition = Definition::any();
pub(super) static NULL: Definition = Definition::null();
pub(super) static BOOLEAN: Definition = Definition::boolean();
pub(super) static NUMBER: Definition = Definition::number();
pub(super) static TEXT: Definition = Definition::text();
pub(super) static FILLED: Definition = Definition::filled();
pub(super) static FILLED_LIST: Definition = Definition::sequence(&FILLED);
/// A text, or a list of texts.
pub(super) static FILLED_OR_LIST: Definition = Definition::one_of(&[&FILLED_LIST, &FILLED]);
pub(super) static SCALAR: Definition = Definition::one_of(&[&TEXT, &BOOLEAN, &NUMBER]);

pub(super) static VARIABLES: Definition = Definition::open(
    "`env`",
    &[],
    Others::new("<name>", "The value of this variable.", &TEXT),
);

pub(super) static DEFAULTS: Definition = Definition::mapping(
    "`defaults`",
    &[Key::new(
        "run",
        &DEFAULTS_RUN,
        "What holds for every `run` step that does not say otherwise.",
    )],
);
static DEFAULTS_RUN: Definition = Definition::mapping(
    "`defaults.run`",
    &[
        Key::new("shell", &FILLED, "The shell of `run` steps."),
        Key::new(
            "working-directory",
            &FILLED,
            "Where `run` steps start, below the workspace.",
        ),
    ],
);

static CONCURRENCY_QUEUE: Definition = Definition::word(&["single", "max"]);
pub(super) static CONCURRENCY: Definition = Definition::mapping(
    "`concurrency`",
    &[
        Key::new("group", &FILLED, "The group: of equal ones, one runs at a time.").required(),
        Key::new(
            "cancel-in-progress",
            &BOOLEAN,
            "Whether a newer one cancels the one that runs.",
        ),
        Key::new(
            "queue",
            &CONCURRENCY_QUEUE,
            "How many may wait: the newest alone (`single`, the default), or all (`max`).",
        ),
    ],
);

static ANY_LEVEL: Definition = Definition::word(&["read", "write", "none"]);
static WRITE_LEVEL: Definition = Definition::word(&["write", "none"]);
static READ_LEVEL: Definition = Definition::word(&["read", "none"]);
static ALL_LEVELS: Definition = Definition::word(&["read-all", "write-all"]);
/// `permissions`, of a workflow or a job.
pub(super) static PERMISSIONS: Definition = Definition::one_of(&[&PERMISSIONS_MAPPING, &ALL_LEVELS]);
static PERMISSIONS_MAPPING: Definition = Definition::mapping(
    "`permissions`",
    &[
        Key::new("actions", &ANY_LEVEL, "Workflows, runs and artifacts."),
        Key::new("artifact-metadata", &ANY_LEVEL, "Records about artifacts."),
        Key::new("attestations", &ANY_LEVEL, "Attestations of artifacts."),
        Key::new("checks", &ANY_LEVEL, "Check runs and suites."),
        Key::new("code-quality", &ANY_LEVEL, "Findings about the quality of code."),
        Key::new(
            "contents",
            &ANY_LEVEL,
            "The repository's contents: commits, branches, releases.",
        ),
        Key::new("copilot-requests", &WRITE_LEVEL, "Requests to GitHub's assistant."),
        Key::new("deployments", &ANY_LEVEL, "Deployments."),
        Key::new("discussions", &ANY_LEVEL, "Discussions."),
        Key::new("drives", &ANY_LEVEL, "Drives."),
        Key::new(
            "id-token",
            &WRITE_LEVEL,
            "A token that proves to other services which job asks.",
        ),
        Key::new("issues", &ANY_LEVEL, "Issues."),
        Key::new("models", &READ_LEVEL, "GitHub's language models."),
        Key::new("packages", &ANY_LEVEL, "Packages."),
        Key::new("pages", &ANY_LEVEL, "Pages."),
        Key::new("pull-requests", &ANY_LEVEL, "Pull requests."),
        Key::new("repository-projects", &ANY_LEVEL, "Classic projects of the repository."),
        Key::new("security-events", &ANY_LEVEL, "Findings of code scanning."),
        Key::new("statuses", &ANY_LEVEL, "Statuses of commits."),
        Key::new(
            "vulnerability-alerts",
            &READ_LEVEL,
            "Alerts about vulnerable dependencies.",
        ),
    ],
);

pub(super) const NAME_ABOUT: &str = "What it is called on pages and on the forge.";

/// The key `permissions`.
pub(super) const fn permissions() -> Key {
    Key::new(
        "permissions",
        &PERMISSIONS,
        "What the job's token may do at the forge. Naming one scope sets all others to none.",
    )
    .not_yet(Code::UnsupportedPermissions)
}

static CREDENTIALS: Definition = Definition::mapping(
    "`credentials`",
    &[
        Key::new("username", &FILLED, "The user."),
        Key::new("password", &FILLED, "The password."),
    ],
)
.with(Allowed::RUN.and(Allowed::SECRETS).and(Allowed::ENV));
static CONTAINER_VARIABLES: Definition = Definition::open(
    "`env` of a container",
    &[],
    Others::new("<name>", "The value of this variable.", &CONTAINER_VARIABLE),
);
static CONTAINER_VARIABLE: Definition =
    Definition::text().with(Allowed::JOB.and(Allowed::SECRETS).and(Allowed::RUNNING));

const fn image() -> Key {
    Key::new("image", &FILLED, "The image.")
}
const fn options() -> Key {
    Key::new("options", &TEXT, "More options for the container's start.")
}
const fn env() -> Key {
    Key::new("env", &CONTAINER_VARIABLES, "Variables of the container.")
}
const fn ports() -> Key {
    Key::new("ports", &FILLED_LIST, "Ports to publish.")
}
const fn volumes() -> Key {
    Key::new("volumes", &FILLED_LIST, "Volumes to mount.")
}
const fn credentials() -> Key {
    Key::new("credentials", &CREDENTIALS, "How to log in at the image's registry.")
}

static CONTAINER_MAPPING: Definition = Definition::mapping(
    "`container`",
    &[image(), options(), env(), ports(), volumes(), credentials()],
);
static SERVICE_MAPPING: Definition = Definition::mapping(
    "a service",
    &[
        image(),
        options(),
        env(),
        ports(),
        volumes(),
        credentials(),
        Key::new("entrypoint", &TEXT, "The program to start instead of the image's own."),
        Key::new("command", &TEXT, "The arguments instead of the image's own."),
    ],
);
pub(super) static CONTAINER: Definition = Definition::one_of(&[&TEXT, &CONTAINER_MAPPING]).with(Allowed::JOB);
pub(super) static SERVICES: Definition = Definition::open(
    "`services`",
    &[],
    Others::new("<name>", "One container beside the job.", &SERVICE),
)
.with(Allowed::JOB);
static SERVICE: Definition = Definition::one_of(&[&FILLED, &SERVICE_MAPPING]);
