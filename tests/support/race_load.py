"""A process that races with others on one PostgreSQL database, and prints what it got.

python -m tests.support.race_load URL NAME
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from gateway.domain.ledger import Settlement
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.domain.records import Status
from gateway.domain.tags import text_of
from gateway.predictions.ports.sharing import Joined, Started
from gateway.store.postgres import PostgresStore
from tests.support.money import demand
from tests.support.records import NOW, live, prediction, start

CREATES = 40
PRICE = 5
BUDGET = 200
"""Of a team, and of a value of a cost tag: each for half of the creates of four processes that it limits."""
TAGGED = {"team": "green", "tags": '{"project":"a"}'}
OF_TAG = "tag/team green: project=a"
IDENTITIES = 5


async def spend(store: PostgresStore, name: str) -> Counter[str]:
    """Start runs of a team that has money for some of them, and of another one whose cost tag has."""
    wanted = demand(PRICE, PRICE, microusd_per_day=BUDGET)
    limits = RunLimits(of=SubjectKind.TAG, scope=OF_TAG, microusd_per_day=BUDGET)
    of_tag: dict[str, Any] = {"prediction_": TAGGED, "run": {"team": TAGGED["team"]}}
    of_tag["reservation"] = ReservationRequest(PRICE, PRICE, (limits,))
    given = ({"reservation": wanted}, of_tag)
    outcomes = await asyncio.gather(*(start(store, f"{name}b{n}", **given[n % 2]) for n in range(CREATES)))
    return Counter(type(outcome).__name__ for outcome in outcomes)


async def share(store: PostgresStore, name: str) -> Counter[str]:
    """Ask for few results, many times."""
    found: Counter[str] = Counter()
    for number in range(IDENTITIES):
        asked = (start(store, f"{name}s{number}x{n}", fingerprint=f"S{number}") for n in range(20))
        found.update(type(outcome).__name__ for outcome in await asyncio.gather(*asked))
    return found


async def live_through(store: PostgresStore, name: str) -> None:
    """Start, join, cancel and end runs of few teams and users, which are counted in the same sums."""

    async def one(n: int) -> None:
        run_id, team, user = f"run{name}m{n}", f"team{n % 3}", f"user{n % 4}"
        tags = text_of({"project": f"{n % 5}", "feature": f"{n % 2}"})
        whose = {"team": team, "user": user, "tags": tags}
        fingerprint = f"M{n % 12}"
        outcome = await start(
            store, f"{name}m{n}", fingerprint=fingerprint, prediction_=whose, run={"team": team}, now=NOW + 20
        )
        if isinstance(outcome, Started):
            starter = prediction(f"up{name}m{n}", run_id, **whose)
            await store.record_created(live(run_id, team=team, fingerprint=fingerprint), starter)
            settlement = Settlement(at=NOW + 9, microusd=7, milliseconds=9, target="acme/toy")
            await store.advance(
                run_id, status=Status.SUCCEEDED, document=b"", stream_url=None, at=NOW, settlement=settlement
            )
        elif isinstance(outcome, Joined) and n % 3 == 0:
            await store.cancel(f"p{name}m{n}", NOW + 1)

    for first in range(0, 120, 30):
        await asyncio.gather(*(one(n) for n in range(first, first + 30)))


async def main(url: str, name: str) -> None:
    store = PostgresStore(url, timeout_seconds=600.0, decide=2, read=1)
    await store.open()
    found = [await spend(store, name), await share(store, name)]
    await live_through(store, name)
    await store.close()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
