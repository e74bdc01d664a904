"""Alternating rounds, their summaries, and the table of all benchmarks.

Ours and the reference take turns (A B A B …), and a ratio is that of one round's two values. So what else the machine
does affects both. Every script prints an object as its last line: `bench`, `machine`, and `table`, a list of rows.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.load import Journey, LoadError, load
from bench.processes import LOAD_CORE, Server, machine, pin

Row = dict[str, object]
MACHINE = machine()


class Contender(NamedTuple):
    """A server and the journeys that it is asked for."""

    server: Server
    journey: Journey


class Sample(NamedTuple):
    """One contender's figures of one round."""

    per_second: float
    cpu_us: float | None
    """CPU of the server's process for each journey, in microseconds."""
    cpu_share: float | None
    """CPU of the server's process, as a share of a core."""
    p50_ms: float
    p99_ms: float
    load_cpu: float
    """The generator's share of a core."""


def options(description: str | None, *, rounds: int = 5, seconds: float = 3.0) -> argparse.ArgumentParser:
    """Return a parser of the options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="length of a round")
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 1])
    return parser


def sample(contender: Contender, seconds: float, connections: int) -> Sample:
    """Measure one contender once. Exit with 1 if it answers with an error."""
    before = contender.server.cpu_seconds()
    try:
        done = load(contender.server.origin, contender.journey, seconds=seconds, connections=connections)
    except (LoadError, OSError) as error:
        raise SystemExit(f"{contender.server.origin}: {error}") from error
    after = contender.server.cpu_seconds()
    used = None if before is None or after is None else after - before
    return Sample(
        per_second=done.per_second,
        cpu_us=used and used / done.journeys * 1e6,
        cpu_share=used and used / done.elapsed,
        p50_ms=done.percentile(0.5),
        p99_ms=done.percentile(0.99),
        load_cpu=done.own_cpu,
    )


def alternate(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    seconds: float,
    connections: int,
    between: Callable[[], None] = lambda: None,
) -> dict[str, list[Sample]]:
    """Measure the contenders in turn, after a round that does not count. `between` is called before each round."""
    pin(LOAD_CORE)
    found: dict[str, list[Sample]] = {name: [] for name in contenders}
    for contender in contenders.values():
        sample(contender, min(seconds, 1.0), connections)
    for number in range(rounds):
        between()
        for name, contender in contenders.items():
            got = sample(contender, seconds, connections)
            found[name].append(got)
            cpu = "" if got.cpu_us is None else f"  {got.cpu_us:8.0f} us CPU"
            print(
                f"round {number + 1}  {connections:3} connections  {name:<14} {got.per_second:9.0f}/s"
                f"  p50 {got.p50_ms:7.2f} ms  p99 {got.p99_ms:7.2f} ms{cpu}",
                flush=True,
            )
    return found


def spread(values: Sequence[float | None], digits: int = 3) -> dict[str, float] | None:
    """Return the median and the range of the rounds' values; `None` if some are not known."""
    known = [value for value in values if value is not None]
    if not known or any(value is None for value in values):
        return None
    named = {"median": statistics.median(known), "min": min(known), "max": max(known)}
    return {name: round(value, digits) for name, value in named.items()}


def ratios(ours: Sequence[float], reference: Sequence[float], digits: int = 3) -> dict[str, float] | None:
    """Return the median and the range of the ratios of each round."""
    return spread([mine / theirs for mine, theirs in zip(ours, reference, strict=True)], digits)


def row(
    path: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float],
    *,
    digits: int = 3,
    goal: str = "",
    differs: bool = False,
) -> Row:
    """Return a row of the table; with `differs`, it has the difference of the values as well."""
    difference = spread([mine - theirs for mine, theirs in zip(ours, reference, strict=True)], digits)
    more: Row = {"difference": difference} if differs else {}
    return {
        "path": path,
        "unit": unit,
        "ours": spread(ours, digits),
        "reference": spread(reference, digits),
        "ratio": ratios(ours, reference),
        "goal": goal,
        **more,
    }


def rate_row(path: str, ours: Sequence[Sample], reference: Sequence[Sample], connections: int, goal: str = "") -> Row:
    """Return the row of one path: requests per second, and CPU and latency of a request."""
    label = f"{path}, {connections} connection{'s' * (connections != 1)}"
    rates = row(label, "1/s", [s.per_second for s in ours], [s.per_second for s in reference], digits=0, goal=goal)
    for who, samples in (("ours", ours), ("reference", reference)):
        rates[f"{who}_cpu_us"] = spread([each.cpu_us for each in samples], 1)
        rates[f"{who}_cpu_share"] = spread([each.cpu_share for each in samples], 2)
        rates[f"{who}_p50_ms"] = spread([each.p50_ms for each in samples])
        rates[f"{who}_p99_ms"] = spread([each.p99_ms for each in samples])
    if rates["ours_cpu_us"] and rates["reference_cpu_us"]:
        # As a ratio of speeds: above 1, ours uses less. It depends less on what else the machine does.
        rates["cpu_ratio"] = ratios([each.cpu_us or 0.0 for each in reference], [each.cpu_us or 1.0 for each in ours])
    rates["load_cpu"] = spread([each.load_cpu for each in (*ours, *reference)], 2)
    return rates


def compare(path: str, contenders: Mapping[str, Contender], given: argparse.Namespace, *, goal: str = "") -> list[Row]:
    """Measure `ours` and `reference` with each number of connections; return the rows. The goal is for the first."""
    found: list[Row] = []
    for connections in given.connections:
        samples = alternate(contenders, rounds=given.rounds, seconds=given.seconds, connections=connections)
        found.append(rate_row(path, samples["ours"], samples["reference"], connections, "" if found else goal))
    return found


def report(bench: str, table: Sequence[Row], **figures: object) -> None:
    """Print the result as one line of JSON."""
    print(json.dumps({"bench": bench, "machine": MACHINE, "table": list(table), **figures}), flush=True)


# The table


def _figure(value: object, *, with_range: bool = False) -> str:
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    shown = f"{value['median']:,.10g}"
    if with_range and value["min"] != value["max"]:
        shown += f" ({value['min']:,.10g} to {value['max']:,.10g})"
    return shown


def _pair(found: Row, figure: str) -> str:
    both = [_figure(found.get(f"{who}_{figure}")) for who in ("ours", "reference")]
    return " / ".join(both) if any(both) else ""


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "path": lambda row: str(row["path"]),
    "unit": lambda row: str(row["unit"]),
    "ours": lambda row: _figure(row["ours"]),
    "reference": lambda row: _figure(row["reference"]),
    "ratio (range)": lambda row: _figure(row["ratio"], with_range=True),
    "more": lambda row: _figure(row.get("difference")),
    "goal": lambda row: str(row["goal"]),
    "CPU, µs": lambda row: _pair(row, "cpu_us"),
    "CPU ratio": lambda row: _figure(row.get("cpu_ratio")),
    "p50, ms": lambda row: _pair(row, "p50_ms"),
    "p99, ms": lambda row: _pair(row, "p99_ms"),
}
"""Pairs are ours and the reference."""


def markdown(table: Iterable[Row]) -> str:
    """Render rows as a table of Markdown, with aligned columns."""
    lines = [list(_COLUMNS), *([show(row) for show in _COLUMNS.values()] for row in table)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_COLUMNS))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def run(main: Callable[[], None]) -> None:
    """Run a script's main function; exit with 130 on an interrupt, without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
