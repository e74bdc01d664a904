"""Speed of a miss, compared with a bare aiohttp proxy.

    python -m bench.miss [--rounds 5] [--seconds 3] [--connections 64] [--reads 2] [--folder DIR]

A stub upstream finishes each run at its second read. Ours: a create with `Prefer: wait`, which the gateway records,
follows and settles; it answers at the end. The reference relays the create, and as many reads by the client as the
gateway sent upstream for each run.

Then with one connection: how long a create takes (without `Prefer`, each run followed to its end before the next
begins), and how long two calls of `fdatasync` take in the same folder, measured before each round. All three pause
between their steps, because after a pause everything takes longer. The last row compares a create with the proxy's and
two syncs. The last line is a JSON object.
"""

import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path

from bench.installed import CREATE, HEADERS, POST, ask, gateway, proxy, stub
from bench.load import Journey, http_request
from bench.processes import Server
from bench.rounds import Contender, Row, Sample, alternate, options, rate_row, report, row, run, spread

_sync = getattr(os, "fdatasync", os.fsync)
_SYNCS = 30
_PAUSE = 0.01
_PAGES = b"\0" * 4 * 4096
"""About what one transaction appends to SQLite's log."""
_SEEDS = itertools.count()


def fdatasync_ms(folder: Path) -> float:
    """Return the median of appending some pages to a file and syncing them, in milliseconds."""
    taken = []
    with (folder / "syncs").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            time.sleep(_PAUSE)
            began = time.perf_counter()
            file.write(_PAGES)
            _sync(file.fileno())
            taken.append(time.perf_counter() - began)
    (folder / "syncs").unlink()
    return statistics.median(taken) * 1000


def create(origin: str, headers: Mapping[str, str]) -> bytes:
    """Encode a create whose input was never asked for."""
    body = json.dumps({"input": {"prompt": "a bench in the park", "seed": next(_SEEDS)}}).encode()
    return http_request(origin + CREATE, headers, body)


def _document(response: bytes) -> dict:
    return json.loads(response[response.index(b"\r\n\r\n") + 4 :])


def waited(origin: str) -> Journey:
    """Create with `Prefer: wait`, and check that the response is the end."""
    headers = {**POST, "Prefer": "wait"}

    def journey() -> Generator[bytes, bytes, None]:
        response = yield create(origin, headers)
        if b'"succeeded"' not in response:
            raise SystemExit(f"the run has not ended: {response!r}")

    return journey


def relayed(origin: str, reads: int, pause: float = 0.0) -> Journey:
    """Create, then read as often, after a pause each."""

    def journey() -> Generator[bytes, bytes, None]:
        made = _document((yield create(origin, POST)))
        for _ in range(reads):
            time.sleep(pause)
            yield http_request(f"{origin}/v1/predictions/{made['id']}", HEADERS)

    return journey


def followed(origin: str) -> Journey:
    """Create, then read until the end, after a pause each."""

    def journey() -> Generator[bytes, bytes, None]:
        made = _document((yield create(origin, POST)))
        while made["status"] != "succeeded":
            time.sleep(_PAUSE)
            made = _document((yield http_request(f"{origin}/v1/predictions/{made['id']}", HEADERS)))

    return journey


def reads_of_a_run(upstream: Server, ours: Server) -> int:
    """Return how often the gateway reads a run upstream."""
    before = json.loads(ask(f"{upstream.origin}/counts", {})[1])
    alternate({"warm-up": Contender(ours, waited(ours.origin))}, rounds=1, seconds=0.5, connections=8)
    after = json.loads(ask(f"{upstream.origin}/counts", {})[1])
    return round((after["reads"] - before["reads"]) / (after["creates"] - before["creates"]))


def latency_rows(ours: list[Sample], reference: list[Sample], syncs: list[float]) -> list[Row]:
    """Return the rows of one connection: a create, and what of it the proxy and the disk do not explain."""
    mine, theirs = [each.p50_ms for each in ours], [each.p50_ms for each in reference]
    explained = [b + 2 * sync for b, sync in zip(theirs, syncs, strict=True)]
    return [
        row("create, 1 connection, p50", "ms", mine, theirs, differs=True),
        row("create / proxy and two fdatasyncs", "ms", mine, explained, goal="1 ms more", differs=True),
    ]


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.set_defaults(connections=[64])
    parser.add_argument("--reads", type=int, default=2, help="the read at which upstream's runs have ended")
    parser.add_argument("--folder", type=Path, help="where the store is; by default a temporary folder")
    given = parser.parse_args()
    table: list[Row] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name, stub(given.reads) as upstream:
        folder = Path(name)
        with gateway(upstream.origin, folder=folder) as ours, proxy(upstream.origin) as reference:
            reads = reads_of_a_run(upstream, ours)
            contenders = {
                "ours": Contender(ours, waited(ours.origin)),
                "reference": Contender(reference, relayed(reference.origin, reads)),
            }
            for connections in given.connections:
                found = alternate(contenders, rounds=given.rounds, seconds=given.seconds, connections=connections)
                table.append(rate_row("miss", found["ours"], found["reference"], connections, "0.60"))
            syncs: list[float] = []
            contenders = {
                "ours": Contender(ours, followed(ours.origin)),
                "reference": Contender(reference, relayed(reference.origin, reads, _PAUSE)),
            }
            found = alternate(
                contenders,
                rounds=given.rounds,
                seconds=given.seconds,
                connections=1,
                between=lambda: syncs.append(fdatasync_ms(folder)),
            )
            table += latency_rows(found["ours"], found["reference"], syncs)
    report("miss", table, reads_of_a_run=reads, fdatasync_ms=spread(syncs))


if __name__ == "__main__":
    run(main)
