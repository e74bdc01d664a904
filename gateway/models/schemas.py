"""Read and cache the input schemas of targets.

A version's schema never changes and stays cached until it is evicted. The current version of a model or a deployment
can change, so those entries expire. Concurrent requests for one target share one read. A failed read is cached for a
short time too; requests then have no schema and count as not deterministic, without other effects.
"""

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from functools import partial

import msgspec
from cachetools import LRUCache, TTLCache

from gateway.domain import large_json
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.domain.targets import Target, TargetKind, target_identity
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError
from gateway.models.rules import schema as schemas
from gateway.models.rules.schema import InputSchema
from gateway.runtime.pauses import off_the_loop
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_CURRENT_SECONDS = 300.0
_DEPLOYMENT_SECONDS = 30.0
_UNKNOWN_SECONDS = 15.0
_MAX_BYTES = 32 * 1024 * 1024
_CACHES = 4
_OVERHEAD = 1024


class Described(msgspec.Struct, frozen=True):
    """A target as the fingerprint needs it: its canonical identity and its schema."""

    identity: str
    schema: InputSchema | None
    size: int = 0
    """Bytes of the answer that the schema was read from."""


def _size(described: Described) -> int:
    return described.size + _OVERHEAD


class _Release(msgspec.Struct):
    model: str
    version: str


class _Deployment(msgspec.Struct):
    current_release: _Release


def _expiring(max_bytes: int, seconds: float, clock: Clock) -> TTLCache[str, Described]:
    return TTLCache(max_bytes, seconds, timer=clock.monotonic, getsizeof=_size)


class SchemaService:
    """Returns the identity and schema of targets."""

    def __init__(self, upstream: Upstream, clock: Clock, *, max_bytes: int = _MAX_BYTES) -> None:
        """Take `max_bytes`, the limit of all caches, by the size of the answers that the schemas were read from."""
        self._upstream = upstream
        of_each = max_bytes // _CACHES
        self._kept: LRUCache[str, Described] = LRUCache(of_each, getsizeof=_size)
        self._current = _expiring(of_each, _CURRENT_SECONDS, clock)
        self._deployed = _expiring(of_each, _DEPLOYMENT_SECONDS, clock)
        self._unknown = _expiring(of_each, _UNKNOWN_SECONDS, clock)
        self._by_kind: dict[TargetKind, MutableMapping[str, Described]] = {
            TargetKind.VERSION: self._kept,
            TargetKind.MODEL: self._current,
            TargetKind.DEPLOYMENT: self._deployed,
        }
        self._tasks = Tasks()

    def known(self, target: Target) -> Described | None:
        """Return the cached description of a target; `None` if there is none."""
        identity = target_identity(target)
        # Every create asks. An attempt is one look-up, where `get` is two.
        try:
            return self._by_kind[target.kind][identity]
        except KeyError:
            return self._unknown.get(identity)

    async def describe(self, target: Target) -> Described:
        """Return the description of a target whose model is known. The schema is `None` if it cannot be read.

        Safe to cancel: a shared read continues for the other callers.
        """
        if (described := self.known(target)) is not None:
            return described
        identity = target_identity(target)
        return await self._tasks.single_flight(identity, partial(self._read, target, identity), f"schema of {identity}")

    async def _read(self, target: Target, identity: str) -> Described:
        try:
            match target.kind:
                case TargetKind.VERSION:
                    described = await self._of_version(identity, target.model or "", target.version or "")
                case TargetKind.MODEL:
                    described = await self._of_model(identity, target.model or "")
                case TargetKind.DEPLOYMENT:
                    described = await self._of_deployment(target.model or "", identity)
        except (GatewayError, ValueError, msgspec.MsgspecError, RecursionError) as exc:
            logger.warning("schema could not be read", extra={"target": target.name, "reason": str(exc)})
            described = Described(identity, None)
        kept = self._unknown if described.schema is None else self._by_kind[target.kind]
        with suppress(ValueError):
            # One that is larger than the cache is read each time.
            kept[identity] = described
        return described

    async def _of_version(self, identity: str, model: str, version: str) -> Described:
        answer = await self._upstream.read("models.versions.get", f"/models/{model}/versions/{version}")
        return await _described(identity, answer)

    async def _of_model(self, identity: str, model: str) -> Described:
        return await _described(identity, await self._upstream.read("models.get", f"/models/{model}"))

    async def _of_deployment(self, name: str, identity: str) -> Described:
        """Include the current version in the identity: results of an earlier version must not be reused."""
        answer = await self._upstream.read("deployments.get", f"/deployments/{name}")
        if not answer.is_ok:
            return Described(identity, None)
        release = (await off_the_loop(answer.body, partial(_deployment, answer.body))).current_release
        version = await self.describe(Target(TargetKind.VERSION, release.model, release.version))
        return Described(f"{identity}@{release.version}", version.schema, version.size)

    @property
    def kept_bytes(self) -> int:
        """Size of the cached schemas."""
        caches = (self._kept, self._current, self._deployed, self._unknown)
        return int(sum(cache.currsize for cache in caches))

    async def close(self) -> None:
        """Cancel the reads in progress."""
        await self._tasks.close(0.0)


def _deployment(body: bytes) -> _Deployment:
    if len(body) < large_json.WHOLE:
        return msgspec.json.decode(body, type=_Deployment)
    fields = large_json.split(body, _Deployment.__struct_fields__)
    return msgspec.json.decode(large_json.encode(fields), type=_Deployment)


async def _described(identity: str, answer: Answer) -> Described:
    read = partial(schemas.read_schema, answer.body)
    return Described(identity, await off_the_loop(answer.body, read) if answer.is_ok else None, len(answer.body))
