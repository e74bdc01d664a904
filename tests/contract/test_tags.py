"""Cost tags: on predictions and lines of the ledger, and their sums."""

from typing import Any

from gateway.domain import windows
from gateway.domain.ledger import By, Usage
from gateway.money.rules.audit import Tally
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.money import settlement
from tests.support.records import NOW, finish, go, join, lead, live, prediction, share, start, wish
from tests.support.stores import edit

DAY = windows.day_of(NOW)
A = '{"feature":"x","project":"a"}'
B = '{"project":"b"}'


async def used(store: Store, tag: str = "project", **wanted: Any) -> dict[Any, Usage]:
    rows = await store.usage(By.TAG, since=DAY - 9, until=DAY + 9, tag=tag, **wanted)
    return {row.what: row for row in rows}


async def hits(store: Store) -> dict[Any, int]:
    return {value: row.hits for value, row in (await used(store)).items()}


async def drift(store: Store) -> list[str]:
    tally = Tally()
    audited = await store.audit_day(DAY, 0, 10_000)
    tally.add(audited)
    assert audited.stored is not None
    return tally.drift(audited.stored)


async def run_of(store: Store, tags: str, **fields: Any) -> None:
    await lead(store, "1", prediction_={"tags": tags}, **fields)
    await store.record_created(live("run1"), prediction("up1", "run1", tags=tags))


async def test_run_costs_the_tags_of_its_starter_and_sharers_save_under_their_own(store: Store) -> None:
    await run_of(store, A, fingerprint="F")
    await join(store, "j", prediction_={"tags": B})
    await join(store, "k")
    await finish(store, "1", settlement=settlement())
    await start(store, "h", fingerprint="F", now=NOW + 20, prediction_={"tags": B})
    await store.record_hits([wish("i", fingerprint="F", now=NOW + 20, prediction_={"tags": A}).request])
    await store.adjust("red", -5, "why", NOW, actor=BY_TEST)
    assert await used(store) == {
        "a": Usage(team="red", what="a", runs=1, hits=1, milliseconds=900, microusd=70, saved_microusd=70),
        "b": Usage(team="red", what="b", joined=1, hits=1, saved_microusd=140),
        None: Usage(team="red", joined=1, microusd=-5, saved_microusd=70),
    }
    of_feature = await used(store, "feature")
    assert {value: (row.runs, row.hits) for value, row in of_feature.items()} == {"x": (1, 1), None: (0, 1)}
    assert list(await used(store, limit=1)) == ["a", None], "what has no value is whole all the same"
    settled = await store.spend_of("run1")
    assert settled is not None
    assert settled.tags == A
    assert await drift(store) == []


async def test_detached_prediction_takes_its_savings_out_of_its_tags(store: Store) -> None:
    await run_of(store, A, provisional="P")
    await share(store, "j", provisional="P", prediction_={"tags": B})
    await finish(store, "1", settlement=settlement())
    await store.detach("pj")
    sums = {value: (row.runs, row.joined, row.saved_microusd) for value, row in (await used(store)).items()}
    assert sums == {"a": (1, 0, 0), "b": (0, 0, 0)}
    assert await drift(store) == []


async def test_values_beyond_the_daily_bound_are_counted_together(store: Store) -> None:
    """No create is refused for its tags; a day has a bounded number of values, and the sums stay right."""

    def tagged(name: str, value: str) -> Any:
        tags = f'{{"project":"{value}"}}'
        return wish(name, fingerprint="F", now=NOW + 20, prediction_={"tags": tags})

    store.bound_tag_values(2)
    await go(store, "1", fingerprint="F")
    await finish(store, "1", settlement=settlement())
    for n, value in enumerate("abcadb"):
        await tagged(f"h{n}", value).start(store)
    assert await hits(store) == {"a": 2, "b": 2, "(other)": 2, None: 0}
    # A value that was counted with others today stays there, and so do further ones.
    store.bound_tag_values(9)
    await tagged("h7", "c").start(store)
    await store.record_hits([tagged("h8", "e").request, tagged("h9", "a").request])
    expected = {"a": 3, "b": 2, "(other)": 4, None: 0}
    assert await hits(store) == expected
    assert await drift(store) == []
    store.bound_tag_values(2)
    await store.rebuild_day(DAY)
    assert await hits(store) == expected


async def test_wrong_sums_are_found_and_rebuilt(store: Any) -> None:
    await run_of(store, A)
    await finish(store, "1", settlement=settlement())
    good = await used(store)
    for change in (
        "UPDATE usage_tags SET microusd = microusd + 1 WHERE value = 'a'",
        "DELETE FROM usage_tags WHERE tag = 'feature'",
        f"INSERT INTO usage_tags VALUES ('red', 'project', {DAY}, 'z', 1, 0, 0, 0, 0, 0)",
    ):
        await edit(store, change)
        assert await drift(store) != [], change
        await store.rebuild_day(DAY)
        assert await drift(store) == []
        assert await used(store) == good
