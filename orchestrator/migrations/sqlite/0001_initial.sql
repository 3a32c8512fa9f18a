-- Times are milliseconds since 1970; truth values are 0 and 1; ids are lower-case ULIDs. Everything
-- of a repository is keyed by (connection, repository_id); its path is only shown.
-- `seq` is the order of arrival: ids made in one millisecond have no order among themselves.

CREATE TABLE deliveries (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT   NOT NULL UNIQUE,
    connection    TEXT   NOT NULL,
    delivery_key  TEXT   NOT NULL,
    event         TEXT   NOT NULL,
    body          BLOB,
    digest        BLOB   NOT NULL,
    state         TEXT   NOT NULL,
    reason        TEXT,
    received_ms   BIGINT NOT NULL,
    tries         BIGINT NOT NULL DEFAULT 0,
    epoch         BIGINT NOT NULL DEFAULT 0,
    lease_owner   TEXT,
    lease_until   BIGINT NOT NULL DEFAULT 0,
    UNIQUE (connection, delivery_key)
);
CREATE INDEX deliveries_digest ON deliveries (connection, event, digest);
CREATE INDEX deliveries_received ON deliveries (seq) WHERE state = 'received';

CREATE TABLE triggers (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT   NOT NULL UNIQUE,
    delivery_id   TEXT,
    connection    TEXT   NOT NULL,
    repository_id BIGINT NOT NULL,
    body          TEXT   NOT NULL,
    by_whom       TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    reason        TEXT,
    commit_sha    TEXT,
    created_ms    BIGINT NOT NULL,
    due_ms        BIGINT NOT NULL,
    tries         BIGINT NOT NULL DEFAULT 0,
    epoch         BIGINT NOT NULL DEFAULT 0,
    lease_owner   TEXT,
    lease_until   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX triggers_received ON triggers (seq) WHERE state = 'received';

-- One workflow file for one trigger, with everything that running it needs.
CREATE TABLE runs (
    id              TEXT   PRIMARY KEY,
    trigger_id      TEXT   NOT NULL REFERENCES triggers (id),
    connection      TEXT   NOT NULL,
    repository_id   BIGINT NOT NULL,
    repository_path TEXT   NOT NULL,
    installation    BIGINT,
    ref_name        TEXT   NOT NULL,
    commit_sha      TEXT   NOT NULL,
    title           TEXT   NOT NULL,
    actor           TEXT   NOT NULL,
    event           TEXT   NOT NULL,
    path            TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    source          TEXT   NOT NULL,
    plan            TEXT,
    plan_version    BIGINT,
    plan_digest     TEXT,
    diagnostics     TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL,
    attempt         BIGINT NOT NULL,
    version         BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX runs_trigger ON runs (trigger_id);
CREATE INDEX runs_repository ON runs (connection, repository_id, id);
CREATE INDEX runs_commit ON runs (connection, repository_id, commit_sha);

CREATE TABLE run_attempts (
    run_id        TEXT   NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number        BIGINT NOT NULL,
    state         TEXT   NOT NULL,
    by_whom       TEXT   NOT NULL,
    created_ms    BIGINT NOT NULL,
    ended_ms      BIGINT,
    cancel_ms     BIGINT,
    cancel_by     TEXT,
    cancel_reason TEXT,
    cancel_force  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, number)
);
CREATE INDEX run_attempts_ended ON run_attempts (ended_ms);

CREATE TABLE jobs (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT   NOT NULL UNIQUE,
    run_id        TEXT   NOT NULL,
    run_attempt   BIGINT NOT NULL,
    place         BIGINT NOT NULL,
    job_key       TEXT   NOT NULL,
    matrix        TEXT   NOT NULL DEFAULT '',
    name          TEXT   NOT NULL,
    check_name    TEXT   NOT NULL,
    generation    BIGINT NOT NULL,
    needs         TEXT   NOT NULL,
    label         TEXT   NOT NULL,
    cpus          BIGINT NOT NULL,
    memory_mib    BIGINT NOT NULL,
    disk_gib      BIGINT,
    class         TEXT   NOT NULL,
    connection    TEXT   NOT NULL,
    repository_id BIGINT NOT NULL,
    state         TEXT   NOT NULL,
    reason        TEXT,
    carried_from  TEXT,
    tries         BIGINT NOT NULL DEFAULT 0,
    created_ms    BIGINT NOT NULL,
    queued_ms     BIGINT,
    started_ms    BIGINT,
    ended_ms      BIGINT,
    cancel_ms     BIGINT,
    cancel_by     TEXT,
    cancel_reason TEXT,
    cancel_force  BIGINT NOT NULL DEFAULT 0,
    UNIQUE (run_id, run_attempt, job_key, matrix),
    FOREIGN KEY (run_id, run_attempt) REFERENCES run_attempts (run_id, number) ON DELETE CASCADE
);
CREATE INDEX jobs_queued ON jobs (class, connection, repository_id, seq) WHERE state = 'queued';
CREATE INDEX jobs_live ON jobs (state, class) WHERE state IN ('waiting', 'queued', 'active');

-- Whose turn it is: one row per class and repository; `queued` counts that pair's queued jobs and
-- `last_served` is a counter of claims, not a time.
CREATE TABLE turn (
    class         TEXT   NOT NULL,
    connection    TEXT   NOT NULL,
    repository_id BIGINT NOT NULL,
    last_served   BIGINT NOT NULL DEFAULT 0,
    since_ms      BIGINT NOT NULL,
    queued        BIGINT NOT NULL CHECK (queued >= 0),
    PRIMARY KEY (class, connection, repository_id)
);
CREATE INDEX turn_served ON turn (last_served);
CREATE INDEX turn_queued ON turn (class, last_served, since_ms) WHERE queued > 0;

CREATE TABLE outputs (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (job_id, name)
);

CREATE TABLE attempts (
    id          TEXT   PRIMARY KEY,
    job_id      TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number      BIGINT NOT NULL,
    state       TEXT   NOT NULL,
    epoch       BIGINT NOT NULL,
    node        TEXT   NOT NULL,
    instance    TEXT   NOT NULL,
    token_hash  BLOB,
    key_hash    BLOB,
    facts       TEXT,
    created_ms  BIGINT NOT NULL,
    running_ms  BIGINT,
    ended_ms    BIGINT,
    result      TEXT,
    message     TEXT,
    cause       TEXT,
    log_removed BIGINT NOT NULL DEFAULT 0,
    UNIQUE (job_id, number)
);
CREATE INDEX attempts_live ON attempts (node) WHERE state <> 'ended';
CREATE INDEX attempts_logs ON attempts (ended_ms) WHERE log_removed = 0;

CREATE TABLE steps (
    attempt_id      TEXT   NOT NULL REFERENCES attempts (id) ON DELETE CASCADE,
    idx             BIGINT NOT NULL,
    name            TEXT   NOT NULL,
    state           TEXT   NOT NULL,
    exit_code       BIGINT,
    message         TEXT,
    started_ms      BIGINT,
    ended_ms        BIGINT,
    allowed_failure BIGINT NOT NULL,
    PRIMARY KEY (attempt_id, idx)
);

-- What the driver resumes from; sealed with the node's key.
CREATE TABLE checkpoints (
    attempt_id TEXT   PRIMARY KEY REFERENCES attempts (id) ON DELETE CASCADE,
    sealed     BLOB   NOT NULL,
    at_ms      BIGINT NOT NULL
);

-- Intent before action: the row comes before anything on the host and goes last. It refers to its
-- attempt by name only, so that forgetting a run can never hide a machine that still exists.
CREATE TABLE machines (
    name       TEXT   PRIMARY KEY,
    attempt_id TEXT   NOT NULL,
    node       TEXT   NOT NULL,
    label      TEXT   NOT NULL,
    cpus       BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib   BIGINT,
    state      TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    gone_ms    BIGINT
);
CREATE INDEX machines_node ON machines (node) WHERE state <> 'gone';
CREATE INDEX machines_attempt ON machines (attempt_id);

-- Numbers for names that must be short, such as links.
CREATE TABLE slots (
    node    TEXT   NOT NULL,
    slot    BIGINT NOT NULL,
    machine TEXT   NOT NULL UNIQUE REFERENCES machines (name) ON DELETE CASCADE,
    PRIMARY KEY (node, slot)
);

CREATE TABLE nodes (
    name         TEXT   PRIMARY KEY,
    instance     TEXT   NOT NULL,
    started_ms   BIGINT NOT NULL,
    heartbeat_ms BIGINT NOT NULL,
    left_ms      BIGINT
);

-- The outbox: one row per check, holding the newest wanted state. `version` counts changes, and the
-- row is due while `delivered` is behind it. `since_version` is where the generation began, so that
-- an answer that belongs to an earlier generation cannot lend it its remote id.
CREATE TABLE reports (
    id              TEXT   PRIMARY KEY,
    connection      TEXT   NOT NULL,
    repository_id   BIGINT NOT NULL,
    repository_path TEXT   NOT NULL,
    installation    BIGINT,
    commit_sha      TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    generation      BIGINT NOT NULL,
    state           TEXT   NOT NULL,
    title           TEXT   NOT NULL,
    summary         TEXT   NOT NULL,
    run_id          TEXT,
    job_id          TEXT,
    started_ms      BIGINT,
    completed_ms    BIGINT,
    version         BIGINT NOT NULL,
    since_version   BIGINT NOT NULL,
    delivered       BIGINT NOT NULL DEFAULT 0,
    remote          TEXT,
    due_ms          BIGINT NOT NULL,
    tries           BIGINT NOT NULL DEFAULT 0,
    refused         BIGINT NOT NULL DEFAULT 0,
    reason          TEXT,
    lease_owner     TEXT,
    lease_until     BIGINT NOT NULL DEFAULT 0,
    UNIQUE (connection, repository_id, commit_sha, name)
);
CREATE INDEX reports_due ON reports (due_ms) WHERE delivered < version;
CREATE INDEX reports_run ON reports (run_id);

CREATE TABLE tokens (
    id           TEXT   PRIMARY KEY,
    name         TEXT   NOT NULL,
    owner        TEXT   NOT NULL,
    hash         BLOB   NOT NULL UNIQUE,
    scopes       TEXT   NOT NULL,
    created_ms   BIGINT NOT NULL,
    expires_ms   BIGINT NOT NULL,
    last_used_ms BIGINT,
    revoked_ms   BIGINT
);

CREATE TABLE sessions (
    hash       BLOB   PRIMARY KEY,
    token_id   TEXT   NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    csrf       TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    seen_ms    BIGINT NOT NULL
);

CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      BIGINT NOT NULL,
    who        TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    evidence   TEXT   NOT NULL,
    request_id TEXT   NOT NULL
);

