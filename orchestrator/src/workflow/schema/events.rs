//! `on`: the events, their types and filters.

use super::{
    super::code::Code,
    Allowed,
    common::{ANY, BOOLEAN, FILLED, FILLED_LIST, FILLED_OR_LIST, NULL, SCALAR, TEXT},
    definition::{Definition, Key, Others},
};

/// The names of all events. Those that never happen here are no error: a file may list them for other servers.
pub(in super::super) const EVENTS: &[&str] = &[
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
    "project",
    "project_card",
    "project_column",
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

/// The events that start runs here.
pub(in super::super) const STARTING: [&str; 2] = ["push", "workflow_dispatch"];

pub(super) static ON: Definition = Definition::one_of(&[&ON_WORD, &ON_LIST, &ON_MAPPING]);
static ON_WORD: Definition = Definition::word(EVENTS);
static ON_LIST: Definition = Definition::sequence(&ON_WORD);
static ON_MAPPING: Definition = Definition::mapping(
    "`on`",
    &[
        Key::new(
            "branch_protection_rule",
            &BRANCH_PROTECTION_RULE,
            "A rule that protects branches changed.",
        ),
        Key::new("check_run", &CHECK_RUN, "A check run changed."),
        Key::new("check_suite", &CHECK_SUITE, "A check suite ended."),
        Key::new("create", &NULL, "A branch or tag was made."),
        Key::new("delete", &NULL, "A branch or tag was deleted."),
        Key::new("deployment", &NULL, "A deployment was made."),
        Key::new("deployment_status", &NULL, "A deployment got a status."),
        Key::new("discussion", &DISCUSSION, "A discussion changed."),
        Key::new(
            "discussion_comment",
            &DISCUSSION_COMMENT,
            "A comment of a discussion changed.",
        ),
        Key::new("fork", &NULL, "Somebody forked the repository."),
        Key::new("gollum", &NULL, "A page of the wiki changed."),
        Key::new("image_version", &IMAGE_VERSION, "A machine image got a version."),
        Key::new(
            "issue_comment",
            &ISSUE_COMMENT,
            "A comment of an issue or pull request changed.",
        ),
        Key::new("issues", &ISSUES, "An issue changed."),
        Key::new("label", &LABEL, "A label changed."),
        Key::new("merge_group", &MERGE_GROUP, "A merge queue wants checks of a group."),
        Key::new("milestone", &MILESTONE, "A milestone changed."),
        Key::new("page_build", &NULL, "The pages were built."),
        Key::new("project", &PROJECT, "A classic project changed."),
        Key::new("project_card", &PROJECT_CARD, "A card of a classic project changed."),
        Key::new(
            "project_column",
            &PROJECT_COLUMN,
            "A column of a classic project changed.",
        ),
        Key::new("public", &NULL, "The repository became public."),
        Key::new("pull_request", &PULL_REQUEST, "A pull request changed."),
        Key::new(
            "pull_request_comment",
            &ISSUE_COMMENT,
            "A comment of a pull request changed.",
        ),
        Key::new("pull_request_review", &PULL_REQUEST_REVIEW, "A review changed."),
        Key::new(
            "pull_request_review_comment",
            &PULL_REQUEST_REVIEW_COMMENT,
            "A comment of a review changed.",
        ),
        Key::new(
            "pull_request_target",
            &PULL_REQUEST,
            "A pull request changed; the workflow is that of its base branch.",
        ),
        Key::new("push", &PUSH, "Commits or a tag were pushed."),
        Key::new(
            "registry_package",
            &REGISTRY_PACKAGE,
            "A package was published or changed.",
        ),
        Key::new("release", &RELEASE, "A release changed."),
        Key::new(
            "repository_dispatch",
            &REPOSITORY_DISPATCH,
            "A program asks for it through the API.",
        ),
        Key::new(
            "schedule",
            &SCHEDULE,
            "A time has come: cron texts, in UTC without a `timezone`.",
        ),
        Key::new("status", &NULL, "A commit got a status."),
        Key::new("watch", &WATCH, "Somebody starred the repository."),
        Key::new("workflow_call", &WORKFLOW_CALL, "Another workflow calls this one."),
        Key::new(
            "workflow_dispatch",
            &WORKFLOW_DISPATCH,
            "A person starts it, here or at the forge.",
        ),
        Key::new("workflow_run", &WORKFLOW_RUN, "Another workflow was started or ended."),
    ],
);

/// An event's `types`: its own words, one or several.
macro_rules! event {
    ($event:ident $noun:literal [$($word:literal)*] $($key:expr),*) => {
        static $event: Definition = {
            static WORD: Definition = Definition::word(&[$($word),*]);
            static WORDS: Definition = Definition::sequence(&WORD);
            static TYPES: Definition = Definition::one_of(&[&WORD, &WORDS]);
            static MAPPING: Definition = Definition::mapping(
                $noun,
                &[Key::new("types", &TYPES, "Which changes count; without it the usual ones."), $($key),*],
            );
            Definition::one_of(&[&NULL, &MAPPING])
        };
    };
}

const fn branches() -> Key {
    Key::new(
        "branches",
        &FILLED_OR_LIST,
        "Patterns of branches; the last one that matches decides.",
    )
}
const fn branches_ignore() -> Key {
    Key::new("branches-ignore", &FILLED_OR_LIST, "Patterns of branches to pass over.")
}
const fn paths() -> Key {
    Key::new(
        "paths",
        &FILLED_OR_LIST,
        "Patterns of changed files, one of which must match.",
    )
}
const fn paths_ignore() -> Key {
    Key::new(
        "paths-ignore",
        &FILLED_OR_LIST,
        "Patterns of changed files that do not count.",
    )
}

event!(BRANCH_PROTECTION_RULE "the `branch_protection_rule` event" ["created" "edited" "deleted"]);
event!(CHECK_RUN "the `check_run` event" ["completed" "created" "rerequested" "requested_action"]);
event!(CHECK_SUITE "the `check_suite` event" ["completed"]);
event!(DISCUSSION "the `discussion` event" ["created" "edited" "deleted" "transferred" "pinned" "unpinned" "labeled" "unlabeled" "locked" "unlocked" "category_changed" "answered" "unanswered"]);
event!(DISCUSSION_COMMENT "the `discussion_comment` event" ["created" "edited" "deleted"]);
event!(IMAGE_VERSION "the `image_version` event" ["created" "ready" "deleted"] Key::new("names", &FILLED_OR_LIST, "Names of images."), Key::new("versions", &FILLED_OR_LIST, "Versions: `1.*`."));
event!(ISSUE_COMMENT "the `issue_comment` event" ["created" "edited" "deleted"]);
event!(ISSUES "the `issues` event" ["opened" "edited" "deleted" "transferred" "pinned" "unpinned" "closed" "reopened" "assigned" "unassigned" "labeled" "unlabeled" "locked" "unlocked" "milestoned" "demilestoned" "field_added" "field_removed" "typed" "untyped"]);
event!(LABEL "the `label` event" ["created" "edited" "deleted"]);
event!(MERGE_GROUP "the `merge_group` event" ["checks_requested"] branches(), branches_ignore(),
    paths().not_yet(Code::IgnoredKey), paths_ignore().not_yet(Code::IgnoredKey));
event!(MILESTONE "the `milestone` event" ["created" "closed" "opened" "edited" "deleted"]);
event!(PROJECT "the `project` event" ["created" "closed" "reopened" "edited" "deleted"]);
event!(PROJECT_CARD "the `project_card` event" ["created" "moved" "converted" "edited" "deleted"]);
event!(PROJECT_COLUMN "the `project_column` event" ["created" "updated" "moved" "deleted"]);
event!(PULL_REQUEST "the `pull_request` event" ["assigned" "unassigned" "labeled" "unlabeled" "opened" "edited" "closed" "reopened" "synchronize" "converted_to_draft" "locked" "unlocked" "enqueued" "dequeued" "milestoned" "demilestoned" "ready_for_review" "review_requested" "review_request_removed" "auto_merge_enabled" "auto_merge_disabled" "stacked"] branches(), branches_ignore(), paths(), paths_ignore());
event!(PULL_REQUEST_REVIEW "the `pull_request_review` event" ["submitted" "edited" "dismissed"]);
event!(PULL_REQUEST_REVIEW_COMMENT "the `pull_request_review_comment` event" ["created" "edited" "deleted"]);
event!(REGISTRY_PACKAGE "the `registry_package` event" ["published" "updated"]);
event!(RELEASE "the `release` event" ["published" "unpublished" "created" "edited" "deleted" "prereleased" "released"]);
event!(WATCH "the `watch` event" ["started"]);
event!(WORKFLOW_RUN "the `workflow_run` event" ["requested" "completed" "in_progress"] Key::new("workflows", &FILLED_OR_LIST, "The names of those workflows."), branches(), branches_ignore());

static PUSH: Definition = Definition::one_of(&[&NULL, &PUSH_MAPPING]);
static PUSH_MAPPING: Definition = Definition::mapping(
    "the `push` event",
    &[
        branches(),
        branches_ignore(),
        Key::new(
            "tags",
            &FILLED_OR_LIST,
            "Patterns of tags; the last one that matches decides.",
        ),
        Key::new("tags-ignore", &FILLED_OR_LIST, "Patterns of tags to pass over."),
        paths().not_yet(Code::UnsupportedPaths),
        paths_ignore().not_yet(Code::UnsupportedPaths),
    ],
);

static REPOSITORY_DISPATCH: Definition = Definition::one_of(&[&NULL, &REPOSITORY_DISPATCH_MAPPING]);
static REPOSITORY_DISPATCH_MAPPING: Definition = Definition::mapping(
    "the `repository_dispatch` event",
    &[Key::new(
        "types",
        &FILLED_OR_LIST,
        "The names that the program may give.",
    )],
);

static SCHEDULE: Definition = Definition::sequence(&CRON);
static CRON: Definition = Definition::mapping(
    "an item of `schedule`",
    &[
        Key::new(
            "cron",
            &FILLED,
            "Minute, hour, day of month, month, day of week: `30 5 * * 1-5`.",
        )
        .required(),
        Key::new("timezone", &FILLED, "The time zone: `Europe/Berlin`. UTC."),
    ],
);

const fn description() -> Key {
    Key::new("description", &TEXT, "What it is for.")
}
const fn required() -> Key {
    Key::new("required", &BOOLEAN, "Whether it must be given.")
}

static WORKFLOW_CALL: Definition = Definition::one_of(&[&NULL, &WORKFLOW_CALL_MAPPING]);
static WORKFLOW_CALL_MAPPING: Definition = Definition::mapping(
    "the `workflow_call` event",
    &[
        Key::new("inputs", &CALL_INPUTS, "The inputs that a caller may give.").bare(),
        Key::new("secrets", &CALL_SECRETS, "The secrets that a caller may give.").bare(),
        Key::new("outputs", &CALL_OUTPUTS, "What a caller may read when it has ended.").bare(),
    ],
);
static CALL_INPUTS: Definition = Definition::open("`inputs`", &[], Others::new("<input>", "One input.", &CALL_INPUT));
static CALL_INPUT: Definition = Definition::mapping(
    "an input",
    &[
        description(),
        Key::new("type", &CALL_INPUT_TYPE, "Its type.").required(),
        required(),
        Key::new("default", &CALL_INPUT_DEFAULT, "Its value where none is given."),
    ],
);
static CALL_INPUT_TYPE: Definition = Definition::word(&["string", "boolean", "number"]);
static CALL_INPUT_DEFAULT: Definition = Definition::one_of(&[&SCALAR]).with(Allowed::RUN);
static CALL_SECRETS: Definition =
    Definition::open("`secrets`", &[], Others::new("<secret>", "One secret.", &CALL_SECRET));
static CALL_SECRET: Definition = Definition::one_of(&[&NULL, &CALL_SECRET_MAPPING]);
static CALL_SECRET_MAPPING: Definition = Definition::mapping("a secret", &[description(), required()]);
static CALL_OUTPUTS: Definition =
    Definition::open("`outputs`", &[], Others::new("<output>", "One output.", &CALL_OUTPUT));
static CALL_OUTPUT: Definition = Definition::mapping(
    "an output",
    &[
        description(),
        Key::new("value", &CALL_OUTPUT_VALUE, "Its value, of the jobs' outputs.").required(),
    ],
);
static CALL_OUTPUT_VALUE: Definition = Definition::text().with(Allowed::RUN.and(Allowed::JOBS));

static WORKFLOW_DISPATCH: Definition = Definition::one_of(&[&NULL, &WORKFLOW_DISPATCH_MAPPING]);
static WORKFLOW_DISPATCH_MAPPING: Definition = Definition::mapping(
    "the `workflow_dispatch` event",
    &[
        Key::new("inputs", &DISPATCH_INPUTS, "What the person may fill in.")
            .bare()
            .not_yet(Code::UnsupportedInputs),
        Key::new(
            "secrets",
            &ANY,
            "Nothing: secrets are declared where a workflow is called.",
        )
        .not_yet(Code::IgnoredKey),
    ],
);
static DISPATCH_INPUTS: Definition =
    Definition::open("`inputs`", &[], Others::new("<input>", "One input.", &DISPATCH_INPUT));
static DISPATCH_INPUT: Definition = Definition::mapping(
    "an input",
    &[
        description(),
        Key::new("type", &DISPATCH_INPUT_TYPE, "Its type: `string` unless it is said."),
        required(),
        Key::new("default", &SCALAR, "Its value where nothing is filled in."),
        Key::new("options", &FILLED_LIST, "What can be chosen, with the type `choice`."),
    ],
);
static DISPATCH_INPUT_TYPE: Definition = Definition::word(&["string", "boolean", "number", "choice", "environment"]);
