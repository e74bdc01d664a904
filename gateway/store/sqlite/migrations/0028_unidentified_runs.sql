-- Runs that have ended without their final identity: an equal request gives it to them.
CREATE INDEX runs_unidentified ON runs (provisional, ended_at)
    WHERE provisional IS NOT NULL AND fingerprint IS NULL AND state = 'ended' AND status = 'succeeded' AND data_removed = 0;
