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

-- Hints for the daemons of other nodes: whoever changes rows that somebody waits for says so, in the transaction of the
-- change and without a statement of its own. Receiving it is never needed, only quicker. The payload is a kind, what it is
-- about or `-`, and the schema, as the channel belongs to the whole database.
CREATE FUNCTION helios_hint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('helios_ci', TG_ARGV[0] || ' - ' || TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;
CREATE FUNCTION helios_hint_cancel_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('helios_ci', 'cancel ' || a.id || ' ' || TG_TABLE_SCHEMA)
    FROM attempts a WHERE a.job_id = NEW.id AND a.state <> 'ended';
    RETURN NULL;
END $$;
CREATE FUNCTION helios_hint_cancel_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('helios_ci', 'cancel ' || a.id || ' ' || TG_TABLE_SCHEMA)
    FROM attempts a JOIN jobs j ON j.id = a.job_id
    WHERE j.run_id = NEW.run_id AND j.run_attempt = NEW.number AND a.state <> 'ended';
    RETURN NULL;
END $$;
CREATE TRIGGER hint_stored AFTER INSERT ON deliveries FOR EACH ROW
    WHEN (NEW.state = 'received') EXECUTE FUNCTION helios_hint('delivery');
CREATE TRIGGER hint_stored AFTER INSERT ON triggers FOR EACH ROW
    WHEN (NEW.state = 'received') EXECUTE FUNCTION helios_hint('trigger');
-- One that is given back, or is due sooner. One that is put off is due later, and the timer's.
CREATE TRIGGER hint_due AFTER UPDATE OF lease_until, due_ms ON triggers FOR EACH ROW
    WHEN (NEW.state = 'received' AND NEW.lease_until = 0 AND NEW.due_ms <= OLD.due_ms) EXECUTE FUNCTION helios_hint('trigger');
CREATE TRIGGER hint_queued AFTER UPDATE OF state ON jobs FOR EACH ROW
    WHEN (NEW.state = 'queued') EXECUTE FUNCTION helios_hint('job');
CREATE TRIGGER hint_changed AFTER INSERT OR UPDATE OF version ON reports FOR EACH ROW
    WHEN (NEW.delivered < NEW.version) EXECUTE FUNCTION helios_hint('report');
CREATE TRIGGER hint_cancel AFTER UPDATE OF cancel_ms, cancel_force ON jobs FOR EACH ROW
    WHEN (NEW.cancel_ms IS NOT NULL) EXECUTE FUNCTION helios_hint_cancel_job();
CREATE TRIGGER hint_cancel AFTER UPDATE OF cancel_ms, cancel_force ON run_attempts FOR EACH ROW
    WHEN (NEW.cancel_ms IS NOT NULL) EXECUTE FUNCTION helios_hint_cancel_run();
CREATE TRIGGER hint_kept AFTER UPDATE OF state, keep_until_ms, console_release ON machines FOR EACH ROW
    WHEN (NEW.state = 'kept' AND (OLD.state, OLD.keep_until_ms, OLD.console_release)
        IS DISTINCT FROM (NEW.state, NEW.keep_until_ms, NEW.console_release)) EXECUTE FUNCTION helios_hint('kept');
