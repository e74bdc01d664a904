"""Speed of a cache hit, which is recorded as a new prediction, compared with a bare aiohttp handler.

    python -m bench.hit [--rounds 5] [--seconds 3] [--connections 64 1]

Everything is on: a key, limits of team and key (never reached), ledger, durable record, metrics. The reference is an
aiohttp application with one handler that reads the body and returns the same bytes. Both run on one core, in
alternating rounds. The last line is a JSON object.
"""

from bench.installed import BODY, CREATE, POST, bare, finished, gateway, hit_bytes, stub
from bench.load import http_request, same
from bench.rounds import Contender, compare, options, report, run


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__).parse_args()
    with stub() as upstream, gateway(upstream.origin) as ours:
        finished(ours.origin)
        with bare("POST", "/v1/models/{owner}/{name}/predictions", hit_bytes(ours.origin)) as reference:
            contenders = {
                name: Contender(server, same(http_request(server.origin + CREATE, POST, BODY)))
                for name, server in (("ours", ours), ("reference", reference))
            }
            report("hit", compare("hit", contenders, given, goal="0.40"))


if __name__ == "__main__":
    run(main)
