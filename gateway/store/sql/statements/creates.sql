-- Creates

-- name: add_run
INSERT INTO runs ({run}) VALUES ({run_values}) ON CONFLICT (id) DO NOTHING;

-- name: known_run
SELECT owner, state, status, upstream_id, length(document), leader_id, fingerprint, provisional FROM runs WHERE id = :id;

-- name: save_run
UPDATE runs SET ({run}) = ({run_values}) WHERE id = ?;

-- name: name_run
-- A webhook recorded a later state before the answer to the create arrived. Keep that state.
UPDATE runs
SET upstream_id = :upstream_id,
    live_at = :live_at,
    stream_url = coalesce(stream_url, :stream_url),
    leader_id = :leader_id,
    uncertain_at = NULL,
    state = CASE state WHEN 'intended' THEN 'live' ELSE state END
WHERE id = :id;

-- name: other_run_of_upstream_id
SELECT 1 FROM runs WHERE upstream_id = :upstream_id AND kind = :kind AND id <> :id;

-- name: add_prediction
INSERT INTO predictions ({prediction}) VALUES ({prediction_values}) ON CONFLICT (id) DO NOTHING;

-- name: save_starter
UPDATE predictions SET ({prediction}) = ({prediction_values}) WHERE id = ? AND run_id = ?;

-- name: run_of_prediction
SELECT run_id FROM predictions WHERE id = :id;

-- name: mark_uncertain
UPDATE runs SET uncertain_at = coalesce(uncertain_at, :at), owner = :owned_by
WHERE id = :id AND state = 'intended' AND owner = :node;

-- name: discard_intent
DELETE FROM runs WHERE id = :id AND state = 'intended' AND owner = :node;

-- name: forget_keys_of_run
DELETE FROM idempotency WHERE prediction_id IN (SELECT id FROM predictions WHERE run_id = :run_id);

-- name: delete_predictions_of_run
DELETE FROM predictions WHERE run_id = :run_id;
