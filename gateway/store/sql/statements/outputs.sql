-- Copies of outputs

-- name: runs_ended
SELECT {run_read} FROM runs
WHERE state = 'ended' AND data_removed = 0 AND (ended_at, id) > (:since, :after) AND owner = :node
ORDER BY ended_at, id LIMIT :limit;

-- name: claim_object
INSERT INTO output_objects (sha256, size, last_used_at, claimed_until) VALUES (:sha256, :size, :now, :until)
ON CONFLICT (sha256) DO UPDATE
SET last_used_at = {greatest}(output_objects.last_used_at, :now), claimed_until = {greatest}(coalesce(output_objects.claimed_until, 0), :until)
WHERE output_objects.doomed = 0
RETURNING 1;

-- name: end_claim
UPDATE output_objects SET claimed_until = NULL WHERE sha256 = :sha256 AND doomed = 0 RETURNING 1;

-- name: add_owner
INSERT INTO output_owners (sha256, run_id, stored_at) VALUES (:sha256, :run_id, :stored_at) ON CONFLICT DO NOTHING;

-- name: run_to_keep_copies
SELECT {run_read} FROM runs WHERE id = :run_id AND state = 'ended' AND data_removed = 0 AND {node_acts};

-- name: save_copies
UPDATE runs SET copies = :copies WHERE id = :run_id;

-- name: extend_caching
UPDATE runs SET cache_until = :cache_until WHERE id = :run_id AND cache_until < :cache_until;

-- name: shorten_caching
UPDATE runs SET cache_until = ended_at + :seconds WHERE id = :run_id AND cache_until > ended_at + :seconds;

-- name: update_entry_from_run
UPDATE entries SET cache_until = (SELECT cache_until FROM runs WHERE id = :run_id) WHERE run_id = :run_id;

-- name: copies_of
SELECT copies FROM runs WHERE id = :run_id;

-- name: owners_of
SELECT run_id FROM output_owners WHERE sha256 = :sha256;

-- name: objects_of
SELECT sha256 FROM output_owners WHERE run_id = :run_id;

-- name: remove_owner
DELETE FROM output_owners WHERE sha256 = :sha256 AND run_id = :run_id;

-- name: mark_for_deletion
UPDATE output_objects SET doomed = 1, claimed_until = NULL WHERE sha256 = :sha256 AND doomed = 0;

-- name: mark_if_unowned
-- A claimed object is being written and will get an owner. Otherwise its claim expires.
UPDATE output_objects SET doomed = 1
WHERE sha256 = :sha256 AND doomed = 0 AND claimed_until IS NULL
    AND NOT EXISTS (SELECT 1 FROM output_owners AS o WHERE o.sha256 = :sha256);

-- name: expired_claims
SELECT sha256 FROM output_objects WHERE doomed = 0 AND claimed_until IS NOT NULL AND claimed_until <= :now LIMIT :limit;

-- name: old_copies
SELECT sha256, run_id FROM output_owners WHERE stored_at < :stored_before ORDER BY stored_at LIMIT :limit;

-- name: objects_by_use
SELECT sha256, size FROM output_objects
WHERE doomed = 0 AND last_used_at > {lowest} AND (claimed_until IS NULL OR claimed_until <= :now)
ORDER BY last_used_at, sha256 LIMIT :limit;

-- name: use_object
UPDATE output_objects SET last_used_at = :now WHERE sha256 = :sha256 AND last_used_at < :now;

-- name: marked_for_deletion
SELECT sha256 FROM output_objects
WHERE doomed = 1 AND sha256 > '' AND (claimed_until IS NULL OR claimed_until <= :now) LIMIT :limit;

-- name: claim_deletion
UPDATE output_objects SET claimed_until = :until WHERE sha256 = :sha256;

-- name: delete_object
DELETE FROM output_objects WHERE sha256 = :sha256 AND doomed = 1;

-- name: output_stats
SELECT count(*), coalesce(sum(size), 0) FROM output_objects WHERE doomed = 0 AND last_used_at > {lowest};
