"""Speed of a relayed GET that is cached, `GET /v1/models/{owner}/{name}`, compared with a bare aiohttp handler.

    python -m bench.metadata [--rounds 5] [--seconds 3] [--connections 64 1]

The reference is an aiohttp application with one handler that returns the same bytes. Both run on one core, in
alternating rounds. The last line is a JSON object.
"""

from bench.installed import HEADERS, ask, bare, gateway, stub
from bench.load import http_request, same
from bench.rounds import Contender, compare, options, report, run
from bench.stub import MODEL


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__).parse_args()
    path = f"/v1/models/{MODEL}"
    with stub() as upstream, gateway(upstream.origin) as ours:
        body = ask(ours.origin + path)[1]
        with bare("GET", "/v1/models/{owner}/{name}", body) as reference:
            contenders = {
                name: Contender(server, same(http_request(server.origin + path, HEADERS)))
                for name, server in (("ours", ours), ("reference", reference))
            }
            report("metadata", compare("cached metadata", contenders, given, goal="0.60"))


if __name__ == "__main__":
    run(main)
