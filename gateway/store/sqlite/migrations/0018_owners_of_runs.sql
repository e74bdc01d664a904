-- The node that follows a run, and the node that holds a delivery. Always 0 here, where one process serves.
ALTER TABLE runs ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN held_by INTEGER NOT NULL DEFAULT 0;
