-- Statements for rates that nodes share. {now}: the time of the server's clock.

-- name: known_rates
-- One row for each rate and holding, at least one. The lease is NULL if the node has none, or was ended.
-- A node has its shares until it is ended. That its lease has expired by this clock proves nothing: the clock may have
-- jumped, and a node counts its lease on its own.
WITH living AS MATERIALIZED (
    SELECT number, expires_at FROM nodes WHERE ended_at IS NULL
), here AS MATERIALIZED (
    SELECT {now} AS now,
           (SELECT count(*) FROM living) AS nodes,
           (SELECT expires_at FROM living WHERE number = :node) AS lease_until
)
SELECT here.now, here.nodes, here.lease_until - here.now,
       r.name, r.per_minute, r.burst, r.free, r.tokens, r.at, r.turn, r.paused_until,
       r.throttles, r.throttled_by, r.throttled_at, r.allowed_per_minute, r.allowed_burst,
       s.node, s.number, s.share, s.demand, s.turn, s.waits_at, s.node IN (SELECT number FROM living)
FROM here
LEFT JOIN rates r ON r.name = ANY(CAST(:names AS TEXT[]))
LEFT JOIN rate_shares s ON s.name = r.name;

-- name: add_rates
-- In order, so that two steps that add the same rates do not wait for each other.
INSERT INTO rates (name, per_minute, burst, tokens, at)
SELECT name, per_minute, burst, burst, {now}
FROM unnest(
    CAST(:names AS TEXT[]), CAST(:per_minutes AS DOUBLE PRECISION[]), CAST(:bursts AS BIGINT[])
) AS new(name, per_minute, burst)
ORDER BY name
ON CONFLICT (name) DO NOTHING;

-- name: save_rate
UPDATE rates
SET per_minute = :per_minute, burst = :burst, free = :free, tokens = :tokens, at = :at, turn = :turn,
    paused_until = :paused_until, throttles = :throttles, throttled_by = :throttled_by, throttled_at = :throttled_at,
    allowed_per_minute = CAST(:allowed_per_minute AS DOUBLE PRECISION), allowed_burst = CAST(:allowed_burst AS BIGINT)
WHERE name = :name;

-- name: save_share
INSERT INTO rate_shares (name, node, number, share, demand, turn, waits_at)
VALUES (:name, :node, :number, :share, :demand, :turn, :waits_at)
ON CONFLICT (name, node) DO UPDATE
SET number = excluded.number, share = excluded.share, demand = excluded.demand, turn = excluded.turn,
    waits_at = excluded.waits_at;

-- name: delete_share
DELETE FROM rate_shares WHERE name = :name AND node = :node;

-- name: forget_rates
WITH here AS MATERIALIZED (
    SELECT {now} AS now
), idle AS (
    SELECT r.name FROM rates r, here
    WHERE r.at < here.now - CAST(:idle_seconds AS DOUBLE PRECISION)
      AND r.at < here.now - r.burst * 60 / r.per_minute
      AND r.throttled_at < here.now - 86400
      AND NOT EXISTS (
          SELECT 1 FROM rate_shares s JOIN nodes n ON n.number = s.node
          WHERE s.name = r.name AND n.ended_at IS NULL AND (s.share > 0 OR s.demand <> '{}')
      )
    LIMIT :limit
    FOR UPDATE OF r SKIP LOCKED
), gone AS (
    DELETE FROM rates WHERE name IN (SELECT name FROM idle) RETURNING name
), left_over AS (
    DELETE FROM rate_shares WHERE name IN (SELECT name FROM gone)
)
SELECT count(*) FROM gone;
