-- Since when a trigger waits for a credential or a right, in milliseconds since 1970; null when it was put off for another
-- reason, or not at all.
ALTER TABLE triggers ADD COLUMN refused_ms BIGINT;
UPDATE triggers SET refused_ms = created_ms WHERE state = 'received' AND refusals > 0;
