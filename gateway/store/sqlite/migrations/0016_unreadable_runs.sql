-- Since when upstream's answers about a run cannot be read; NULL after a readable one.
ALTER TABLE runs ADD COLUMN unreadable_since REAL;
