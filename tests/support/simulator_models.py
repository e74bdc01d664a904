"""Models with output formats that the simulator's own models do not have."""

import asyncio
import base64

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
