-- The reporter reads what one lane owes, final states first, at every report: never those that are delivered, which stay
-- as long as their runs.
CREATE INDEX reports_lane ON reports
    (connection, forge_context, (CASE WHEN completed_ms IS NULL THEN 1 ELSE 0 END), due_ms, id)
    WHERE delivered < version;
