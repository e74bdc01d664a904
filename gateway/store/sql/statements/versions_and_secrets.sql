-- Versions, secrets

-- name: learn_version
INSERT INTO versions (version, model) VALUES (:version, :model) ON CONFLICT (version) DO NOTHING;

-- name: forget_version
DELETE FROM versions WHERE version = :version;

-- name: model_of
SELECT model FROM versions WHERE version = :version;

-- name: propose_secret
INSERT INTO secrets (name, secret) VALUES (:name, :proposal) ON CONFLICT (name) DO NOTHING;

-- name: secret
SELECT secret FROM secrets WHERE name = :name;

-- name: retire_secret
INSERT INTO old_secrets (name, secret, retired_at, until)
SELECT name, secret, :now, :until FROM secrets WHERE name = :name AND :until > :now;

-- name: set_secret
INSERT INTO secrets (name, secret) VALUES (:name, :secret) ON CONFLICT (name) DO UPDATE SET secret = excluded.secret;

-- name: delete_old_secrets
DELETE FROM old_secrets WHERE name = :name AND until <= :now;

-- name: old_secrets
SELECT secret FROM old_secrets WHERE name = :name AND until > :now ORDER BY retired_at DESC;
