"""Purge the cache for an operator, with one entry in the audit log."""

import secrets

from gateway.domain.audit import Actor, AuditedOperation
from gateway.predictions.ports.sharing import Sharing


async def purge(store: Sharing, at: float, actor: Actor, *, team: str | None = None, target: str | None = None) -> int:
    """Remove the cache entries of a team, of a target (a glob), or all; return how many. The store does it in steps."""
    operation, purged = AuditedOperation(id=secrets.token_hex(16), at=at, actor=actor), 0
    while (count := await store.purge_cache(operation, team=team, target=target, purged_before=purged)) > 0:
        purged += count
    return purged
