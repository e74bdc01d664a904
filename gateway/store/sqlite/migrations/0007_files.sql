-- Several files of a team can use one upstream file: equal bytes are uploaded once (docs/architecture.md, Files and
-- outputs).

-- ALTER TABLE adds columns at the end, but this one must come before the blob, so the table is copied.
CREATE TABLE files_anew (
    id TEXT NOT NULL PRIMARY KEY,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    upstream_id TEXT NOT NULL,
    document BLOB NOT NULL
);
INSERT INTO files_anew
SELECT id, team, key_id, sha256, size, created_at, expires_at, id, document FROM files;
DROP TABLE files;
ALTER TABLE files_anew RENAME TO files;

CREATE INDEX files_of_team ON files (team, created_at, id, expires_at);
CREATE INDEX files_of_all ON files (created_at, id, expires_at);
CREATE INDEX files_by_expiry ON files (expires_at);
CREATE INDEX files_by_size ON files (team, size, expires_at);
CREATE INDEX files_by_content ON files (team, sha256, expires_at);
CREATE INDEX files_by_upstream_id ON files (upstream_id);
