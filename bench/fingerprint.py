"""Speed of canonical form and fingerprint, compared with the simplest implementation.

    python -m bench.fingerprint [--rounds 7] [--megabytes 10]

The reference is `json.loads`, `json.dumps(sort_keys=True)` and SHA-256, without files, number forms and defaults.
Rounds alternate, and medians are reported. `ratio` is the reference's time divided by the gateway's: above 1 is
faster than the reference. The last line is a JSON object.
"""

import argparse
import base64
import json
import random
import statistics
import time
from collections.abc import Callable
from hashlib import sha256

from gateway.domain.file_content import FileContent
from gateway.models.rules.schema import InputSchema, read_schema
from gateway.sharing.rules.determinism import Policy, judge, read_controls
from gateway.sharing.rules.fingerprint import Input, fingerprint

INPUTS = {
    "prompt": {"type": "string", "default": "An astronaut riding a rainbow unicorn"},
    "negative_prompt": {"type": "string", "default": ""},
    "image": {"type": "string", "format": "uri"},
    "images": {"type": "array", "items": {"type": "string", "format": "uri"}},
    "points": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    "seed": {"type": "integer"},
    "width": {"type": "integer", "default": 1024},
    "height": {"type": "integer", "default": 1024},
    "num_outputs": {"type": "integer", "default": 1},
    "guidance_scale": {"type": "number", "default": 7.5},
    "prompt_strength": {"type": "number", "default": 0.8},
    "num_inference_steps": {"type": "integer", "default": 50},
    "scheduler": {"allOf": [{"$ref": "#/components/schemas/scheduler"}], "default": "K_EULER"},
}
DOCUMENT = json.dumps(
    {
        "openapi_schema": {
            "components": {
                "schemas": {
                    "Input": {"properties": INPUTS},
                    "scheduler": {"type": "string", "enum": ["DDIM", "K_EULER"]},
                }
            }
        }
    }
).encode()
URL = "https://gateway.example.com/v1/files/NGZiNmY2YzQtNTdjYi00"


def inputs(megabytes: float) -> dict[str, bytes]:
    rnd = random.Random(7)
    picture = "data:image/png;base64," + base64.b64encode(rnd.randbytes(int(megabytes * 1e6) * 3 // 4)).decode()
    escaped = "data:text/plain," + "a%20b" * 50_000
    small = {"prompt": "a photo of a cat", "seed": 42, "width": 768, "height": 768, "guidance_scale": 7.50}
    written = {
        "small": small,
        "prompt_4k": small | {"prompt": "a photo of a cat " * 240},
        "upload": small | {"image": URL},
        "points_1000": small | {"points": [[rnd.random(), rnd.random()] for _ in range(500)]},
        "values_16k": {"any": [[1, "a", None]] * 4_000},
        "escaped_250k": small | {"image": escaped},
        "data_uri": small | {"image": picture},
    }
    return {name: json.dumps(value).encode() for name, value in written.items()}


def gateway(text: bytes, schema: InputSchema | None) -> Callable[[], str]:
    files = {URL: FileContent(sha256(b"").hexdigest(), "image/png", ".png")}
    return lambda: fingerprint("version:v", Input(text, files).canonical(schema), "team:acme")


def reference(text: bytes) -> Callable[[], str]:
    return lambda: sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()


def seconds(act: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=float, default=10)
    args = parser.parse_args()
    schema = read_schema(DOCUMENT)
    policy = Policy()
    figures = {}
    print(f"{'input':14}{'bytes':>10}{'gateway µs':>13}{'reference µs':>14}{'ratio':>7}{'judge µs':>10}")
    for name, text in inputs(args.megabytes).items():
        mine, plain = gateway(text, schema), reference(text)
        verdict = lambda text=text: judge(read_controls(text), schema, policy, None, model="a/b")  # noqa: E731 - a line of a table
        times = max(1, int(0.02 / seconds(plain, 1)))
        rounds = [(seconds(mine, times), seconds(plain, times), seconds(verdict, times)) for _ in range(args.rounds)]
        own, other, judging = (statistics.median(column) * 1e6 for column in zip(*rounds, strict=True))
        figures[name] = {
            "bytes": len(text),
            "gateway_us": round(own, 2),
            "reference_us": round(other, 2),
            "ratio": round(other / own, 2),
            "judge_us": round(judging, 2),
        }
        print(f"{name:14}{len(text):>10}{own:>13.1f}{other:>14.1f}{other / own:>7.2f}{judging:>10.2f}")
    reading = statistics.median(seconds(lambda: read_schema(DOCUMENT), 200) for _ in range(args.rounds)) * 1e6
    print(json.dumps({"bench": "fingerprint", "inputs": figures, "read_schema_us": round(reading, 1)}))


if __name__ == "__main__":
    main()
