"""Schemas: what a target's version says of its inputs, read once and kept.

A version's schema never changes and is kept for good (within a bound); which version a model or a deployment stands for
changes, and is asked again after a while. Those that ask at once share one read. What cannot be had is not asked for
again at once: a request then counts as not deterministic, and nothing else.
"""

import logging
from collections.abc import MutableMapping
from functools import partial

import msgspec
from cachetools import LRUCache, TTLCache

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.domain.targets import Target, TargetKind, target_identity
from gateway.errors import GatewayError
from gateway.models.rules import schema as schemas
from gateway.models.rules.schema import InputSchema
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_CURRENT_SECONDS = 300.0
_DEPLOYMENT_SECONDS = 30.0
_UNKNOWN_SECONDS = 15.0
_MAX_KEPT = 5_000


class Described(msgspec.Struct, frozen=True):
    """A target as its fingerprint takes it: in one form, with its schema."""

    identity: str
    schema: InputSchema | None


class _Release(msgspec.Struct):
    model: str
    version: str


class _Deployment(msgspec.Struct):
    current_release: _Release


class SchemaService:
    """Describes targets."""

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._kept: LRUCache[str, Described] = LRUCache(_MAX_KEPT)
        self._current: TTLCache[str, Described] = TTLCache(_MAX_KEPT, _CURRENT_SECONDS, timer=clock.monotonic)
        self._deployed: TTLCache[str, Described] = TTLCache(_MAX_KEPT, _DEPLOYMENT_SECONDS, timer=clock.monotonic)
        self._unknown: TTLCache[str, Described] = TTLCache(_MAX_KEPT, _UNKNOWN_SECONDS, timer=clock.monotonic)
        self._tasks = Tasks()

    def known(self, target: Target) -> Described | None:
        """Return what is known of a target without asking anybody."""
        identity = target_identity(target)
        for kept in (self._kept, self._current, self._deployed, self._unknown):
            if (described := kept.get(identity)) is not None:
                return described
        return None

    async def describe(self, target: Target) -> Described:
        """Describe a target whose model is named. Its schema is `None` where it cannot be had."""
        if (described := self.known(target)) is not None:
            return described
        identity = target_identity(target)
        return await self._tasks.single_flight(identity, partial(self._read, target, identity), f"schema of {identity}")

    async def _read(self, target: Target, identity: str) -> Described:
        try:
            match target.kind:
                case TargetKind.VERSION:
                    described = Described(identity, await self._of_version(target.model or "", target.version or ""))
                    kept: MutableMapping[str, Described] = self._kept
                case TargetKind.MODEL:
                    described = Described(identity, await self._of_model(target.model or ""))
                    kept = self._current
                case TargetKind.DEPLOYMENT:
                    described = await self._of_deployment(target.model or "", identity)
                    kept = self._deployed
        except (GatewayError, ValueError, msgspec.MsgspecError, RecursionError) as exc:
            logger.warning("a schema could not be read", extra={"target": target.name, "reason": str(exc)})
            described = Described(identity, None)
        if described.schema is None:
            kept = self._unknown
        kept[identity] = described
        return described

    async def _of_version(self, model: str, version: str) -> InputSchema | None:
        answer = await self._upstream.read("models.versions.get", f"/models/{model}/versions/{version}")
        return schemas.read_schema(answer.body) if answer.is_ok else None

    async def _of_model(self, model: str) -> InputSchema | None:
        answer = await self._upstream.read("models.get", f"/models/{model}")
        return schemas.read_schema(answer.body) if answer.is_ok else None

    async def _of_deployment(self, name: str, identity: str) -> Described:
        """A deployment stands for one version at a time; results of another are not its own."""
        answer = await self._upstream.read("deployments.get", f"/deployments/{name}")
        if not answer.is_ok:
            return Described(identity, None)
        release = msgspec.json.decode(answer.body, type=_Deployment).current_release
        version = await self.describe(Target(TargetKind.VERSION, release.model, release.version))
        return Described(f"{identity}@{release.version}", version.schema)

    async def close(self) -> None:
        """Abandon the reads that are under way."""
        await self._tasks.close(0.0)
