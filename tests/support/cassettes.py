"""The recordings of Replicate's answers, where they are available."""

import gzip
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2].parent / "shared" / "fixtures" / "cassettes"
# Several times faster, where PyYAML was built with libyaml.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CASSETTES = sorted(FOLDER.glob("*.yaml")) if FOLDER.is_dir() else []


def interactions(path: Path) -> list[dict[str, Any]]:
    """Read the requests and answers of a recording."""
    return [normal(each) for each in yaml.load(path.read_text(), _Loader)["interactions"]]


def normal(each: dict[str, Any]) -> dict[str, Any]:
    """Convert both formats of VCR to one."""
    request, response = each["request"], each["response"]
    body = response["content"] if "content" in response else response["body"]["string"]
    raw = body.encode() if isinstance(body, str) else body
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    sent = request.get("body") or b""
    return {
        "method": request["method"],
        "path": request["uri"].removeprefix("https://api.replicate.com/v1"),
        "headers": {name.lower(): values[0] for name, values in request["headers"].items()},
        "body": sent.encode() if isinstance(sent, str) else sent,
        "status": response.get("status_code") or response["status"]["code"],
        "answer_headers": {name.lower(): values[0] for name, values in response["headers"].items()},
        "answer": raw,
    }
