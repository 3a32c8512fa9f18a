-- A repository's id is its forge's own text: not every forge numbers them. What the adapter of a forge wants to know
-- again of a repository (at GitHub the installation of the App) is text that only this adapter reads; empty means nothing.
--
-- SQLite changes the type of no column. Where no key names it, another takes its place; elsewhere the table is made anew.
DROP INDEX deliveries_ref;
ALTER TABLE deliveries RENAME COLUMN repository_id TO repository_number;
ALTER TABLE deliveries ADD COLUMN repository_id TEXT;
UPDATE deliveries SET repository_id = CAST(repository_number AS TEXT);
ALTER TABLE deliveries DROP COLUMN repository_number;
CREATE INDEX deliveries_ref ON deliveries (connection, repository_id, ref_name, seq);

DROP INDEX triggers_ref;
ALTER TABLE triggers RENAME COLUMN repository_id TO repository_number;
ALTER TABLE triggers ADD COLUMN repository_id TEXT NOT NULL DEFAULT '';
UPDATE triggers SET repository_id = CAST(repository_number AS TEXT);
ALTER TABLE triggers DROP COLUMN repository_number;
CREATE INDEX triggers_ref ON triggers (connection, repository_id, ref_name, seq);

DROP INDEX runs_repository;
DROP INDEX runs_commit;
ALTER TABLE runs RENAME COLUMN repository_id TO repository_number;
ALTER TABLE runs ADD COLUMN repository_id TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN forge_context TEXT NOT NULL DEFAULT '';
UPDATE runs SET repository_id = CAST(repository_number AS TEXT), forge_context = COALESCE(CAST(installation AS TEXT), '');
ALTER TABLE runs DROP COLUMN repository_number;
ALTER TABLE runs DROP COLUMN installation;
CREATE INDEX runs_repository ON runs (connection, repository_id, id);
CREATE INDEX runs_commit ON runs (connection, repository_id, commit_sha);

DROP INDEX jobs_queued;
ALTER TABLE jobs RENAME COLUMN repository_id TO repository_number;
ALTER TABLE jobs ADD COLUMN repository_id TEXT NOT NULL DEFAULT '';
UPDATE jobs SET repository_id = CAST(repository_number AS TEXT);
ALTER TABLE jobs DROP COLUMN repository_number;
CREATE INDEX jobs_queued ON jobs (class, connection, repository_id, seq) WHERE state = 'queued';

CREATE TABLE turn_new (
    class         TEXT   NOT NULL,
    connection    TEXT   NOT NULL,
    repository_id TEXT   NOT NULL,
    last_served   BIGINT NOT NULL DEFAULT 0,
    since_ms      BIGINT NOT NULL,
    queued        BIGINT NOT NULL CHECK (queued >= 0),
    PRIMARY KEY (class, connection, repository_id)
);
INSERT INTO turn_new (class, connection, repository_id, last_served, since_ms, queued)
SELECT class, connection, CAST(repository_id AS TEXT), last_served, since_ms, queued FROM turn;
DROP TABLE turn;
ALTER TABLE turn_new RENAME TO turn;
CREATE INDEX turn_served ON turn (last_served);
CREATE INDEX turn_queued ON turn (class, last_served, since_ms) WHERE queued > 0;

CREATE TABLE reports_new (
    id              TEXT   PRIMARY KEY,
    connection      TEXT   NOT NULL,
    repository_id   TEXT   NOT NULL,
    repository_path TEXT   NOT NULL,
    forge_context   TEXT   NOT NULL DEFAULT '',
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
INSERT INTO reports_new (
    id, connection, repository_id, repository_path, forge_context, commit_sha, name, generation, state, title, summary,
    run_id, job_id, started_ms, completed_ms, version, since_version, delivered, remote, due_ms, tries, refused, reason,
    lease_owner, lease_until)
SELECT
    id, connection, CAST(repository_id AS TEXT), repository_path, COALESCE(CAST(installation AS TEXT), ''), commit_sha,
    name, generation, state, title, summary, run_id, job_id, started_ms, completed_ms, version, since_version, delivered,
    remote, due_ms, tries, refused, reason, lease_owner, lease_until
FROM reports;
DROP TABLE reports;
ALTER TABLE reports_new RENAME TO reports;
CREATE INDEX reports_due ON reports (due_ms) WHERE delivered < version;
CREATE INDEX reports_run ON reports (run_id);

CREATE TABLE comparisons_new (
    connection      TEXT   NOT NULL,
    repository_id   TEXT   NOT NULL,
    repository_path TEXT   NOT NULL,
    at_ms           BIGINT,
    tried_ms        BIGINT NOT NULL,
    reason          TEXT,
    PRIMARY KEY (connection, repository_id)
);
INSERT INTO comparisons_new (connection, repository_id, repository_path, at_ms, tried_ms, reason)
SELECT connection, CAST(repository_id AS TEXT), repository_path, at_ms, tried_ms, reason FROM comparisons;
DROP TABLE comparisons;
ALTER TABLE comparisons_new RENAME TO comparisons;

CREATE TABLE tips_new (
    connection    TEXT   NOT NULL,
    repository_id TEXT   NOT NULL,
    ref_name      TEXT   NOT NULL,
    commit_sha    TEXT   NOT NULL,
    object_sha    TEXT   NOT NULL,
    known         BIGINT NOT NULL,
    seen_ms       BIGINT NOT NULL,
    PRIMARY KEY (connection, repository_id, ref_name)
);
INSERT INTO tips_new (connection, repository_id, ref_name, commit_sha, object_sha, known, seen_ms)
SELECT connection, CAST(repository_id AS TEXT), ref_name, commit_sha, object_sha, known, seen_ms FROM tips;
DROP TABLE tips;
ALTER TABLE tips_new RENAME TO tips;
CREATE INDEX tips_unknown ON tips (connection, repository_id) WHERE known = 0;
