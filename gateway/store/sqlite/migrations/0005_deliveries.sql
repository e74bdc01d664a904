-- Webhook deliveries, and former signing secrets that are still in use.

CREATE TABLE deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    team TEXT NOT NULL,
    url TEXT NOT NULL,
    receiver TEXT NOT NULL,
    prediction_id TEXT,
    run_id TEXT,
    state TEXT NOT NULL,
    created_at REAL NOT NULL,
    next_at REAL NOT NULL,
    held_until REAL,
    attempts INTEGER NOT NULL,
    error TEXT,
    dead_at REAL,
    -- NULL until an attempt has failed; before that the body is made from the prediction.
    body BLOB
);
-- Has all columns of the query for due deliveries.
CREATE INDEX deliveries_due ON deliveries (next_at, created_at, id, held_until, receiver, team) WHERE state = 'queued';
CREATE INDEX deliveries_by_age ON deliveries (created_at, id) WHERE state = 'queued';
CREATE INDEX deliveries_dead ON deliveries (dead_at, id) WHERE state = 'dead';
CREATE INDEX deliveries_without_body ON deliveries (run_id) WHERE body IS NULL;
CREATE INDEX deliveries_of_prediction ON deliveries (prediction_id) WHERE prediction_id IS NOT NULL;
CREATE INDEX deliveries_held ON deliveries (held_until) WHERE held_until IS NOT NULL;

-- Few of a run's predictions have a webhook.
CREATE INDEX predictions_hooked ON predictions (run_id) WHERE webhook IS NOT NULL;

CREATE TABLE old_secrets (
    name TEXT NOT NULL,
    secret BLOB NOT NULL,
    retired_at REAL NOT NULL,
    until REAL NOT NULL
);
CREATE INDEX old_secrets_by_name ON old_secrets (name, retired_at);