CREATE TABLE artifacts (
    id         TEXT   PRIMARY KEY,
    job_id     TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    attempt_id TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    state      TEXT   NOT NULL,
    digest     TEXT,
    bytes      BIGINT NOT NULL DEFAULT 0,
    files      BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    UNIQUE (job_id, name)
);
CREATE INDEX artifacts_expires ON artifacts (expires_ms);

CREATE TABLE annotations (
    attempt_id TEXT   NOT NULL REFERENCES attempts (id) ON DELETE CASCADE,
    idx        BIGINT NOT NULL,
    step       BIGINT NOT NULL,
    level      TEXT   NOT NULL,
    message    TEXT   NOT NULL,
    path       TEXT,
    line       BIGINT,
    end_line   BIGINT,
    PRIMARY KEY (attempt_id, idx)
);

CREATE TABLE summaries (
    attempt_id TEXT   NOT NULL REFERENCES attempts (id) ON DELETE CASCADE,
    step       BIGINT NOT NULL,
    markdown   TEXT   NOT NULL,
    PRIMARY KEY (attempt_id, step)
);

-- Bound to the commit: a new commit needs a new approval.
CREATE TABLE approvals (
    id          TEXT   PRIMARY KEY,
    job_id      TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    commit_sha  TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    created_ms  BIGINT NOT NULL,
    decided_ms  BIGINT,
    decided_by  TEXT,
    evidence    TEXT,
    UNIQUE (job_id, commit_sha)
);

-- One row per tick that was acted on: what makes a schedule fire once.
CREATE TABLE schedule_ticks (
    connection    TEXT   NOT NULL,
    repository_id BIGINT NOT NULL,
    path          TEXT   NOT NULL,
    cron          TEXT   NOT NULL,
    tick_ms       BIGINT NOT NULL,
    trigger_id    TEXT,
    PRIMARY KEY (connection, repository_id, path, cron, tick_ms)
);

-- Who holds a concurrency group, and who waits for it.
CREATE TABLE concurrency (
    connection    TEXT   NOT NULL,
    repository_id BIGINT NOT NULL,
    group_name    TEXT   NOT NULL,
    run_id        TEXT   NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job_id        TEXT   NOT NULL DEFAULT '',
    holds         BIGINT NOT NULL,
    since_ms      BIGINT NOT NULL,
    PRIMARY KEY (connection, repository_id, group_name, run_id, job_id)
);
CREATE INDEX concurrency_run ON concurrency (run_id);
