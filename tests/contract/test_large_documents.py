"""Large documents are left in the store until somebody has room for them: the store says how large they are."""

import pytest
from msgspec.structs import replace

from gateway.domain.records import LARGE_DOCUMENT, Kind, PredictionView, Run, Status
from gateway.domain.run_end import RunEnded
from gateway.predictions.ports.predictions import Progressed, Unchanged
from gateway.predictions.ports.sharing import Hit, Replayed
from gateway.store.interface import Store
from gateway.webhooks.ports import Busy, LargeBody
from tests.support.records import NOW, finish, go, idempotency, join, lead, live, prediction, share, view_of

LARGE = b'{"output":"%b"}' % (b"x" * LARGE_DOCUMENT)
REQUEST = len(live().request)
SIZE = len(LARGE) + REQUEST
MIB = 1024 * 1024


async def progress(store: Store, document: bytes = LARGE) -> None:
    await store.advance("run1", status=Status.PROCESSING, document=document, stream_url=None, at=NOW + 2)


def left_out(view: PredictionView | None) -> int:
    """Check that nothing large is in a view, and return the bytes of what was left in the store."""
    assert view is not None
    assert (view.run.document, view.run.request) == (b"", b"")
    return view.left_out


async def test_large_document_is_read_only_where_it_is_wanted(store: Store) -> None:
    await go(store)
    await progress(store)
    whole = await store.prediction("up1")
    assert whole is not None
    assert (whole.run.document, whole.left_out) == (LARGE, 0)
    assert await store.prediction("up1", most_bytes=SIZE) == whole
    view = await store.prediction("up1", most_bytes=SIZE - 1)
    assert view == whole.without_document()
    assert left_out(view) == SIZE


async def test_runs_can_be_read_without_large_documents(store: Store) -> None:
    await go(store)
    await progress(store)
    whole = await store.run("run1")
    assert whole is not None
    assert whole.document == LARGE
    await go(store, "2")
    other = await store.run("run2")
    assert await store.runs_by_id(["run2", "unknown", "run1"], most_bytes=SIZE) == {"run1": whole, "run2": other}
    left = replace(whole, document=b"", request=b"")
    assert await store.runs_by_id(["run1", "run2"], most_bytes=SIZE - 1) == {"run1": left, "run2": other}
    assert await store.runs_by_id([], most_bytes=SIZE) == {}


async def test_document_that_is_not_large_is_read_at_once(store: Store) -> None:
    await go(store, fingerprint="F")
    await progress(store, b"x" * (LARGE_DOCUMENT - REQUEST))
    joined = await join(store, "2")
    assert (joined.view.size, joined.view.left_out) == (LARGE_DOCUMENT, 0)


async def test_any_number_of_callers_of_a_large_run_read_nothing_large(store: Store) -> None:
    """Joins, hits, repeated requests, cancels and streams: all may come at once, in one step of the store."""
    await go(store, fingerprint="F", idempotency=idempotency())
    await progress(store)
    assert left_out((await join(store, "2")).view) == SIZE
    again = await share(store, "3", idempotency=idempotency())
    assert isinstance(again, Replayed)
    assert left_out(again.view) == SIZE
    cancellation = await store.cancel("p2", NOW + 3)
    assert cancellation is not None
    assert cancellation.view.prediction.canceled_at == NOW + 3
    assert left_out(cancellation.view) == SIZE
    repeated = await store.cancel("p2", NOW + 4)
    assert left_out(repeated and repeated.view) == SIZE
    await finish(store, document=LARGE)
    hit = await share(store, "4", fingerprint="F", now=NOW + 20)
    assert isinstance(hit, Hit)
    assert left_out(view_of(hit)) == SIZE
    run = await store.run("run1")
    assert run is not None
    assert run.document == LARGE


async def test_stream_is_opened_without_a_large_document(store: Store) -> None:
    await lead(store)
    await store.record_created(live(), prediction("up1", ticket="t"))
    await progress(store)
    assert left_out(await store.prediction_by_ticket("t")) == SIZE


async def test_page_whose_only_item_is_larger_than_a_page_has_it_without_its_document(store: Store) -> None:
    for name in ("1", "2"):
        await lead(store, name)
        starter = prediction(f"up{name}", f"run{name}", created_at=NOW - int(name))
        await store.record_created(live(f"run{name}"), starter)
    await progress(store)
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=10, max_bytes=1000)
    assert [item.prediction.id for item in page.items if isinstance(item, PredictionView)] == ["up1"]
    assert page.has_older
    (item,) = page.items
    assert isinstance(item, PredictionView)
    assert left_out(item) == SIZE


async def test_lists_of_runs_end_early_where_documents_are_large(store: Store) -> None:
    """The next page goes on after them: at the start of the process, every run is read so."""
    document = b"x" * 9 * MIB
    for number in range(1, 6):
        await go(store, str(number))
        await store.advance(f"run{number}", status=Status.PROCESSING, document=document, stream_url=None, at=NOW + 2)
    after, pages = "", list[list[Run]]()
    while runs := await store.open_runs(after=after):
        pages.append(runs)
        after = runs[-1].id
    assert [[run.id for run in runs] for runs in pages] == [["run1", "run2"], ["run3", "run4"], ["run5"]]


@pytest.mark.parametrize("size", [10, 11])
async def test_large_body_of_a_delivery_is_left_out(store: Store, size: int) -> None:
    await lead(store)
    await store.record_created(live(), prediction("up1", webhook="https://hooks.example/x"))
    await finish(store)
    (claimed,) = await store.claim_deliveries(NOW + 20, NOW + 60, 9, Busy())
    await store.postpone_delivery(claimed.id, NOW + 70, "answered 500", b"x" * size)
    found = await store.delivery_body(claimed.id, most_bytes=10)
    assert found == (b"x" * 10 if size == 10 else LargeBody(11))
    assert await store.delivery_body(claimed.id) == b"x" * size


async def test_very_large_values_are_written_and_read_whole(store: Store) -> None:
    """SQLite takes them from a temporary table, and rows have a number in their place."""
    request, document, later = (letter * (4 * MIB + 1 + place) for place, letter in enumerate((b"r", b"d", b"l")))
    await lead(store)
    starter = prediction("up1", ticket="t")
    await store.record_created(replace(live(), request=request, document=document), starter)
    for expected in (document, later):
        run = await store.run("run1")
        view = await store.prediction("up1")
        assert run is not None
        assert view is not None
        assert (run.request, run.document) == (request, expected)
        assert view.run == run
        assert left_out(await store.prediction("up1", most_bytes=len(expected))) == len(request) + len(expected)
        assert [each.document for each in await store.open_runs(after="")] == [expected]
        outcome = await store.advance("run1", status=Status.PROCESSING, document=later, stream_url=None, at=NOW + 2)
        assert isinstance(outcome, Unchanged if expected is later else Progressed)
    ended = await store.advance("run1", status=Status.SUCCEEDED, document=document, stream_url=None, at=NOW + 3)
    assert isinstance(ended, RunEnded)
    assert (ended.run.request, ended.run.document) == (request, document)
    assert await store.run("run1") == ended.run
