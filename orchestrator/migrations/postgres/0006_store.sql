-- How often in a row a repository's refs could not be compared: the next try waits the longer.
ALTER TABLE comparisons ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;


-- The pushes that could not be planned, by the commit that shows it.
CREATE INDEX triggers_failed ON triggers (connection, repository_id, commit_sha) WHERE state = 'failed';
-- Reports that belong to no run go by their age.
CREATE INDEX reports_no_run ON reports (completed_ms) WHERE run_id IS NULL;
