"""Create, get, cancel and poll predictions through an `aiohttp` session, for tests of sharing."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from gateway.app import running
from gateway.domain.ports.clock import Clock
from gateway.simulator import Simulator
from tests.support.polling import attempts
from tests.support.stack import Stack, stack_config
from tests.support.upstream import version_of

STORY = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 4}
JOINED = "replicate-gateway; fwd=miss; collapsed"
STORED = "replicate-gateway; fwd=miss; stored"
TERMINAL = ("succeeded", "failed", "canceled", "aborted")
CREATED = "/v1/predictions"


class Reply(msgspec.Struct, frozen=True):
    """A response with its body."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.text)

    @property
    def cache(self) -> str:
        """The header `Cache-Status`."""
        return self.headers.get("Cache-Status", "")

    @property
    def is_hit(self) -> bool:
        """Whether it was answered from a finished run."""
        return self.cache.startswith("replicate-gateway; hit; ttl=")

    @property
    def bypass(self) -> str:
        """Why nothing was shared; empty if something was."""
        return self.cache.partition("fwd=bypass; detail=")[2]


async def ask(session: aiohttp.ClientSession, method: str, path: str, **more: Any) -> Reply:
    """Send a request and read the response."""
    async with session.request(method, path, **more) as response:
        return Reply(response.status, response.headers, await response.text())


async def create(session: aiohttp.ClientSession, version: str, given: Any = None, **headers: str) -> Reply:
    """Create a prediction of a version. Headers are named with `_` for `-`."""
    body = {"version": version, "input": STORY if given is None else given}
    return await ask(session, "POST", CREATED, json=body, headers={n.replace("_", "-"): v for n, v in headers.items()})


async def get(session: aiohttp.ClientSession, prediction: str) -> Any:
    """Get a prediction."""
    reply = await ask(session, "GET", f"{CREATED}/{prediction}")
    assert reply.status == 200, reply.text
    return reply.json


async def cancel(session: aiohttp.ClientSession, prediction: str) -> Any:
    """Cancel a prediction."""
    reply = await ask(session, "POST", f"{CREATED}/{prediction}/cancel")
    assert reply.status == 200, reply.text
    return reply.json


async def finished(session: aiohttp.ClientSession, prediction: str) -> Any:
    """Poll a prediction to its end."""
    async for _ in attempts(pause=0.02):
        if (body := await get(session, prediction))["status"] in TERMINAL:
            break
    return body


async def teach_version(session: aiohttp.ClientSession, model: str, version: str) -> None:
    """Let the gateway learn the model of a version, by reading the version through it."""
    assert (await ask(session, "GET", f"/v1/models/{model}/versions/{version}")).status == 200


@asynccontextmanager
async def open_session(stack: Stack, key: str = "alpha") -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session without a limit on connections."""
    headers = {"Authorization": f"Bearer {stack.keys[key]}"}
    async with aiohttp.ClientSession(stack.origin, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@asynccontextmanager
async def gateway_with_short_adoption_wait(
    upstream: Simulator, folder: Path, clock: Clock | None = None
) -> AsyncIterator[Stack]:
    """Start a gateway that searches for an uncertain create for one second only."""
    config, keys = stack_config(upstream, folder)
    section = config.upstream.model_copy(update={"adopt_wait_seconds": 1})
    config = config.model_copy(update={"upstream": section})
    async with running(config, clock=clock) as gateway:
        yield Stack(gateway, upstream, keys, config, folder / "gateway.db")


def versioned_model(stack: Stack, model: str = "acme/storyteller") -> str:
    """Return `owner/name:version` of a model's newest version."""
    return f"{model}:{version_of(stack.upstream, model)}"
