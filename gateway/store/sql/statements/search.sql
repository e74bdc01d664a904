-- Search of predictions

-- name: search_of_all_end
-- The last prediction that a page looks at. Read from the index alone.
SELECT created_at, id FROM predictions
WHERE kind = :kind AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :skipped;

-- name: search_of_team_end
SELECT created_at, id FROM predictions
WHERE team = :only_team AND kind = :kind
    AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :skipped;

-- name: search_of_owner_end
SELECT created_at, id FROM predictions
WHERE team = :only_team AND owner = :only_owner AND kind = :kind
    AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :skipped;

-- name: search_of_key_end
SELECT created_at, id FROM predictions
WHERE key_id = :only_key AND kind = :kind
    AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :skipped;

-- name: search_team_of_key
SELECT team FROM predictions WHERE key_id = :only_key LIMIT 1;

-- The inner query reads what its bounds leave, at most :searched rows; all else is looked up for those alone.

-- name: search_of_all
SELECT {found}
FROM (
    SELECT * FROM predictions
    WHERE kind = :kind AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
    ORDER BY created_at DESC, id DESC LIMIT :searched
) AS p {join} runs AS r ON r.id = p.run_id
WHERE {wanted} ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: search_of_team
SELECT {found}
FROM (
    SELECT * FROM predictions
    WHERE team = :only_team AND kind = :kind AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
    ORDER BY created_at DESC, id DESC LIMIT :searched
) AS p {join} runs AS r ON r.id = p.run_id
WHERE {wanted} ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: search_of_owner
SELECT {found}
FROM (
    SELECT * FROM predictions
    WHERE team = :only_team AND owner = :only_owner AND kind = :kind AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
    ORDER BY created_at DESC, id DESC LIMIT :searched
) AS p {join} runs AS r ON r.id = p.run_id
WHERE {wanted} ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: search_of_key
SELECT {found}
FROM (
    SELECT * FROM predictions
    WHERE key_id = :only_key AND kind = :kind AND (created_at, id) >= (:low_at, :low_id) AND (created_at, id) < (:high_at, :high_id)
    ORDER BY created_at DESC, id DESC LIMIT :searched
) AS p {join} runs AS r ON r.id = p.run_id
WHERE {wanted} ORDER BY p.created_at DESC, p.id DESC LIMIT :limit;

-- name: found_prediction
SELECT {found} FROM predictions AS p {join} runs AS r ON r.id = p.run_id WHERE p.id = :id AND {shown};
