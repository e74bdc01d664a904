-- The request that made a prediction, for operators. Unknown for existing predictions.
ALTER TABLE predictions ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
CREATE INDEX predictions_of_key ON predictions (key_id, kind, created_at, id);
