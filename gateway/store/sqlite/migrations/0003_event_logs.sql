-- Event logs of runs' streams, in parts; one part once a stream is complete. A separate table, so that an event does not
-- rewrite the run and its document.

CREATE TABLE event_logs (
    run_id TEXT NOT NULL,
    first INTEGER NOT NULL,
    part BLOB NOT NULL,
    PRIMARY KEY (run_id, first)
);
