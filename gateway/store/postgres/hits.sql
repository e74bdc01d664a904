-- name: new_names
-- Which values of cost tags, and with an empty tag which users, have no row yet.
SELECT asked.team, asked.tag, asked.day, asked.value
FROM json_to_recordset(CAST(:asked AS JSON)) AS asked(team TEXT, tag TEXT, day BIGINT, value TEXT)
WHERE NOT CASE WHEN asked.tag = '' THEN EXISTS (
    SELECT 1 FROM usage_users AS u WHERE u.team = asked.team AND u.day = asked.day AND u."user" = asked.value
) ELSE EXISTS (
    SELECT 1 FROM usage_tags AS u
    WHERE u.team = asked.team AND u.tag = asked.tag AND u.day = asked.day AND u.value = asked.value
) END;

-- name: record_hits
-- A set of hits in one statement: `hits.py` has what it takes and returns. What several rows change is changed once, in
-- an order in which no two sets wait for each other: runs, days, users, tags, entries, each sorted. A part that reads the one
-- before runs after it.
WITH asked AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:asked AS JSON)) AS asked(
        place BIGINT, fingerprint TEXT, ended_since DOUBLE PRECISION, now DOUBLE PRECISION, day BIGINT,
        {asked_columns}
    )
),
fitting AS MATERIALIZED (
    SELECT asked.place, entry.run_id, entry.microusd, entry.settled_as
    FROM asked CROSS JOIN LATERAL (
        SELECT e.run_id, e.microusd, e.settled_as FROM entries AS e
        WHERE e.fingerprint = asked.fingerprint AND e.ended_at >= asked.ended_since AND e.cache_until > asked.now
        ORDER BY e.ended_at DESC, e.run_id DESC LIMIT 1
    ) AS entry
),
kept AS MATERIALIZED (
    -- Waits for a step that deletes or changes a run, and then reads it as it is.
    SELECT {run_columns} FROM runs AS r
    WHERE r.id = ANY(ARRAY(SELECT run_id FROM fitting)) AND r.data_removed = 0 AND r.cache_until IS NOT NULL
    ORDER BY r.id {kept}
),
found AS MATERIALIZED (
    SELECT
        fitting.place, fitting.run_id, fitting.microusd,
        CASE
            WHEN fitting.settled_as <> '' THEN fitting.settled_as
            -- `ledger.model_of`
            WHEN strpos(split_part(kept.target, ':', 1), '/') > 0 THEN split_part(kept.target, ':', 1)
            ELSE 'unknown'
        END AS settled_as
    FROM fitting JOIN kept ON kept.id = fitting.run_id
),
added AS (
    INSERT INTO predictions ({prediction})
    SELECT {added_values} FROM asked JOIN found ON found.place = asked.place
    ORDER BY asked.place
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),
hits AS MATERIALIZED (
    SELECT
        asked.place, asked.id, asked.now, asked.day, asked.team, asked.key_id, asked."user", found.run_id, found.microusd,
        found.settled_as AS target, asked.tags
    FROM added JOIN asked ON asked.id = added.id JOIN found ON found.place = asked.place
),
lines AS (
    INSERT INTO ledger (
        day, at, team, key_id, "user", target, run_id, prediction_id, kind, milliseconds, microusd, reason, scopes, tags
    )
    SELECT day, now, team, key_id, "user", target, run_id, id, 'saved_hit', 0, microusd, '', '[]', tags
    FROM hits ORDER BY place
),
days AS (
    INSERT INTO usage_days (team, day, key_id, target, runs, joined, hits, milliseconds, microusd, saved_microusd)
    SELECT team, day, key_id, target, 0, 0, count(*), 0, 0, sum(microusd) FROM hits
    GROUP BY team, day, key_id, target ORDER BY team, day, key_id, target
    ON CONFLICT (team, day, key_id, target) DO UPDATE
    SET hits = usage_days.hits + excluded.hits, saved_microusd = usage_days.saved_microusd + excluded.saved_microusd
    RETURNING 1
),
callers AS MATERIALIZED (
    SELECT
        team, day, who, first, hits, saved_microusd,
        EXISTS (
            SELECT 1 FROM usage_users AS u WHERE u.team = callers.team AND u.day = callers.day AND u."user" = callers.who
        ) AS is_known
    FROM (
        SELECT team, day, coalesce("user", '') AS who, min(place) AS first, count(*) AS hits, sum(microusd) AS saved_microusd
        FROM hits GROUP BY team, day, coalesce("user", '')
    ) AS callers
),
named AS MATERIALIZED (
    SELECT of_day.team, of_day.day, (
        SELECT count(*) FROM usage_users AS u WHERE u.team = of_day.team AND u.day = of_day.day
    ) AS names
    FROM (SELECT DISTINCT team, day FROM callers WHERE NOT is_known) AS of_day
),
-- As in `count_user`: the first :most users of a day are counted by name, all others together.
counted AS MATERIALIZED (
    SELECT team, day, hits, saved_microusd, CASE WHEN is_known OR rank + names <= :most THEN who ELSE :other END AS who
    FROM (
        SELECT
            callers.*, named.names,
            row_number() OVER (PARTITION BY callers.team, callers.day, callers.is_known ORDER BY callers.first) AS rank
        FROM callers LEFT JOIN named ON named.team = callers.team AND named.day = callers.day
    ) AS ranked
),
users AS (
    INSERT INTO usage_users (team, day, "user", runs, joined, hits, milliseconds, microusd, saved_microusd)
    SELECT team, day, who, 0, 0, sum(hits), 0, 0, sum(saved_microusd) FROM counted
    WHERE (SELECT count(*) FROM days) > 0
    GROUP BY team, day, who ORDER BY team, day, who
    ON CONFLICT (team, day, "user") DO UPDATE
    SET hits = usage_users.hits + excluded.hits, saved_microusd = usage_users.saved_microusd + excluded.saved_microusd
    RETURNING 1
),
tagged AS MATERIALIZED (
    SELECT
        team, tag, day, value, first, hits, saved_microusd,
        EXISTS (
            SELECT 1 FROM usage_tags AS u
            WHERE u.team = pairs.team AND u.tag = pairs.tag AND u.day = pairs.day AND u.value = pairs.value
        ) AS is_known
    FROM (
        SELECT
            team, pair.key AS tag, day, pair.value AS value, min(place) AS first, count(*) AS hits,
            sum(microusd) AS saved_microusd
        FROM hits CROSS JOIN {pairs:hits.tags} WHERE hits.tags <> '' GROUP BY team, pair.key, day, pair.value
    ) AS pairs
),
values_named AS MATERIALIZED (
    SELECT of_day.team, of_day.tag, of_day.day, (
        SELECT count(*) FROM usage_tags AS u WHERE u.team = of_day.team AND u.tag = of_day.tag AND u.day = of_day.day
    ) AS names, EXISTS (
        SELECT 1 FROM usage_tags AS u
        WHERE u.team = of_day.team AND u.tag = of_day.tag AND u.day = of_day.day AND u.value = :other_values
    ) AS has_others
    FROM (SELECT DISTINCT team, tag, day FROM tagged WHERE NOT is_known) AS of_day
),
-- As in `count_tag`.
counted_values AS MATERIALIZED (
    SELECT
        team, tag, day, hits, saved_microusd,
        CASE
            WHEN is_known OR (NOT has_others AND rank + names <= :most_values) THEN value ELSE :other_values
        END AS value
    FROM (
        SELECT
            tagged.*, values_named.names, values_named.has_others,
            row_number() OVER (
                PARTITION BY tagged.team, tagged.tag, tagged.day, tagged.is_known ORDER BY tagged.first
            ) AS rank
        FROM tagged LEFT JOIN values_named
            ON values_named.team = tagged.team AND values_named.tag = tagged.tag AND values_named.day = tagged.day
    ) AS ranked
),
tags AS (
    INSERT INTO usage_tags (team, tag, day, value, runs, joined, hits, milliseconds, microusd, saved_microusd)
    SELECT team, tag, day, value, 0, 0, sum(hits), 0, 0, sum(saved_microusd) FROM counted_values
    WHERE (SELECT count(*) FROM users) > 0
    GROUP BY team, tag, day, value ORDER BY team, tag, day, value
    ON CONFLICT (team, tag, day, value) DO UPDATE
    SET hits = usage_tags.hits + excluded.hits, saved_microusd = usage_tags.saved_microusd + excluded.saved_microusd
    RETURNING 1
),
-- Otherwise every set would write the entries of popular results.
unused AS MATERIALIZED (
    SELECT e.run_id, used.at FROM entries AS e
    JOIN (SELECT run_id, max(now) AS at FROM hits GROUP BY run_id) AS used ON used.run_id = e.run_id
    WHERE (SELECT count(*) FROM tags) >= 0 AND e.last_used_at < used.at - :used_seconds
    ORDER BY e.run_id {entry_kept}
),
used AS (
    UPDATE entries SET last_used_at = unused.at FROM unused WHERE entries.run_id = unused.run_id
)
SELECT answered.places, answered.microusd, (SELECT count(*) FROM added), {kept_columns}
FROM kept JOIN (
    SELECT run_id, microusd, array_agg(place) AS places FROM found GROUP BY run_id, microusd
) AS answered ON answered.run_id = kept.id;
