-- Copies of output files: objects by the SHA-256 of their bytes, and the runs that own them.

-- The copies (gateway.domain.records.Copy) as JSON: they are read with the run and rarely change.
ALTER TABLE runs ADD COLUMN copies TEXT NOT NULL DEFAULT '[]';

CREATE TABLE output_objects (
    sha256 TEXT NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    last_used_at REAL NOT NULL,
    -- Until this time, a task is writing the object's bytes or, if `doomed` (marked for deletion), deleting them.
    claimed_until REAL,
    doomed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
-- With `size`, so that the sum is read from the index alone.
CREATE INDEX output_objects_by_use ON output_objects (last_used_at, sha256, size, claimed_until) WHERE doomed = 0;
CREATE INDEX output_objects_claimed ON output_objects (claimed_until) WHERE doomed = 0 AND claimed_until IS NOT NULL;
CREATE INDEX output_objects_doomed ON output_objects (sha256, claimed_until) WHERE doomed = 1;

CREATE TABLE output_owners (
    sha256 TEXT NOT NULL,
    run_id TEXT NOT NULL,
    stored_at REAL NOT NULL,
    PRIMARY KEY (sha256, run_id)
) WITHOUT ROWID;
CREATE INDEX output_owners_by_run ON output_owners (run_id);
CREATE INDEX output_owners_by_age ON output_owners (stored_at, sha256, run_id);
