"""The search of predictions, page by page, compared with a filter over a plain list."""

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.admission_record import Admitted
from gateway.domain.cursors import Cursor
from gateway.domain.ledger import Settlement
from gateway.domain.records import Kind, Source, Status
from gateway.predictions.ports.search import Found, Wanted
from gateway.store.interface import Store
from gateway.store.sql.lookup import EVERYTHING
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.dialect import SQL
from tests.support.audit import BY_TEST
from tests.support.records import NOW, ended, join, key, lead, live, prediction

NUMBER = 40
TEAMS, KEYS, USERS = ("red", "blue"), ("k1", "k2", "k3"), ("ann", "ben", None)
TARGETS = ("acme/toy", "acme/toy:v1", "acme/toy:v2", "acme/other:v1", "bolt/toy")
TAGS = ("", '{"project":"apollo"}', '{"feature":"x","project":"apollo"}', '{"project":"apollo-2"}')
SEARCHES = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
WANTED = st.builds(
    Wanted,
    team=st.sampled_from([None, *TEAMS]),
    key_id=st.sampled_from([None, *KEYS]),
    user=st.sampled_from([None, "ann", "nobody"]),
    kind=st.sampled_from([None, *Kind]),
    target=st.sampled_from([None, "acme/toy", "acme/toy:v1", "acme/*", "?olt/toy", "none"]),
    status=st.sampled_from([None, Status.SUCCEEDED, Status.CANCELED, Status.PROCESSING]),
    source=st.sampled_from([None, *Source]),
    tag=st.sampled_from([None, ("project", "apollo"), ("feature", "x"), ("feature", "apollo")]),
    since=st.none() | st.integers(-1, 8).map(lambda at: NOW + at),
    until=st.none() | st.integers(-1, 8).map(lambda at: NOW + at),
)


def population() -> list[dict[str, Any]]:
    dice = random.Random(1)
    return [
        {
            "id": f"x{number:02}",
            "team": dice.choice(TEAMS),
            "key_id": dice.choice(KEYS),
            "user": (user := dice.choice(USERS)),
            "owner": None if user is None else f"user:{user}",
            "kind": dice.choice([Kind.PREDICTION, Kind.PREDICTION, Kind.TRAINING]),
            "source": dice.choice(list(Source)),
            "tags": dice.choice(TAGS),
            # Few times, so that most share theirs.
            "created_at": NOW + dice.randrange(8),
            "canceled_at": dice.choice([None, None, NOW + 9]),
            "target": dice.choice(TARGETS),
            "is_live": dice.random() < 0.3,
        }
        for number in range(NUMBER)
    ]


async def fill(store: Store) -> None:
    for each in population():
        fields = {name: value for name, value in each.items() if name not in ("id", "target", "is_live")}
        of_run = {"target": each["target"], "kind": each["kind"], "team": each["team"], "leader_id": each["id"]}
        run = live(each["id"], status=Status.PROCESSING, **of_run) if each["is_live"] else ended(each["id"], **of_run)
        await store.record_created(run, prediction(each["id"], each["id"], **fields))


def is_wanted(each: dict[str, Any], wanted: Wanted) -> bool:
    status = Status.PROCESSING if each["is_live"] else Status.SUCCEEDED
    globs = {"acme/*": "acme/", "?olt/toy": "bolt/toy"}
    return (
        wanted.team in (None, each["team"])
        and wanted.key_id in (None, each["key_id"])
        and wanted.user in (None, each["user"])
        and wanted.kind in (None, each["kind"])
        and wanted.status in (None, status if each["canceled_at"] is None else Status.CANCELED)
        and wanted.source in (None, each["source"])
        and (
            wanted.target is None
            or (wanted.target in globs and each["target"].startswith(globs[wanted.target]))
            or each["target"] == wanted.target
            or each["target"].startswith(f"{wanted.target}:")
        )
        and (wanted.tag is None or '"{}":"{}"'.format(*wanted.tag) in each["tags"])
        and (-math.inf if wanted.since is None else wanted.since) <= each["created_at"]
        and each["created_at"] < (math.inf if wanted.until is None else wanted.until)
    )


