-- A check's generation is the report's alone: several jobs may stand for one check.
ALTER TABLE jobs DROP COLUMN generation;
