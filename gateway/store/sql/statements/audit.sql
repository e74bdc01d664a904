-- The audit log

-- name: add_audit_entry
-- Several transactions of one operation have one entry.
INSERT INTO audit (at, actor, action, subject, team, before_values, after_values, operation)
VALUES (:at, :actor, :action, :subject, :team, :before_values, :after_values, :operation)
ON CONFLICT (operation) WHERE operation IS NOT NULL
DO UPDATE SET after_values = excluded.after_values WHERE audit.actor = excluded.actor;

-- name: audit_entries
SELECT id, at, actor, action, subject, team, before_values, after_values FROM audit
WHERE at >= :since AND at < :until AND (at, id) < (:older_at, :older_id)
    AND (CAST(:actor AS TEXT) IS NULL OR actor = :actor)
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:subject AS TEXT) IS NULL OR subject = :subject)
ORDER BY at DESC, id DESC LIMIT :limit;

-- name: audit_entries_of_team
SELECT id, at, actor, action, subject, team, before_values, after_values FROM audit
WHERE team = :team AND at >= :since AND at < :until AND (at, id) < (:older_at, :older_id)
    AND (CAST(:actor AS TEXT) IS NULL OR actor = :actor)
    AND (CAST(:action AS TEXT) IS NULL OR action = :action)
    AND (CAST(:subject AS TEXT) IS NULL OR subject = :subject)
ORDER BY at DESC, id DESC LIMIT :limit;

-- name: newest_subject
SELECT subject FROM audit WHERE action = :action ORDER BY at DESC, id DESC LIMIT 1;

-- name: delete_old_audit_entries
DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < :before ORDER BY at, id LIMIT :limit) AND at < :before;
