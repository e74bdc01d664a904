"""A run's life, from the intent to the deletion of its records."""

import asyncio

import pytest
from msgspec.structs import replace

from gateway.domain.records import Kind, PredictionView, RunState, Source, Status
from gateway.domain.run_end import RunEnded
from gateway.errors import Conflict
from gateway.predictions.ports.predictions import Progressed, Unchanged
from gateway.predictions.ports.sharing import ShareRequest, Started
from gateway.store.interface import Store
from tests.support.records import NOW, ended, go, intent, lead, live, moved, prediction, start, view_of
from tests.support.stores import StoreMaker


async def test_intent_is_found_after_a_restart(store: Store) -> None:
    """The gateway dies before it creates a run: at its next start it finds what it was about to create."""
    run = intent(request=b'{"input":{"prompt":"\xc3\xa9"}}', kind=Kind.TRAINING, stream_url=None)
    outcome = await store.start(ShareRequest(prediction=prediction("p0"), now=NOW), run)
    assert outcome == Started(PredictionView(prediction("p0"), replace(run, leader_id="p0")))
    assert await store.open_runs() == [view_of(outcome).run]
    assert not await store.owns_upstream_id("uprun1")


async def test_created_prediction_is_found_by_id_and_ticket(store: Store) -> None:
    """With every field as it was written."""
    made = prediction(
        user="ann",
        source=Source.BYPASS,
        webhook="https://example.com/hook?a=ü",
        webhook_events_filter=("start", "completed"),
        deadline_at=NOW + 60,
    )
    run = live(stream_url="https://stream.example/1", intended_at=5.0)
    await lead(store, run={"intended_at": 5.0})
    await store.record_created(run, made)
    assert await store.prediction("p1") == PredictionView(made, run)
    assert await store.prediction_by_ticket("ticket-p1") == PredictionView(made, run)
    assert await store.owns_upstream_id("uprun1")
    assert await store.open_runs() == [run]


async def test_times_are_returned_as_floats(store: Store) -> None:
    """If a whole second became an integer, the URLs made of it would change."""
    await store.record_created(live(live_at=7.0), prediction(created_at=5.0))
    advanced = await store.advance("run1", status=Status.SUCCEEDED, document=b"{}", stream_url=None, at=9.0)
    view = await store.prediction("p1")
    assert view is not None
    assert repr((view.prediction.created_at, view.run.live_at, view.run.ended_at)) == "(5.0, 7.0, 9.0)"
    assert repr(moved(advanced).ended_at) == "9.0"


@pytest.mark.parametrize("filter_", [None, (), ("logs",)])
async def test_missing_and_empty_event_filter_are_distinct(store: Store, filter_: tuple[str, ...] | None) -> None:
    await store.record_created(live(), prediction(webhook_events_filter=filter_))
    view = await store.prediction("p1")
    assert view is not None
    assert view.prediction.webhook_events_filter == filter_


async def test_unknown_ids_find_nothing(store: Store) -> None:
    await store.record_created(live(), prediction())
    # Found by its id only.
    await store.record_created(live("run3"), prediction("p3", "run3", ticket=""))
    for unknown in ("", "p2", "P1", "p1 ", "run2", "%", "\x00"):
        assert await store.prediction(unknown) is None
        assert await store.prediction_by_ticket(unknown) is None
        assert await store.cancel(unknown, NOW) is None
        assert not await store.owns_upstream_id(unknown)
        await store.discard_intent(unknown)
        await store.clear_data(unknown, b"")
        assert await store.advance(unknown, status=Status.FAILED, document=b"", stream_url=None, at=NOW) == Unchanged()
        assert await store.ended_run(unknown) is None


async def test_recording_a_create_twice_changes_nothing(store: Store) -> None:
    """A retry after a lost result neither doubles the prediction nor resets a run that has progressed."""
    await lead(store)
    await store.record_created(live(), prediction())
    await store.advance("run1", status=Status.SUCCEEDED, document=b"done", stream_url=None, at=NOW + 2)
    await store.cancel("p1", NOW + 3)
    before = await store.prediction("p1")
    await store.record_created(live(), prediction())
    assert await store.prediction("p1") == before
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=10)
    assert len(page.items) == 1


