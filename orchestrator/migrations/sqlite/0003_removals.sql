-- Files that are to go. A file lies on one node, which alone can remove it: the row comes before that and goes after it,
-- and it refers to nothing, so that the files of a run that is forgotten are found by their node whenever it comes back.
CREATE TABLE removals (
    class     TEXT   NOT NULL,
    id        TEXT   NOT NULL,
    node      TEXT   NOT NULL,
    marked_ms BIGINT NOT NULL,
    PRIMARY KEY (node, class, id)
);

-- Whether the log of an attempt that has ended was seen to be sealed by its node, or to be none.
ALTER TABLE attempts ADD COLUMN log_sealed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX attempts_unsealed ON attempts (node, id) WHERE state = 'ended' AND log_sealed = 0 AND log_removed = 0;
DROP INDEX attempts_logs;
CREATE INDEX attempts_logs ON attempts (node, ended_ms) WHERE log_removed = 0;

-- What no statement uses. It comes back, in the shape that it then needs, with what uses it.
DROP TABLE slots;
DROP TABLE artifacts;
DROP TABLE annotations;
DROP TABLE summaries;
DROP TABLE approvals;
DROP TABLE schedule_ticks;
DROP TABLE concurrency;

-- The column `matrix` of `jobs`: SQLite cannot drop one that a UNIQUE of its table names, so the table is made anew.
-- Foreign keys are off while migrations run, or this would delete every attempt.
CREATE TABLE jobs_new (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT   NOT NULL UNIQUE,
    run_id        TEXT   NOT NULL,
    run_attempt   BIGINT NOT NULL,
    place         BIGINT NOT NULL,
    job_key       TEXT   NOT NULL,
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
    FOREIGN KEY (run_id, run_attempt) REFERENCES run_attempts (run_id, number) ON DELETE CASCADE
);
INSERT INTO jobs_new (
    seq, id, run_id, run_attempt, place, job_key, name, check_name, generation, needs, label, cpus,
    memory_mib, disk_gib, class, connection, repository_id, state, reason, carried_from, tries, created_ms,
    queued_ms, started_ms, ended_ms, cancel_ms, cancel_by, cancel_reason, cancel_force)
SELECT
    seq, id, run_id, run_attempt, place, job_key, name, check_name, generation, needs, label, cpus,
    memory_mib, disk_gib, class, connection, repository_id, state, reason, carried_from, tries, created_ms,
    queued_ms, started_ms, ended_ms, cancel_ms, cancel_by, cancel_reason, cancel_force
FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_new RENAME TO jobs;
CREATE INDEX jobs_queued ON jobs (class, connection, repository_id, seq) WHERE state = 'queued';
CREATE INDEX jobs_live ON jobs (state, class) WHERE state IN ('waiting', 'queued', 'active');
CREATE UNIQUE INDEX jobs_key ON jobs (run_id, run_attempt, job_key);
