"""Webhook secrets: each team has its own, returned by `GET /v1/webhooks/default/secret`, which signs its webhooks.

A secret can be rotated in use: for a while webhooks carry signatures of both the new and the old secret, and a receiver
accepts them with either.
"""

import base64
import secrets

from gateway.domain.audit import Actor
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Secrets

_BYTES = 24  # The length of Replicate's secrets (docs/replicate-api.md, Webhooks).


class WebhookSecrets:
    """Returns and rotates the secrets of teams. A team's first secret is created on first use."""

    def __init__(self, store: Secrets, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def of(self, team: str) -> str:
        """Return a team's newest secret in the form `whsec_<base64>` (Standard Webhooks)."""
        newest, *_ = await self.in_use(team)
        return "whsec_" + base64.b64encode(newest).decode()

    async def in_use(self, team: str) -> list[bytes]:
        """Return the secrets that sign a team's webhooks now, newest first, as bytes."""
        name = _name(team)
        known = await self._store.secrets_in_use(name, self._clock.now())
        return known or [await self._store.secret(name, secrets.token_bytes(_BYTES))]

    async def rotate(self, team: str, overlap_seconds: float, *, actor: Actor) -> int:
        """Replace a team's secret; the old one stays in use for `overlap_seconds`. Return how many are in use now."""
        await self.in_use(team)
        now = self._clock.now()
        successor, until = secrets.token_bytes(_BYTES), now + overlap_seconds
        return await self._store.rotate_secret(_name(team), successor, now, until, team=team, actor=actor)


def _name(team: str) -> str:
    return f"webhook:{team}"
