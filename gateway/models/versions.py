"""The stored map from version ids to models (docs/architecture.md, Create).

A request can name a version by its bare id, without a model. The map is filled from upstream's responses. For an
unknown version, the gateway asks upstream whether it belongs to one of the models that the caller's allow-lists name
exactly.
"""

import asyncio
from collections.abc import Sequence

from cachetools import LRUCache

from gateway.domain.ports.records import Versions
from gateway.domain.ports.upstream import Upstream
from gateway.domain.targets import is_model_name
from gateway.errors import UpstreamUnavailable

_VERSION_LENGTH = 64
_MAX_ASKED = 20
_NO = 404


class VersionMap:
    """Finds the model of a version."""

    def __init__(self, store: Versions, upstream: Upstream, *, max_cached: int = 50_000) -> None:
        self._store = store
        self._upstream = upstream
        self._known: LRUCache[str, str] = LRUCache(max_cached)
        self._writing: dict[str, asyncio.Future[bool]] = {}

    async def learn(self, version: str | None, model: str | None) -> None:
        """Record a version's model. Return when it is on disk, also if another call writes it.

        It is known before the store has answered, and forgotten if the store fails. What is not a plain version id
        (`hidden`, `dp-…`) is ignored. Raise `StoreUnavailable`.
        """
        if version is None or model is None or len(version) != _VERSION_LENGTH:
            return
        while (writing := self._writing.get(version)) is not None:
            if await asyncio.shield(writing):
                return
        if version not in self._known and is_model_name(model):
            await self._write(version, model)

    async def _write(self, version: str, model: str) -> None:
        self._known[version] = model
        # Whether it was written; `False` if the caller was cancelled, so that another one writes it.
        self._writing[version] = written = asyncio.get_running_loop().create_future()
        try:
            await self._store.learn_version(version, model)
        except BaseException as exc:
            self._known.pop(version, None)
            if isinstance(exc, Exception):
                written.set_exception(exc)
                # Perhaps nobody else waits for it.
                written.exception()
            else:
                written.set_result(False)
            raise
        else:
            written.set_result(True)
        finally:
            del self._writing[version]

    async def model_of(self, version: str) -> str | None:
        """Return a version's model from the map; `None` if it is unknown."""
        if (known := self._known.get(version)) is not None:
            return known
        if (stored := await self._store.model_of(version)) is not None:
            self._known[version] = stored
        return stored

    async def resolve(self, version: str, candidates: Sequence[str]) -> str | None:
        """Return a version's model. If it is unknown, ask upstream whether it is one of `candidates` (at most 20).

        Return `None` if it is none of them. Raise `UpstreamUnavailable`, or another upstream error, if upstream gives
        no clear answer.
        """
        if (known := await self.model_of(version)) is not None:
            return known
        for model in candidates[:_MAX_ASKED]:
            answer = await self._upstream.read("models.versions.get", f"/models/{model}/versions/{version}")
            if answer.is_ok:
                await self.learn(version, model)
                return model
            if answer.status != _NO:
                # A 429 or an error does not say whether the version belongs to the model.
                raise UpstreamUnavailable("Replicate did not say which model this version belongs to.", retry_after=1)
        return None
