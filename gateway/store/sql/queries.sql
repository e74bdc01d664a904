-- Every statement of the store, by name, for both engines. `queries.py` replaces the placeholders:
-- {run}, {prediction}, {key}, {file}, {delivery}, {reservation}, {entry}: the columns of a record.
-- {run_columns}: the columns of a run `r`, without its document and request if both have more than :most_bytes, and the
-- bytes that were so left out. {view}: the columns of a prediction `p`, and those of its run `r`.
-- {open}: a run that can be joined.
-- {shown}: a prediction whose id a caller can know. The id of the prediction that starts a run is a placeholder until
-- upstream's id is known, even if the run's end was recorded before.
-- The dialect of an engine (`sqlite/dialect.py`, `postgres/dialect.py`) replaces the words that the engines spell
-- differently: {join}, {lowest}, {greatest}, {least}, {differs_from}, {no_bytes}, {like:pattern}, and {each:array}, which
-- has the strings of a JSON array as `value`.
-- {join} keeps the order of a join as written in SQLite. `> ''` and `> {lowest}`, which are always true, and
-- {unindexed:column} make SQLite choose the intended index.
-- {node_acts}: the node `:node` has not ended; {holder_gone}: the node that holds a delivery has.
-- {owner_first}: the node `:node` may attempt a delivery. The first attempt for the end of a run is its owner's, while that
-- lives: it knows which earlier events it has sent.
-- {kept}, {shared}: rows that are read stay until the step ends, or stay as they are. Other locks are taken by
-- `Database.lock`.
-- A DELETE of rows that it looks for repeats the condition: in PostgreSQL they can have changed since.
-- For PostgreSQL: a parameter whose type cannot be inferred is cast, a column that an upsert changes is named with its table,
-- and "user" is quoted.

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
SELECT {run} FROM runs WHERE id = :id;

-- name: run_unless_large
SELECT {run_columns} FROM runs AS r WHERE r.id = :id;

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

-- Idempotency keys

-- name: idempotency_key
SELECT body_sha256, prediction_id FROM idempotency WHERE team = :team AND key = :key AND expires_at > :now;

-- name: remember_key
INSERT INTO idempotency (team, key, body_sha256, expires_at, prediction_id)
VALUES (:team, :key, :body_digest, :expires_at, :prediction_id)
ON CONFLICT (team, key) DO UPDATE
SET body_sha256 = excluded.body_sha256, expires_at = excluded.expires_at, prediction_id = excluded.prediction_id;

-- name: move_key
UPDATE idempotency SET prediction_id = :to_id WHERE prediction_id = :from_id;

-- name: forget_key
DELETE FROM idempotency WHERE prediction_id = :prediction_id;

-- name: delete_expired_idempotency
DELETE FROM idempotency WHERE (team, key) IN (
    SELECT team, key FROM idempotency WHERE expires_at < :before ORDER BY expires_at LIMIT :limit
) AND expires_at < :before;

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
RETURNING {run};

-- name: mark_unreadable
UPDATE runs SET unreadable_since = :since WHERE id = :id AND state = 'live' AND owner = :node;

-- name: finish
UPDATE runs
SET status = :status, document = :document, stream_url = coalesce(:stream_url, stream_url),
    state = 'ended', ended_at = :at,
    cache_until = CASE WHEN :status = 'succeeded' AND fingerprint IS NOT NULL THEN CAST(:cache_until AS DOUBLE PRECISION) END
WHERE id = :id AND state IN ('intended', 'live') AND owner = :node
RETURNING {run};

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
SELECT {run} FROM runs WHERE state IN ('intended', 'live') AND id > :after AND owner = :node ORDER BY id LIMIT :limit;

-- name: intents
SELECT {run} FROM runs
WHERE state IN ('intended', 'live') AND state = 'intended' AND id > :after AND path = :path ORDER BY id LIMIT :limit;

-- name: runs_to_cancel
SELECT {run} FROM runs
WHERE state IN ('intended', 'live') AND state <> 'intended' AND id > '' AND cancel_asked_at IS NOT NULL AND owner = :node
{at_most};

-- name: runs_to_clear
SELECT {run} FROM runs
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

-- Copies of outputs

-- name: runs_ended
SELECT {run} FROM runs
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
SELECT {run} FROM runs WHERE id = :run_id AND state = 'ended' AND data_removed = 0 AND {node_acts};

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
UPDATE keys SET expires_at = {least}(coalesce(expires_at, :expires_at), :expires_at) WHERE id = :id RETURNING {key};

-- Files

-- name: add_file
INSERT INTO files ({file}) VALUES ({file_values}) ON CONFLICT (id) DO NOTHING;

