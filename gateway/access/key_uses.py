"""Records when keys were last used, at most twice a minute."""

import logging

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Keys
from gateway.errors import GatewayError

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 30.0
_AT_ONCE = 1000
"""Keys of one step."""


class KeyUses:
    """The keys that were used since the last record. There are no more than there are valid keys."""

    def __init__(self, store: Keys, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._used: dict[str, float] = {}

    def note(self, key_id: str) -> None:
        """Note that a key is used now."""
        self._used[key_id] = self._clock.now()

    async def run(self) -> None:
        """Record uses until cancelled. When the store fails, the next round tries again."""
        while True:
            await self._clock.sleep(_EVERY_SECONDS)
            try:
                await self.record()
            except GatewayError as exc:
                logger.warning("uses of keys were not recorded", extra={"reason": exc.detail})

    async def record(self) -> None:
        """Record what was used since the last time. Raise `StoreUnavailable`."""
        while self._used:
            some = dict(list(self._used.items())[:_AT_ONCE])
            await self._store.use_keys(some)
            for key_id, at in some.items():
                if self._used.get(key_id) == at:
                    del self._used[key_id]
