-- Each job's part of its run's plan, so that who needs one job reads no other: a plan with that job alone, as JSON. It is
-- keyed by the job's key, because every attempt of the run executes the same plan. `runs.plan` stays the whole and the
-- truth; both are written once, together.
CREATE TABLE job_plans (
    run_id  TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job_key TEXT NOT NULL,
    plan    TEXT NOT NULL,
    PRIMARY KEY (run_id, job_key)
);

-- How often in a row a repository's refs could not be compared: the next try waits the longer.
ALTER TABLE comparisons ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;

-- The pushes that could not be planned, by the commit that shows it.
CREATE INDEX triggers_failed ON triggers (connection, repository_id, commit_sha) WHERE state = 'failed';
-- Reports that belong to no run go by their age.
CREATE INDEX reports_no_run ON reports (completed_ms) WHERE run_id IS NULL;
