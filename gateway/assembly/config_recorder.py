"""Records in the audit log which config is in effect: at the start, and after each reload.

A reload takes effect even if the store is away. Its entry is then written as soon as the store answers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gateway.config import Config
from gateway.config.changes import Change
from gateway.config.content import content_of
from gateway.domain.audit import Values
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.ports.audit import AuditLog
from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError

logger = logging.getLogger(__name__)

_MOST_WAITING = 100
_PAUSE_SECONDS = 5.0
_DIGEST_LENGTH = 16
"""Hex digits: enough to tell configs apart."""


class _Loaded(NamedTuple):
    content: bytes
    before: Values
    after: Values
    at: float


class ConfigRecorder:
    """Records configs. Of several nodes that read the same one, the first records it."""

    def __init__(self, audit: AuditLog, secret: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        """Take `secret`, which returns a secret of the store: the digests in the log are keyed."""
        self._audit = audit
        self._secret = secret
        self._clock = clock
        self._waiting: deque[_Loaded] = deque(maxlen=_MOST_WAITING)
        self._woken = asyncio.Event()
        self._lock = asyncio.Lock()

    async def loaded(self, config: Config, changes: Sequence[Change] = ()) -> None:
        """Record a config that takes effect, with its changes from the one before; without at a start."""
        self._waiting.append(
            _Loaded(
                content=await asyncio.to_thread(content_of, config),
                before={change.path: change.old for change in changes},
                after={change.path: change.new for change in changes},
                at=self._clock.now(),
            )
        )
        if not await self._write():
            self._woken.set()

    async def run(self) -> None:
        """Write what could not be written at once, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while not await self._write():
                await self._clock.sleep(_PAUSE_SECONDS)

    async def _write(self) -> bool:
        """Write all that wait, in order. Return whether none is left."""
        async with self._lock:
            while self._waiting:
                content, before, after, at = self._waiting[0]
                try:
                    digest = KeyedDigest(await self._secret(), "config")(content)[:_DIGEST_LENGTH]
                    await self._audit.record_config(digest, before, after, at)
                except GatewayError as exc:
                    logger.warning("the config is not in the audit log yet", extra={"reason": exc.detail})
                    return False
                self._waiting.popleft()
            return True
