-- Whatever waits or ever was: no statement of a job's life reads more rows than it needs, however many there are.

-- Of each class the turn that is served next is the first of this index.
DROP INDEX turn_queued;
CREATE INDEX turn_queued ON turn (class, last_served, since_ms, connection, repository_id) WHERE queued > 0;
-- Those that waited for longest.
CREATE INDEX jobs_queued_since ON jobs (queued_ms) WHERE state = 'queued';
-- The jobs that one check of a run stands for.
CREATE INDEX jobs_check ON jobs (run_id, run_attempt, check_name);

-- Whether somebody plans for a repository, and what else waits for it.
CREATE INDEX triggers_leased ON triggers (connection, repository_id, lease_until) WHERE state = 'received';
-- The pushes of a commit that wait for a credential or a right.
CREATE INDEX triggers_held ON triggers (connection, repository_id, claimed_sha, seq)
    WHERE state = 'received' AND refusals > 0;
-- The pushes of a ref that could not be planned.
CREATE INDEX triggers_failed_ref ON triggers (connection, repository_id, ref_name, seq) WHERE state = 'failed';

-- Whether a newer run measured the same thing again: the same commit, workflow file, event and ref. The statement that
-- makes a run sets it, and the one that forgets a run takes it back.
ALTER TABLE runs ADD COLUMN superseded BIGINT NOT NULL DEFAULT 0;
DROP INDEX runs_commit;
CREATE INDEX runs_commit ON runs (connection, repository_id, commit_sha, id);
UPDATE runs SET superseded = 1 WHERE EXISTS (SELECT 1 FROM runs n WHERE n.connection = runs.connection
    AND n.repository_id = runs.repository_id AND n.commit_sha = runs.commit_sha AND n.id > runs.id
    AND n.path = runs.path AND n.event = runs.event AND n.ref_name = runs.ref_name);
CREATE INDEX runs_current ON runs (connection, repository_id, commit_sha, id) WHERE superseded = 0;

-- The reports that are being sent: few, beside all that are owed.
CREATE INDEX reports_leased ON reports (connection, forge_context, lease_until)
    WHERE delivered < version AND lease_until > 0;
