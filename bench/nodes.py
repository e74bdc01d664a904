"""Polls, hits and misses of 1, 2 and 3 nodes on PostgreSQL, compared with one gateway on SQLite.

    python -m bench.nodes [--rounds 5] [--seconds 3] [--connections 64 1] [--nodes 1 2 3]

The nodes are the workers of one `gateway serve --workers`, on one port. With two cores, all nodes and the gateway with
SQLite run on one of them; PostgreSQL, the upstream and the load generator run on the other. So requests per second
cannot grow with the nodes here, and the server competes with the load. What to read is CPU: for each request, of all
nodes together, and of PostgreSQL. PostgreSQL is a private server that syncs nothing. Rounds of all contenders
alternate, and a ratio is that of one round's two values, with SQLite as the reference. For misses with
one connection, it also prints by how much they take longer than with SQLite. The last line is a JSON object.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from bench.hit_engines import server_seconds
from bench.installed import BODY, CREATE, HEADERS, POST, finished, gateway, hit_bytes, stub
from bench.load import Journey, http_request, same
from bench.miss import waited
from bench.processes import LOAD_CORE, Server, pin
from bench.rounds import Contender, Row, Sample, alternate, options, rate_row, report, run
from tests.support.postgres import new_database, server

SQLITE: Final = "SQLite"
_GOALS: Final = {"poll": "1.0 in CPU", "hit": "0.5"}
_MOST_ADDED_MS: Final = 10.0
"""How much longer a miss may take than with SQLite, from create to answer, with one connection."""


def journeys() -> dict[str, Callable[[Server], Journey]]:
    """Return what each path asks a gateway for."""

    def poll(of: Server) -> Journey:
        return same(http_request(f"{of.origin}/v1/predictions/{finished(of.origin)}", HEADERS))

    def hit(of: Server) -> Journey:
        finished(of.origin)
        hit_bytes(of.origin)
        return same(http_request(of.origin + CREATE, POST, BODY))

    return {"poll": poll, "hit": hit, "miss": lambda of: waited(of.origin)}


def rows(path: str, found: dict[str, list[Sample]], connections: int) -> list[Row]:
    """Return a row for each number of nodes."""
    return [
        rate_row(f"{path}: {name} / {SQLITE}", samples, found[SQLITE], connections, _GOALS.get(path, ""))
        for name, samples in found.items()
        if name != SQLITE
    ]


def added_ms(found: dict[str, list[Sample]]) -> dict[str, float]:
    """Return by how much the median request of each contender takes longer than with SQLite, in milliseconds."""
    return {
        name: round(
            statistics.median(one.p50_ms - other.p50_ms for one, other in zip(each, found[SQLITE], strict=True)), 2
        )
        for name, each in found.items()
        if name != SQLITE
    }


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    table: list[Row] = []
    of_database: dict[str, float] = {}
    added: dict[str, float] = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(stub())
        database = server()
        pin(LOAD_CORE, database.process.pid)
        gateways = {SQLITE: stack.enter_context(gateway(upstream.origin))}
        for count in given.nodes:
            name = f"{count} node{'s' * (count != 1)}"
            gateways[name] = stack.enter_context(gateway(upstream.origin, store=new_database(), workers=count))
        for path, journey in journeys().items():
            contenders = {name: Contender(each, journey(each)) for name, each in gateways.items()}
            for connections in given.connections:
                found = alternate(contenders, rounds=given.rounds, seconds=given.seconds, connections=connections)
                table += rows(path, found, connections)
                if path == "miss" and connections == 1:
                    added = added_ms(found)
                    print(f"miss: takes longer than with {SQLITE} by {added} ms (goal: less than {_MOST_ADDED_MS:g})")
            name, node = list(contenders.items())[1]
            before = server_seconds(database)
            alone = alternate({name: node}, rounds=1, seconds=given.seconds, connections=given.connections[0])[name]
            requests = statistics.mean(each.per_second for each in alone) * (given.seconds + min(given.seconds, 1.0))
            of_database[path] = round((server_seconds(database) - before) / requests * 1e6, 1)
            print(f"{path}: PostgreSQL uses {of_database[path]} us of CPU for each request")
    report("nodes", table, postgres_cpu_us=of_database, miss_added_ms=added)


if __name__ == "__main__":
    run(main)
