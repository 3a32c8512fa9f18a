-- Machines that are kept for a person. `keep_for_ms` is what was asked for while the job ran, and counts from its
-- end; `keep_until_ms` is set from then on. `keep_backend` is set once the guest is cut off from its node.
-- `console_by` is who types on the console, and `console_release` asks the machine's node to let go of it.
ALTER TABLE machines ADD COLUMN keep_by TEXT;
ALTER TABLE machines ADD COLUMN keep_asked_ms BIGINT;
ALTER TABLE machines ADD COLUMN keep_for_ms BIGINT;
ALTER TABLE machines ADD COLUMN keep_until_ms BIGINT;
ALTER TABLE machines ADD COLUMN keep_backend TEXT;
ALTER TABLE machines ADD COLUMN console_by TEXT;
ALTER TABLE machines ADD COLUMN console_release BIGINT NOT NULL DEFAULT 0;
