-- Why each prediction was shared or not, as it was decided when it was asked for (a token of gateway.core.determinism),
-- and for those that lead how their run was let in (gateway.core.admitted, as JSON). Of earlier ones nobody knows.
ALTER TABLE predictions ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE predictions ADD COLUMN admitted TEXT;
