"""Request and response of a route."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from gateway.simulator import problems
from gateway.simulator.faults import Fault
from gateway.simulator.validation import check
from gateway.simulator.world import World

JSON = "application/json"
EDGE_JSON = "application/json; charset=UTF-8"


@dataclass(slots=True)
class Answer:
    """The response of a route."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """The request to a route."""

    world: World
    request: web.Request
    operation: str
    body: bytes
    faults: dict[str, Fault]
    account: str = ""

    @property
    def params(self) -> Any:
        """The path parameters."""
        return self.request.match_info

    @property
    def query(self) -> dict[str, str]:
        """The query parameters."""
        return dict(self.request.query)

    @property
    def url(self) -> str:
        """The absolute URL of the resource, for pagination links."""
        return self.world.links.api.removesuffix("/v1") + self.request.path

    def json(self) -> dict[str, Any]:
        """Parse the body as a JSON object, or raise the recorded 400."""
        if not self.body.strip():
            raise problems.bad_json("EOF")
        try:
            value = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise problems.bad_json(str(error)) from error
        if not isinstance(value, dict):
            raise problems.bad_json("expected an object")
        return value

    def checked(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Parse and validate the body, or raise a 422 with the invalid fields."""
        body = self.json()
        wrong = check(body, schema)
        if wrong:
            raise problems.invalid_input(wrong)
        return body


Handler = Callable[[Call], Awaitable[Answer | web.StreamResponse]]


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return a JSON response like Django."""
    return Answer(status, msgspec.json.encode(value))


def decode_quoted(body: bytes) -> str:
    """Decode search text as clients send it: plain, or as a JSON string, with either content type."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        try:
            decoded = msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            return text
        return decoded if isinstance(decoded, str) else text
    return text


def same_signature(given: str, right: str) -> bool:
    """Compare two base64 signatures by bytes. A space is treated as `+`, because queries decode `+` to a space."""
    try:
        return base64.b64decode(given.replace(" ", "+")) == base64.b64decode(right)
    except ValueError:
        return False
