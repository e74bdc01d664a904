"""One request on its way through a route, and the answer it gets."""

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
    """What a route answers."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """What a route is asked."""

    world: World
    request: web.Request
    operation: str
    body: bytes
    faults: dict[str, Fault]
    account: str = ""

    @property
    def params(self) -> Any:
        """The path's variables."""
        return self.request.match_info

    @property
    def query(self) -> dict[str, str]:
        """The query."""
        return dict(self.request.query)

    @property
    def url(self) -> str:
        """The absolute address of the resource, as links to other pages of it are spelled."""
        return self.world.links.api.removesuffix("/v1") + self.request.path

    def json(self) -> dict[str, Any]:
        """Parse the body as a JSON object, or raise the 400 of the recordings."""
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
        """Parse the body and hold it against a schema, or raise the 422 with the fields that are wrong."""
        body = self.json()
        wrong = check(body, schema)
        if wrong:
            raise problems.invalid_input(wrong)
        return body


Handler = Callable[[Call], Awaitable[Answer | web.StreamResponse]]


def json_answer(value: Any, status: int = 200) -> Answer:
    """Answer as Django does."""
    return Answer(status, msgspec.json.encode(value))


def decode_quoted(body: bytes) -> str:
    """Read search words in any of the clients' encodings: plain, or with JSON's quotes under either content type."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        try:
            decoded = msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            return text
        return decoded if isinstance(decoded, str) else text
    return text


def same_signature(given: str, right: str) -> bool:
    """Compare two base64 signatures by their bytes; a `+` that a query turned into a space is forgiven."""
    try:
        return base64.b64decode(given.replace(" ", "+")) == base64.b64decode(right)
    except ValueError:
        return False
