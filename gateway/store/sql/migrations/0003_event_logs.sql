-- What runs' streams have said, in parts as they came; one part once a stream is complete. A table of its own, so that
-- an event writes neither the run nor its document again.

CREATE TABLE event_logs (
    run_id TEXT NOT NULL,
    first INTEGER NOT NULL,
    part BLOB NOT NULL,
    PRIMARY KEY (run_id, first)
);
