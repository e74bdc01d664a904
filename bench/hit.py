"""Speed of a cache hit, which is recorded as a new prediction, compared with a bare aiohttp handler.

    python -m bench.hit [--rounds 5] [--seconds 4] [--connections 64]

The reference is an aiohttp application with one handler that reads the body and returns the same bytes. Both run on one
core, in alternating rounds. The last line is a JSON object.
"""

import argparse
import json
import tempfile
import urllib.request

from bench.load import compare, server
from bench.poll import HEADERS, MODEL, create

BODY = json.dumps({"input": {"prompt": "a bench in the park", "seed": 7}}).encode()
POST = {**HEADERS, "Content-Type": "application/json"}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with server("gateway") as gateway, tempfile.NamedTemporaryFile() as file:
        create(gateway["origin"], HEADERS)
        path = f"/v1/models/{MODEL}/predictions"
        with urllib.request.urlopen(
            urllib.request.Request(gateway["origin"] + path, data=BODY, headers=POST), timeout=10
        ) as answer:
            status = answer.headers["Cache-Status"]
            if "; hit" not in status:
                raise SystemExit(f"the second create was no hit: {status}")
            file.write(answer.read())
            file.flush()
        with server("bare", "POST", "/v1/models/{owner}/{name}/predictions", file.name) as bare:
            contenders = {
                "gateway": {"url": gateway["origin"] + path, "headers": POST, "body": BODY},
                "bare": {"url": bare["origin"] + path, "headers": POST, "body": BODY},
            }
            result = compare(
                contenders, rounds=options.rounds, seconds=options.seconds, connections=options.connections
            )
    print(json.dumps({"bench": "hit", **result}))


if __name__ == "__main__":
    main()
