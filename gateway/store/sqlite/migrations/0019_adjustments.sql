-- A correction has an id, so that one whose answer was lost can be repeated without a second entry.
ALTER TABLE ledger ADD COLUMN adjustment_id TEXT;
CREATE UNIQUE INDEX ledger_adjusted ON ledger (adjustment_id) WHERE adjustment_id IS NOT NULL;
