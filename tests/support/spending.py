"""Prices, creates that cost something, and the usage that the gateway reports."""

import sqlite3
from contextlib import closing
from typing import Any

import aiohttp

from tests.support.session_calls import ask, create, finished
from tests.support.stack import Stack
from tests.support.upstream import version_of

PRICES = {"models": [{"model": "acme/*", "usd_per_run": 0.25}]}
OWN = {"prompt": "a llama", "max_tokens": 2}
"""Not deterministic: every request is a run of its own."""


def named(stack: Stack, model: str = "acme/storyteller") -> str:
    return f"{model}:{version_of(stack.upstream, model)}"


async def usage(session: aiohttp.ClientSession, **query: str) -> Any:
    reply = await ask(session, "GET", "/gateway/usage", params=query)
    assert reply.status == 200, reply.text
    return reply.json


async def limits(session: aiohttp.ClientSession, **headers: str) -> Any:
    reply = await ask(session, "GET", "/gateway/limits", headers={n.replace("_", "-"): v for n, v in headers.items()})
    assert reply.status == 200, reply.text
    every = reply.json["limits"]
    of_account = [row["name"] for row in every if row["of"] == "account"]
    assert of_account == ["creates_per_minute", "requests_per_minute"], "everybody's, whatever a team's own are"
    return [row for row in every if row["of"] != "account"]


async def spend(session: aiohttp.ClientSession, version: str, given: Any = None, **headers: str) -> str:
    made = await create(session, version, OWN if given is None else given, **headers)
    assert made.status == 201, made.text
    await finished(session, made.json["id"])
    found: str = made.json["id"]
    return found


def reported(reply: Any) -> tuple[str, ...]:
    names = ("RateLimit-Policy", "RateLimit", "ratelimit-remaining", "ratelimit-reset")
    return tuple(reply.headers[name] for name in names)


def rows(stack: Stack, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{stack.database}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()
