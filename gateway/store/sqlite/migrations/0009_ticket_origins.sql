-- A stream's ticket can be restricted to the web origins of the key that created the prediction.

ALTER TABLE predictions ADD COLUMN ticket_origins TEXT;
