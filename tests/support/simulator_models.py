"""Models that the simulator does not have, and a way to let its own models run until the test says so."""

import asyncio
import base64
import dataclasses
from typing import Any, cast

from gateway.simulator import Simulator
from gateway.simulator.models import schema
from gateway.simulator.models.image import paint
from gateway.simulator.models.job import Job, Program

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


def hold_runs(upstream: Simulator, ref: str = "acme/storyteller", *, waits: int = 0) -> asyncio.Event:
    """Let the runs of a model's newest version stand still until the event that is returned is set.

    They stand still where they wait for the first time, or after so many `waits`. When the event is set, they finish
    without waiting.
    """
    version = upstream.world.registry.models[ref].versions[-1]
    program, go_on = version.program, asyncio.Event()

    async def run(job: Job) -> None:
        await program.run(job if go_on.is_set() else cast(Job, _HeldJob(job, go_on, waits)))

    version.program = dataclasses.replace(program, run=run)
    return go_on


class _HeldJob:
    """A job whose waits end when an event is set, but for the first ones."""

    def __init__(self, job: Job, go_on: asyncio.Event, waits: int) -> None:
        self._job, self._go_on, self._waits = job, go_on, waits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    async def wait(self, seconds: float) -> None:
        if self._waits and not self._go_on.is_set():
            self._waits -= 1
            await self._job.wait(seconds)
        else:
            await self._go_on.wait()
