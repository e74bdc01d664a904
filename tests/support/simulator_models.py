"""Models that the simulator does not have, and runs of its own models that wait in the middle of their work.

A test that needs a run to be in progress holds it. How long its steps take depends on the machine.
"""

import asyncio
import base64
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.simulator import Simulator
from gateway.simulator.models import schema
from gateway.simulator.models.image import paint
from gateway.simulator.models.job import Job, Program, Run
from tests.support.polling import until

INLINE_PICTURE = paint("inline", 1, 16, 16)
FILM = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 4


def add_inline(upstream: Simulator, ref: str = "acme/inline", *, seconds: float = 0.1) -> str:
    """Add an official model whose output is a list of one picture as a data URI, as upstream gave for a while."""

    async def run(job: Job) -> None:
        await job.wait(seconds)
        job.give([f"data:image/png;base64,{base64.b64encode(INLINE_PICTURE).decode()}"])

    fields = {"prompt": schema.field("string", "Anything", default="")}
    return upstream.world.registry.add_version(
        ref, Program(run, schema.model_schema(fields, schema.FILES)), official=True
    ).id


def add_film(upstream: Simulator, ref: str = "acme/film", *, seconds: float = 10.0) -> str:
    """Add an official model whose output is one hosted film."""

    async def run(job: Job) -> None:
        await job.wait(seconds)
        job.give(job.host("film.mp4", FILM, "video/mp4"))

    fields = {"prompt": schema.field("string", "Anything", default="")}
    return upstream.world.registry.add_version(
        ref, Program(run, schema.model_schema(fields, schema.FILE)), official=True
    ).id


def add_patient(upstream: Simulator, ref: str) -> asyncio.Event:
    """Add a public model whose runs end when the event that is returned is set."""
    end = asyncio.Event()

    async def run(job: Job) -> None:
        await end.wait()
        job.give("done")

    fields = {"prompt": schema.field("string", "Anything", default="")}
    upstream.world.registry.add_version(ref, Program(run, schema.model_schema(fields, schema.TEXT)))
    return end


def hold_runs(upstream: Simulator, ref: str, *, after: int = 0) -> asyncio.Event:
    """Let runs of a model stop after so many steps of their work, until the event that is returned is set.

    A step is what takes time: a token, a line of the log.
    """
    go_on = asyncio.Event()

    async def released() -> None:
        await go_on.wait()

    hold_runs_until(upstream, ref, released, after=after)
    return go_on


def hold_runs_until_read(upstream: Simulator, ref: str, *, after: int = 0) -> None:
    """Let runs of a model stop after so many steps of their work, until their streams are read.

    The streams are counted: each run has to be read once, and no other model may stream.
    """
    numbers = itertools.count(1)

    async def read() -> None:
        number = next(numbers)
        await until(lambda: upstream.requests.count("streams.get") >= number)

    hold_runs_until(upstream, ref, read, after=after)


def hold_runs_until(upstream: Simulator, ref: str, condition: Callable[[], Awaitable[None]], *, after: int = 0) -> None:
    """Let runs of a model stop after so many steps of their work, and wait for a condition."""

    async def run(work: Run, job: Job) -> None:
        await work(_HeldJob(job, condition, after))

    for version in upstream.world.registry.models[ref].versions:
        version.program = replace(version.program, run=partial(run, version.program.run))


class _HeldJob:
    """A job that waits for a condition before one of its steps."""

    def __init__(self, job: Job, condition: Callable[[], Awaitable[None]], after: int) -> None:
        self.input = job.input
        self.metrics = job.metrics
        self.log: Callable[[str], None] = job.log
        self.emit: Callable[[str], None] = job.emit
        self.give: Callable[[Any], None] = job.give
        self.host: Callable[[str, bytes, str], str] = job.host
        self.fetch: Callable[[str], Coroutine[Any, Any, bytes]] = job.fetch
        self._job = job
        self._condition = condition
        self._left = after

    async def wait(self, seconds: float) -> None:
        if not self._left:
            await self._condition()
        self._left -= 1
        await self._job.wait(seconds)
