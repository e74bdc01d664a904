"""Speed of a poll: `GET /v1/predictions/{id}` of a finished prediction, compared with a bare aiohttp handler.

    python -m bench.poll [--rounds 5] [--seconds 3] [--connections 64 1]

The gateway checks a key and limits of team and key. The reference is an aiohttp application with one handler that
returns the same bytes. Both run on one core, in alternating rounds. The last line is a JSON object.
"""

from bench.installed import HEADERS, ask, bare, finished, gateway, stub
from bench.load import http_request, same
from bench.rounds import Contender, compare, options, report, run


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__).parse_args()
    with stub() as upstream, gateway(upstream.origin) as ours:
        path = f"/v1/predictions/{finished(ours.origin)}"
        with bare("GET", "/v1/predictions/{id}", ask(ours.origin + path)[1]) as reference:
            contenders = {
                name: Contender(server, same(http_request(server.origin + path, HEADERS)))
                for name, server in (("ours", ours), ("reference", reference))
            }
            report("poll", compare("poll", contenders, given, goal="0.60"))


if __name__ == "__main__":
    run(main)
