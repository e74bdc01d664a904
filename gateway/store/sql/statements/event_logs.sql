-- Event logs

-- name: delete_events
DELETE FROM event_logs WHERE run_id = :run_id;

-- name: add_events
INSERT INTO event_logs (run_id, first, part)
SELECT id, :first, :part FROM runs WHERE id = :run_id AND data_removed = 0 AND owner = :node {shared}
ON CONFLICT (run_id, first) DO UPDATE SET part = excluded.part;

-- name: delete_events_after
DELETE FROM event_logs WHERE run_id = :run_id AND first > :first;

-- name: delete_events_before
-- Keeps the part that contains event `kept_from` or ends before it.
DELETE FROM event_logs WHERE run_id = :run_id AND first < (
    SELECT max(first) FROM event_logs WHERE run_id = :run_id AND first <= :kept_from
);

-- name: event_parts
SELECT part FROM event_logs WHERE run_id = :run_id ORDER BY first;
