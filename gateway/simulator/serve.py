"""Run a simulator in a terminal, and print its URLs and models."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable

from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.simulator import Simulator


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def simulate(settings: SimulatorSettings, echo: Callable[[str], object] = _say) -> None:
    """Serve until cancelled, interrupted or terminated. `echo` prints the start message."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    caught = []
    async with Simulator(settings) as simulator:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
                loop.add_signal_handler(number, stop.set)
                caught.append(number)
        try:
            for line in start_message(simulator):
                echo(line)
            await stop.wait()
        finally:
            for number in caught:
                loop.remove_signal_handler(number)


def start_message(simulator: Simulator) -> list[str]:
    """Return the start message: URLs, models, and an example request."""
    registry = simulator.world.registry
    storyteller = registry.models["acme/storyteller"]
    version = storyteller.versions[-1].id
    lines = [
        "A simulator of Replicate. It needs no account and costs nothing.",
        "",
        f"  REPLICATE_API_TOKEN  {simulator.token}"
        + ("   (any token that starts with r8_ works)" if simulator.settings.tokens is None else ""),
        f"  base URL             {simulator.base_url}",
        f"  streams, outputs     {simulator.delivery_url}",
    ]
    if simulator.settings.control:
        lines.append(f"  control              {simulator.base_url.removesuffix('/v1')}/_control/")
    if simulator.faults:
        lines.append(f"  active faults        {', '.join(entry['name'] for entry in simulator.faults.show())}")
    lines += ["", "Models:"]
    for model in registry.models.values():
        if model.latest is not None:
            how = model.ref if model.official else f"{model.ref}:{model.latest.id[:12]}…"
            lines.append(f"  {how:<52} {model.description}")
    lines += [
        "",
        "Try:",
        f'  curl -s -H "Authorization: Bearer {simulator.token}" -H "Prefer: wait" \\',
        '    -H "Content-Type: application/json" \\',
        f'    -d \'{{"version": "{version}", "input": {{"prompt": "a llama"}}}}\' {simulator.base_url}/predictions',
        "",
    ]
    return lines