-- name: file
SELECT {file} FROM files WHERE id = :id;

-- name: files_among
SELECT {file} FROM files WHERE id IN (SELECT value FROM {each::ids});

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

-- name: files_of_owner_older
SELECT {file} FROM files
WHERE team = :team AND owner = :owner AND expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: files_of_owner_newer
SELECT {file} FROM files
WHERE team = :team AND owner = :owner AND expires_at > :now
    AND (created_at, id) > (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at, id LIMIT :limit;

-- name: files_of_owner_any
SELECT 1 FROM files
WHERE team = :team AND owner = :owner AND expires_at > :now
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

-- name: has_file_of_size
SELECT 1 FROM files WHERE team = :team AND size BETWEEN :smallest AND :largest AND expires_at > :kept_at LIMIT 1;

-- name: files_of_content
SELECT {file} FROM files WHERE team = :team AND sha256 = :sha256 AND expires_at > :kept_at
ORDER BY expires_at DESC LIMIT :limit;

-- name: use_of_upstream_file
SELECT 1 FROM files WHERE upstream_id = :upstream_id LIMIT 1;

-- name: delete_file
DELETE FROM files WHERE id = :id RETURNING upstream_id;

-- name: delete_expired_files
DELETE FROM files WHERE id IN (SELECT id FROM files WHERE expires_at < :before ORDER BY expires_at LIMIT :limit);

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

-- name: places_by_team
SELECT team, sum(taken) FROM delivery_counts WHERE team > '' GROUP BY team;

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
WHERE id = :id AND state <> 'reserved' AND (held_until IS NULL OR held_until <= :now);

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

-- Versions, secrets

-- name: learn_version
INSERT INTO versions (version, model) VALUES (:version, :model) ON CONFLICT (version) DO NOTHING;

-- name: forget_version
DELETE FROM versions WHERE version = :version;

-- name: model_of
SELECT model FROM versions WHERE version = :version;

-- name: propose_secret
INSERT INTO secrets (name, secret) VALUES (:name, :proposal) ON CONFLICT (name) DO NOTHING;

-- name: secret
SELECT secret FROM secrets WHERE name = :name;

-- name: retire_secret
INSERT INTO old_secrets (name, secret, retired_at, until)
SELECT name, secret, :now, :until FROM secrets WHERE name = :name AND :until > :now;

-- name: set_secret
INSERT INTO secrets (name, secret) VALUES (:name, :secret) ON CONFLICT (name) DO UPDATE SET secret = excluded.secret;

-- name: delete_old_secrets
DELETE FROM old_secrets WHERE name = :name AND until <= :now;

-- name: old_secrets
SELECT secret FROM old_secrets WHERE name = :name AND until > :now ORDER BY retired_at DESC;

-- The store itself

-- name: write_ping
UPDATE pings SET count = count + 1 WHERE id = 1 RETURNING count;

-- name: read_ping
SELECT count FROM pings WHERE id = 1;

-- Reservations and counters

-- name: add_reservation
INSERT INTO reservations ({reservation}) VALUES ({reservation_values});

-- name: reservation
SELECT {reservation} FROM reservations WHERE run_id = :run_id;

-- name: delete_reservation
DELETE FROM reservations WHERE run_id = :run_id RETURNING {reservation};

-- name: meter
SELECT open, held_milliseconds, held_microusd, full_at FROM meters WHERE scope = :scope;

-- name: change_meter
INSERT INTO meters (scope, open, held_milliseconds, held_microusd, full_at)
VALUES (:scope, :open, :milliseconds, :microusd, :full_at)
ON CONFLICT (scope) DO UPDATE
SET open = meters.open + excluded.open,
    held_milliseconds = meters.held_milliseconds + excluded.held_milliseconds,
    held_microusd = meters.held_microusd + excluded.held_microusd,
    full_at = CASE WHEN :takes THEN excluded.full_at ELSE meters.full_at END;

-- name: spent_in
SELECT
    coalesce(sum(CASE WHEN day = :day THEN milliseconds END), 0), coalesce(sum(CASE WHEN day = :day THEN microusd END), 0),
    coalesce(sum(milliseconds), 0), coalesce(sum(microusd), 0)
FROM spent WHERE scope = :scope AND day >= :first AND day < :end;

-- name: spend
INSERT INTO spent (scope, day, milliseconds, microusd) VALUES (:scope, :day, :milliseconds, :microusd)
ON CONFLICT (scope, day) DO UPDATE
SET milliseconds = spent.milliseconds + excluded.milliseconds, microusd = spent.microusd + excluded.microusd;

-- name: unsettled
SELECT count(*) FROM reservations WHERE at < :before;

-- name: stuck_reservations
-- There are none without a defect: a reservation is deleted in the transaction that ends or deletes its run.
SELECT {reservation} FROM reservations
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = run_id AND state IN ('intended', 'live'))
LIMIT :limit;

