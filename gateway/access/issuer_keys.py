"""The public keys of issuers, in memory. They are read in the background, before any token needs them.

An issuer that is away, slow or sends something else changes nothing for tokens whose key is known.
"""

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from gateway.access.ports import KeySource, KeysUnread
from gateway.access.rules import json_web_keys, key_refresh
from gateway.access.rules.issuers import Issuer, IssuerSettings, KeyLocation
from gateway.access.rules.json_web_keys import KeySet, PublicKey
from gateway.access.rules.json_web_tokens import TokenRefusal
from gateway.access.rules.key_refresh import KnownKeys, Next
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import IdentityObserver
from gateway.runtime.live import LiveSettings
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_SECONDS = 3600.0


class IssuerKeys:
    """Knows the keys of the issuers of the config."""

    def __init__(
        self, settings: LiveSettings[IssuerSettings], source: KeySource, clock: Clock, observer: IdentityObserver
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._observer = observer
        self._known: dict[KeyLocation, KnownKeys] = {}
        self._bodies: dict[KeyLocation, bytes] = {}
        """What the keys were read from, to notice that nothing has changed."""
        self._reading: dict[KeyLocation, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        settings.subscribe(self._apply)

    def _apply(self, settings: IssuerSettings) -> None:
        """Forget the keys of issuers that are no longer in the config, or are now read from elsewhere."""
        kept = {issuer.keys for issuer in settings.issuers}
        self._known = {where: known for where, known in self._known.items() if where in kept}
        self._bodies = {where: body for where, body in self._bodies.items() if where in kept}
        self._changed.set()

    @property
    def ages(self) -> Mapping[str, float]:
        """The seconds since the keys of each issuer were read, by its name. Issuers without keys are left out."""
        now = self._clock.monotonic()
        known = ((issuer.name, self._known.get(issuer.keys)) for issuer in self._settings.value.issuers)
        return {name: now - each.read_at for name, each in known if each is not None and each.keys is not None}

    def is_current(self, issuer: Issuer, key: PublicKey) -> bool:
        """Return whether a key still is among those of its issuer, and these are not too old."""
        known = self._known.get(issuer.keys)
        if known is None or known.keys is None:
            return False
        return key in known.keys.keys and self._clock.monotonic() < known.read_at + issuer.keys.stale_seconds

    async def find(self, issuer: Issuer, key_id: str | None, algorithm: str) -> PublicKey | TokenRefusal:
        """Return the key that a token names, or why there is none. Wait for the issuer only if the key is unknown."""
        where = issuer.keys
        found = self._look_up(where, key_id, algorithm)
        if found is Next.READ or (isinstance(found, TokenRefusal) and where in self._reading):
            await self._read(issuer)
            found = self._look_up(where, key_id, algorithm, may_read=False)
        assert not isinstance(found, Next)
        return found

    def _look_up(
        self, where: KeyLocation, key_id: str | None, algorithm: str, *, may_read: bool = True
    ) -> PublicKey | Next | TokenRefusal:
        known = self._known.get(where, KnownKeys())
        return key_refresh.look_up(known, where, key_id, algorithm, self._clock.monotonic(), may_read=may_read)

    async def _read(self, issuer: Issuer) -> None:
        """Read the keys of an issuer, or wait for the read that is in progress. It goes on without its waiters."""
        await asyncio.shield(self._reading.get(issuer.keys) or self._start(issuer))

    def _start(self, issuer: Issuer) -> asyncio.Task[None]:
        where = issuer.keys
        known = self._known.get(where, KnownKeys())
        self._known[where] = msgspec.structs.replace(known, tried_at=self._clock.monotonic())
        task = self._reading[where] = self._tasks.spawn(self._read_once(issuer), "issuer keys")
        return task

    async def _read_once(self, issuer: Issuer) -> None:
        where = issuer.keys
        outcome = "read"
        try:
            body = await self._source.read(where)
            keys = self._parsed(where, body)
        except KeysUnread as unread:
            outcome = unread.outcome
            extra = {"issuer": issuer.name, "reason": unread.detail}
            logger.warning("the keys of an issuer could not be read", extra=extra)
            if where in self._known:
                self._known[where] = key_refresh.failed(self._known[where])
        else:
            if where in self._known:  # else a reload has removed the issuer
                self._bodies[where] = body
                self._known[where] = key_refresh.succeeded(self._known[where], keys, self._clock.monotonic())
        finally:
            del self._reading[where]
            self._observer.issuer_keys_read(issuer.name, outcome)

    def _parsed(self, where: KeyLocation, body: bytes) -> KeySet:
        """Return the keys in a JWKS; the same objects as before if it has not changed."""
        known = self._known.get(where)
        if known is not None and known.keys is not None and self._bodies.get(where) == body:
            return known.keys
        try:
            return json_web_keys.parse(body, where.max_keys)
        except ValueError as exc:
            raise KeysUnread("invalid", "what it publishes is not a JWKS with a usable key") from exc

    async def run(self) -> None:
        """Keep the keys of all issuers fresh until cancelled."""
        while True:
            self._changed.clear()
            issuers = self._settings.value.issuers
            now = self._clock.monotonic()
            for issuer in issuers:
                if now >= self._due_at(issuer) and issuer.keys not in self._reading:
                    self._start(issuer)
            wait = min((self._due_at(each) - now for each in issuers), default=_LONGEST_SLEEP_SECONDS)
            await sleep_until_event(self._clock, min(max(wait, 1.0), _LONGEST_SLEEP_SECONDS), self._changed)

    def _due_at(self, issuer: Issuer) -> float:
        return key_refresh.due_at(self._known.get(issuer.keys, KnownKeys()), issuer.keys)

    async def close(self) -> None:
        """Cancel what is being read."""
        await self._tasks.close(0.0)
