"""Hits that are recorded together, seen from outside."""

import asyncio
import re
import sqlite3
from contextlib import closing

from gateway.money.rules.audit import Tally
from gateway.store.sqlite import SQLiteStore
from tests.support.http_calls import metrics_of
from tests.support.session_calls import create, get, open_session, versioned_model
from tests.support.stack import Stack

CROWD = 120


async def counted(stack: Stack, name: str, labels: str = "") -> float:
    """Return the sum of the series of a metric whose labels contain a text."""
    series = re.findall(rf"^replicate_gateway_{name}(?:{{(.*)}})? (\S+)$", await metrics_of(stack), re.MULTILINE)
    return sum(float(value) for given, value in series if labels in given)


async def test_crowd_of_hits_gets_predictions_of_their_own_in_few_steps(gateway: Stack):
    """Each id resolves, each hit is in the ledger, in usage and in the metrics once; upstream is not asked."""
    async with open_session(gateway) as alpha, open_session(gateway, "beta") as beta:
        model = versioned_model(gateway)
        for session in (alpha, beta):
            assert (await create(session, model, Prefer="wait")).json["status"] == "succeeded"
        runs = len(gateway.upstream.predictions)
        steps = await counted(gateway, "store_operations_total", 'lane="write"')
        replies = await asyncio.gather(*(create(beta if n % 3 == 0 else alpha, model) for n in range(CROWD)))
        steps = await counted(gateway, "store_operations_total", 'lane="write"') - steps
        assert all(reply.status == 201 and reply.is_hit for reply in replies)
        ids = [reply.json["id"] for reply in replies]
        assert len({*ids}) == CROWD
        assert len(gateway.upstream.predictions) == runs
        assert 0 < steps < CROWD
        for n, prediction_id in enumerate(ids):
            assert (await get(beta if n % 3 == 0 else alpha, prediction_id))["status"] == "succeeded"
        assert await counted(gateway, "predictions_created_total", 'source="hit"') == CROWD
    with closing(sqlite3.connect(f"file:{gateway.database}?mode=ro", uri=True)) as db:
        lines = db.execute("SELECT team, count(*) FROM ledger WHERE kind = 'saved_hit' GROUP BY team").fetchall()
        sums = db.execute("SELECT team, sum(hits) FROM usage_days GROUP BY team").fetchall()
    assert sorted(lines) == sorted(sums) == [("alpha", CROWD * 2 // 3), ("beta", CROWD // 3)]
    await audit(gateway)


async def audit(gateway: Stack) -> None:
    """Compare every sum with the ledger's lines."""
    store = SQLiteStore(gateway.database)
    await store.open()
    with closing(sqlite3.connect(f"file:{gateway.database}?mode=ro", uri=True)) as db:
        days = [day for (day,) in db.execute("SELECT DISTINCT day FROM ledger")]
    assert days
    for day in days:
        tally = Tally()
        audited = await store.audit_day(day, 0, 10_000)
        tally.add(audited)
        assert audited.stored is not None
        assert tally.drift(audited.stored) == []
    await store.close()
