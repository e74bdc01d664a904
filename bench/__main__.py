"""Run the benchmarks of docs/performance.md one after another, and print one table.

    python -m bench [--only hit poll] [--quick] [--json FILE]

It takes about eight minutes on two cores; nothing else should run. Each benchmark is also a script of its own. Exits
with 1 if one of them failed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.processes import ROOT, machine
from bench.rounds import Row, markdown

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "hit": (),
    "poll": (),
    "metadata": ("--connections", "64"),
    "access_log": (),
    "miss": (),
    "streams": (),
    "growth": ("--stored", "10000", "100000", "--seconds", "1"),
}
"""The scripts, with the arguments that keep the whole below ten minutes."""
QUICK: Mapping[str, tuple[str, ...]] = {
    "streams": ("--rounds", "1", "--seconds", "3", "--streams", "100"),
    "growth": ("--rounds", "1", "--seconds", "0.3", "--stored", "200", "1000"),
}
"""The arguments of `--quick`, where others than `_QUICK`."""
_QUICK = ("--rounds", "1", "--seconds", "0.3")


def run_script(name: str, arguments: tuple[str, ...]) -> dict | None:
    """Run a script, show what it prints, and return the object of its last line; `None` if it failed."""
    print(f"\npython -m bench.{name} {' '.join(arguments)}", flush=True)
    last = ""
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for last in process.stdout:
            if not last.startswith("{"):
                print(last, end="", flush=True)
    if process.returncode or not last.startswith("{"):
        print(f"bench.{name} failed with {process.returncode}", file=sys.stderr)
        return None
    return json.loads(last)


def described(found: Mapping[str, object]) -> str:
    """Describe the machine in a line."""
    return (
        f"{found['cpu']}, {found['cores']} cores; Python {found['python']}, aiohttp {found['aiohttp']}, "
        f"{'uvloop ' + str(found['uvloop']) if found['uvloop'] else 'asyncio'}; load before: {found['load']}"
    )


def saturation(table: Sequence[Row]) -> str:
    """Say whether the servers were the limit, and not the load generator. One connection does not saturate a server."""
    busy = [
        each for each in table if each.get("reference_cpu_share") and not str(each["path"]).endswith("1 connection")
    ]
    if not busy:
        return "Nothing was measured that saturates a server."
    generator = max(each["load_cpu"]["max"] for each in busy)
    gateway, reference = (min(each[f"{who}_cpu_share"]["median"] for each in busy) for who in ("ours", "reference"))
    return (
        f"With many connections, the gateway used at least {gateway:.0%} of its core (median of the rounds), the "
        f"reference {reference:.0%}, and the load generator at most {generator:.0%} of its own."
    )


def main() -> None:
    """Run the scripts, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="run these scripts only")
    parser.add_argument("--quick", action="store_true", help="see that all of it runs; the figures mean nothing")
    parser.add_argument("--json", type=Path, help="write the objects of all scripts to this file")
    given = parser.parse_args()
    before, began, results = machine(), time.monotonic(), {}
    if os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load {before['load']}): expect wide ranges.", file=sys.stderr)
    for name in given.only:
        results[name] = run_script(name, QUICK.get(name, _QUICK) if given.quick else SCRIPTS[name])
    table: list[Row] = [each for result in results.values() if result is not None for each in result["table"]]
    print(f"\n{described(before)}; {time.monotonic() - began:.0f} s\n\n{markdown(table)}")
    print(f"\n{saturation(table)}")
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": before, "results": results}, indent=1) + "\n")
    failed = [name for name, result in results.items() if result is None]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
