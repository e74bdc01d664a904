-- Why each prediction was shared or not, as decided at its creation (a value of gateway.sharing.rules.determinism), and
-- for predictions that started a run how it was admitted (gateway.domain.admission_record, as JSON). Unknown for existing
-- predictions.
ALTER TABLE predictions ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE predictions ADD COLUMN admitted TEXT;
