-- Money: reservations of runs in progress, the ledger of spent and saved amounts, and sums of both, which change in the
-- same transaction. Amounts are integers: micro-dollars and milliseconds. A `day` is the number of days since the epoch
-- (UTC).

CREATE TABLE reservations (
    run_id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    user TEXT,
    scopes TEXT NOT NULL,
    milliseconds INTEGER NOT NULL,
    microusd INTEGER NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX reservations_by_age ON reservations (at);

-- The sum of the reservations of each scope (a team, a key, a user, …), and its predictions-per-minute bucket.
CREATE TABLE meters (
    scope TEXT NOT NULL PRIMARY KEY,
    open INTEGER NOT NULL,
    held_milliseconds INTEGER NOT NULL,
    held_microusd INTEGER NOT NULL,
    full_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX meters_idle ON meters (full_at) WHERE open = 0;

-- Spending of each scope by day. A month is the sum of its days, so nothing has to be reset at its end.
CREATE TABLE spent (
    scope TEXT NOT NULL,
    day INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    microusd INTEGER NOT NULL,
    PRIMARY KEY (scope, day)
) WITHOUT ROWID;
CREATE INDEX spent_by_day ON spent (day);

CREATE TABLE ledger (
    id INTEGER NOT NULL PRIMARY KEY,
    day INTEGER NOT NULL,
    at REAL NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    user TEXT,
    target TEXT NOT NULL,
    run_id TEXT,
    prediction_id TEXT,
    kind TEXT NOT NULL,
    milliseconds INTEGER NOT NULL,
    microusd INTEGER NOT NULL,
    reason TEXT NOT NULL,
    scopes TEXT NOT NULL
);
-- A run is settled only once (docs/architecture.md, Invariants 7).
CREATE UNIQUE INDEX ledger_settled ON ledger (run_id) WHERE kind = 'spend';
CREATE INDEX ledger_by_day ON ledger (day);

CREATE TABLE usage_days (
    team TEXT NOT NULL,
    day INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    target TEXT NOT NULL,
    runs INTEGER NOT NULL,
    joined INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    microusd INTEGER NOT NULL,
    saved_microusd INTEGER NOT NULL,
    PRIMARY KEY (team, day, key_id, target)
) WITHOUT ROWID;
CREATE INDEX usage_days_by_day ON usage_days (day);

CREATE TABLE usage_users (
    team TEXT NOT NULL,
    day INTEGER NOT NULL,
    user TEXT NOT NULL,
    runs INTEGER NOT NULL,
    joined INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    microusd INTEGER NOT NULL,
    saved_microusd INTEGER NOT NULL,
    PRIMARY KEY (team, day, user)
) WITHOUT ROWID;
CREATE INDEX usage_users_by_day ON usage_users (day);
-- For merging old rows of named users into `other`.
CREATE INDEX usage_users_named ON usage_users (day) WHERE user <> '' AND user <> 'other';

-- Budget warnings already given. `day` is the first day of the window.
CREATE TABLE budget_warnings (
    team TEXT NOT NULL,
    name TEXT NOT NULL,
    day INTEGER NOT NULL,
    percent INTEGER NOT NULL,
    PRIMARY KEY (team, name, day, percent)
) WITHOUT ROWID;
CREATE INDEX budget_warnings_by_day ON budget_warnings (day);

-- What a hit saves, and the target it is counted under. Unknown for existing entries.
ALTER TABLE entries ADD COLUMN microusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN settled_as TEXT NOT NULL DEFAULT '';
