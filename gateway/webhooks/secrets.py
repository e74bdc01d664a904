"""Each team's own webhook secret: what `GET /v1/webhooks/default/secret` gives, and what signs its webhooks.

A secret can be replaced while it is in use: for a while messages are signed with the new one and the old one, and a
receiver that knows either takes them.
"""

import base64
import secrets

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Secrets

_BYTES = 24  # as in Replicate's own (docs/replicate-api.md, Webhooks)


class WebhookSecrets:
    """Keeps the secrets of teams, the first made when it is first asked for."""

    def __init__(self, store: Secrets, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def of(self, team: str) -> str:
        """Return a team's newest secret in its written form, `whsec_<base64>` (Standard Webhooks)."""
        newest, *_ = await self.in_use(team)
        return "whsec_" + base64.b64encode(newest).decode()

    async def in_use(self, team: str) -> list[bytes]:
        """Return the keys that a team's messages are signed with now, newest first."""
        name = _name(team)
        known = await self._store.secrets_in_use(name, self._clock.now())
        return known or [await self._store.secret(name, secrets.token_bytes(_BYTES))]

    async def rotate(self, team: str, overlap_seconds: float) -> int:
        """Replace a team's secret; the one before stays in use for a while. Return how many are in use now."""
        await self.in_use(team)
        now = self._clock.now()
        return await self._store.rotate_secret(_name(team), secrets.token_bytes(_BYTES), now, now + overlap_seconds)


def _name(team: str) -> str:
    return f"webhook:{team}"
