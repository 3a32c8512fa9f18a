-- A delivery that led to no run may come again, and is then another row: rows that have ended are never reopened.
-- `number` counts the rows of one key. `repeats` names an older delivery with the same body that did lead to runs:
-- such a one counts only if the forge says that its ref points there now. `retry` says whether one that led to
-- nothing may come again (never, on_request, automatic). The subject is what the body claims.
ALTER TABLE deliveries DROP CONSTRAINT deliveries_connection_delivery_key_key;
ALTER TABLE deliveries ADD COLUMN number BIGINT NOT NULL DEFAULT 1;
ALTER TABLE deliveries ADD COLUMN repository_id BIGINT;
ALTER TABLE deliveries ADD COLUMN repository_path TEXT;
ALTER TABLE deliveries ADD COLUMN ref_name TEXT;
ALTER TABLE deliveries ADD COLUMN commit_sha TEXT;
ALTER TABLE deliveries ADD COLUMN deletion BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN repeats TEXT;
ALTER TABLE deliveries ADD COLUMN retry TEXT NOT NULL DEFAULT 'never';
ALTER TABLE deliveries ADD UNIQUE (connection, delivery_key, number);
UPDATE deliveries SET retry = 'on_request'
WHERE state = 'failed' OR reason LIKE 'the repository % is not in the list of connection %'
    OR reason LIKE '% is not among the `repositories` of connection %';
CREATE INDEX deliveries_ref ON deliveries (connection, repository_id, ref_name, seq);

-- What a trigger claims stands in its body; here it can be asked for. `tip_only`: the commit must be the ref's tip.
-- `refusals`: how often the forge did not accept our credentials, which is no try of the trigger's own.
ALTER TABLE triggers ADD COLUMN ref_name TEXT;
ALTER TABLE triggers ADD COLUMN claimed_sha TEXT;
ALTER TABLE triggers ADD COLUMN retry TEXT NOT NULL DEFAULT 'never';
ALTER TABLE triggers ADD COLUMN tip_only BIGINT NOT NULL DEFAULT 0;
ALTER TABLE triggers ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0;
-- Foreign text with an escaped NUL is no JSON for Postgres.
UPDATE triggers SET ref_name = CAST(body AS JSON) -> 'event' ->> 'ref_name',
    claimed_sha = CAST(body AS JSON) -> 'event' ->> 'commit'
WHERE position('\u0000' IN body) = 0;
UPDATE triggers SET retry = 'on_request' WHERE state = 'failed';
-- What was ignored was ignored at the commit that it came for.
UPDATE triggers SET commit_sha = claimed_sha WHERE state = 'ignored' AND commit_sha IS NULL;
CREATE INDEX triggers_delivery ON triggers (delivery_id);
CREATE INDEX triggers_ref ON triggers (connection, repository_id, ref_name, seq);

-- When a repository's refs at the forge were last compared with the pushes that are known, or why they were not.
CREATE TABLE comparisons (
    connection      TEXT   NOT NULL,
    repository_id   BIGINT NOT NULL,
    repository_path TEXT   NOT NULL,
    at_ms           BIGINT,
    tried_ms        BIGINT NOT NULL,
    reason          TEXT,
    PRIMARY KEY (connection, repository_id)
);

-- What the refs pointed at then. `known`: it was so when the repository was compared for the first time, so it is no
-- push that was missed. `object_sha` is an annotated tag's own id.
CREATE TABLE tips (
    connection    TEXT   NOT NULL,
    repository_id BIGINT NOT NULL,
    ref_name      TEXT   NOT NULL,
    commit_sha    TEXT   NOT NULL,
    object_sha    TEXT   NOT NULL,
    known         BIGINT NOT NULL,
    seen_ms       BIGINT NOT NULL,
    PRIMARY KEY (connection, repository_id, ref_name)
);
CREATE INDEX tips_unknown ON tips (connection, repository_id) WHERE known = 0;