async def test_recorded_run_rejects_another_upstream_id(store: Store) -> None:
    """A run has one upstream id for good; a create with a different one has found another run."""
    await store.record_created(live(), prediction())
    with pytest.raises(Conflict):
        await store.record_created(live(upstream_id="other", stream_url="x", document=b"x"), prediction("p2"))
    assert await store.prediction("p1") == PredictionView(prediction(), live())
    assert await store.prediction("p2") is None
    assert not await store.owns_upstream_id("other")


async def test_upstream_id_never_moves_to_another_run(store: Store) -> None:
    """Two uncertain creates search for their runs: each run is adopted once. A training is no prediction."""
    await lead(store, "1")
    await lead(store, "2")
    await store.record_created(live("run1", upstream_id="up"), prediction("up", "run1"))
    with pytest.raises(Conflict):
        await store.record_created(live("run2", upstream_id="up"), prediction("p2", "run2"))
    assert [(run.id, run.state) for run in await store.open_runs()] == [
        ("run1", RunState.LIVE),
        ("run2", RunState.INTENDED),
    ]
    await store.record_created(live("run3", upstream_id="up", kind=Kind.TRAINING), prediction("p3", "run3"))


async def test_concurrent_adoptions_of_one_run_have_one_winner(store: Store, another: StoreMaker) -> None:
    second = another()
    await second.open()
    try:
        for n in range(10):
            await lead(store, f"{n}a")
            await lead(store, f"{n}b")
            outcomes = await asyncio.gather(
                *(
                    keeper.record_created(
                        live(f"run{n}{each}", upstream_id=f"up{n}"), prediction(f"up{n}", f"run{n}{each}")
                    )
                    for keeper, each in ((store, "a"), (second, "b"))
                ),
                return_exceptions=True,
            )
            assert sorted(type(each).__name__ for each in outcomes) == ["Conflict", "Recorded"]
    finally:
        await second.close()


async def test_create_without_its_intent_is_still_recorded(store: Store) -> None:
    await lead(store)
    await store.discard_intent("run1")
    await store.record_created(live(), prediction())
    assert await store.prediction("p1") == PredictionView(prediction(), live())


async def test_run_can_be_recorded_as_ended_at_once(store: Store) -> None:
    """Upstream answers the create with a finished run."""
    await lead(store)
    await store.record_created(ended(), prediction())
    assert await store.prediction("p1") == PredictionView(prediction(), ended())
    assert await store.open_runs() == []


async def test_prediction_id_never_moves_to_another_run(store: Store) -> None:
    """Adopting a run twice must not take a caller's prediction away from its run."""
    await store.record_created(live(), prediction())
    with pytest.raises(Conflict):
        await store.record_created(live("run2"), prediction(run_id="run2"))
    assert await store.prediction("p1") == PredictionView(prediction(), live())
    assert await store.open_runs() == [live()]


async def test_only_an_intent_can_be_discarded(store: Store) -> None:
    await lead(store, "2")
    await store.record_created(live(), prediction())
    await store.discard_intent("run1")
    await store.discard_intent("run2")
    assert await store.open_runs() == [live()]


async def test_progress_is_stored(store: Store) -> None:
    await store.record_created(live(), prediction())
    first = await store.advance("run1", status=Status.STARTING, document=b"logs", stream_url="https://s/1", at=NOW + 2)
    assert first == Progressed(live(document=b"logs", stream_url="https://s/1"))
    second = await store.advance("run1", status=Status.PROCESSING, document=b"more", stream_url=None, at=NOW + 3)
    assert second == Progressed(live(document=b"more", stream_url="https://s/1", status=Status.PROCESSING))
    view = await store.prediction("p1")
    assert view is not None
    assert view.run == second.run


async def test_unchanged_progress_is_not_written(store: Store) -> None:
    """A poll that finds the run unchanged costs no write and notifies no caller."""
    await store.record_created(live(), prediction())
    news = {"status": Status.PROCESSING, "document": b"more", "stream_url": "https://s/1", "at": NOW}
    assert isinstance(await store.advance("run1", **news), Progressed)
    assert await store.advance("run1", **news) == Unchanged()
    assert await store.advance("run1", **news | {"stream_url": None}) == Unchanged()
    assert isinstance(await store.advance("run1", **news | {"stream_url": "https://s/2"}), Progressed)


