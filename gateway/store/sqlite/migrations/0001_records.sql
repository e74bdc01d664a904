-- Columns have the names of the fields of gateway.domain.records. Blobs come last, so that other columns are read without
-- reading the blobs. Nothing refers to a rowid.

CREATE TABLE runs (
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
    request BLOB NOT NULL,
    document BLOB NOT NULL
);
CREATE INDEX runs_by_upstream_id ON runs (upstream_id) WHERE upstream_id IS NOT NULL;
-- The next two indexes only have unfinished runs and runs whose data is not yet removed, so they stay small.
CREATE INDEX runs_open ON runs (id) WHERE state IN ('intended', 'live');
CREATE INDEX runs_to_clear ON runs (ended_at, id) WHERE state = 'ended' AND data_removed = 0;

CREATE TABLE predictions (
    id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    user TEXT,
    source TEXT NOT NULL,
    created_at REAL NOT NULL,
    ticket TEXT NOT NULL,
    ticket_expires_at REAL NOT NULL,
    deadline_at REAL,
    canceled_at REAL,
    webhook TEXT,
    webhook_events_filter TEXT
);
CREATE INDEX predictions_of_team ON predictions (team, kind, created_at, id);
CREATE INDEX predictions_of_all ON predictions (kind, created_at, id);
CREATE INDEX predictions_by_ticket ON predictions (ticket);
-- With `canceled_at`, because a cancel checks whether other predictions of the run are not cancelled.
CREATE INDEX predictions_by_run ON predictions (run_id, canceled_at);

CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    scopes TEXT,
    models TEXT,
    origins TEXT
) WITHOUT ROWID;
CREATE INDEX keys_of_team ON keys (team, created_at, id);

CREATE TABLE files (
    id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    document BLOB NOT NULL
);
CREATE INDEX files_of_team ON files (team, created_at, id, expires_at);
CREATE INDEX files_of_all ON files (created_at, id, expires_at);
CREATE INDEX files_by_expiry ON files (expires_at);

CREATE TABLE versions (
    version TEXT NOT NULL PRIMARY KEY,
    model TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    until REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE pings (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL
);
INSERT INTO pings (id, count) VALUES (1, 0);
