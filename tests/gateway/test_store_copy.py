"""A gateway that has moved from SQLite to PostgreSQL: ids, keys, cached results, streams and usage are there."""

import asyncio
import secrets
import time
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from yarl import URL

from gateway.access.rules.api_keys import digest, new_key, parse
from gateway.cli import main
from gateway.domain.records import Key
from gateway.simulator import Simulator
from gateway.store.sqlite import SQLiteStore
from tests.support.audit import BY_TEST
from tests.support.postgres import emptied_database
from tests.support.session_calls import CREATED, ask, create, finished, get, open_session, teach_version
from tests.support.session_calls import versioned_model as model_of
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of


@pytest.fixture
def url() -> str:
    return emptied_database()


async def add_stored_key(database: Path) -> str:
    """Issue a key of alpha that is in the store only; return it."""
    key = new_key(secrets.token_bytes).key
    store = SQLiteStore(database)
    await store.open()
    await store.add_key(
        Key(id=parse(key) or "", team="alpha", name="issued", sha256=digest(key), created_at=time.time()), actor=BY_TEST
    )
    await store.close()
    return key


async def streamed(stack: Stack, url: str) -> str:
    """Return a stream's text. The gateway has another port after a restart."""
    async with aiohttp.ClientSession(stack.origin) as session, session.get(URL(url).raw_path_qs) as response:
        assert response.status == 200
        return await response.text()


async def test_gateway_goes_on_where_it_was_after_a_copy_to_postgresql(
    open_gateway: OpenGateway, upstream: Simulator, folder: Path, url: str
):
    """Callers notice nothing but the pause."""
    async with open_gateway() as stack, open_session(stack) as alpha:
        await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
        made = [(await create(alpha, model_of(stack))).json for _ in range(3)]
        done = [await finished(alpha, each["id"]) for each in made]
        story = await streamed(stack, made[0]["urls"]["stream"])
        issued = await add_stored_key(stack.database)
        usage = (await ask(alpha, "GET", "/gateway/usage")).json
        secret = (await ask(alpha, "GET", "/v1/webhooks/default/secret")).json
        keys = stack.keys
    copied = await asyncio.to_thread(
        CliRunner().invoke, main, ["store", "copy", f"sqlite:///{folder / 'gateway.db'}", url]
    )
    assert copied.exit_code == 0, copied.output
    async with open_gateway(store={"url": url}, keys=keys) as stack, open_session(stack) as alpha:
        now = [await get(alpha, each["id"]) for each in made]
        assert [each["output"] for each in now] == [each["output"] for each in done]
        assert {each["id"] for each in (await ask(alpha, "GET", CREATED)).json["results"]} == {
            each["id"] for each in made
        }
        assert await streamed(stack, made[0]["urls"]["stream"]) == story
        assert (await ask(alpha, "GET", "/gateway/usage")).json == usage
        assert (await ask(alpha, "GET", "/v1/webhooks/default/secret")).json == secret
        headers = {"Authorization": f"Bearer {issued}"}
        assert (await ask(alpha, "GET", f"{CREATED}/{made[0]['id']}", headers=headers)).status == 200
        assert (await create(alpha, model_of(stack), Prefer="wait")).is_hit
    assert creates(upstream) == 1
