"""Where people sign in at issuers, in memory. It is read when the first of them does, and again when it is old."""

import asyncio
from collections import defaultdict

import msgspec

from gateway.access.ports import KeysUnread, SignInSource
from gateway.access.rules import discovery
from gateway.access.rules.discovery import Endpoints
from gateway.access.rules.issuers import IssuerSettings, KeyLocation
from gateway.domain.ports.clock import Clock
from gateway.runtime.live import LiveSettings

_RETRY_SECONDS = 10.0
"""An issuer that could not be read is not asked again for so long."""


class _Known(msgspec.Struct, frozen=True):
    tried_at: float
    found: tuple[Endpoints, float] | None = None
    """The endpoints, and when they were read."""
    trouble: KeysUnread | None = None


class IssuerEndpoints:
    """Knows the endpoints of the issuers of the config."""

    def __init__(self, settings: LiveSettings[IssuerSettings], source: SignInSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._known: dict[KeyLocation, _Known] = {}
        self._locks: defaultdict[KeyLocation, asyncio.Lock] = defaultdict(asyncio.Lock)
        settings.subscribe(self._apply)

    def _apply(self, settings: IssuerSettings) -> None:
        kept = {issuer.keys for issuer in settings.issuers}
        self._known = {where: known for where, known in self._known.items() if where in kept}
        for where in [where for where, lock in self._locks.items() if where not in kept and not lock.locked()]:
            del self._locks[where]

    async def find(self, where: KeyLocation) -> Endpoints:
        """Return the endpoints of an issuer. Raise `KeysUnread`, within seconds, if they are not known."""
        async with self._locks[where]:  # one read at a time
            known, now = self._known.get(where), self._clock.monotonic()
            if known is None or now >= self._due_at(known, where):
                known = self._known[where] = await self._read(where, known, now)
        if known.found is not None and now < known.found[1] + where.stale_seconds:
            return known.found[0]
        assert known.trouble is not None
        raise known.trouble

    def _due_at(self, known: _Known, where: KeyLocation) -> float:
        if known.trouble is not None or known.found is None:
            return known.tried_at + _RETRY_SECONDS
        return known.found[1] + min(where.ttl_seconds, where.stale_seconds)

    async def _read(self, where: KeyLocation, known: _Known | None, now: float) -> _Known:
        try:
            found = discovery.endpoints_in(await self._source.configuration(where), where.issuer)
        except KeysUnread as exc:
            trouble = exc
        except ValueError as exc:
            trouble = KeysUnread("invalid", str(exc))
        else:
            return _Known(now, (found, now))
        return _Known(now, None if known is None else known.found, trouble)
