-- The ledger

-- name: insert_entry
INSERT INTO ledger (day, {entry}) VALUES (?, {entry_values}) ON CONFLICT DO NOTHING;

-- name: enter_hits
INSERT INTO ledger (
    day, at, team, key_id, "user", target, run_id, prediction_id, kind, milliseconds, microusd, reason, scopes,
    tags
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'saved_hit', 0, ?, '', '[]', ?);

-- name: settlement
SELECT {entry} FROM ledger WHERE run_id = :run_id AND kind = 'spend';

-- name: payer
SELECT r.team, r.key_id, p."user", r.leader_id, coalesce(p.tags, '') FROM runs AS r
LEFT JOIN predictions AS p ON p.id = r.leader_id WHERE r.id = :run_id;

-- name: enter_joined
INSERT INTO ledger (day, {entry})
SELECT :day, :at, team, key_id, "user", :target, run_id, id, 'saved_joined', 0, :microusd, '', '[]', NULL,
    tags
FROM predictions WHERE run_id = :run_id AND source = 'joined' ORDER BY created_at, id;

-- name: sharers
-- Hits came after the end.
SELECT id, team, key_id, "user", source, canceled_at IS NULL, webhook IS NOT NULL, tags FROM predictions
WHERE run_id = :run_id AND source <> 'hit' ORDER BY created_at, id;

-- name: who_joined
SELECT team, key_id, "user", tags FROM predictions WHERE run_id = :run_id AND source = 'joined';

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

-- name: count_tag
INSERT INTO usage_tags (team, tag, day, value, runs, joined, hits, milliseconds, microusd, saved_microusd)
VALUES (
    :team, :tag, :day,
    -- The first :most values of a day are counted by name, all others together. Once there are others, no further value
    -- is counted by name that day, even if the bound is raised: so all of a value is in one row.
    CASE
        WHEN EXISTS (SELECT 1 FROM usage_tags WHERE team = :team AND tag = :tag AND day = :day AND value = :value) THEN :value
        WHEN EXISTS (SELECT 1 FROM usage_tags WHERE team = :team AND tag = :tag AND day = :day AND value = :other)
            OR (SELECT count(*) FROM usage_tags WHERE team = :team AND tag = :tag AND day = :day) >= :most THEN :other
        ELSE :value
    END,
    :runs, :joined, :hits, :milliseconds, :microusd, :saved_microusd
)
ON CONFLICT (team, tag, day, value) DO UPDATE
SET runs = usage_tags.runs + excluded.runs,
    joined = usage_tags.joined + excluded.joined,
    hits = usage_tags.hits + excluded.hits,
    milliseconds = usage_tags.milliseconds + excluded.milliseconds,
    microusd = usage_tags.microusd + excluded.microusd,
    saved_microusd = usage_tags.saved_microusd + excluded.saved_microusd;

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

-- name: usage_by_tag
SELECT team, value, {sums} FROM usage_tags WHERE team = :team AND tag = :tag AND day BETWEEN :since AND :until
GROUP BY team, value ORDER BY sum(microusd) DESC, value LIMIT :limit;

-- name: usage_of_tag
SELECT team, NULL, {sums} FROM usage_tags WHERE team = :team AND tag = :tag AND day BETWEEN :since AND :until
GROUP BY team LIMIT 1;

-- name: newest_spend
SELECT {entry} FROM ledger
WHERE id > (SELECT max(id) FROM ledger) - :limit AND kind = 'spend' ORDER BY id;

-- name: lines_of_day
SELECT id, {entry} FROM ledger
WHERE day = :day AND id > :after AND (CAST(:team AS TEXT) IS NULL OR team = :team) ORDER BY id LIMIT :limit;

-- name: charges_of_day
SELECT
    team, key_id, target, kind, tags, CASE WHEN kind = 'adjustment' THEN reason ELSE '' END, count(*), sum(milliseconds),
    sum(microusd)
FROM ledger
WHERE day = :day AND kind IN ('spend', 'adjustment') AND (CAST(:team AS TEXT) IS NULL OR team = :team)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4 DESC, 5, 6;

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

-- name: audited_tags
SELECT
    l.team,
    pair.key,
    coalesce(
        (
            SELECT u.value FROM usage_tags AS u
            WHERE u.team = l.team AND u.tag = pair.key AND u.day = :day AND u.value = pair.value
        ),
        :other_values
    ),
    {audited}
FROM ledger AS l CROSS JOIN {pairs:l.tags}
WHERE l.day = :day AND l.id > :after AND l.id <= :last AND l.tags <> ''
GROUP BY 1, 2, 3;

-- name: audited_spent
SELECT scopes, sum(milliseconds), sum(microusd) FROM ledger
WHERE day = :day AND id > :after AND id <= :last AND scopes <> '[]' GROUP BY scopes;

-- name: stored_days
SELECT team, key_id, target, runs, joined, hits, milliseconds, microusd, saved_microusd FROM usage_days WHERE day = :day;

-- name: stored_users
SELECT team, "user", runs, joined, hits, milliseconds, microusd, saved_microusd FROM usage_users WHERE day = :day;

-- name: stored_tags
SELECT team, tag, value, runs, joined, hits, milliseconds, microusd, saved_microusd FROM usage_tags WHERE day = :day;

-- name: stored_spent
SELECT scope, milliseconds, microusd FROM spent WHERE day = :day;

-- name: delete_usage_days
DELETE FROM usage_days WHERE day = :day;

-- name: delete_usage_users
DELETE FROM usage_users WHERE day = :day;

-- name: delete_usage_tags
DELETE FROM usage_tags WHERE day = :day;

-- name: delete_spent
DELETE FROM spent WHERE day = :day;

-- name: rebuild_days
INSERT INTO usage_days (team, day, key_id, target, runs, joined, hits, milliseconds, microusd, saved_microusd)
SELECT team, :day, key_id, target, {audited} FROM ledger WHERE day = :day GROUP BY team, key_id, target;

-- name: rebuild_users
SELECT team, coalesce("user", ''), {audited} FROM ledger WHERE day = :day GROUP BY 1, 2 ORDER BY min(id);

-- name: rebuild_tags
SELECT l.team, pair.key, pair.value, {audited} FROM ledger AS l CROSS JOIN {pairs:l.tags}
WHERE l.day = :day AND l.tags <> '' GROUP BY 1, 2, 3 ORDER BY min(l.id), 2;

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