-- name: delete_idle_meters
-- A full bucket needs no row.
DELETE FROM meters WHERE scope IN (
    SELECT scope FROM meters WHERE open = 0 AND full_at <= :now ORDER BY full_at LIMIT :limit
) AND open = 0 AND full_at <= :now;

-- The ledger

-- name: insert_entry
INSERT INTO ledger (day, {entry}) VALUES (?, {entry_values}) ON CONFLICT DO NOTHING;

-- name: enter_hits
INSERT INTO ledger (
    day, at, team, key_id, "user", target, run_id, prediction_id, kind, milliseconds, microusd, reason, scopes
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'saved_hit', 0, ?, '', '[]');

-- name: settlement
SELECT {entry} FROM ledger WHERE run_id = :run_id AND kind = 'spend';

-- name: payer
SELECT r.team, r.key_id, p."user", r.leader_id FROM runs AS r LEFT JOIN predictions AS p ON p.id = r.leader_id
WHERE r.id = :run_id;

-- name: enter_joined
INSERT INTO ledger (day, {entry})
SELECT :day, :at, team, key_id, "user", :target, run_id, id, 'saved_joined', 0, :microusd, '', '[]', NULL FROM predictions
WHERE run_id = :run_id AND source = 'joined' ORDER BY created_at, id;

-- name: sharers
-- Hits came after the end.
SELECT id, team, key_id, "user", source, canceled_at IS NULL, webhook IS NOT NULL FROM predictions
WHERE run_id = :run_id AND source <> 'hit' ORDER BY created_at, id;

-- name: who_joined
SELECT team, key_id, "user" FROM predictions WHERE run_id = :run_id AND source = 'joined';

-- name: joined_prediction
SELECT {prediction} FROM predictions WHERE id = :id AND source = 'joined';

-- name: count_usage
INSERT INTO usage_days (team, day, key_id, target, runs, joined, hits, milliseconds, microusd, saved_microusd)
VALUES (:team, :day, :key_id, :target, :runs, :joined, :hits, :milliseconds, :microusd, :saved_microusd)
ON CONFLICT (team, day, key_id, target) DO UPDATE
SET runs = usage_days.runs + excluded.runs,
    joined = usage_days.joined + excluded.joined,
    hits = usage_days.hits + excluded.hits,
    milliseconds = usage_days.milliseconds + excluded.milliseconds,
    microusd = usage_days.microusd + excluded.microusd,
    saved_microusd = usage_days.saved_microusd + excluded.saved_microusd;

-- name: count_user
INSERT INTO usage_users (team, day, "user", runs, joined, hits, milliseconds, microusd, saved_microusd)
VALUES (
    :team, :day,
    -- The first :most users of a day are counted by name, all others together.
    CASE
        WHEN EXISTS (SELECT 1 FROM usage_users WHERE team = :team AND day = :day AND "user" = :user) THEN :user
        WHEN (SELECT count(*) FROM usage_users WHERE team = :team AND day = :day) >= :most THEN :other
        ELSE :user
    END,
    :runs, :joined, :hits, :milliseconds, :microusd, :saved_microusd
)
ON CONFLICT (team, day, "user") DO UPDATE
SET runs = usage_users.runs + excluded.runs,
    joined = usage_users.joined + excluded.joined,
    hits = usage_users.hits + excluded.hits,
    milliseconds = usage_users.milliseconds + excluded.milliseconds,
    microusd = usage_users.microusd + excluded.microusd,
    saved_microusd = usage_users.saved_microusd + excluded.saved_microusd;

-- name: next_team_with_usage
SELECT min(team) FROM usage_days WHERE team > :after;

-- name: usage_by_team
SELECT team, NULL, {sums} FROM usage_days WHERE team = :team AND day BETWEEN :since AND :until GROUP BY team LIMIT :limit;

-- name: usage_by_day
SELECT team, day, {sums} FROM usage_days WHERE team = :team AND day BETWEEN :since AND :until
GROUP BY team, day ORDER BY team, day LIMIT :limit;

-- name: usage_by_key
SELECT team, key_id, {sums} FROM usage_days WHERE team = :team AND day BETWEEN :since AND :until
GROUP BY team, key_id ORDER BY sum(microusd) DESC, key_id LIMIT :limit;

