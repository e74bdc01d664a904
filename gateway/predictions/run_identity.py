"""Final identities of runs that were started while the model of their version was unknown.

See docs/architecture.md, Create, Bare version ids.
"""

from collections.abc import Callable

from msgspec.structs import replace

from gateway.domain import documents
from gateway.domain.create_request import CreateContext
from gateway.domain.documents import Snapshot
from gateway.domain.records import Run, Status
from gateway.models.versions import VersionMap
from gateway.predictions.ports.sharing import Sharing
from gateway.predictions.tracker import Tracker
from gateway.sharing.identity import Identity, IdentityService


class RunIdentities:
    """Learns models from upstream's answers, and gives provisional runs their final identity."""

    def __init__(
        self,
        store: Sharing,
        tracker: Tracker,
        identities: IdentityService,
        versions: VersionMap,
        *,
        keep_until: Callable[[Run, bytes, float], float | None],
    ) -> None:
        self._store = store
        self._tracker = tracker
        self._identities = identities
        self._versions = versions
        self._keep_until = keep_until

    def teaches_version(self, run: Run, snapshot: Snapshot) -> bool:
        """Return whether an answer names the model of the version that was asked for."""
        # An answer for another version than was asked for is an override of upstream's (docs/replicate-api.md,
        # Prediction object); it teaches nothing.
        return snapshot.version is not None and snapshot.version in run.target

    async def learn(self, run: Run, snapshot: Snapshot) -> None:
        """Add the run's version and model to the version map. Raise `StoreUnavailable` if that is not on disk."""
        if snapshot.version is not None and self.teaches_version(run, snapshot):
            await self._versions.learn(snapshot.version, snapshot.model)

    async def settle(self, run: Run, context: CreateContext) -> tuple[Run, Identity]:
        """Give a run the final identity of an equal request, now that upstream has named the model.

        Return the run as it is recorded then, and the identity of the request. A run that has its final identity is
        returned as it is. Raise `StoreUnavailable`.
        """
        if not run.document:
            # It is large, and was left in the store.
            run = await self._store.run(run.id) or run
        await self.learn(run, documents.stored_snapshot(run.document))
        identity = await self._identities.of(await self._identities.named(context))
        if run.fingerprint is not None or run.provisional is None:
            return run, identity
        for _ in range(2):
            newest = await self._store.run(run.id) or run
            keep_until = None
            if newest.status is Status.SUCCEEDED and newest.ended_at is not None:
                named = replace(newest, fingerprint=identity.fingerprint)
                keep_until = self._keep_until(named, newest.document, newest.ended_at)
            await self._store.settle_identity(run.id, identity.fingerprint, keep_until, reason=identity.reason)
            # The run may have ended in between, without a time until which it is kept: the second round sets that.
        newest = await self._store.run(run.id) or run
        self._tracker.refresh(newest)
        return newest, identity
