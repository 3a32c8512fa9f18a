-- Reports that belong to no run go by their age.
CREATE INDEX reports_no_run ON reports (completed_ms) WHERE run_id IS NULL;
