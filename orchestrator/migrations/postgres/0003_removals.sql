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
ALTER TABLE jobs DROP COLUMN matrix;
CREATE UNIQUE INDEX jobs_key ON jobs (run_id, run_attempt, job_key);
