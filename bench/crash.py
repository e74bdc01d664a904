"""Long run of the crash tests: `kill -9` at chosen steps and at random times, on one database.

    python -m bench.crash [--rounds 100] [--seed 1]

Half of the rounds kill the process at each step of a create (before, during and after it, at a random repetition). The
others kill it at a random time, some twice. The last line is a JSON object. All counts but the first must be 0.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.support.crash_child import STEPS
from tests.support.crash_play import Found, play
from tests.support.crash_rounds import Matrix, crash_upstream

_LATEST = 1.4
_MOST_PASSAGES = 4


async def measure(rounds: int, seed: int) -> dict[str, object]:
    """Run all rounds."""
    chaos = random.Random(seed)
    points = [(when, step) for step in STEPS for when in ("before", "amid", "after")]
    chaos.shuffle(points)
    results: list[Found] = []
    broken: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with crash_upstream() as upstream:
            matrix = Matrix(upstream, Path(folder))
            for number in range(rounds):
                when, step = points[number // 2 % len(points)]
                point = (when, step, str(chaos.randint(1, _MOST_PASSAGES))) if number % 2 else ()
                kill_after = None if point else chaos.random() * _LATEST
                # Check the ids of this round, and every tenth round those of all rounds.
                if number % 10:
                    matrix.asked = []
                twice = not point and chaos.random() < 0.3
                name = " ".join(point) or f"after {kill_after:.2f} s{', twice' if twice else ''}"
                try:
                    found = await play(
                        matrix, f"r{number}", point, seed=chaos.getrandbits(32), kill_after=kill_after, twice=twice
                    )
                    results.append(found)
                    found.assert_sound()
                except (AssertionError, OSError) as exc:
                    broken.append(f"round {number} ({name}): {exc}")
                    print(broken[-1], *getattr(exc, "__notes__", ()), sep="\n", file=sys.stderr, flush=True)
                else:
                    print(f"round {number} ({name}): sound", flush=True)
    return {
        "bench": "crash",
        "rounds": rounds,
        "killed_where_chosen": sum(found.killed for found in results),
        "ids_checked": sum(found.ids for found in results),
        "upstream_runs": sum(found.upstream_runs for found in results),
        "ids_lost": sum(len(found.lost) for found in results),
        "runs_doubled": sum(len(found.doubled) for found in results),
        "runs_unowned": sum(len(found.unowned) for found in results),
        "intents_left": sum(found.unsettled for found in results),
        "keys_loose": sum(found.loose_keys for found in results),
        "rounds_broken": len(broken),
        "run_again_after_an_end": sum(found.reruns for found in results),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.rounds, options.seed))))


if __name__ == "__main__":
    main()
