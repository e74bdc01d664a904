"""Polls and hits with the access log on, compared with a bare aiohttp handler without and with aiohttp's access log.

    python -m bench.access_log [--rounds 5] [--seconds 2] [--connections 64]

The gateway writes a JSON line for each request to a pipe that is read. So does the handler in the rows that end with
"both"; in the others it has no log. All run on one core, in alternating rounds. The last line is a JSON object.
"""

from collections.abc import Mapping
from contextlib import ExitStack

from bench.installed import BODY, CREATE, HEADERS, POST, ask, bare, finished, gateway, hit_bytes, stub
from bench.load import http_request, same
from bench.processes import Server
from bench.rounds import Contender, Row, alternate, options, rate_row, report, run


def dropped_lines(server: Server) -> float:
    """Return how many log lines the gateway has dropped."""
    name = b"replicate_gateway_log_lines_dropped_total "
    metrics = ask(f"{server.said['ops']}/metrics", {})[1]
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(name))


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__, seconds=2.0)
    parser.set_defaults(connections=[64])
    given = parser.parse_args()
    table: list[Row] = []
    beside: list[Row] = []
    with stub() as upstream, gateway(upstream.origin, log=True) as ours:
        poll = f"/v1/predictions/{finished(ours.origin)}"
        works: Mapping[str, tuple[str, bytes, bytes, str]] = {
            "hit": ("POST", http_request(ours.origin + CREATE, POST, BODY), hit_bytes(ours.origin), "0.33"),
            "poll": ("GET", http_request(ours.origin + poll, HEADERS), ask(ours.origin + poll)[1], "0.45"),
        }
        for name, (method, request, body, goal) in works.items():
            with ExitStack() as stack:
                route = "/v1/models/{owner}/{name}/predictions" if method == "POST" else "/v1/predictions/{id}"
                servers = {
                    "ours": ours,
                    "reference": stack.enter_context(bare(method, route, body)),
                    "logging": stack.enter_context(bare(method, route, body, log=True)),
                }
                contenders = {who: Contender(server, same(request)) for who, server in servers.items()}
                for connections in given.connections:
                    found = alternate(contenders, rounds=given.rounds, seconds=given.seconds, connections=connections)
                    path = f"{name} with access log"
                    table.append(rate_row(path, found["ours"], found["reference"], connections, goal))
                    beside.append(rate_row(f"{path}, both", found["ours"], found["logging"], connections))
        dropped = dropped_lines(ours)
    report("access_log", table + beside, dropped_lines=dropped)


if __name__ == "__main__":
    run(main)
