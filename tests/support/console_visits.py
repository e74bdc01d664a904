"""Visits of the ops listener: its routes, sessions, and the forms of the console's pages."""

from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import quote

import aiohttp

from tests.support.dashboard import OURS
from tests.support.http_calls import Reply, ask
from tests.support.ops_routes import ops_routes
from tests.support.secret_scanner import SCANNER
from tests.support.stack import Stack

EVENTS = "/dashboard/events"
PAGE = {"Accept": "text/html", **OURS}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class OpsRoute(NamedTuple):
    """A method and a path with its parameters in braces."""

    method: str
    path: str

    @property
    def is_console(self) -> bool:
        """Whether it belongs to the console; the others are for operators only."""
        return self.path.startswith("/dashboard")


def listed_routes() -> list[OpsRoute]:
    """Return every route of the ops listener."""
    return [OpsRoute(method, path) for method, path in ops_routes() if method != "HEAD"]


class Forms(HTMLParser):
    """The forms of a page that change something: their addresses, and their fields as they are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []
        self._is_open = False
        self._select = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._is_open = given.get("method") == "post"
            if self._is_open:
                self.forms.append((given["action"], {}))
        elif self._is_open and tag == "select":
            self._select = given["name"]
        elif self._is_open and tag == "input" and given.get("type") != "checkbox":
            self.forms[-1][1][given["name"]] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._select and data.strip():
            self.forms[-1][1].setdefault(self._select, data.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "form":
            self._is_open = False


async def visit(stack: Stack, method: str, path: str, headers: dict[str, str], data: object = None) -> Reply:
    """Send a request to the ops listener; of an event stream, read the first event."""
    if path != EVENTS:
        return await ask(stack, method, stack.ops_url + path, key=None, headers=headers, data=data)
    async with aiohttp.ClientSession() as session, session.get(stack.ops_url + path, headers=headers) as answer:
        body = await answer.content.readuntil(b"\n\n") if answer.status == 200 else await answer.read()
        SCANNER.scan_reply(answer.status, answer.headers.items(), body)
        return Reply(answer.status, answer.headers.copy(), body)


async def signed_in(stack: Stack, team: str) -> dict[str, str]:
    """Return the headers of a browser that is signed in. It also sends its session to the routes of operators."""
    reply = await visit(stack, "POST", "/dashboard/sign-in", OURS | FORM, f"secret={stack.keys[team]}".encode())
    assert reply.status == 303, reply.text
    session = reply.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    return PAGE | {"Cookie": f"gateway_dashboard={session}; gateway_admin={session}"}


async def send_form(stack: Stack, action: str, fields: dict[str, str], headers: dict[str, str]) -> Reply:
    """Send a form."""
    body = "&".join(f"{name}={quote(value)}" for name, value in fields.items())
    return await visit(stack, "POST", action, headers | FORM, body.encode())


async def token_of(stack: Stack, headers: dict[str, str]) -> str:
    """Return the token that the forms of a session need."""
    page = await visit(stack, "GET", "/dashboard/keys", headers)
    return next(fields["form_token"] for _, fields in Forms(page.text).forms if "form_token" in fields)
