"""Cost tags: on predictions and lines of the ledger, and their sums."""

from typing import Any

from gateway.domain import windows
from gateway.domain.ledger import By, Usage
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.money.rules.audit import Tally
from gateway.predictions.ports.sharing import Refused, Started
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


OF_A, OF_FEATURE = "tag/team red: project=a", "tag/team red: feature=x"


def budget(microusd: int, scope: str = OF_A) -> ReservationRequest:
    """A run of 100 micro-dollars within a budget of one value of a tag."""
    return ReservationRequest(100, 0, (RunLimits(of=SubjectKind.TAG, scope=scope, microusd_per_month=microusd),))


async def spent(store: Store, scope: str = OF_A) -> tuple[int, int, int]:
    meter = (await store.meters([scope], NOW))[scope]
    return meter.open, meter.held_microusd, meter.month_microusd


async def test_budget_of_a_value_is_reserved_settled_and_exact(store: Store) -> None:
    """Another value has money of its own; a run counts in all of its tags, with a budget or without."""
    outcome = await start(store, "1", prediction_={"tags": A}, reservation=budget(150))
    assert isinstance(outcome, Started)
    assert await spent(store) == await spent(store, OF_FEATURE) == (1, 100, 0)
    refused = await start(store, "2", prediction_={"tags": A}, reservation=budget(150))
    assert isinstance(refused, Refused)
    assert refused.refusal.status.tag == {"tag": "project", "value": "a"}
    other = await start(store, "3", prediction_={"tags": B}, reservation=budget(150, "tag/team red: project=b"))
    assert isinstance(other, Started)
    await store.record_created(live("run1"), prediction("up1", "run1", tags=A))
    await finish(store, "1", settlement=settlement(50))
    assert await spent(store) == await spent(store, OF_FEATURE) == (0, 0, 50)
    assert isinstance(await start(store, "4", prediction_={"tags": A}, reservation=budget(149)), Refused)
    assert isinstance(await start(store, "5", prediction_={"tags": A}, reservation=budget(150)), Started)
    assert await drift(store) == []
    assert await store.recount_meters() == 0


async def test_joins_and_hits_take_no_money_of_a_tag(store: Store) -> None:
    await run_of(store, B, fingerprint="F", reservation=budget(100, "tag/team red: project=b"))
    await join(store, "j", prediction_={"tags": A})
    await finish(store, "1", settlement=settlement())
    await start(store, "h", fingerprint="F", now=NOW + 20, prediction_={"tags": A}, reservation=budget(1))
    await store.record_hits([wish("i", fingerprint="F", now=NOW + 20, prediction_={"tags": A}).request])
    assert await spent(store) == (0, 0, 0)
    assert await spent(store, "tag/team red: project=b") == (0, 0, 70)


async def test_corrections_and_late_settlements_count_in_the_budget_of_a_tag(store: Store) -> None:
    """A correction also moves usage by tag. The audit finds and rebuilds the same sums."""
    await run_of(store, A)
    await edit(store, "DELETE FROM reservations")
    await store.recount_meters()
    await finish(store, "1", settlement=settlement())
    assert await spent(store) == await spent(store, OF_FEATURE) == (0, 0, 70)
    assert [
        await store.adjust("red", -30, "refund", NOW, actor=BY_TEST, adjustment_id="x", tagged=A) for _ in range(2)
    ] == [True, False]
    assert await spent(store) == await spent(store, "team/red") == (0, 0, 40)
    assert {value: row.microusd for value, row in (await used(store)).items()} == {"a": 40}
    assert await drift(store) == []
    await edit(store, "DELETE FROM spent WHERE scope LIKE 'tag/%'")
    assert await drift(store) != []
    await store.rebuild_day(DAY)
    assert await spent(store) == (0, 0, 40)


async def test_counters_of_values_are_deleted_when_no_budget_needs_them(store: Store) -> None:
    """Apps can make up values: their counters do not stay."""
    for n in range(3):
        await lead(store, f"{n}", prediction_={"tags": f'{{"project":"v{n}"}}'})
        await finish(store, f"{n}", settlement=settlement())
    while await store.prune_ledger(lines_before=DAY - 9, spent_before=DAY + 1, now=NOW + 999, limit=2):
        pass
    for table in ("meters", "spent"):
        assert await edit(store, f"DELETE FROM {table}") == 0


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
