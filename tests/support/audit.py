"""Who makes the changes of a test, and an audit log in memory."""

from gateway.domain.audit import Actor, AuditedOperation, AuditEntry, AuditFilter, AuditPage, AuditPlace, Values

BY_TEST = Actor("cli:test")
PURGE = AuditedOperation(id="purge", at=1_764_000_000.25, actor=BY_TEST)


class FakeAuditLog:
    """An audit log with the given entries."""

    def __init__(self, *entries: AuditEntry) -> None:
        self.entries = list(entries)

    async def audit_entries(self, which: AuditFilter, *, limit: int, older_than: AuditPlace | None = None) -> AuditPage:
        """Return all entries, newest first."""
        return AuditPage(entries=self.entries[::-1][:limit], has_more=len(self.entries) > limit)

    async def record_config(self, digest: str, before: Values, after: Values, at: float) -> bool:
        """Record nothing."""
        return False

    async def delete_old_audit_entries(self, before: float, limit: int) -> int:
        """Delete the first old entries."""
        old = [each for each in self.entries if each.at < before][:limit]
        self.entries = [each for each in self.entries if each not in old]
        return len(old)
