-- Keys

-- name: key_taken
SELECT 1 FROM keys WHERE id = :id
UNION ALL
SELECT 1 FROM keys WHERE team = :team AND name = :name AND revoked_at IS NULL
LIMIT 1;

-- name: add_key
INSERT INTO keys ({key}) VALUES ({key_values});

-- name: key
SELECT {key} FROM keys WHERE id = :id;

-- name: valid_keys_of_team
SELECT count(*) FROM keys WHERE team = :team AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now);

-- name: newest_keys
SELECT {key} FROM keys WHERE (created_at, id) < (:older_at, :older_key)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: newest_keys_of_team
SELECT {key} FROM keys WHERE team = :team AND (created_at, id) < (:older_at, :older_key)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: newest_keys_of_creator
SELECT {key} FROM keys
WHERE created_by = :created_by AND (created_at, id) < (:older_at, :older_key)
    AND (CAST(:team AS TEXT) IS NULL OR team = :team)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: valid_keys_of_creator
SELECT count(*) FROM keys
WHERE created_by = :created_by AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now);

-- name: change_key
UPDATE keys
SET name = :name, expires_at = :expires_at, scopes = :scopes, models = :models, origins = :origins, allowance = :allowance
WHERE id = :id AND revoked_at IS NULL RETURNING {key};

-- name: use_key
INSERT INTO key_uses (key_id, last_used_at) VALUES (:key_id, :used_at)
ON CONFLICT (key_id) DO UPDATE SET last_used_at = {greatest}(key_uses.last_used_at, excluded.last_used_at);

-- name: key_uses
SELECT key_id, last_used_at FROM key_uses WHERE key_id IN (SELECT value FROM {each::ids});

-- name: delete_old_keys
DELETE FROM keys WHERE id IN (
    SELECT id FROM keys WHERE {least}(coalesce(revoked_at, expires_at), coalesce(expires_at, revoked_at)) < :before LIMIT :limit
) AND {least}(coalesce(revoked_at, expires_at), coalesce(expires_at, revoked_at)) < :before;

-- name: delete_old_key_uses
DELETE FROM key_uses WHERE key_id IN (SELECT key_id FROM key_uses WHERE last_used_at < :before LIMIT :limit) AND last_used_at < :before;

-- name: keys_of_all
SELECT {key} FROM keys ORDER BY team, created_at, id;

-- name: keys_of_team
SELECT {key} FROM keys WHERE team = :team ORDER BY created_at, id;

-- name: revoke_key
UPDATE keys SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL RETURNING {key};

-- name: expire_key
UPDATE keys SET expires_at = {least}(coalesce(expires_at, :expires_at), :expires_at) WHERE id = :id RETURNING {key};
