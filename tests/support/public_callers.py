"""Credentials of a team and of its web pages, and what each of them has made."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.http.route import Route
from tests.support.http_calls import PAGE, Reply, ask
from tests.support.issuers import Provider
from tests.support.samples import request_for, upload
from tests.support.stack import TEAM_SCOPES, Stack
from tests.support.upstream import version_of

SERVER, PAGE_KEY = "server", "page key"
ALICE, ALICE_AGAIN, BOB = "alice's token", "alice's other token", "bob's token"
NOBODY, NOBODY_ELSE = "a token", "another token"
SIGNED_IN = "carol's sign-in"
PUBLIC_CREDENTIALS = (ALICE, NOBODY, PAGE_KEY)
"""A token with a user, a token without one, and a key with origins. `SIGNED_IN` is a token of an issuer."""
TOKEN_SCOPES = ["files", "predict", "read", "train"]

TEAM: Mapping[str, Any] = {
    "scopes": TEAM_SCOPES,
    "origins": [PAGE],
    "budget_usd_per_day": 100,
    "per_user": {"budget_usd_per_day": 50},
    "keys": [{"name": "page", "origins": [PAGE], "scopes": [*TOKEN_SCOPES, "tokens"]}],
}
"""A team whose pages have as many permissions as pages can have."""

_USERS = {ALICE: "alice", ALICE_AGAIN: "alice", BOB: "bob", NOBODY: None, NOBODY_ELSE: None}


@dataclass(frozen=True)
class Works:
    """The objects that one credential has made."""

    prediction: str
    training: str
    file: str

    def of(self, route: Route) -> dict[str, str]:
        """Return the ids for the path of a route."""
        mine = self.training if route.name.startswith("trainings") else self.prediction
        return {"id": mine, "file_id": self.file}


class Callers:
    """Calls a gateway with each of the credentials."""

    def __init__(self, stack: Stack, keys: Mapping[str, str]) -> None:
        self.stack = stack
        self.keys = keys

    async def ask(self, who: str, method: str, path: str, **more: Any) -> Reply:
        """Send a request; those of pages have an Origin."""
        headers = dict(more.pop("headers", {}))
        if who != SERVER:
            headers["Origin"] = PAGE
        return await ask(self.stack, method, path, key=self.keys[who], headers=headers, **more)

    async def route(self, who: str, route: Route, **ids: str) -> Reply:
        """Send a valid request to a route."""
        method, path, more = request_for(route, self.stack.upstream, **ids)
        if route.name == "gateway.tokens":
            more = {"json": {"ttl_seconds": 60, "origins": [PAGE]}}
        is_own = path.startswith(("/gateway", "/outputs", "/healthz", "/readyz"))
        return await self.ask(who, method, path if is_own else f"/v1{path}", **more)

    async def predict(self, who: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        """Create a prediction that does not end during the test."""
        version = version_of(self.stack.upstream, "acme/slow")
        given = {"duration": 600} | more.pop("input", {})
        body = {"version": version, "input": given, **more}
        return await self.ask(who, "POST", "/v1/predictions", json=body, headers=headers or {})

    async def run(self, who: str, prompt: str = "") -> Reply:
        """Create a prediction and wait for its end."""
        body = {
            "version": version_of(self.stack.upstream, "acme/storyteller"),
            "input": {"prompt": prompt or who, "seed": 7},
        }
        return await self.ask(who, "POST", "/v1/predictions", json=body, headers={"Prefer": "wait"})

    async def make_works(self, who: str) -> Works:
        """Create a prediction and a training, and upload a file."""
        version = version_of(self.stack.upstream, "acme/storyteller")
        training = {"destination": "acme/painter", "input": {"train_data": "https://example.com/data.zip"}}
        made = await asyncio.gather(
            self.predict(who),
            self.ask(who, "POST", f"/v1/models/acme/storyteller/versions/{version}/trainings", json=training),
            self.ask(who, "POST", "/v1/files", **upload(who.encode())),
        )
        for reply in made:
            assert reply.status == 201, f"{who}: {reply.text}"
        return Works(*(reply.json["id"] for reply in made))


async def mint(stack: Stack, user: str | None, **wanted: Any) -> str:
    """Mint a browser token for the page."""
    asked = {"ttl_seconds": 600, "origins": [PAGE], "scopes": TOKEN_SCOPES} | ({"user": user} if user else {}) | wanted
    reply = await ask(stack, "POST", "/gateway/tokens", json=asked)
    assert reply.status == 201, reply.text
    token: str = reply.json["token"]
    return token


async def callers(stack: Stack, provider: Provider | None = None) -> Callers:
    """Mint the tokens. With an issuer, carol signs in at it."""
    tokens = {who: await mint(stack, user) for who, user in _USERS.items()}
    if provider is not None:
        tokens[SIGNED_IN] = provider.token("carol")
    return Callers(stack, {SERVER: stack.keys["alpha"], PAGE_KEY: stack.keys["alpha.page"]} | tokens)
