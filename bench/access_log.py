"""What does the access log cost? `GET /v1/predictions/{id}` with it, against the same gateway without it.

    python -m bench.access_log [--rounds 5] [--seconds 4] [--connections 64]

Both are whole gateways, on one core each, in turn; one writes a JSON line for each request into a pipe that is read.
The last line is one JSON object: `ratio` is with against without.
"""

import argparse
import json
import urllib.request

from bench.load import compare, server
from bench.poll import HEADERS, create


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with server("gateway", "info") as told, server("gateway") as silent:
        contenders = {
            name: {"url": create(stack["origin"], HEADERS)["urls"]["get"], "headers": HEADERS}
            for name, stack in (("gateway", told), ("bare", silent))
        }
        result = compare(contenders, rounds=options.rounds, seconds=options.seconds, connections=options.connections)
        request = urllib.request.Request(f"{told['ops_url']}/metrics")
        with urllib.request.urlopen(request, timeout=10) as answer:
            name = b"replicate_gateway_log_lines_dropped_total "
            dropped = next(float(line.split()[1]) for line in answer if line.startswith(name))
    print(json.dumps({"bench": "access_log", **result, "dropped_lines": dropped}))


if __name__ == "__main__":
    main()
