"""Signed webhooks with Replicate's semantics: events, throttling, and retries of `completed`."""

import asyncio
import base64
import contextlib
import hmac
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from gateway.simulator import ids
from gateway.simulator.clock import SimulatorClock
from gateway.simulator.faults import Fault, FaultBook
from gateway.simulator.prediction import Prediction

EVENTS = ("start", "output", "logs", "completed")
DEFAULT_EVENTS = frozenset({"output", "completed"})
THROTTLE_SECONDS = 0.5
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16, 32)  # the last attempt is about a minute after completion
RECEIVER_TIMEOUT_SECONDS = 10.0
_MAX_WAITING = 1000


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign according to Standard Webhooks: HMAC-SHA256 over `{id}.{timestamp}.{body}`, with the key after `whsec_`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")).decode()


class Sender:
    """Sends the webhooks of a prediction in order, independent of other receivers."""

    __slots__ = ("_held", "_last_at", "_post", "_queue", "_targets", "_task", "prediction")

    def __init__(self, prediction: Prediction, post: "Webhooks", targets: tuple[str, ...]) -> None:
        self.prediction = prediction
        self._post = post
        self._targets = targets
        self._queue: list[tuple[str, bytes]] = []
        self._held: list[bytes] = []
        self._last_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def event(self, event: str, body: Callable[[], bytes]) -> None:
        """Send an event if it was requested and is not throttled. `body` is called only then."""
        asked = self.prediction.webhook_events_filter
        if event not in (asked or DEFAULT_EVENTS):
            return
        now = asyncio.get_running_loop().time()
        if event in {"output", "logs"}:
            if now - self._last_at < self._post.clock.real(THROTTLE_SECONDS) or len(self._queue) >= _MAX_WAITING:
                return
            self._last_at = now
        self._queue.append((event, body()))
        if self._task is None or self._task.done():
            self._task = self._post.spawn(self._run())

    async def _run(self) -> None:
        while self._queue:
            event, body = self._queue.pop(0)
            faults = self._post.strike(self._targets)
            if "webhook_disorder" in faults and event != "completed":
                self._held.append(body)
                continue
            await self._send(body, faults, tries=1 + len(RETRY_SECONDS) if event == "completed" else 1)
            if event == "completed":
                for late in self._held:
                    await self._send(late, {}, tries=1)
                self._held = []

    async def _send(self, body: bytes, faults: dict[str, Fault], tries: int) -> None:
        if "webhook_lost" in faults:
            return
        if "webhook_late" in faults:
            await self._post.clock.sleep(faults["webhook_late"].get("seconds"))
        message_id = ids.message_id()
        url = self.prediction.webhook or ""
        for _ in range(2 if "webhook_double" in faults else 1):
            await self._post.deliver(url, message_id, body, tries, wrong="webhook_bad_signature" in faults)


class Webhooks:
    """Owns the connections and tasks of all senders."""

    def __init__(self, secret: str, clock: SimulatorClock, faults: FaultBook) -> None:
        self.secret = secret
        self.clock = clock
        self.delivered = 0
        self.failed = 0
        self._faults = faults
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def sender(self, prediction: Prediction, targets: tuple[str, ...]) -> Sender:
        """Create the sender of a prediction."""
        return Sender(prediction, self, targets)

    def strike(self, targets: tuple[str, ...]) -> dict[str, Fault]:
        """Return the faults to apply to an event."""
        return self._faults.strike("webhooks.deliver", "/", targets) if self._faults else {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a sender's work as a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def deliver(self, url: str, message_id: str, body: bytes, tries: int, *, wrong: bool) -> None:
        """POST a message until it is accepted or the attempts are used up. Redirects are not followed."""
        for attempt in range(tries):
            timestamp = int(self.clock.now())
            secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}" if wrong else self.secret
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "replicate-webhook/simulator",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": sign(secret, message_id, timestamp, body),
            }
            status = await self._post(url, body, headers)
            if status is not None and status < 400:
                self.delivered += 1
                return
            if attempt + 1 < tries:
                await self.clock.sleep(RETRY_SECONDS[attempt])
        self.failed += 1

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=RECEIVER_TIMEOUT_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
            )
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                return response.status
        return None

    async def drain(self, seconds: float = 5.0) -> None:
        """Wait until all messages are sent, for tests."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def cancel_all(self) -> None:
        """Cancel all deliveries."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel all deliveries and close the connections."""
        await self.cancel_all()
        if self._session is not None:
            await self._session.close()
            self._session = None
