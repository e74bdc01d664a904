"""Bounds the transfers in progress.

See docs/limits.md, Uploads and downloads.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from gateway.domain.ports.observers import DeliveryObserver
from gateway.domain.teams import Caller
from gateway.errors import RateLimited
from gateway.files.rules.transfers import WAITING_PER_PLACE, Bound, Count, Direction, TransferSettings, reached
from gateway.runtime.live import LiveSettings

_RETRY_SECONDS = 5
_FIRST_BYTES = 64 * 1024
_WHOSE = {
    Bound.PUBLIC_KEY: "Your key or token can have {limit} {what} at a time.",
    Bound.TEAM: "Your team can have {limit} {what} at a time.",
    Bound.TOTAL: "The gateway can have {limit} {what} at a time.",
}


class _Who(NamedTuple):
    """Whom a transfer counts for."""

    team: str
    public_key: str | None
    """The owner, because a page can have several tokens for one user. `None` for a server's key."""


class _Counts:
    """Numbers of transfers."""

    def __init__(self) -> None:
        self.total = 0
        self._by_name: Counter[str | tuple[str, str]] = Counter()

    def of(self, who: _Who) -> Count:
        of_key = None if who.public_key is None else self._by_name[who.team, who.public_key]
        return Count(self.total, self._by_name[who.team], of_key)

    def add(self, who: _Who, number: int) -> None:
        self.total += number
        for name in (who.team, *(() if who.public_key is None else ((who.team, who.public_key),))):
            self._by_name[name] += number
            if not self._by_name[name]:
                del self._by_name[name]


class Transfers:
    """The transfers of one direction."""

    def __init__(
        self, direction: Direction, settings: LiveSettings[TransferSettings], observer: DeliveryObserver
    ) -> None:
        self._direction = direction
        self._settings = settings
        self._observer = observer
        self._active = _Counts()
        self._waiting = _Counts()
        self._queue: dict[asyncio.Future[None], _Who] = {}
        """Those that wait for a place, in order of arrival."""

    @property
    def in_progress(self) -> int:
        """Number of transfers in progress."""
        return self._active.total

    @property
    def waiting(self) -> int:
        """Number of transfers that wait for a place."""
        return self._waiting.total

    @asynccontextmanager
    async def admit(self, caller: Caller) -> AsyncIterator[None]:
        """Hold a place for a transfer until the context ends.

        If a bound is reached, wait for a place up to the team's `max_wait_seconds`. Raise `RateLimited` if none becomes
        free, or if too many wait.
        """
        who = _Who(caller.team.name, caller.owner if caller.is_public else None)
        if (bound := self._reached(who)) is None:
            self._active.add(who, 1)
        else:
            await self._wait(who, bound, caller.team.max_wait_seconds)
        try:
            yield
        finally:
            self._leave(who)

    def _reached(self, who: _Who) -> Bound | None:
        return reached(self._settings.value, self._direction, self._active.of(who))

    async def _wait(self, who: _Who, bound: Bound, seconds: float) -> None:
        """Wait until `_leave` of another transfer has given this one a place."""
        full = reached(self._settings.value, self._direction, self._waiting.of(who), times=WAITING_PER_PLACE)
        if full is not None or not seconds:
            raise self._refusal(full or bound)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = who
        self._waiting.add(who, 1)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                # The place came at the same moment.
                self._leave(who)
            if isinstance(exc, TimeoutError):
                raise self._refusal(bound) from exc
            raise
        finally:
            self._waiting.add(who, -1)
            self._queue.pop(turn, None)

    def _leave(self, who: _Who) -> None:
        """Free a place, and give the free places to those that wait."""
        self._active.add(who, -1)
        for turn, waiting in list(self._queue.items()):
            if not turn.done() and self._reached(waiting) is None:
                del self._queue[turn]
                self._active.add(waiting, 1)
                turn.set_result(None)

    def _refusal(self, bound: Bound) -> RateLimited:
        self._observer.transfer_refused(self._direction, bound)
        text = _WHOSE[bound].format(limit=self._settings.value.value(bound, self._direction), what=self._direction)
        return RateLimited(f"Too many {self._direction} are in progress. {text}", retry_after=_RETRY_SECONDS)

    def too_slow(self) -> None:
        """Count a transfer that ends because its caller is too slow."""
        self._observer.transfer_too_slow(self._direction)


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first 64 KiB of a body, or all of a smaller one, before upstream is called; return an iterator of all.

    A caller that stops early then holds no connection to upstream. Exceptions of `chunks` propagate.
    """
    first = bytearray()
    async for chunk in chunks:
        first += chunk
        if len(first) >= _FIRST_BYTES:
            break
    return _joined(bytes(first), chunks)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk
