"""PyPI `replicate`, synchronous and asynchronous, so that one test can drive either.

The synchronous client runs in a thread: the gateway runs in the event loop of the test.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from replicate.client import Client
from replicate.pagination import async_paginate, paginate


@dataclass(frozen=True)
class Sent:
    """One request that the client sent, retries included."""

    method: str
    url: str
    status: int
    headers: httpx.Headers

    @property
    def authorized(self) -> bool:
        """Whether a key went along."""
        return "authorization" in self.headers


class Recorder(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """An httpx transport that records requests."""

    def __init__(self, sent: list[Sent]) -> None:
        self._sent = sent
        self._plain = httpx.HTTPTransport()
        self._async = httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and write down."""
        return self._note(request, self._plain.handle_request(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and write down."""
        return self._note(request, await self._async.handle_async_request(request))

    def close(self) -> None:
        """Close the connections."""
        self._plain.close()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._async.aclose()

    def _note(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        self._sent.append(Sent(request.method, str(request.url), response.status_code, request.headers))
        return response


@dataclass
class Python:
    """A client, called by `await python.do(client.models, "get", "owner/name")`."""

    client: Client
    is_async: bool
    sent: list[Sent] = field(default_factory=list)

    async def do(self, thing: Any, method: str, *args: Any, **more: Any) -> Any:
        """Call a method by its name in the synchronous client; an iterator is read to its end."""
        if self.is_async:
            got = getattr(thing, f"async_{method}")(*args, **more)
            if asyncio.iscoroutine(got):
                got = await got
            return [each async for each in got] if isinstance(got, AsyncIterator) else got

        def call() -> Any:
            got = getattr(thing, method)(*args, **more)
            return list(got) if isinstance(got, Iterator) else got

        return await asyncio.to_thread(call)

    async def pages(self, namespace: Any) -> list[Any]:
        """Return the pages of a list."""
        if self.is_async:
            return [page async for page in async_paginate(namespace.async_list)]
        return await asyncio.to_thread(lambda: list(paginate(namespace.list)))

    async def read(self, output: Any) -> bytes:
        """Read a file output."""
        return await output.aread() if self.is_async else await asyncio.to_thread(output.read)

    def count(self, method: str, ending: str = "") -> int:
        """Count the requests of a method whose path ends so."""
        return len([each for each in self.sent if each.method == method and each.url.split("?")[0].endswith(ending)])

    async def close(self) -> None:
        """Close the connections of both ways."""
        await self.client._async_client.aclose()
        self.client._client.close()


def python_client(key: str, base_url: str, *, is_async: bool, **more: Any) -> Python:
    """Make a client that polls quickly."""
    sent: list[Sent] = []
    client = Client(key, base_url=base_url, transport=Recorder(sent), **more)
    client.poll_interval = 0.02
    return Python(client, is_async, sent)
