"""Speed of a poll: `GET /v1/predictions/{id}` of a finished prediction, compared with a bare aiohttp handler.

    python -m bench.poll [--rounds 5] [--seconds 4] [--connections 64]

The reference is an aiohttp application with one handler that returns the same bytes. Both run on one core, in
alternating rounds. The last line is a JSON object.
"""

import argparse
import json
import tempfile
import urllib.request

from bench.load import KEY, compare, server

HEADERS = {"Authorization": f"Bearer {KEY}"}
MODEL = "acme/official-storyteller"


def create(origin: str, headers: dict[str, str]) -> dict:
    """Create a prediction and wait for its end."""
    request = urllib.request.Request(
        f"{origin}/v1/models/{MODEL}/predictions",
        data=json.dumps({"input": {"prompt": "a bench in the park", "seed": 7}}).encode(),
        headers={**headers, "Content-Type": "application/json", "Prefer": "wait"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with server("gateway") as gateway, tempfile.NamedTemporaryFile() as file:
        prediction = create(gateway["origin"], HEADERS)
        url = prediction["urls"]["get"]
        with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=10) as answer:
            file.write(answer.read())
            file.flush()
        path = f"/v1/predictions/{prediction['id']}"
        with server("bare", "GET", "/v1/predictions/{id}", file.name) as bare:
            contenders = {
                "gateway": {"url": url, "headers": HEADERS},
                "bare": {"url": bare["origin"] + path, "headers": HEADERS},
            }
            result = compare(
                contenders, rounds=options.rounds, seconds=options.seconds, connections=options.connections
            )
    print(json.dumps({"bench": "poll", **result}))


if __name__ == "__main__":
    main()
