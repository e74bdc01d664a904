"""A gateway that stores copies of outputs, and models with a chosen output."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.simulator import Simulator
from gateway.simulator.models import schema
from gateway.simulator.models.job import Job, Program
from tests.support.http_calls import metrics_of
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import AdvancingClock


class CopyingGateway(Struct):
    """A gateway with an output store and a clock that the test advances."""

    stack: Stack
    clock: AdvancingClock

    async def metric(self, name: str) -> float:
        """Read one metric."""
        lines = (await metrics_of(self.stack)).splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"replicate_gateway_{name} "))

    async def settled(self, stored: int) -> None:
        """Wait until `stored` files were copied and no copy is pending."""
        while await self.metric("outputs_stored_total") < stored or await self.metric("outputs_pending"):
            pass


@asynccontextmanager
async def gateway_with_copies(
    open_gateway: OpenGateway,
    upstream: Simulator,
    url: str | Path | None,
    /,
    clock: AdvancingClock | None = None,
    **more: Any,
) -> AsyncIterator[CopyingGateway]:
    """Open a gateway with an output store at `url`."""
    clock = clock or AdvancingClock(upstream)
    outputs = ({"url": str(url)} if url else {}) | more.pop("outputs", {})
    async with open_gateway(clock=clock, outputs=outputs, **more) as stack:
        yield CopyingGateway(stack, clock)


def add_output(upstream: Simulator, ref: str, output: Any) -> None:
    """Add an official model with an output of any form; `output` makes it from the job."""

    async def run(job: Job) -> None:
        job.give(output(job))

    fields = {"prompt": schema.field("string", "Anything", default=""), "seed": schema.seed_field()}
    upstream.world.registry.add_version(ref, Program(run, schema.model_schema(fields, {})), official=True)
