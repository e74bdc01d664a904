-- Runs and predictions

-- name: progress
UPDATE runs
SET status = :status, document = :document, stream_url = coalesce(:stream_url, stream_url), unreadable_since = NULL
WHERE id = :id
    AND state IN ('intended', 'live')
    AND owner = :node
    AND CASE status WHEN 'starting' THEN 0 WHEN 'processing' THEN 1 ELSE 2 END <= :rank
    AND (
        status <> :status
        OR document <> :document
        OR (CAST(:stream_url AS TEXT) IS NOT NULL AND stream_url {differs_from} :stream_url)
    )
RETURNING {run_written};

-- name: mark_unreadable
UPDATE runs SET unreadable_since = :since WHERE id = :id AND state = 'live' AND owner = :node;

-- name: finish
UPDATE runs
SET status = :status, document = :document, stream_url = coalesce(:stream_url, stream_url),
    state = 'ended', ended_at = :at,
    cache_until = CASE WHEN :status = 'succeeded' AND fingerprint IS NOT NULL THEN CAST(:cache_until AS DOUBLE PRECISION) END
WHERE id = :id AND state IN ('intended', 'live') AND owner = :node
RETURNING {run_written};

-- name: prediction
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id WHERE p.id = :id;

-- name: shown_prediction
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id WHERE p.id = :id AND {shown};

-- name: prediction_by_ticket
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id WHERE p.ticket = :ticket AND p.ticket <> '' AND {shown} LIMIT 1;

-- name: cancel_prediction
UPDATE predictions SET canceled_at = :at, final_status = :final_status WHERE id = :id;

-- name: someone_waits
SELECT 1 FROM predictions WHERE run_id = :run_id AND canceled_at IS NULL AND source <> 'hit' LIMIT 1;

-- name: ask_cancel
UPDATE runs SET cancel_asked_at = :at WHERE id = :run_id;

-- name: predictions_of_team_older
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: predictions_of_team_newer
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: predictions_of_team_any
SELECT 1 FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
LIMIT 1;

-- name: predictions_of_owner_older
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.owner = :owner AND p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: predictions_of_owner_newer
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.owner = :owner AND p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: predictions_of_owner_any
SELECT 1 FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.team = :team AND p.owner = :owner AND p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
LIMIT 1;

-- name: predictions_of_all_older
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: predictions_of_all_newer
SELECT {view} FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: predictions_of_all_any
SELECT 1 FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.kind = :kind AND {shown}
    AND (p.created_at, p.id) > (:low_at, :low_id) AND (p.created_at, p.id) < (:high_at, :high_id)
LIMIT 1;

-- name: owns_upstream_id
SELECT 1 FROM runs WHERE upstream_id = :upstream_id LIMIT 1;

-- name: open_runs
SELECT {run_read} FROM runs WHERE state IN ('intended', 'live') AND id > :after AND owner = :node ORDER BY id LIMIT :limit;

-- name: intents
SELECT {run_read} FROM runs
WHERE state IN ('intended', 'live') AND state = 'intended' AND id > :after AND path = :path ORDER BY id LIMIT :limit;

-- name: runs_to_cancel
SELECT {run_read} FROM runs
WHERE state IN ('intended', 'live') AND state <> 'intended' AND id > '' AND cancel_asked_at IS NOT NULL AND owner = :node
{at_most};

-- name: runs_to_clear
SELECT {run_read} FROM runs
WHERE state = 'ended' AND data_removed = 0 AND ended_at < :ended_before
    AND (cache_until IS NULL OR cache_until <= :now)
    -- A delivery without a body still needs the run's document to make it.
    AND NOT EXISTS (SELECT 1 FROM deliveries WHERE run_id = runs.id AND body IS NULL)
ORDER BY ended_at, id LIMIT :limit;

-- name: clear_data
UPDATE runs SET document = :document, request = {no_bytes}, data_removed = 1, copies = '[]' WHERE id = :id AND state = 'ended';

-- name: predictions_to_delete
SELECT p.id, p.run_id FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.kind = :kind AND p.created_at < :created_before AND r.state NOT IN ('intended', 'live')
ORDER BY p.created_at, p.id LIMIT :limit;

-- name: delete_prediction
DELETE FROM predictions WHERE id = :id;

-- name: delete_run_without_predictions
DELETE FROM runs WHERE id = :id AND NOT EXISTS (SELECT 1 FROM predictions WHERE run_id = :id);
