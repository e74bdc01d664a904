-- Deliveries

-- name: predictions_with_webhook
-- A prediction that joined a run by a provisional identity can still be detached, so nothing is sent for it yet.
SELECT p.id, p.team, p.webhook, p.source FROM predictions AS p {join} runs AS r ON r.id = p.run_id
WHERE p.run_id = :run_id AND p.webhook IS NOT NULL AND p.canceled_at IS NULL AND {shown}
    AND (p.source <> 'joined' OR r.fingerprint IS NOT NULL);

-- name: add_delivery
-- Takes the place that was reserved for it, if there is one.
INSERT INTO deliveries ({delivery}, body) VALUES ({delivery_values}, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, created_at = excluded.created_at WHERE deliveries.state = 'reserved';

-- name: move_place
UPDATE deliveries SET id = :to_id, prediction_id = :prediction_id WHERE id = :from_id AND state = 'reserved';

-- name: free_place
DELETE FROM deliveries WHERE id = :id AND state = 'reserved';

-- name: free_places_of_run
DELETE FROM deliveries WHERE run_id = :run_id AND state = 'reserved';

-- name: free_unused_places
-- Predictions that joined a run without learning in time that they can stay, before a crash.
DELETE FROM deliveries WHERE state = 'reserved' AND run_id > '' AND NOT EXISTS (
    SELECT 1 FROM runs WHERE id = deliveries.run_id AND state IN ('intended', 'live')
);

-- name: places_taken
SELECT coalesce(sum(CASE WHEN team = :team THEN taken ELSE 0 END), 0),
    coalesce(sum(CASE WHEN team = :team AND is_public = 1 THEN taken ELSE 0 END), 0),
    coalesce(sum(taken), 0)
FROM delivery_counts WHERE team > '';

-- name: deliveries_by_team
SELECT team, sum(taken), sum(dead) FROM delivery_counts WHERE team > '' GROUP BY team;

-- name: deliveries_due
SELECT id, receiver FROM deliveries
WHERE state = 'queued' AND next_at <= :now AND (held_until IS NULL OR held_until <= :now)
    AND receiver NOT IN (SELECT value FROM {each::receivers}) AND team NOT IN (SELECT value FROM {each::teams})
    AND {owner_first}
ORDER BY next_at, created_at, id {at_most};

-- name: hold_delivery
UPDATE deliveries SET held_until = :until, held_by = :node, attempts = attempts + 1
WHERE id = :id AND state = 'queued' AND next_at <= :now AND (held_until IS NULL OR held_until <= :now)
    AND {node_acts} AND {owner_first}
RETURNING {delivery};

-- name: release_delivery
UPDATE deliveries SET held_until = NULL, attempts = attempts - 1
WHERE id = :id AND state = 'queued' AND held_until IS NOT NULL AND held_by = :node;

-- name: reclaim_deliveries
UPDATE deliveries SET held_until = NULL WHERE held_until IS NOT NULL AND {holder_gone};

-- name: delivery_body
SELECT length(body), CASE WHEN length(body) <= :most_bytes THEN body END FROM deliveries WHERE id = :id;

-- name: delete_delivery
DELETE FROM deliveries WHERE id = :id;

-- name: delivered
DELETE FROM deliveries WHERE id = :id AND held_by = :node;

-- name: postpone_delivery
UPDATE deliveries SET next_at = :next_at, held_until = NULL, error = :error, body = coalesce(body, :body)
WHERE id = :id AND state = 'queued' AND held_by = :node;

-- name: mark_dead
UPDATE deliveries
SET state = 'dead', dead_at = :at, held_until = NULL, error = :error, body = coalesce(body, :body)
WHERE id = :id AND state = 'queued' AND held_by = :node;

-- name: deliveries
SELECT {delivery} FROM deliveries
WHERE id > :after AND (CAST(:team AS TEXT) IS NULL OR team = :team)
    AND CASE WHEN CAST(:state AS TEXT) IS NULL THEN state <> 'reserved' ELSE state = :state END
ORDER BY id LIMIT :limit;

-- name: deliveries_of_prediction
SELECT {delivery} FROM deliveries WHERE prediction_id = :prediction_id AND state <> 'reserved' LIMIT :limit;

-- name: redeliver_one
UPDATE deliveries
SET state = 'queued', next_at = 0, attempts = 0, dead_at = NULL
WHERE id = :id AND state <> 'reserved' AND (held_until IS NULL OR held_until <= :now)
    AND (CAST(:team AS TEXT) IS NULL OR team = :team)
RETURNING team, prediction_id;

-- name: redeliver_dead
UPDATE deliveries
SET state = 'queued', next_at = 0, attempts = 0, dead_at = NULL
WHERE state = 'dead' AND dead_at > {lowest} AND (CAST(:team AS TEXT) IS NULL OR team = :team);

-- name: redeliver_queued
UPDATE deliveries
SET state = 'queued', next_at = 0, attempts = 0, dead_at = NULL
WHERE state = 'queued' AND next_at > 0 AND (CAST(:team AS TEXT) IS NULL OR team = :team) AND (held_until IS NULL OR held_until <= :now);

-- name: queued_deliveries
SELECT count(*), min(created_at) FROM deliveries WHERE state = 'queued' AND created_at > {lowest};

-- name: dead_deliveries
SELECT count(*) FROM deliveries WHERE state = 'dead' AND dead_at > {lowest};

-- name: teams_with_excess_dead
SELECT team, sum(dead) - :most FROM delivery_counts WHERE team > '' GROUP BY team HAVING sum(dead) > :most;

-- name: delete_oldest_dead
DELETE FROM deliveries WHERE id IN (
    SELECT id FROM deliveries WHERE state = 'dead' AND team = :team AND dead_at > {lowest}
    ORDER BY dead_at, id LIMIT :limit
) AND state = 'dead';

-- name: delete_dead_deliveries
DELETE FROM deliveries
WHERE id IN (SELECT id FROM deliveries WHERE state = 'dead' AND dead_at < :before ORDER BY dead_at LIMIT :limit) AND state = 'dead';

-- name: awaiting_webhooks
-- Starts from the live runs, because they are few. The caller sorts the result, or {page} does.
SELECT {view} FROM runs AS r {join} predictions AS p ON p.run_id = r.id
WHERE r.state IN ('intended', 'live') AND r.state <> 'intended' AND r.id > '' AND r.owner = :node
    AND p.webhook IS NOT NULL AND p.canceled_at IS NULL AND p.source <> 'hit' AND {unindexed:p.id} > :after
    AND (p.source <> 'joined' OR r.fingerprint IS NOT NULL)
{page:p.id};
