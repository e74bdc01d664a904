"""Cost of the access log: `GET /v1/predictions/{id}` with the log, compared with a gateway without it.

    python -m bench.access_log [--rounds 5] [--seconds 4] [--connections 64]

Both gateways run on one core, in alternating rounds. One of them writes a JSON line per request to a pipe with a
reader. The last line is a JSON object; `ratio` is with log to without.
"""

import argparse
import json
import urllib.request

from bench.load import compare, server
from bench.poll import HEADERS, create


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with server("gateway", "info") as logging_server, server("gateway") as quiet_server:
        contenders = {
            name: {"url": create(stack["origin"], HEADERS)["urls"]["get"], "headers": HEADERS}
            for name, stack in (("gateway", logging_server), ("bare", quiet_server))
        }
        result = compare(contenders, rounds=options.rounds, seconds=options.seconds, connections=options.connections)
        request = urllib.request.Request(f"{logging_server['ops_url']}/metrics")
        with urllib.request.urlopen(request, timeout=10) as answer:
            name = b"replicate_gateway_log_lines_dropped_total "
            dropped = next(float(line.split()[1]) for line in answer if line.startswith(name))
    print(json.dumps({"bench": "access_log", **result, "dropped_lines": dropped}))


if __name__ == "__main__":
    main()
