"""Makes README's pictures of the console: `python -m tests.e2e.screenshots`, with Node and Chromium installed."""

import asyncio
import contextlib
import tempfile
from http import HTTPStatus
from pathlib import Path

from PIL import Image

from gateway.domain import times
from gateway.runtime.clock import SystemClock
from tests.support.month_of_usage import write_month
from tests.support.node import install_clients, run_script
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.tools import require_tool
from tests.support.upstream import version_of

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_NOW = "2026-06-24T16:20:00Z"
_COLOURS = 64
_TEAMS = {
    "alpha": {"budget_usd_per_month": 15, "budget_usd_per_day": 0.26},
    "beta": {"budget_usd_per_month": 6},
    "operator": {},
}
_PRICES = {"models": [{"model": "acme/*", "usd_per_run": 0.02}]}
_SHOTS = (
    ("dashboard-light", "", "light", False, ""),
    ("dashboard-dark", "", "dark", False, ""),
    ("dashboard-phone", "", "light", True, ""),
    ("console-predictions", "/predictions", "light", False, ""),
    ("console-predictions-phone", "/predictions?source=hit", "light", True, "#predictions"),
)


class _PastClock(SystemClock):
    """The system's clock, on a fixed day. Its monotonic time is not moved: before zero, no rate would have a token."""

    def __init__(self) -> None:
        self._shift = times.parse(_NOW) - super().now()

    def now(self) -> float:
        return super().now() + self._shift


async def main() -> None:
    """Live through a month, then look at it."""
    if reason := install_clients():
        raise SystemExit(reason)
    IMAGES.mkdir(exist_ok=True)
    clock = _PastClock()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        await write_month(folder / "gateway.db", clock.now())
        async with (
            start_upstream() as upstream,
            start_gateway(upstream, folder, clock=clock, teams=_TEAMS, prices=_PRICES) as stack,
        ):
            await _something_happens(stack)
            for name, path, scheme, small, top in _SHOTS:
                await _shoot(stack, folder, name, path, scheme, small=small, top=top)


async def _something_happens(stack: Stack) -> None:
    """Have runs in progress, and an error or two."""
    slow, fail = (f"acme/{name}:{version_of(stack.upstream, f'acme/{name}')}" for name in ("slow", "fail"))
    async with contextlib.AsyncExitStack() as exits:
        for key, version, given in (
            ("alpha", slow, {"duration": 3000.0}),
            ("beta", slow, {"duration": 3000.0}),
            ("beta", fail, {"kind": "nsfw"}),
        ):
            caller = await exits.enter_async_context(stack.caller(key))
            async with caller.post("/v1/predictions", json={"version": version, "input": given}) as answer:
                if answer.status != HTTPStatus.CREATED:
                    raise SystemExit(await answer.text())


async def _shoot(stack: Stack, folder: Path, name: str, path: str, scheme: str, *, small: bool, top: str) -> None:
    """Take a picture of a page, from its top or from an element on."""
    picture = folder / f"{name}.png"
    outcome = await run_script(
        "dashboard.mjs",
        "look",
        base_url=stack.base_url,
        key=stack.keys["alpha"],
        executable=require_tool("chromium"),
        profile=str(folder / f"profile-{name}"),
        address=f"{stack.ops_url}/dashboard{path}",
        scheme=scheme,
        small=small,
        top=top,
        screenshot=str(picture),
    )
    if outcome.error is not None:
        raise SystemExit(outcome.error["message"])
    await asyncio.to_thread(_save, picture, IMAGES / f"{name}.png")


def _save(picture: Path, target: Path) -> None:
    """Keep the file small: the page has few colours."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(_COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    asyncio.run(main())
