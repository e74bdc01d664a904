"""How many calls of the gateway's own functions does one request cost?

    python -m bench.calls [--rounds 7]

Counts, for one poll, hit, join and miss and for the end of one run: calls of own Python functions, the files and
coroutines among them, and trips to the store. Counted by `sys.setprofile` on the event loop's thread; the store's
threads, samples of the event loop's lag, the standard library and other packages are left out. `calls` counts a
coroutine at its start and at each resumption, as the profiler sees it; `functions` counts it once. The gateway runs in
this process with a clock that stands still, so that no other loop runs meanwhile. The counts do not depend on the speed
of the machine.

The last line is one JSON object with the median of the rounds.
"""

import argparse
import asyncio
import inspect
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp

import gateway
from gateway.app import running
from gateway.config import from_mapping
from gateway.runtime.loops import BackgroundLoop
from gateway.simulator import Simulator, SimulatorSettings
from tests.support.clock import ManualClock, settle

OWN = str(Path(gateway.__file__).parent) + "/"
SIMULATOR = OWN + "simulator/"
STORE = OWN + "store/sql/worker.py"
KEY = "rgw_benchbenchbe_" + "b" * 32
MODEL = "black-forest-labs/flux-schnell"


class Profile:
    """Counts calls while it is active."""

    def __init__(self) -> None:
        self.events = 0
        # Frames are kept, so that no other frame takes the place of a finished one and counts as its resumption.
        self.frames: set[FrameType] = set()

    def __enter__(self) -> "Profile":
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            file = frame.f_code.co_filename
            if file.startswith(OWN) and not file.startswith(SIMULATOR) and not _is_sampling_lag():
                self.events += 1
                self.frames.add(frame)

    def result(self) -> dict[str, int]:
        """Return what was counted."""
        codes = [frame.f_code for frame in self.frames]
        return {
            "calls": self.events,
            "functions": len(codes),
            "files": len({code.co_filename for code in codes}),
            "coroutines": sum(bool(code.co_flags & inspect.CO_COROUTINE) for code in codes),
            "store_trips": sum(code.co_filename == STORE and code.co_name == "submit" for code in codes),
        }

    def names(self) -> Counter[str]:
        """Return how often each function was called."""
        return Counter(
            f"{frame.f_code.co_filename.removeprefix(OWN)}:{frame.f_code.co_qualname}" for frame in self.frames
        )


def _is_sampling_lag() -> bool:
    """Whether this is the task that measures the event loop's lag, which runs by the loop's own time."""
    task = asyncio.current_task()
    return task is not None and task.get_name() == BackgroundLoop.LOOP_LAG


class Caller:
    """A caller of one gateway."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._seed = 0
        self.last = ""
        """The id of the newest prediction."""

    async def create(self, *, fresh: bool) -> None:
        """Create a prediction: with a new seed, or with that of the last one."""
        self._seed += fresh
        body = {"input": {"prompt": "a bench in the park", "seed": self._seed}}
        async with self._session.post(f"/v1/models/{MODEL}/predictions", json=body) as response:
            assert response.status == 201, await response.text()
            self.last = (await response.json())["id"]

    async def poll(self, prediction_id: str) -> dict[str, Any]:
        """Get a prediction."""
        async with self._session.get(f"/v1/predictions/{prediction_id}") as response:
            assert response.status == 200
            return dict(await response.json())


async def until_idle(clock: ManualClock) -> None:
    """Let the time pass until the next poll of upstream, and its answer be worked on."""
    await clock.advance(0.55)
    await asyncio.sleep(0.3)


async def counted(work: Callable[[], Awaitable[Any]], show: bool) -> dict[str, int]:
    """Count the calls of a piece of work, and of what it leaves to do."""
    with Profile() as profile:
        await work()
        await settle()
    if show:
        print(*(f"{count:4} {name}" for name, count in profile.names().most_common()), sep="\n")
    return profile.result()


async def measure(rounds: int, show: str) -> dict[str, dict[str, float]]:
    """Run every path in turn."""
    clock, found = ManualClock(), {path: [] for path in ("poll", "hit", "join", "miss", "end")}
    with tempfile.TemporaryDirectory() as folder:
        async with Simulator(SimulatorSettings(speed=1000)) as simulator:
            config = from_mapping(
                {
                    "server": {"port": 0},
                    "ops": {"port": 0},
                    "upstream": {"base_url": simulator.base_url},
                    "store": {"url": f"sqlite:///{folder}/gateway.db"},
                    "teams": [{"name": "bench", "keys": [{"key_env": "BENCH_KEY"}]}],
                },
                {"REPLICATE_API_TOKEN": simulator.token, "BENCH_KEY": KEY},
            )
            async with (
                running(config, clock=clock) as served,
                aiohttp.ClientSession(served.origin, headers={"Authorization": f"Bearer {KEY}"}) as session,
            ):
                caller = Caller(session)

                for number in range(rounds + 2):
                    seen: dict[str, dict[str, int]] = {}
                    shown = number == rounds + 1 and show
                    seen["miss"] = await counted(lambda: caller.create(fresh=True), shown == "miss")
                    ended = caller.last
                    seen["join"] = await counted(lambda: caller.create(fresh=False), shown == "join")
                    # Upstream has finished; the gateway sees it at its next poll, and other loops stay asleep.
                    await asyncio.sleep(0.3)
                    seen["end"] = await counted(partial(until_idle, clock), shown == "end")
                    while (await caller.poll(ended))["status"] != "succeeded":
                        # The machine is busy: the rest of the end is not counted.
                        await until_idle(clock)
                    seen["hit"] = await counted(lambda: caller.create(fresh=False), shown == "hit")
                    await caller.poll(caller.last)
                    seen["poll"] = await counted(lambda: caller.poll(caller.last), shown == "poll")
                    if number >= 2:
                        for path, result in seen.items():
                            found[path].append(result)
    return {
        path: {name: statistics.median(each[name] for each in results) for name in results[0]}
        for path, results in found.items()
    }


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--show", default="", help="list the functions that one path calls: poll, hit, join, miss, end")
    options = parser.parse_args()
    print(json.dumps({"bench": "calls", **asyncio.run(measure(options.rounds, options.show))}))


if __name__ == "__main__":
    main()
