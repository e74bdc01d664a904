-- Who changed what, and when. `operation` is the id of an operation that takes several transactions.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    team TEXT,
    before_values TEXT,
    after_values TEXT,
    operation TEXT
);
CREATE INDEX audit_by_time ON audit (at, id);
CREATE INDEX audit_of_team ON audit (team, at, id);
CREATE INDEX audit_by_action ON audit (action, at, id);
CREATE UNIQUE INDEX audit_by_operation ON audit (operation) WHERE operation IS NOT NULL;
