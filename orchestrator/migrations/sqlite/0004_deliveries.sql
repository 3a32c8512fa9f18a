-- A delivery that led to no run may come again, and is then another row: rows that have ended are never reopened.
-- `number` counts the rows of one key. `repeats` names an older delivery with the same body that did lead to runs:
-- such a one counts only if the forge says that its ref points there now. `retry` says whether one that led to
-- nothing may come again (never, on_request, automatic). The subject is what the body claims.
CREATE TABLE deliveries_new (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT   NOT NULL UNIQUE,
    connection      TEXT   NOT NULL,
    delivery_key    TEXT   NOT NULL,
    number          BIGINT NOT NULL DEFAULT 1,
    event           TEXT   NOT NULL,
    body            BLOB,
    digest          BLOB   NOT NULL,
    repository_id   BIGINT,
    repository_path TEXT,
    ref_name        TEXT,
    commit_sha      TEXT,
    deletion        BIGINT NOT NULL DEFAULT 0,
    repeats         TEXT,
    state           TEXT   NOT NULL,
    reason          TEXT,
    retry           TEXT   NOT NULL DEFAULT 'never',
    received_ms     BIGINT NOT NULL,
    tries           BIGINT NOT NULL DEFAULT 0,
    epoch           BIGINT NOT NULL DEFAULT 0,
    lease_owner     TEXT,
    lease_until     BIGINT NOT NULL DEFAULT 0,
    UNIQUE (connection, delivery_key, number)
);
INSERT INTO deliveries_new (seq, id, connection, delivery_key, event, body, digest, state, reason, retry, received_ms,
    tries, epoch, lease_owner, lease_until)
SELECT seq, id, connection, delivery_key, event, body, digest, state, reason,
    CASE WHEN state = 'failed' OR reason LIKE 'the repository % is not in the list of connection %'
        OR reason LIKE '% is not among the `repositories` of connection %' THEN 'on_request' ELSE 'never' END,
    received_ms, tries, epoch, lease_owner, lease_until
FROM deliveries;
DROP TABLE deliveries;
ALTER TABLE deliveries_new RENAME TO deliveries;
CREATE INDEX deliveries_digest ON deliveries (connection, event, digest);
CREATE INDEX deliveries_received ON deliveries (seq) WHERE state = 'received';
CREATE INDEX deliveries_ref ON deliveries (connection, repository_id, ref_name, seq);

-- What a trigger claims stands in its body; here it can be asked for. `tip_only`: the commit must be the ref's tip.
-- `refusals`: how often the forge did not accept our credentials, which is no try of the trigger's own.
ALTER TABLE triggers ADD COLUMN ref_name TEXT;
ALTER TABLE triggers ADD COLUMN claimed_sha TEXT;
ALTER TABLE triggers ADD COLUMN retry TEXT NOT NULL DEFAULT 'never';
ALTER TABLE triggers ADD COLUMN tip_only BIGINT NOT NULL DEFAULT 0;
ALTER TABLE triggers ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0;
UPDATE triggers SET ref_name = json_extract(body, '$.event.ref_name'), claimed_sha = json_extract(body, '$.event.commit'),
    retry = CASE WHEN state = 'failed' THEN 'on_request' ELSE 'never' END;
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
