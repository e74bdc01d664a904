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
