-- The node that follows a run. Always 0 here, where one process serves.
ALTER TABLE runs ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
