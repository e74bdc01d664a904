-- The schema, as the migrations of SQLite's have made it (`sqlite/migrations/` explains tables and columns). A test compares
-- the two. Texts are compared by their bytes, as SQLite does: COLLATE "C". Times are DOUBLE PRECISION, since REAL has
-- four bytes here.

CREATE TABLE schema_version (
    version BIGINT NOT NULL PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    oldest_reader BIGINT NOT NULL
);

CREATE TABLE runs (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    upstream_id TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    stream_url TEXT COLLATE "C",
    intended_at DOUBLE PRECISION NOT NULL,
    live_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    cancel_asked_at DOUBLE PRECISION,
    data_removed BIGINT NOT NULL,
    leader_id TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C",
    provisional TEXT COLLATE "C",
    cache_until DOUBLE PRECISION,
    uncertain_at DOUBLE PRECISION,
    request BYTEA NOT NULL,
    document BYTEA NOT NULL,
    copies TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    unreadable_since DOUBLE PRECISION,
    owner BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX runs_by_upstream_id ON runs (upstream_id, kind) WHERE upstream_id IS NOT NULL;
CREATE INDEX runs_open ON runs (id) WHERE state IN ('intended', 'live');
CREATE INDEX runs_to_clear ON runs (ended_at, id, cache_until) WHERE state = 'ended' AND data_removed = 0;
CREATE UNIQUE INDEX runs_by_fingerprint ON runs (fingerprint)
    WHERE fingerprint IS NOT NULL AND state IN ('intended', 'live') AND cancel_asked_at IS NULL;
CREATE INDEX runs_by_provisional ON runs (provisional, intended_at, id)
    WHERE provisional IS NOT NULL AND state IN ('intended', 'live') AND cancel_asked_at IS NULL;

CREATE TABLE predictions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    run_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    "user" TEXT COLLATE "C",
    source TEXT COLLATE "C" NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    ticket TEXT COLLATE "C" NOT NULL,
    ticket_expires_at DOUBLE PRECISION NOT NULL,
    deadline_at DOUBLE PRECISION,
    canceled_at DOUBLE PRECISION,
    webhook TEXT COLLATE "C",
    webhook_events_filter TEXT COLLATE "C",
    final_status TEXT COLLATE "C" NOT NULL DEFAULT 'canceled',
    reason TEXT COLLATE "C" NOT NULL DEFAULT '',
    admitted TEXT COLLATE "C",
    ticket_origins TEXT COLLATE "C",
    owner TEXT COLLATE "C",
    tags TEXT COLLATE "C" NOT NULL DEFAULT '',
    request_id TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX predictions_of_team ON predictions (team, kind, created_at, id);
CREATE INDEX predictions_of_key ON predictions (key_id, kind, created_at, id);
CREATE INDEX predictions_of_all ON predictions (kind, created_at, id);
CREATE INDEX predictions_by_run ON predictions (run_id, created_at, id);
CREATE INDEX predictions_waiting ON predictions (run_id) WHERE canceled_at IS NULL AND source <> 'hit';
CREATE INDEX predictions_hooked ON predictions (run_id) WHERE webhook IS NOT NULL;
CREATE INDEX predictions_of_owner ON predictions (team, owner, kind, created_at, id) WHERE owner IS NOT NULL;
CREATE INDEX predictions_by_ticket ON predictions (ticket) WHERE ticket <> '';

CREATE TABLE entries (
    run_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    fingerprint TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    ended_at DOUBLE PRECISION NOT NULL,
    cache_until DOUBLE PRECISION NOT NULL,
    last_used_at DOUBLE PRECISION NOT NULL,
    bytes BIGINT NOT NULL,
    microusd BIGINT NOT NULL DEFAULT 0,
    settled_as TEXT COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 70);
CREATE INDEX entries_by_fingerprint ON entries (fingerprint, ended_at, run_id, cache_until);
CREATE INDEX entries_by_use ON entries (last_used_at, run_id, cache_until, bytes);
CREATE INDEX entries_of_all ON entries (cache_until, bytes, ended_at);
CREATE INDEX entries_of_team ON entries (team, cache_until, bytes, ended_at);

CREATE TABLE idempotency (
    team TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    body_sha256 TEXT COLLATE "C" NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    prediction_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (team, key)
);
CREATE INDEX idempotency_by_prediction ON idempotency (prediction_id);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE event_logs (
    run_id TEXT COLLATE "C" NOT NULL,
    first BIGINT NOT NULL,
    part BYTEA NOT NULL,
    PRIMARY KEY (run_id, first)
);

CREATE TABLE deliveries (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    receiver TEXT COLLATE "C" NOT NULL,
    prediction_id TEXT COLLATE "C",
    run_id TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    next_at DOUBLE PRECISION NOT NULL,
    held_until DOUBLE PRECISION,
    attempts BIGINT NOT NULL,
    error TEXT COLLATE "C",
    dead_at DOUBLE PRECISION,
    body BYTEA,
    is_public BIGINT NOT NULL DEFAULT 0,
    held_by BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX deliveries_due ON deliveries (next_at, created_at, id, held_until, receiver, team) WHERE state = 'queued';
CREATE INDEX deliveries_by_age ON deliveries (created_at, id) WHERE state = 'queued';
CREATE INDEX deliveries_dead ON deliveries (dead_at, id) WHERE state = 'dead';
CREATE INDEX deliveries_without_body ON deliveries (run_id) WHERE body IS NULL;
CREATE INDEX deliveries_of_prediction ON deliveries (prediction_id) WHERE prediction_id IS NOT NULL;
CREATE INDEX deliveries_held ON deliveries (held_until) WHERE held_until IS NOT NULL;
CREATE INDEX deliveries_reserved ON deliveries (run_id) WHERE state = 'reserved';
CREATE INDEX deliveries_dead_of_team ON deliveries (team, dead_at, id) WHERE state = 'dead';

CREATE TABLE delivery_counts (
    team TEXT COLLATE "C" NOT NULL,
    is_public BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    dead BIGINT NOT NULL,
    PRIMARY KEY (team, is_public)
) WITH (fillfactor = 70);

CREATE TABLE reservations (
    run_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    team TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    "user" TEXT COLLATE "C",
    scopes TEXT COLLATE "C" NOT NULL,
    milliseconds BIGINT NOT NULL,
    microusd BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL
);
CREATE INDEX reservations_by_age ON reservations (at);

-- No index of idle meters: one on a column that every change touches would be written with each of them.
-- Space is left in pages whose rows change all the time, so that a new version of a row stays in its page.
CREATE TABLE meters (
    scope TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    open BIGINT NOT NULL,
    held_milliseconds BIGINT NOT NULL,
    held_microusd BIGINT NOT NULL,
    full_at DOUBLE PRECISION NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE spent (
    scope TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    microusd BIGINT NOT NULL,
    PRIMARY KEY (scope, day)
) WITH (fillfactor = 70);
CREATE INDEX spent_by_day ON spent (day);

CREATE TABLE ledger (
    id BIGINT GENERATED ALWAYS AS IDENTITY NOT NULL PRIMARY KEY,
    day BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    "user" TEXT COLLATE "C",
    target TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C",
    prediction_id TEXT COLLATE "C",
    kind TEXT COLLATE "C" NOT NULL,
    milliseconds BIGINT NOT NULL,
    microusd BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    adjustment_id TEXT COLLATE "C",
    tags TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX ledger_settled ON ledger (run_id) WHERE kind = 'spend';
CREATE UNIQUE INDEX ledger_adjusted ON ledger (adjustment_id) WHERE adjustment_id IS NOT NULL;
CREATE INDEX ledger_by_day ON ledger (day);

CREATE TABLE usage_days (
    team TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    runs BIGINT NOT NULL,
    joined BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    microusd BIGINT NOT NULL,
    saved_microusd BIGINT NOT NULL,
    PRIMARY KEY (team, day, key_id, target)
) WITH (fillfactor = 70);
CREATE INDEX usage_days_by_day ON usage_days (day);

CREATE TABLE usage_users (
    team TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    "user" TEXT COLLATE "C" NOT NULL,
    runs BIGINT NOT NULL,
    joined BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    microusd BIGINT NOT NULL,
    saved_microusd BIGINT NOT NULL,
    PRIMARY KEY (team, day, "user")
) WITH (fillfactor = 70);
CREATE INDEX usage_users_by_day ON usage_users (day);
CREATE INDEX usage_users_named ON usage_users (day) WHERE "user" <> '' AND "user" <> 'other';

CREATE TABLE usage_tags (
    team TEXT COLLATE "C" NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    runs BIGINT NOT NULL,
    joined BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    milliseconds BIGINT NOT NULL,
    microusd BIGINT NOT NULL,
    saved_microusd BIGINT NOT NULL,
    PRIMARY KEY (team, tag, day, value)
) WITH (fillfactor = 70);
CREATE INDEX usage_tags_by_day ON usage_tags (day);

CREATE TABLE budget_warnings (
    team TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    percent BIGINT NOT NULL,
    PRIMARY KEY (team, name, day, percent)
);
CREATE INDEX budget_warnings_by_day ON budget_warnings (day);

CREATE TABLE output_objects (
    sha256 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    last_used_at DOUBLE PRECISION NOT NULL,
    claimed_until DOUBLE PRECISION,
    doomed BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX output_objects_by_use ON output_objects (last_used_at, sha256, size, claimed_until) WHERE doomed = 0;
CREATE INDEX output_objects_claimed ON output_objects (claimed_until) WHERE doomed = 0 AND claimed_until IS NOT NULL;
CREATE INDEX output_objects_doomed ON output_objects (sha256, claimed_until) WHERE doomed = 1;

CREATE TABLE output_owners (
    sha256 TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    stored_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (sha256, run_id)
);
CREATE INDEX output_owners_by_run ON output_owners (run_id);
CREATE INDEX output_owners_by_age ON output_owners (stored_at, sha256, run_id);

CREATE TABLE files (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    team TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    upstream_id TEXT COLLATE "C" NOT NULL,
    document BYTEA NOT NULL,
    owner TEXT COLLATE "C"
);
CREATE INDEX files_of_team ON files (team, created_at, id, expires_at);
CREATE INDEX files_of_all ON files (created_at, id, expires_at);
CREATE INDEX files_by_expiry ON files (expires_at);
CREATE INDEX files_by_size ON files (team, size, expires_at);
CREATE INDEX files_by_content ON files (team, sha256, expires_at);
CREATE INDEX files_by_upstream_id ON files (upstream_id);
CREATE INDEX files_of_owner ON files (team, owner, created_at, id, expires_at) WHERE owner IS NOT NULL;

CREATE TABLE keys (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    team TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,
    revoked_at DOUBLE PRECISION,
    scopes TEXT COLLATE "C",
    models TEXT COLLATE "C",
    origins TEXT COLLATE "C",
    allowance TEXT COLLATE "C",
    last_four TEXT COLLATE "C"
);
CREATE INDEX keys_of_team ON keys (team, created_at, id);
CREATE INDEX keys_by_age ON keys (created_at, id);

CREATE TABLE key_uses (
    key_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    last_used_at DOUBLE PRECISION NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY NOT NULL PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C",
    before_values TEXT COLLATE "C",
    after_values TEXT COLLATE "C",
    operation TEXT COLLATE "C"
);
CREATE INDEX audit_by_time ON audit (at, id);
CREATE INDEX audit_of_team ON audit (team, at, id);
CREATE INDEX audit_by_action ON audit (action, at, id);
CREATE UNIQUE INDEX audit_by_operation ON audit (operation) WHERE operation IS NOT NULL;

CREATE TABLE versions (
    version TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    model TEXT COLLATE "C" NOT NULL
);

CREATE TABLE secrets (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret BYTEA NOT NULL
);

CREATE TABLE old_secrets (
    name TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    retired_at DOUBLE PRECISION NOT NULL,
    until DOUBLE PRECISION NOT NULL
);
CREATE INDEX old_secrets_by_name ON old_secrets (name, retired_at);

-- Rates that the nodes share: the part that no node holds, and its token bucket.
CREATE TABLE rates (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    per_minute DOUBLE PRECISION NOT NULL,
    burst BIGINT NOT NULL,
    free DOUBLE PRECISION NOT NULL DEFAULT 1,
    tokens DOUBLE PRECISION NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    turn DOUBLE PRECISION NOT NULL DEFAULT 0,
    paused_until DOUBLE PRECISION NOT NULL DEFAULT 0,
    throttles BIGINT NOT NULL DEFAULT 0,
    throttled_by BIGINT NOT NULL DEFAULT 0,
    throttled_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    allowed_per_minute DOUBLE PRECISION,
    allowed_burst BIGINT
) WITH (fillfactor = 70);

CREATE TABLE rate_shares (
    name TEXT COLLATE "C" NOT NULL,
    node BIGINT NOT NULL,
    number BIGINT NOT NULL,
    share DOUBLE PRECISION NOT NULL,
    demand TEXT COLLATE "C" NOT NULL,
    turn DOUBLE PRECISION NOT NULL,
    waits_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (name, node)
) WITH (fillfactor = 70);

-- Times of this table and the next are by this server's clock.
CREATE TABLE nodes (
    number BIGINT GENERATED ALWAYS AS IDENTITY NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    renewed_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    -- When it left, or another node found its lease expired. It may write nothing of the runs it owned from then on.
    ended_at DOUBLE PRECISION,
    report TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    -- Machine and process, for others on the same machine, which can know that the process has ended.
    place TEXT COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 70);

-- Tasks that one node does for all.
CREATE TABLE leases (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    node BIGINT NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL
) WITH (fillfactor = 70);

-- How often nodes have reloaded the config. At most one row.
CREATE TABLE config_reloads (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    number BIGINT NOT NULL
) WITH (fillfactor = 70);

-- Why creates have failed, for the nodes where other predictions wait for them.
CREATE TABLE create_outcomes (
    run_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    outcome BYTEA NOT NULL,
    at DOUBLE PRECISION NOT NULL
);

CREATE TABLE pings (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    count BIGINT NOT NULL
) WITH (fillfactor = 70);

INSERT INTO pings (id, count) VALUES (1, 0);

-- As in SQLite, triggers keep the counts of deliveries equal to the table, whatever changes that.
CREATE FUNCTION count_delivery() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO delivery_counts AS counts (team, is_public, taken, dead)
        VALUES (
            NEW.team, NEW.is_public, CAST(NEW.state <> 'dead' AS INTEGER), CAST(NEW.state = 'dead' AS INTEGER)
        )
        ON CONFLICT (team, is_public) DO UPDATE
        SET taken = counts.taken + excluded.taken, dead = counts.dead + excluded.dead;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE delivery_counts
        SET taken = taken + CAST(OLD.state = 'dead' AS INTEGER) - CAST(NEW.state = 'dead' AS INTEGER),
            dead = dead + CAST(NEW.state = 'dead' AS INTEGER) - CAST(OLD.state = 'dead' AS INTEGER)
        WHERE team = NEW.team AND is_public = NEW.is_public;
    ELSE
        UPDATE delivery_counts
        SET taken = taken - CAST(OLD.state <> 'dead' AS INTEGER), dead = dead - CAST(OLD.state = 'dead' AS INTEGER)
        WHERE team = OLD.team AND is_public = OLD.is_public;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER delivery_added AFTER INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION count_delivery();
CREATE TRIGGER delivery_changed AFTER UPDATE OF state ON deliveries FOR EACH ROW
    WHEN ((OLD.state = 'dead') <> (NEW.state = 'dead')) EXECUTE FUNCTION count_delivery();
CREATE TRIGGER delivery_removed AFTER DELETE ON deliveries FOR EACH ROW EXECUTE FUNCTION count_delivery();

-- The last step that each session has committed (`postgres/commits.py`).
CREATE TABLE commits (
    session TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    step BIGINT NOT NULL,
    is_closed BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL
) WITH (fillfactor = 50);

-- Returns whether the step has written anything. One that has not needs no note: it can run again.
CREATE FUNCTION note_commit(_session TEXT, _step BIGINT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        RETURN FALSE;
    END IF;
    INSERT INTO commits AS c (session, step, is_closed, at) VALUES (_session, _step, 0, extract(epoch FROM now()))
    ON CONFLICT (session) DO UPDATE SET step = excluded.step, at = excluded.at WHERE c.is_closed = 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this session was closed by a later one';
    END IF;
    RETURN TRUE;
END
$$;

CREATE FUNCTION close_session(_session TEXT) RETURNS BIGINT LANGUAGE sql AS $$
    INSERT INTO commits (session, step, is_closed, at) VALUES (_session, 0, 1, extract(epoch FROM now()))
    ON CONFLICT (session) DO UPDATE SET is_closed = 1 RETURNING step
$$;
