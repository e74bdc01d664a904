-- The cache

-- name: keep_entry
-- What it cost is known: a run is settled before it may answer.
INSERT INTO entries (
    run_id, fingerprint, team, target, ended_at, cache_until, last_used_at, bytes, microusd, settled_as
)
SELECT id, fingerprint, team, target, ended_at, cache_until, ended_at, length(document),
    coalesce((SELECT microusd FROM ledger WHERE run_id = :run_id AND kind = 'spend'), 0),
    coalesce((SELECT target FROM ledger WHERE run_id = :run_id AND kind = 'spend'), '')
FROM runs
WHERE id = :run_id AND state = 'ended' AND status = 'succeeded' AND data_removed = 0
    AND fingerprint IS NOT NULL AND cache_until IS NOT NULL
ON CONFLICT (run_id) DO UPDATE SET cache_until = excluded.cache_until;

-- name: keep_run_until
UPDATE runs SET cache_until = :cache_until
WHERE id = :run_id AND state = 'ended' AND status = 'succeeded' AND data_removed = 0 AND fingerprint IS NOT NULL;

-- name: use_entry
UPDATE entries SET last_used_at = {greatest}(last_used_at, :now) WHERE run_id = :run_id;

-- name: drop_entry
DELETE FROM entries WHERE run_id = :run_id;

-- name: clear_cache_until
UPDATE runs SET cache_until = NULL WHERE id = :run_id;

-- name: cache_stats_of_all
SELECT count(*), coalesce(sum(bytes), 0), min(ended_at) FROM entries WHERE cache_until > :now;

-- name: cache_stats_of_team
SELECT count(*), coalesce(sum(bytes), 0), min(ended_at) FROM entries WHERE team = :team AND cache_until > :now;

-- name: entries_of_all
SELECT run_id FROM entries WHERE run_id > '' AND target {like::target} LIMIT :limit;

-- name: entries_of_team
SELECT run_id FROM entries WHERE team = :team AND target {like::target} LIMIT :limit;

-- name: entries_by_use
SELECT run_id, bytes FROM entries
WHERE last_used_at > {lowest} AND cache_until > :now
ORDER BY last_used_at, run_id LIMIT :limit;
