-- Sharing: runs are found by their fingerprint while they are open, and for a time after they have succeeded.

-- ALTER TABLE adds columns at the end, but these must come before the blobs, so the table is copied.
CREATE TABLE runs_anew (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    target TEXT NOT NULL,
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    upstream_id TEXT,
    status TEXT NOT NULL,
    stream_url TEXT,
    intended_at REAL NOT NULL,
    live_at REAL,
    ended_at REAL,
    cancel_asked_at REAL,
    data_removed INTEGER NOT NULL,
    leader_id TEXT NOT NULL,
    fingerprint TEXT,
    provisional TEXT,
    cache_until REAL,
    uncertain_at REAL,
    request BLOB NOT NULL,
    document BLOB NOT NULL
);

-- Intents had no prediction before. An adopted run needs one as its leader.
INSERT INTO predictions (id, run_id, kind, team, key_id, source, created_at, ticket, ticket_expires_at)
SELECT lower(hex(randomblob(13))), id, kind, team, key_id, 'bypass', intended_at, lower(hex(randomblob(32))), intended_at
FROM runs WHERE state = 'intended';

INSERT INTO runs_anew
SELECT
    id, kind, team, key_id, target, path, state, upstream_id, status, stream_url,
    intended_at, live_at, ended_at, cancel_asked_at, data_removed,
    coalesce(
        (SELECT p.id FROM predictions AS p WHERE p.run_id = runs.id ORDER BY p.created_at, p.id LIMIT 1), ''
    ),
    NULL, NULL, NULL, NULL,
    request, document
FROM runs;
DROP TABLE runs;
ALTER TABLE runs_anew RENAME TO runs;

-- An upstream prediction belongs to one run, so it can be adopted only once.
CREATE UNIQUE INDEX runs_by_upstream_id ON runs (upstream_id, kind) WHERE upstream_id IS NOT NULL;
CREATE INDEX runs_open ON runs (id) WHERE state IN ('intended', 'live');
-- With `cache_until`, so that cached runs are skipped by reading only the index.
CREATE INDEX runs_to_clear ON runs (ended_at, id, cache_until) WHERE state = 'ended' AND data_removed = 0;
-- One run per fingerprint (docs/architecture.md, Invariants 3), for all callers and processes.
CREATE UNIQUE INDEX runs_by_fingerprint ON runs (fingerprint)
    WHERE fingerprint IS NOT NULL AND state IN ('intended', 'live') AND cancel_asked_at IS NULL;
CREATE INDEX runs_by_provisional ON runs (provisional, intended_at, id)
    WHERE provisional IS NOT NULL AND state IN ('intended', 'live') AND cancel_asked_at IS NULL;

ALTER TABLE predictions ADD COLUMN left_as TEXT NOT NULL DEFAULT 'canceled';
DROP INDEX predictions_by_run;
CREATE INDEX predictions_by_run ON predictions (run_id, created_at, id);
-- Predictions that keep a run from being cancelled. A hit's run has ended already.
CREATE INDEX predictions_waiting ON predictions (run_id) WHERE canceled_at IS NULL AND source <> 'hit';

-- Cached runs. A separate table, so that recording a use does not rewrite the document. `cache_until` is a copy of the
-- run's. An entry is deleted when its run is no longer cached.
CREATE TABLE entries (
    run_id TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    team TEXT NOT NULL,
    target TEXT NOT NULL,
    ended_at REAL NOT NULL,
    cache_until REAL NOT NULL,
    last_used_at REAL NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX entries_by_fingerprint ON entries (fingerprint, ended_at, run_id, cache_until);
CREATE INDEX entries_by_use ON entries (last_used_at, run_id, cache_until, bytes);
-- The next two indexes have all columns that are summed up.
CREATE INDEX entries_of_all ON entries (cache_until, bytes, ended_at);
CREATE INDEX entries_of_team ON entries (team, cache_until, bytes, ended_at);

CREATE TABLE idempotency (
    team TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    expires_at REAL NOT NULL,
    prediction_id TEXT NOT NULL,
    PRIMARY KEY (team, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_prediction ON idempotency (prediction_id);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