@SEARCHES
@given(wanted=WANTED, limit=st.integers(1, 7), most_searched=st.integers(1, 50))
async def test_pages_of_a_search_match_a_plain_list(
    store: Store, wanted: Wanted, limit: int, most_searched: int
) -> None:
    """Whatever the filters and bounds, following the pages finds each wanted prediction once, the newest first."""
    if await store.found("x00") is None:
        await fill(store)
    expected = [each for each in population() if is_wanted(each, wanted)]
    expected.sort(key=lambda each: (each["created_at"], each["id"]), reverse=True)
    seen: list[str] = []
    position: Cursor | None = None
    for _ in range(3 * NUMBER):
        page = await store.search(
            wanted, limit=limit, most_searched=most_searched, max_bytes=EVERYTHING, position=position
        )
        assert len(page.items) <= limit
        seen += [each.id for each in page.items]
        position = page.next
        if position is None:
            break
    assert position is None
    assert seen == [each["id"] for each in expected]


async def test_a_page_of_a_team_ends_at_a_prediction_of_its_own(store: Store) -> None:
    """Not at one of the team whose key it names: the cursor of the next page has the id."""
    for team in TEAMS:
        for number in range(9):
            made = f"{team}{number}"
            run = ended(made, target="acme/toy", kind=Kind.PREDICTION, team=team, leader_id=made)
            fields: dict[str, Any] = {"team": team, "key_id": f"k-{team}", "created_at": NOW + number}
            await store.record_created(run, prediction(made, made, **fields))
    for wanted in (Wanted(team="red", key_id="k-blue"), Wanted(team="red", key_id="k-red"), Wanted(team="red")):
        page = await store.search(wanted, limit=1, most_searched=2, max_bytes=EVERYTHING)
        assert page.next is not None
        assert page.next.id.startswith("red")


async def test_a_page_ends_at_its_bound_of_bytes(store: Store) -> None:
    """Long names of users make pages shorter, and none is empty for it."""
    await fill(store)
    seen: list[Found] = []
    position = None
    for _ in range(NUMBER):
        page = await store.search(Wanted(), limit=100, most_searched=1000, max_bytes=50, position=position)
        assert 1 <= len(page.items) <= 5
        seen += page.items
        position = page.next
        if position is None:
            break
    assert sorted(each.id for each in seen) == sorted(each["id"] for each in population())


async def test_a_result_has_what_operators_are_shown(store: Store) -> None:
    """Name of an issued key, cost of the run once it is settled, the wait and the request."""
    await store.add_key(key("k1"), actor=BY_TEST)
    await lead(store, "1", fingerprint="F")
    assert await store.found("p1") is None, "its id changes when upstream answers"
    starter = prediction("up1", "run1", request_id="abc", user="ann", admitted=Admitted(5, 6, waited_seconds=1.5))
    await store.record_created(live("run1", upstream_id="up1", leader_id="up1", fingerprint="F"), starter)
    await join(store, "j", "F", prediction_={"request_id": "def"})
    found = await store.found("up1")
    assert found is not None
    assert (found.key_name, found.user, found.request_id, found.microusd) == ("name-k1", "ann", "abc", None)
    assert found.admitted is not None
    assert found.admitted.waited_seconds == 1.5
    settled = Settlement(at=NOW + 9, microusd=70, target="acme/toy", reason="succeeded")
    await store.advance(
        "run1", status=Status.SUCCEEDED, document=b"{}", stream_url=None, at=NOW + 9, settlement=settled
    )
    page = await store.search(Wanted(team="red"), limit=9, most_searched=9, max_bytes=EVERYTHING)
    assert {each.id: (each.microusd, each.ended_at, each.request_id) for each in page.items} == {
        "up1": (70, NOW + 9, "abc"),
        "pj": (70, NOW + 9, "def"),
    }
    assert await store.found("none") is None


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("search_of_all", "predictions_of_all"),
        ("search_of_team", "predictions_of_team"),
        ("search_of_owner", "predictions_of_owner"),
        ("search_of_key", "predictions_of_key"),
    ],
)
async def test_a_search_reads_its_index_in_order(tmp_path: Path, statement: str, index: str) -> None:
    """No scan of a table, and the bound applies before anything is looked up or sorted."""
    store = SQLiteStore(tmp_path / "gateway.sqlite")
    await store.open()

    def plan(db: Any) -> list[str]:
        plans = []
        for name in (statement, f"{statement}_end"):
            given = dict.fromkeys(re.findall(r":(\w+)", SQL[name]))
            plans += [row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", given)]
        return plans

    steps = await store._read(plan)
    await store.close()
    # `p` are the rows within the bound.
    assert [each for each in steps if "SCAN" in each] == ["SCAN p"]
    searched = [each for each in steps if "predictions" in each]
    assert len(searched) == 2
    assert all("SEARCH" in each and f" {index} " in each and "(created_at,id)>" in each for each in searched)
