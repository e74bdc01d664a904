"""Each team's own webhook secret: what `GET /v1/webhooks/default/secret` gives, and what signs its webhooks."""

import base64
import secrets

from gateway.ports import Secrets

_BYTES = 24  # as in Replicate's own (ref 5)


class WebhookSecrets:
    """Keeps one secret a team, made when it is first asked for."""

    def __init__(self, store: Secrets) -> None:
        self._store = store

    async def of(self, team: str) -> str:
        """Return a team's secret in its written form, `whsec_<base64>` (Standard Webhooks)."""
        secret = await self._store.secret(f"webhook:{team}", secrets.token_bytes(_BYTES))
        return "whsec_" + base64.b64encode(secret).decode()
