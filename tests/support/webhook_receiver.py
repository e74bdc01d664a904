"""A webhook receiver: a real server that responds as a test says and records what it receives."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from tests.support.polling import SECONDS

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Message:
    """One received message."""

    path: str
    headers: CIMultiDict[str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's own id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Receiver:
    """Records every message, and responds as `answer` does."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.url = ""
        self.answer: Answer = ok
        self._arrived = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        """The ids of all messages, in their order."""
        return [message.id for message in self.messages]

    def of(self, prediction_id: str) -> list[Message]:
        """Return the messages about one prediction."""
        return [message for message in self.messages if message.json.get("id") == prediction_id]

    def statuses(self, prediction_id: str) -> list[str]:
        """Return the statuses in the messages about one prediction."""
        return [message.json["status"] for message in self.of(prediction_id)]

    async def until(self, done: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait until a condition about the messages holds."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: bool(done()))

    async def count(self, number: int) -> None:
        """Wait until so many messages have arrived."""
        await self.until(lambda: len(self.messages) >= number)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        message = Message(request.path_qs, CIMultiDict(request.headers), await request.read())
        async with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()
        return await self.answer(request)


async def ok(_: web.Request) -> web.StreamResponse:
    """Accept a message."""
    return web.Response(status=204)


def answering(status: int, **headers: str) -> Answer:
    """Respond with a status and headers."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without a response."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never(_: web.Request) -> web.StreamResponse:
    """Never respond."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    """Respond with 200 and an endless body."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


@asynccontextmanager
async def start_receiver(*, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Start a receiver on loopback."""
    receiver = Receiver()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{rest:.*}", receiver._take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        scheme = "https" if tls is not None else "http"
        receiver.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()
