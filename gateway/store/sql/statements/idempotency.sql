-- Idempotency keys

-- name: idempotency_key
SELECT body_sha256, prediction_id FROM idempotency WHERE team = :team AND key = :key AND expires_at > :now;

-- name: remember_key
INSERT INTO idempotency (team, key, body_sha256, expires_at, prediction_id)
VALUES (:team, :key, :body_digest, :expires_at, :prediction_id)
ON CONFLICT (team, key) DO UPDATE
SET body_sha256 = excluded.body_sha256, expires_at = excluded.expires_at, prediction_id = excluded.prediction_id;

-- name: move_key
UPDATE idempotency SET prediction_id = :to_id WHERE prediction_id = :from_id;

-- name: forget_key
DELETE FROM idempotency WHERE prediction_id = :prediction_id;

-- name: delete_expired_idempotency
DELETE FROM idempotency WHERE (team, key) IN (
    SELECT team, key FROM idempotency WHERE expires_at < :before ORDER BY expires_at LIMIT :limit
) AND expires_at < :before;