@pytest.mark.parametrize("terminal", [each for each in Status if each.is_terminal])
async def test_terminal_status_is_final(store: Store, terminal: Status) -> None:
    await store.record_created(live(), prediction())
    done = await store.advance("run1", status=terminal, document=b"done", stream_url=None, at=NOW + 4)
    assert isinstance(done, RunEnded)
    assert done.run == live(status=terminal, document=b"done", state=RunState.ENDED, ended_at=NOW + 4)
    for status in Status:
        assert await store.advance("run1", status=status, document=b"x", stream_url="x", at=NOW + 5) == Unchanged()
    view = await store.prediction("p1")
    assert view is not None
    assert view.run == done.run
    assert await store.open_runs() == []


async def test_status_never_moves_back(store: Store) -> None:
    """A late webhook that says "starting" does not undo what a poll has seen."""
    await store.record_created(live(), prediction())
    await store.advance("run1", status=Status.PROCESSING, document=b"new", stream_url=None, at=NOW)
    assert await store.advance("run1", status=Status.STARTING, document=b"old", stream_url="x", at=NOW) == Unchanged()
    view = await store.prediction("p1")
    assert view is not None
    assert (view.run.status, view.run.document, view.run.stream_url) == (Status.PROCESSING, b"new", None)


async def test_concurrent_ends_count_once(store: Store) -> None:
    """Poll, stream and webhook report the end together: it is settled once."""
    await store.record_created(live(), prediction())
    outcomes = await asyncio.gather(
        *(
            store.advance("run1", status=status, document=str(n).encode(), stream_url=None, at=NOW + n)
            for n, status in enumerate([Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.PROCESSING] * 10)
        )
    )
    endings = [outcome.run for outcome in outcomes if isinstance(outcome, RunEnded)]
    assert len(endings) == 1
    view = await store.prediction("p1")
    assert view is not None
    assert view.run == endings[0]


async def test_progress_before_the_create_response_is_kept(store: Store) -> None:
    """Upstream's webhook says `processing` first: the response to the create does not reset it."""
    await lead(store)
    early = await store.advance("run1", status=Status.PROCESSING, document=b"early", stream_url=None, at=NOW)
    assert early == Progressed(intent(status=Status.PROCESSING, document=b"early", leader_id="p1"))
    await store.record_created(live(stream_url="https://s/1"), prediction())
    view = await store.prediction("p1")
    assert view is not None
    assert view.run == live(status=Status.PROCESSING, document=b"early", stream_url="https://s/1")


async def test_end_before_the_create_response_is_kept(store: Store) -> None:
    """The run ended before the create was answered: its id is found, and it stays ended."""
    await lead(store)
    await store.advance("run1", status=Status.SUCCEEDED, document=b"end", stream_url=None, at=NOW + 3)
    await store.record_created(live(), prediction())
    view = await store.prediction("p1")
    assert view is not None
    assert view.run == live(status=Status.SUCCEEDED, document=b"end", state=RunState.ENDED, ended_at=NOW + 3)
    assert await store.owns_upstream_id("uprun1")


async def test_open_runs_are_paged_by_id(store: Store) -> None:
    for n in range(7):
        await lead(store, str(n))
    await store.record_created(live("run1"), prediction("p1", "run1"))
    await store.record_created(ended("run3"), prediction("p3", "run3"))
    seen, after = [], ""
    while runs := await store.open_runs(after=after, limit=2):
        assert len(runs) <= 2
        seen += [run.id for run in runs]
        after = runs[-1].id
    assert seen == ["run0", "run1", "run2", "run4", "run5", "run6"]


async def test_data_of_the_oldest_ended_run_is_cleared_first(store: Store) -> None:
    """One hour after the end the input and output are deleted, the record stays."""
    for n in (2, 0, 1, 5):
        await store.record_created(ended(f"run{n}", NOW + n), prediction(f"p{n}", f"run{n}"))
    await store.record_created(live("run9"), prediction("p9", "run9"))
    due = await store.runs_to_clear(NOW + 5, NOW, 2)
    assert due == [ended("run0", NOW), ended("run1", NOW + 1)]
    for run in due:
        await store.clear_data(run.id, b"removed")
    assert [run.id for run in await store.runs_to_clear(NOW + 5, NOW, 10)] == ["run2"]
    view = await store.prediction("p0")
    assert view == PredictionView(
        prediction("p0", "run0"), ended("run0", NOW, document=b"removed", request=b"", data_removed=True)
    )


