"""Upstream's webhooks to the gateway: progress of a run without a poll (docs/architecture.md, Following a run).

If `public_url` is https, each create asks upstream for them, at an unguessable URL for each run. A message is passed to
the tracker only if upstream has signed it. A lost message costs one poll interval.
"""

import asyncio
import hmac
import logging
from collections.abc import Mapping

import msgspec

from gateway.domain import signing
from gateway.domain.ids import RUN_ID
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.errors import GatewayError, NotFound
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

PATH = rf"/gateway/webhooks/{{run_id:{RUN_ID}}}/{{proof:[0-9a-f]{{64}}}}"
EVENTS = ("start", "completed")
# If a signature does not match, the secret may have changed and is read again, but at most this often.
_ASK_AGAIN_SECONDS = 60.0


class _Secret(msgspec.Struct):
    key: str


class UpstreamWebhooks:
    """Makes the URLs of runs and accepts the messages that are sent to them."""

    def __init__(
        self,
        upstream: Upstream,
        tracker: Tracker,
        clock: Clock,
        settings: LiveSettings[PredictionSettings],
        *,
        secret: bytes,
    ) -> None:
        self._upstream = upstream
        self._tracker = tracker
        self._clock = clock
        self._secret = secret
        self._settings = settings
        self._key: bytes | None = None
        self._asked_at: float | None = None
        self._lock = asyncio.Lock()

    def address(self, run_id: str) -> str | None:
        """Return the webhook URL of a run, or `None` if upstream webhooks are off."""
        base = self._settings.value.upstream_webhook_base
        return f"{base}/gateway/webhooks/{run_id}/{self._proof(run_id)}" if base else None

    def _proof(self, run_id: str) -> str:
        return hmac.digest(self._secret, b"webhook:" + run_id.encode(), "sha256").hex()

    def check(self, run_id: str, proof: str) -> None:
        """Raise `NotFound` for a URL that the gateway did not make. Call this before reading the body."""
        if self._settings.value.upstream_webhook_base is None or not hmac.compare_digest(proof, self._proof(run_id)):
            raise NotFound

    async def take(self, run_id: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Pass a message to the tracker as a snapshot of its run. Return whether upstream had signed it."""
        if not await self._is_signed(headers, body):
            logger.warning("a webhook was not signed by upstream", extra={"run": run_id})
            return False
        await self._tracker.on_snapshot(run_id, body)
        return True

    async def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        now = self._clock.now()
        if self._key is not None and signing.is_signed(self._key, headers, body, now):
            return True
        key = await self._fresh_key()
        return key is not None and signing.is_signed(key, headers, body, now)

    async def _fresh_key(self) -> bytes | None:
        async with self._lock:
            now = self._clock.monotonic()
            if self._asked_at is not None and now < self._asked_at + _ASK_AGAIN_SECONDS:
                return self._key
            self._asked_at = now
            try:
                answer = await self._upstream.read("webhooks.secret", "/webhooks/default/secret")
                if answer.is_ok:
                    self._key = signing.key_of(msgspec.json.decode(answer.body, type=_Secret).key)
            except (GatewayError, msgspec.MsgspecError, ValueError) as exc:
                logger.warning("upstream's webhook secret could not be read", extra={"reason": str(exc)})
            return self._key
