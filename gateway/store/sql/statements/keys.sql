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

-- name: keys_of_all
SELECT {key} FROM keys ORDER BY team, created_at, id;

-- name: keys_of_team
SELECT {key} FROM keys WHERE team = :team ORDER BY created_at, id;

-- name: revoke_key
UPDATE keys SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL RETURNING {key};

-- name: expire_key
UPDATE keys SET expires_at = {least}(coalesce(expires_at, :expires_at), :expires_at) WHERE id = :id RETURNING {key};