async def test_data_of_an_open_run_cannot_be_cleared(store: Store) -> None:
    await lead(store, "2")
    await store.record_created(live(), prediction())
    await store.clear_data("run1", b"removed")
    await store.clear_data("run2", b"removed")
    assert await store.open_runs() == [live(), intent("run2", leader_id="p2")]


async def test_old_records_are_deleted_in_batches(store: Store) -> None:
    """After `retain_days` a prediction is unknown; open runs and younger records stay."""
    for n in range(5):
        kind = Kind.TRAINING if n % 2 else Kind.PREDICTION
        await store.record_created(
            ended(f"run{n}", kind=kind), prediction(f"p{n}", f"run{n}", created_at=NOW + n, kind=kind)
        )
    await store.record_created(live("run9"), prediction("p9", "run9", created_at=NOW))
    deleted = []
    while step := await store.delete_records(NOW + 4, 3):
        deleted.append(step)
    assert deleted == [3, 1]
    assert [await store.prediction(f"p{n}") is None for n in (0, 1, 2, 3, 4, 9)] == [True] * 4 + [False] * 2
    assert [run.id for run in await store.runs_to_clear(NOW + 100, NOW, 10)] == ["run4"]
    assert not await store.owns_upstream_id("uprun0")
    assert await store.owns_upstream_id("uprun4")


async def test_shared_run_is_kept_as_long_as_any_prediction(store: Store) -> None:
    """The first caller's prediction is deleted before that of the caller who joined later."""
    await store.record_created(ended(fingerprint="F", cache_until=NOW + 1000), prediction("p1"))
    await start(store, "2", fingerprint="F", prediction_={"created_at": NOW + 5})
    assert await store.delete_records(NOW + 1, 10) == 1
    assert await store.prediction("p1") is None
    view = await store.prediction("p2")
    assert view is not None
    assert (view.prediction.source, view.run.id) == (Source.HIT, "run1")
    assert await store.delete_records(NOW + 10, 10) == 1
    assert not await store.owns_upstream_id("uprun1")


async def test_deleting_nothing_counts_zero(store: Store) -> None:
    assert await store.delete_records(NOW, 10) == 0
    await store.record_created(ended(), prediction())
    assert await store.delete_records(NOW, 10) == 0
    assert await store.delete_records(NOW + 1, 0) == 0
    assert await store.prediction("p1") is not None


async def test_concurrent_creates_are_all_recorded(store: Store) -> None:
    """A burst of callers: every id that was returned can be found."""
    await asyncio.gather(*(store.record_created(live(f"run{n}"), prediction(f"p{n}", f"run{n}")) for n in range(200)))
    views = await asyncio.gather(*(store.prediction(f"p{n}") for n in range(200)))
    assert views == [PredictionView(prediction(f"p{n}", f"run{n}"), live(f"run{n}")) for n in range(200)]


async def test_large_documents_are_returned_complete(store: Store) -> None:
    """Inputs with images in them have megabytes."""
    big = bytes(range(256)) * 12_000
    await store.record_created(live(request=big, document=big), prediction())
    await store.advance("run1", status=Status.SUCCEEDED, document=big[::-1], stream_url=None, at=NOW)
    view = await store.prediction("p1")
    assert view is not None
    assert view.run.request == big
    assert view.run.document == big[::-1]


async def test_unreadable_answers_are_noted_until_a_readable_one(store: Store) -> None:
    """The time survives a restart; a change of the run clears it, and so does the caller."""
    await go(store)
    for since in (NOW + 5, None, NOW + 7):
        await store.mark_unreadable("run1", since)
        (run,) = await store.open_runs()
        assert run.unreadable_since == since
    moved_on = await store.advance("run1", status=Status.PROCESSING, document=b"{}", stream_url=None, at=NOW + 8)
    assert moved(moved_on).unreadable_since is None


async def test_unreadable_intent_is_not_noted(store: Store) -> None:
    """Only a run that upstream has created is polled."""
    await lead(store)
    await store.mark_unreadable("run1", NOW)
    (run,) = await store.open_runs()
    assert run.unreadable_since is None
