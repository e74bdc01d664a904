-- Statements about nodes, which only PostgreSQL has. {now}: the time of the server's clock. {node_lives}: whether the
-- node `:number` has not ended. {ownerless}: whether no such node owns a run.

-- name: join_nodes
INSERT INTO nodes (name, place, started_at, renewed_at, expires_at)
SELECT :name, :place, at, at, at + :seconds FROM (SELECT {now} AS at) AS clock RETURNING number;

-- name: renew_node
UPDATE nodes SET renewed_at = at, expires_at = at + :seconds, report = :report FROM (SELECT {now} AS at) AS clock
WHERE number = :number AND ended_at IS NULL;

-- name: leave_nodes
UPDATE nodes SET ended_at = {now} WHERE number = :number AND ended_at IS NULL;

-- name: forget_nodes
DELETE FROM nodes WHERE ended_at < {now} - :seconds;

-- name: end_expired_nodes
UPDATE nodes SET ended_at = {now}
WHERE ended_at IS NULL AND (expires_at < :at OR renewed_at > :at + (expires_at - renewed_at))
    AND number <> :number AND {node_lives}
RETURNING number;

-- name: end_nodes
UPDATE nodes SET ended_at = {now}
WHERE ended_at IS NULL AND number = ANY(CAST(:numbers AS BIGINT[])) AND number <> :number AND {node_lives}
RETURNING number;

-- name: lock_joining
SELECT pg_advisory_xact_lock(:key);

-- name: keep_node
SELECT 1 FROM nodes WHERE number = :node AND ended_at IS NULL FOR SHARE;

-- name: take_runs
WITH found AS MATERIALIZED (
    SELECT id FROM runs
    WHERE state IN ('intended', 'live') AND {ownerless} AND {node_lives}
        AND (state = 'live' OR EXISTS (SELECT 1 FROM leases WHERE name = :leader AND node = :number AND expires_at > {now}))
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE runs AS r SET owner = :number FROM found WHERE r.id = found.id RETURNING {run_columns};

-- name: take_ended_runs
WITH found AS MATERIALIZED (
    SELECT id FROM runs
    WHERE state = 'ended' AND data_removed = 0 AND ended_at > :since AND {ownerless} AND {node_lives}
    ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE runs SET owner = :number FROM found WHERE runs.id = found.id;

-- name: owned_runs
SELECT id FROM runs WHERE state IN ('intended', 'live') AND owner = :number;

-- name: living_nodes
SELECT {now}, array_agg(number), array_agg(place) FROM nodes WHERE ended_at IS NULL;

-- name: nodes
SELECT number, name, started_at, renewed_at, expires_at, ended_at, report FROM nodes
WHERE number < :before ORDER BY number DESC LIMIT :limit;

-- name: lead
INSERT INTO leases (name, node, expires_at) SELECT :name, :number, {now} + :seconds WHERE {node_lives}
ON CONFLICT (name) DO UPDATE SET node = excluded.node, expires_at = excluded.expires_at
WHERE leases.node = excluded.node OR leases.expires_at < {now}
    OR NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.number = leases.node AND ended_at IS NULL);

-- name: clock
SELECT {now};

-- name: forget_sessions
-- No step is in doubt for so long.
DELETE FROM commits WHERE session IN (
    SELECT session FROM commits WHERE at < {now} - CAST(:seconds AS DOUBLE PRECISION)
    LIMIT :limit FOR UPDATE SKIP LOCKED
);

-- name: note_reload
INSERT INTO config_reloads AS r (id, number) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET number = r.number + 1
RETURNING number;

-- name: reloads
SELECT coalesce(max(number), 0) FROM config_reloads;

-- name: keep_outcome
INSERT INTO create_outcomes (run_id, outcome, at) VALUES (:run_id, :outcome, {now}) ON CONFLICT DO NOTHING;

-- name: create_outcome
SELECT outcome FROM create_outcomes WHERE run_id = :run_id;

-- name: forget_outcomes
DELETE FROM create_outcomes WHERE at < {now} - :seconds;

-- name: tell
SELECT pg_notify(:channel, :message);

-- name: append_events
-- What `add_events`, `delete_events_after` and `delete_events_before` do, for many runs.
WITH given AS (
    SELECT * FROM unnest(
        CAST(:run_ids AS TEXT[]), CAST(:firsts AS BIGINT[]), CAST(:parts AS BYTEA[]), CAST(:kept_from AS BIGINT[])
    ) AS given(run_id, first, part, kept_from)
), kept AS MATERIALIZED (
    SELECT given.* FROM runs JOIN given ON given.run_id = runs.id
    WHERE runs.data_removed = 0 AND runs.owner = :node ORDER BY runs.id FOR SHARE OF runs
), added AS (
    INSERT INTO event_logs (run_id, first, part) SELECT run_id, first, part FROM kept
    ON CONFLICT (run_id, first) DO UPDATE SET part = excluded.part
    RETURNING run_id
), later AS (
    DELETE FROM event_logs AS e USING kept WHERE e.run_id = kept.run_id AND e.first > kept.first
), earlier AS (
    DELETE FROM event_logs AS e USING kept WHERE e.run_id = kept.run_id AND e.first < kept.first AND e.first < greatest(
        (SELECT max(o.first) FROM event_logs AS o WHERE o.run_id = kept.run_id AND o.first <= kept.kept_from),
        CASE WHEN kept.first <= kept.kept_from THEN kept.first END
    )
)
SELECT run_id FROM added;

-- name: events_since
SELECT e.run_id, e.part
FROM unnest(CAST(:run_ids AS TEXT[]), CAST(:cursors AS BIGINT[])) AS given(run_id, cursor)
JOIN event_logs AS e ON e.run_id = given.run_id AND e.first >= coalesce(
    (SELECT max(o.first) FROM event_logs AS o WHERE o.run_id = given.run_id AND o.first <= given.cursor), 0
)
ORDER BY e.run_id, e.first;
