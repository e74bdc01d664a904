"""A step whose connection is lost during its commit is done once, and its caller gets the answer of that once."""

import ast
import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.errors import StoreUnavailable
from gateway.store import sql
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.commits import NumberedStep
from tests.support import every_step
from tests.support.audit import BY_TEST
from tests.support.polling import until
from tests.support.postgres import emptied_database, server
from tests.support.postgres_proxy import Cut, Plan, Proxy, every, every_other, proxy
from tests.support.records import NOW
from tests.support.stores import answered

_OWN = ("commits", "schema_version")
_NUMBERED = ("ledger", "audit")


@pytest.fixture
def url() -> str:
    return emptied_database()


@contextmanager
def cutting(url: str, plan: Plan, **settings: Any) -> Iterator[tuple[Proxy, PostgresStore]]:
    """Yield a store whose connections are cut as it commits."""
    with proxy(server().folder, plan) as made:
        yield made, PostgresStore(made.url(url), **{"timeout_seconds": 600.0, "decide": 2, "read": 1} | settings)


def without_numbers(answer: str) -> str:
    """Leave out the number of a ledger's line: numbers can have gaps."""
    return re.sub(r"last=\d+", "", answer)


def contents(url: str) -> dict[str, list[str]]:
    """Return the rows of the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return {
            name: sorted(
                str(row[1:] if name in _NUMBERED else row) for row in connection.execute(f'SELECT * FROM "{name}"')
            )
            for (name,) in found
            if name not in _OWN
        }


async def run_all(url: str, store: PostgresStore) -> tuple[list[tuple[str, str]], list[dict[str, list[str]]]]:
    """Run every step; return the answers, and what the tables have in the middle and at the end."""
    answers: list[tuple[str, str]] = []
    seen: list[dict[str, list[str]]] = []
    await store.open()
    for steps in (every_step.MONEY, every_step.RECORDS):
        answers += [(name, without_numbers(repr(await step(store)))) for name, step in steps]
        seen.append(await asyncio.to_thread(contents, url))
    await store.close()
    return answers, seen


def test_every_step_that_writes_is_in_the_list() -> None:
    """A step is a method with a call of `_write`."""
    writing = {
        function.name
        for path in Path(sql.__file__ or "").parent.glob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef)
        and any(isinstance(each, ast.Attribute) and each.attr == "_write" for each in ast.walk(function))
    }
    assert {name for name, _ in every_step.STEPS} == writing - {"_try_again"}


@pytest.mark.parametrize(
    "plan", [every(Cut.AFTER), every_other(Cut.AT_ONCE), every_other(Cut.BEFORE)], ids=["after", "at-once", "before"]
)
async def test_every_step_is_done_once_and_answers_as_if_nothing_was_lost(url: str, plan: Plan) -> None:
    """Every commit's answer is lost; or every second one's, or every second commit itself."""
    with cutting(url, every(Cut.PASSED)) as (_, store):
        answers, seen = await run_all(url, store)
    await asyncio.to_thread(emptied_database)
    with cutting(url, plan) as (made, store):
        found, seen_too = await run_all(url, store)
    assert found == answers
    assert seen_too == seen
    assert made.cuts >= len(every_step.STEPS) // 3


async def test_commit_in_doubt_is_decided_after_its_caller_was_answered(url: str) -> None:
    """The server is away for longer than the caller waits. What was committed is not done again."""
    with cutting(url, every(Cut.PASSED), timeout_seconds=1.5, decide=1) as (made, store):
        await store.open()
        await answered(store)
        made.plan = leaving(made, Cut.AFTER)
        with pytest.raises(StoreUnavailable, match="not answer in time"):
            await store.adjust("red", 5, "gift", NOW, actor=BY_TEST)
        made.plan, made.is_away = every(Cut.PASSED), False
        await until(lambda: store.pending == 0)
        await answered(store)
        assert len(contents(url)["ledger"]) == 1
        await store.close()


async def test_step_that_was_not_committed_is_not_done_after_its_caller_was_answered(url: str) -> None:
    """What its caller does next, such as to discard an intent, comes after it."""
    with cutting(url, every(Cut.PASSED), timeout_seconds=1.5, decide=1) as (made, store):
        await store.open()
        await answered(store)
        made.plan = leaving(made, Cut.BEFORE)
        with pytest.raises(StoreUnavailable, match="not answer in time"):
            await store.adjust("red", 5, "gift", NOW, actor=BY_TEST)
        made.plan, made.is_away = every(Cut.PASSED), False
        await until(lambda: store.pending == 0)
        await answered(store)
        assert contents(url)["ledger"] == []
        await store.close()


async def test_store_closes_while_a_commit_is_in_doubt(url: str) -> None:
    """A shutdown does not wait for a server that is away; the next start finds what was committed."""
    with cutting(url, every(Cut.PASSED), timeout_seconds=1.5, decide=1) as (made, store):
        await store.open()
        await answered(store)
        made.plan = leaving(made, Cut.AFTER)
        with pytest.raises(StoreUnavailable):
            await store.adjust("red", 5, "gift", NOW, actor=BY_TEST)
        await store.close()
        assert store.pending == 0


def leaving(made: Proxy, cut: Cut) -> Plan:
    """Cut a commit, and refuse connections from then on."""

    def plan() -> Cut:
        made.is_away = True
        return cut

    return plan


def test_session_that_is_closed_while_it_commits_is_waited_for(url: str) -> None:
    """Until the server has ended the step, nobody can say what becomes of it."""
    step = NumberedStep.of_new_session().next()
    with psycopg.connect(url) as committing, psycopg.connect(url, autocommit=True) as other:
        committing.execute("INSERT INTO versions VALUES ('v', 'm')")
        assert committing.execute(note_of(step)).fetchone() == (True,)
        other.execute("SET lock_timeout = 50")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(step.close_session)
        committing.commit()
        assert other.execute(step.close_session).fetchone() == (1,)


def test_commit_that_arrives_after_its_session_was_closed_fails(url: str) -> None:
    """Its packets were still on their way when the step was found not to be done, and ran again."""
    first = NumberedStep.of_new_session().next()
    for step, last in ((first, 0), (first.next(), 1)):
        with psycopg.connect(url) as late, psycopg.connect(url, autocommit=True) as other:
            if last:
                other.execute("UPDATE commits SET step = 1, is_closed = 0")
            late.execute("INSERT INTO versions VALUES ('v', 'm')")
            assert other.execute(step.close_session).fetchone() == (last,)
            with pytest.raises(psycopg.errors.RaiseException, match="was closed"):
                late.execute(note_of(step))
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT * FROM versions").fetchall() == []


def test_step_that_has_written_nothing_leaves_no_note(url: str) -> None:
    """So it does not wait for the disk."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        assert connection.execute(note_of(NumberedStep.of_new_session().next())).fetchone() == (False,)
        assert connection.execute("SELECT * FROM commits").fetchall() == []


def note_of(step: NumberedStep) -> bytes:
    return step.commit.removesuffix(b"; COMMIT")