-- name: usage_by_model
SELECT team, target, {sums} FROM usage_days WHERE team = :team AND day BETWEEN :since AND :until
GROUP BY team, target ORDER BY sum(microusd) DESC, target LIMIT :limit;

-- name: usage_by_user
SELECT team, "user", {sums} FROM usage_users WHERE team = :team AND day BETWEEN :since AND :until
GROUP BY team, "user" ORDER BY sum(microusd) DESC, "user" LIMIT :limit;

-- name: newest_spend
SELECT {entry} FROM ledger
WHERE id > (SELECT max(id) FROM ledger) - :limit AND kind = 'spend' ORDER BY id;

-- name: delete_old_entries
DELETE FROM ledger WHERE id IN (SELECT id FROM ledger WHERE day < :before ORDER BY day LIMIT :limit);

-- name: old_users
SELECT {user_sums} FROM usage_users WHERE day < :before AND "user" <> '' AND "user" <> 'other' ORDER BY day LIMIT :limit;

-- name: forget_user
DELETE FROM usage_users WHERE team = :team AND day = :day AND "user" = :user;

-- name: delete_old_spent
DELETE FROM spent WHERE (scope, day) IN (SELECT scope, day FROM spent WHERE day < :before ORDER BY day LIMIT :limit);

-- name: delete_old_warnings
DELETE FROM budget_warnings WHERE (team, name, day, percent) IN (
    SELECT team, name, day, percent FROM budget_warnings WHERE day < :before LIMIT :limit
);

-- name: warned
SELECT coalesce(max(percent), 0) FROM budget_warnings WHERE team = :team AND name = :name AND day = :day;

-- name: add_warning
INSERT INTO budget_warnings (team, name, day, percent) VALUES (:team, :name, :day, :percent)
ON CONFLICT (team, name, day, percent) DO NOTHING;

-- The audit. The entries are authoritative. A user is counted by name if there is a row with that name.

-- name: newest_line
SELECT coalesce(max(id), 0) FROM ledger;

-- name: entries_of_day
SELECT id FROM ledger WHERE day = :day AND id > :after ORDER BY id LIMIT :limit;

-- name: audited_days
SELECT team, key_id, target, {audited} FROM ledger WHERE day = :day AND id > :after AND id <= :last
GROUP BY team, key_id, target;

-- name: audited_users
SELECT
    team,
    coalesce(
        (SELECT u."user" FROM usage_users AS u WHERE u.team = l.team AND u.day = :day AND u."user" = coalesce(l."user", '')),
        :other
    ),
    {audited}
FROM ledger AS l
WHERE day = :day AND id > :after AND id <= :last
GROUP BY 1, 2;

-- name: audited_spent
SELECT scopes, sum(milliseconds), sum(microusd) FROM ledger
WHERE day = :day AND id > :after AND id <= :last AND scopes <> '[]' GROUP BY scopes;

-- name: stored_days
SELECT team, key_id, target, runs, joined, hits, milliseconds, microusd, saved_microusd FROM usage_days WHERE day = :day;

-- name: stored_users
SELECT team, "user", runs, joined, hits, milliseconds, microusd, saved_microusd FROM usage_users WHERE day = :day;

-- name: stored_spent
SELECT scope, milliseconds, microusd FROM spent WHERE day = :day;

-- name: delete_usage_days
DELETE FROM usage_days WHERE day = :day;

-- name: delete_usage_users
DELETE FROM usage_users WHERE day = :day;

-- name: delete_spent
DELETE FROM spent WHERE day = :day;

-- name: rebuild_days
INSERT INTO usage_days (team, day, key_id, target, runs, joined, hits, milliseconds, microusd, saved_microusd)
SELECT team, :day, key_id, target, {audited} FROM ledger WHERE day = :day GROUP BY team, key_id, target;

-- name: rebuild_users
SELECT team, coalesce("user", ''), {audited} FROM ledger WHERE day = :day GROUP BY 1, 2 ORDER BY min(id);

-- name: rebuild_spent
SELECT scopes, sum(milliseconds), sum(microusd) FROM ledger WHERE day = :day AND scopes <> '[]' GROUP BY scopes;

-- name: held_by_scope
SELECT value, count(*), sum(milliseconds), sum(microusd) FROM reservations, {each:scopes} GROUP BY value;

-- name: meters_in_use
-- A scan of all rows is cheap: `delete_idle_meters` keeps the table small.
SELECT scope, open, held_milliseconds, held_microusd FROM meters
WHERE open <> 0 OR held_milliseconds <> 0 OR held_microusd <> 0;

-- name: clear_meters
UPDATE meters SET open = 0, held_milliseconds = 0, held_microusd = 0;
