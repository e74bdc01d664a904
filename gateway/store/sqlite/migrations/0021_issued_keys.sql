-- Issued keys have limits of their own, and show how they end. Uses are apart, so that they do not change keys.
ALTER TABLE keys ADD COLUMN allowance TEXT;
ALTER TABLE keys ADD COLUMN last_four TEXT;
CREATE INDEX keys_by_age ON keys (created_at, id);
CREATE TABLE key_uses (
    key_id TEXT NOT NULL PRIMARY KEY,
    last_used_at REAL NOT NULL
) WITHOUT ROWID;
