"""A sample request for every route, and helpers that create predictions."""

import re
from typing import Any

from gateway.http.route import Route
from gateway.simulator import Simulator
from tests.support.http_calls import Reply, ask
from tests.support.polling import attempts
from tests.support.stack import Stack
from tests.support.upstream import version_of

UNKNOWN_ID = "z" * 26
UNKNOWN_KEY = "z" * 12
UNKNOWN_FILE = "N" * 48
UNKNOWN_TICKET = "a" * 52
UNKNOWN_RUN = "run_" + "0" * 26
HEX = "0123456789abcdef" * 4
FORM = "multipart/form-data; boundary=frontier"


def fill(path: str, **values: str) -> str:
    """Fill a route's pattern with values, or with samples where none is given."""
    samples = {
        "owner": "acme",
        "name": "storyteller",
        "version": HEX,
        "id": UNKNOWN_ID,
        "key_id": UNKNOWN_KEY,
        "file_id": UNKNOWN_FILE,
        "slug": "testing",
        "issuer": "id",
        "ticket": UNKNOWN_TICKET,
        "run_id": UNKNOWN_RUN,
        "proof": HEX,
    } | values
    out, depth, inside = "", 0, ""
    for letter in path:
        depth += (letter == "{") - (letter == "}")
        if depth:
            inside += letter
        elif inside:
            name = re.match(r"\{(\w+)", inside)
            assert name is not None
            is_key = inside == "{id:[a-z0-9]{12}"
            out, inside = out + samples["key_id" if is_key else name[1]], ""
        else:
            out += letter
    return out


def content(name: str = "a.txt", data: bytes = b"hello", content_type: str = "text/plain") -> bytes:
    """Write one part of a form, named `content`."""
    head = f'--frontier\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n'
    return head.encode() + f"Content-Type: {content_type}\r\n\r\n".encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    """Join the parts of a form."""
    return b"".join(parts) + b"--frontier--\r\n"


def upload(data: bytes = b"hello", name: str = "a.txt") -> dict[str, Any]:
    """Return what `ask` takes to upload a file."""
    return {"headers": {"Content-Type": FORM}, "data": form(content(name, data))}


def request_for(route: Route, upstream: Simulator, **values: str) -> tuple[str, str, dict[str, Any]]:
    """Return method, path and keyword arguments of a request that should succeed on a route."""
    version = values.pop("version", None) or version_of(upstream, "acme/storyteller")
    path = fill(route.path, version=version, **values)
    match route.name:
        case "predictions.create" | "gateway.estimate":
            return route.method, path, {"json": {"version": version, "input": {"prompt": "hi"}}}
        case "models.predictions.create":
            path = fill(route.path, name=values.get("name", "official-storyteller"))
            return route.method, path, {"json": {"input": {"prompt": "hi"}}}
        case "deployments.predictions.create":
            path = fill(route.path, name=values.get("name", "story-service"))
            return route.method, path, {"json": {"input": {"prompt": "hi"}}}
        case "deployments.get" | "deployments.update" | "deployments.delete":
            path = fill(route.path, name=values.get("name", "story-service"))
            body = {"json": {"min_instances": 1}} if route.method == "PATCH" else {}
            return route.method, path, body
        case "deployments.create":
            made = {"owner": "acme", "name": "made", "model": "acme/storyteller", "version": version}
            return route.method, path, {"json": {**made, "hardware": "cpu", "min_instances": 0, "max_instances": 1}}
        case "models.create":
            made = {"owner": "acme", "name": "fresh", "visibility": "private", "hardware": "cpu"}
            return route.method, path, {"json": made}
        case "models.update":
            return route.method, path, {"json": {"description": "other"}}
        case "models.search":
            return route.method, path, {"data": b"llama", "headers": {"Content-Type": "text/plain"}}
        case "search":
            return route.method, path + "?query=llama", {}
        case "trainings.create":
            training = {"destination": "acme/painter", "input": {"train_data": "https://example.com/data.zip"}}
            return route.method, path, {"json": training}
        case "files.create":
            return route.method, path, upload()
        case "gateway.keys.create":
            return route.method, path, {"json": {"scopes": ["keys"]}}
        case "gateway.keys.change":
            return route.method, path, {"json": {"name": "renamed"}}
        case "gateway.tokens":
            return route.method, path, {"json": {"ttl_seconds": 60}}
    return route.method, path, {}


async def create(
    stack: Stack,
    *,
    key: str = "alpha",
    model: str = "acme/slow",
    headers: dict[str, str] | None = None,
    **given: Any,
) -> Reply:
    """Create a prediction of a model's newest version; `acme/slow` runs for ten minutes by default."""
    given = given or ({"duration": 600} if model == "acme/slow" else {"prompt": "hi"})
    body = {"version": version_of(stack.upstream, model), "input": given}
    return await ask(stack, "POST", "/v1/predictions", key=key, json=body, headers=headers or {})


async def finished(stack: Stack, prediction_id: str, *, key: str = "alpha") -> Any:
    """Poll a prediction to its end."""
    async for _ in attempts(pause=0.02):
        body = (await ask(stack, "GET", f"/v1/predictions/{prediction_id}", key=key)).json
        if body["status"] in ("succeeded", "failed", "canceled", "aborted"):
            return body
    raise AssertionError
