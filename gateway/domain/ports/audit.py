"""The audit log in the store."""

from typing import Protocol

from gateway.domain.audit import AuditFilter, AuditPage, AuditPlace, Values


class AuditLog(Protocol):
    """Entries about changes. The operations that change something write them, in their own transactions."""

    async def audit_entries(self, which: AuditFilter, *, limit: int, older_than: AuditPlace | None = None) -> AuditPage:
        """List entries, newest first, from those before a place on."""
        ...

    async def record_config(self, digest: str, before: Values, after: Values, at: float) -> bool:
        """Record that a config took effect, unless the newest such entry is of the same config. Atomic.

        `before` and `after` have the changed settings by path, without secrets; none at the start of a process.

        So of several nodes that read one file, the first records it. Return whether it was recorded.
        """
        ...

    async def delete_old_audit_entries(self, before: float, limit: int) -> int:
        """Delete at most `limit` entries from before a time; return how many."""
        ...
