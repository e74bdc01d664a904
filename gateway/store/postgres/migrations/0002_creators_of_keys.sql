-- Who created a key, as in the audit log. Unknown for keys whose entries are no longer kept.
ALTER TABLE keys ADD COLUMN created_by TEXT COLLATE "C";
UPDATE keys SET created_by = made.actor
FROM (SELECT subject, actor FROM audit WHERE action = 'key.created') AS made WHERE made.subject = keys.id;
UPDATE keys SET created_by = made.actor
FROM (SELECT after_values::json ->> 'successor' AS id, actor FROM audit WHERE action = 'key.rotated') AS made
WHERE made.id = keys.id;
CREATE INDEX keys_of_creator ON keys (created_by, created_at, id);
