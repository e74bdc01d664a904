-- Every statement of the SQLite store, by name. The columns of a record are written {run}, {prediction}, {key}, {file};
-- {sight} is those of a prediction `p` and of its run `r`. CROSS JOIN keeps the order of the join as written.

-- Runs and predictions

-- name: record_intent
INSERT INTO runs ({run}) VALUES ({run_values}) ON CONFLICT (id) DO NOTHING;

-- name: known_run
SELECT state, status, upstream_id, length(document) FROM runs WHERE id = :id;

-- name: save_run
INSERT INTO runs ({run}) VALUES ({run_values}) ON CONFLICT (id) DO UPDATE SET {run_excluded};

-- name: name_run
-- The news of this run were faster than the answer to its create: they stand.
UPDATE runs
SET upstream_id = :upstream_id,
    live_at = :live_at,
    stream_url = coalesce(stream_url, :stream_url),
    state = CASE state WHEN 'intended' THEN 'live' ELSE state END
WHERE id = :id;

-- name: add_prediction
INSERT INTO predictions ({prediction}) VALUES ({prediction_values}) ON CONFLICT (id) DO NOTHING;

-- name: run_of_prediction
SELECT run_id FROM predictions WHERE id = :id;

-- name: discard_intent
DELETE FROM runs WHERE id = :id AND state = 'intended';

-- name: progress
UPDATE runs
SET status = :status, document = :document, stream_url = coalesce(:stream_url, stream_url)
WHERE id = :id
    AND state IN ('intended', 'live')
    AND CASE status WHEN 'starting' THEN 0 WHEN 'processing' THEN 1 ELSE 2 END <= :rank
    AND (
        status <> :status
        OR document <> :document
        OR (:stream_url IS NOT NULL AND stream_url IS NOT :stream_url)
    )
RETURNING {run};

-- name: finish
UPDATE runs
SET status = :status, document = :document, stream_url = coalesce(:stream_url, stream_url),
    state = 'ended', ended_at = :at
WHERE id = :id AND state IN ('intended', 'live')
RETURNING {run};

-- name: prediction
SELECT {sight} FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id WHERE p.id = :id;

-- name: prediction_by_ticket
SELECT {sight} FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id WHERE p.ticket = :ticket LIMIT 1;

-- name: cancel_prediction
UPDATE predictions SET canceled_at = :at WHERE id = :id;

-- name: someone_waits
SELECT 1 FROM predictions WHERE run_id = :run_id AND canceled_at IS NULL LIMIT 1;

-- name: ask_cancel
UPDATE runs SET cancel_asked_at = :at WHERE id = :run_id;

-- name: predictions_of_team_older
SELECT {sight} FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.kind = :kind
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: predictions_of_team_newer
SELECT {sight} FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.kind = :kind
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: predictions_of_team_any
SELECT 1 FROM predictions
WHERE team = :team AND kind = :kind
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
LIMIT 1;

-- name: predictions_of_all_older
SELECT {sight} FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id
WHERE p.kind = :kind
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: predictions_of_all_newer
SELECT {sight} FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id
WHERE p.kind = :kind
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: predictions_of_all_any
SELECT 1 FROM predictions
WHERE kind = :kind
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
LIMIT 1;

-- name: owns_upstream_id
SELECT 1 FROM runs WHERE upstream_id = :upstream_id LIMIT 1;

-- name: open_runs
SELECT {run} FROM runs WHERE state IN ('intended', 'live') AND id > :after ORDER BY id LIMIT :limit;

-- name: runs_to_clear
SELECT {run} FROM runs
WHERE state = 'ended' AND data_removed = 0 AND ended_at < :ended_before
ORDER BY ended_at, id LIMIT :limit;

-- name: clear_data
UPDATE runs SET document = :document, request = x'', data_removed = 1 WHERE id = :id AND state = 'ended';

-- name: predictions_to_delete
SELECT p.id, p.run_id FROM predictions AS p CROSS JOIN runs AS r ON r.id = p.run_id
WHERE p.kind = :kind AND p.created_at < :created_before AND r.state NOT IN ('intended', 'live')
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: delete_prediction
DELETE FROM predictions WHERE id = :id;

-- name: delete_run_without_predictions
DELETE FROM runs WHERE id = :id AND NOT EXISTS (SELECT 1 FROM predictions WHERE run_id = :id);

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
UPDATE keys SET revoked_at = coalesce(revoked_at, :at) WHERE id = :id RETURNING {key};

-- name: expire_key
UPDATE keys SET expires_at = min(coalesce(expires_at, :expires_at), :expires_at) WHERE id = :id RETURNING {key};

-- Files

-- name: add_file
INSERT INTO files ({file}) VALUES ({file_values}) ON CONFLICT (id) DO NOTHING;

-- name: file
SELECT {file} FROM files WHERE id = :id;

-- name: files_among
SELECT {file} FROM files WHERE id IN (SELECT value FROM json_each(:ids));

-- name: files_of_team_older
SELECT {file} FROM files
WHERE team = :team AND expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: files_of_team_newer
SELECT {file} FROM files
WHERE team = :team AND expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at, id LIMIT :limit;

-- name: files_of_team_any
SELECT 1 FROM files
WHERE team = :team AND expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
LIMIT 1;

-- name: files_of_all_older
SELECT {file} FROM files
WHERE expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: files_of_all_newer
SELECT {file} FROM files
WHERE expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at, id LIMIT :limit;

-- name: files_of_all_any
SELECT 1 FROM files
WHERE expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
LIMIT 1;

-- name: delete_file
DELETE FROM files WHERE id = :id;

-- name: delete_expired_files
DELETE FROM files WHERE id IN (SELECT id FROM files WHERE expires_at < :before ORDER BY expires_at LIMIT :limit);

-- Versions, secrets, leases

-- name: learn_version
INSERT INTO versions (version, model) VALUES (:version, :model) ON CONFLICT (version) DO NOTHING;

-- name: model_of
SELECT model FROM versions WHERE version = :version;

-- name: propose_secret
INSERT INTO secrets (name, secret) VALUES (:name, :proposal) ON CONFLICT (name) DO NOTHING;

-- name: secret
SELECT secret FROM secrets WHERE name = :name;

-- name: acquire_lease
INSERT INTO leases (name, owner, until) VALUES (:name, :owner, :until)
ON CONFLICT (name) DO UPDATE SET owner = :owner, until = :until WHERE owner = :owner OR until <= :now
RETURNING 1;

-- name: release_lease
DELETE FROM leases WHERE name = :name AND owner = :owner;

-- The store itself

-- name: write_ping
UPDATE pings SET count = count + 1 WHERE id = 1 RETURNING count;

-- name: read_ping
SELECT count FROM pings WHERE id = 1;
