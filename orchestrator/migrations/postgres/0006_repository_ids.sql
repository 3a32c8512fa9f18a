-- A repository's id is its forge's own text: not every forge numbers them. What the adapter of a forge wants to know
-- again of a repository (at GitHub the installation of the App) is text that only this adapter reads; empty means nothing.
ALTER TABLE deliveries ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE triggers ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE runs ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE jobs ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE turn ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE reports ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE comparisons ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);
ALTER TABLE tips ALTER COLUMN repository_id TYPE TEXT USING CAST(repository_id AS TEXT);

ALTER TABLE runs ALTER COLUMN installation TYPE TEXT USING COALESCE(CAST(installation AS TEXT), '');
ALTER TABLE runs ALTER COLUMN installation SET DEFAULT '';
ALTER TABLE runs ALTER COLUMN installation SET NOT NULL;
ALTER TABLE runs RENAME COLUMN installation TO forge_context;
ALTER TABLE reports ALTER COLUMN installation TYPE TEXT USING COALESCE(CAST(installation AS TEXT), '');
ALTER TABLE reports ALTER COLUMN installation SET DEFAULT '';
ALTER TABLE reports ALTER COLUMN installation SET NOT NULL;
ALTER TABLE reports RENAME COLUMN installation TO forge_context;
