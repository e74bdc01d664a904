-- Sharing

-- name: entry_to_hit
SELECT e.ended_at, e.cache_until, e.microusd, e.settled_as, {run_columns}
FROM entries AS e {join} runs AS r ON r.id = e.run_id
WHERE e.fingerprint = :fingerprint AND e.ended_at >= :ended_since AND e.cache_until > :now
ORDER BY e.ended_at DESC, e.run_id DESC LIMIT 1 {kept};

-- name: run_to_join
SELECT {run_columns} FROM runs AS r WHERE fingerprint = :fingerprint AND {open} {shared};

-- name: run_to_join_provisionally
-- Where both have a final identity, that decides.
SELECT {run_columns} FROM runs AS r
WHERE provisional = :provisional AND {open} AND (fingerprint IS NULL OR CAST(:fingerprint AS TEXT) IS NULL)
ORDER BY intended_at, id LIMIT 1 {shared};

-- name: run_without_identity
SELECT {run_columns} FROM runs AS r
WHERE provisional = :provisional AND {unidentified}
ORDER BY ended_at DESC LIMIT 1;

-- name: end_of_run
SELECT fingerprint, ended_at FROM runs WHERE id = :id;

-- name: settle_identity
UPDATE runs
SET provisional = NULL,
    fingerprint = CASE
        WHEN fingerprint IS NOT NULL OR provisional IS NULL THEN fingerprint
        WHEN EXISTS (SELECT 1 FROM runs AS other WHERE other.fingerprint = :fingerprint AND {open_other}) THEN NULL
        ELSE :fingerprint
    END
WHERE id = :id AND {node_acts}
RETURNING fingerprint;

-- name: settle_reason
-- While the model was unknown, that was the reason.
UPDATE predictions SET reason = :reason WHERE run_id = :run_id AND reason = 'model-unknown' AND {node_acts};

-- name: detach
DELETE FROM predictions WHERE id = :id AND source = 'joined';

-- name: run
SELECT {run_read} FROM runs WHERE id = :id;

-- name: runs_unless_large
SELECT {run_columns} FROM runs AS r WHERE r.id IN (SELECT value FROM {each::ids});

-- name: predictions_of_run
SELECT {prediction} FROM predictions WHERE run_id = :run_id ORDER BY created_at, id LIMIT :limit;

-- name: deadlines
-- Led by the runs that are live, which are few; the order is made outside, or by {page}.
SELECT {prediction} FROM predictions
WHERE run_id IN (
        SELECT id FROM runs WHERE state IN ('intended', 'live') AND state <> 'intended' AND id > '' AND owner = :node
    )
    AND canceled_at IS NULL AND source <> 'hit' AND deadline_at IS NOT NULL AND {unindexed:id} > :after
{page:id};
