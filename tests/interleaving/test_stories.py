"""Single histories, each a former defect, checked against the same model as the random ones."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.domain.create_request import Created
from gateway.domain.documents import shown_status
from gateway.domain.records import Status
from gateway.errors import StoreUnavailable, UpstreamUncertain
from tests.support.machine import Ask, Interleavings, caller
from tests.support.stores import BACKENDS


@pytest.fixture(params=BACKENDS)
def story(request: pytest.FixtureRequest) -> Iterator[Interleavings]:
    """A gateway at rest; in the end everything must have ended well."""
    made = Interleavings(BACKENDS[request.param])
    made.begin(0, is_served=False)
    yield made
    made.teardown()


def ask(story: Interleavings, form: str = "named", what: str = "one", team: str = "alpha") -> Ask:
    """Let somebody ask, and wait for what comes of it without anything else happening."""
    story.ask(team, form, what, None, None)
    return story.asks[-1]


def id_of(asked: Ask) -> str:
    """Return the id that the caller got."""
    created = asked.task.result()
    assert isinstance(created, Created)
    return created.view.prediction.id


@pytest.mark.parametrize("taken", [True, False])
def test_bare_version_left_unnamed_by_a_crash_is_joined(story: Interleavings, *, taken: bool) -> None:
    """A cold gateway dies between create and response; an equal run() afterwards shares the existing run."""
    ask(story, "bare")
    if not taken:
        story.upstream.take(story.upstream.waiting[0])
    story.crash(taken=taken)
    story.wait(1.0)
    joined = [ask(story, form) for form in ("bare", "named", "bare")]
    assert len({id_of(each) for each in joined}) == 3
    assert len(story.upstream.sent) == 1


def test_bare_version_joins_a_named_run_interrupted_by_a_crash(story: Interleavings) -> None:
    """The run is recorded, its version's model is not: a create by bare id still shares it."""
    ask(story, "named")
    story.life.gate.is_held = True
    story.upstream.answer(story.upstream.waiting[0], "created")
    story.run_on(story._nothing())
    story.life.gate.let(write_first=True)
    story.run_on(story._nothing())
    story.crash(taken=True)
    id_of(ask(story, "bare"))
    assert len(story.upstream.sent) == 1


def test_bare_version_with_unsettled_identity_gets_no_503(story: Interleavings) -> None:
    """The run is recorded, its identity is not: equal requests get predictions on it."""
    ask(story, "bare")
    story.life.gate.is_held = True
    story.upstream.answer(story.upstream.waiting[0], "created")
    story.run_on(story._nothing())
    # The next write is `record_created`; what follows it never comes.
    story.life.gate.let(write_first=True)
    story.run_on(story._nothing())
    story.crash(taken=True)
    id_of(ask(story, "bare"))
    id_of(ask(story, "named"))
    assert len(story.upstream.sent) == 1


def test_key_of_a_joined_create_replays_after_a_crash(story: Interleavings) -> None:
    """Both callers die waiting, the run ends meanwhile; the joined caller's retry gets an id that resolves."""
    ask(story, "bare")
    story.ask("alpha", "bare", "one", None, "key")
    retried = story.asks[-1]
    story.crash(taken=True)
    (run,) = story.upstream.runs.values()
    story.upstream.end(run, "succeeded")
    story.wait(1.0)
    story._ask("alpha", retried.prompt, retried.order)
    id_of(story.asks[-1])
    assert len(story.upstream.sent) == 1


def test_cancel_is_not_undone_by_an_older_list(story: Interleavings) -> None:
    """One tab lists, another cancels; the slow list does not revive the prediction."""
    ask(story)
    ask(story)
    story.serve()
    mine = id_of(story.asks[0])
    story.everybody_sees_what_is_theirs()
    story.hold()
    story.browse("alpha")
    story.cancel(list(story.given).index(mine))
    story.let(1, write_first=True)
    story.release()
    seen = story.run_on(story.life.predictions.get(caller("alpha"), mine))
    assert shown_status(seen) is Status.CANCELED


def test_search_does_not_take_the_run_of_a_concurrent_create(story: Interleavings) -> None:
    """Upstream's list is slow; meanwhile another caller creates an equal run: the search leaves it alone."""
    first = ask(story, what="own")
    story.answer(0, "lost")
    assert isinstance(first.task.exception(), UpstreamUncertain)
    # Upstream is asked for its list; it will be read when the other's run is there and the answer to it is not.
    story.upstream.list_held = asyncio.Event()
    story.wait(1.0)
    story.upstream.on_send = lambda _: None
    story._ask("beta", first.prompt, first.order)
    (sent,) = story.upstream.waiting
    story.upstream.take(sent)
    story.upstream.list_held.set()
    story.run_on(story.clock.advance(1.0))
    story.upstream.answer(sent, "created")
    story.run_on(story._nothing())
    story._hear()
    assert story.given[id_of(story.asks[-1])].team == "beta"


def test_joined_callers_are_answered_when_upstream_and_store_fail(story: Interleavings) -> None:
    """Upstream's response is lost and so is the store's: no caller is left waiting."""
    asked = [ask(story), ask(story)]
    story.life.gate.unheard = {"mark_uncertain": 0}
    story.answer(0, "lost")
    assert all(isinstance(each.task.exception(), UpstreamUncertain) for each in asked)
    story.life.gate.unheard = {}


def test_intent_recorded_after_a_timeout_blocks_nothing(story: Interleavings) -> None:
    """The store is slow for a moment: the caller gets a 503, and soon after the same request works."""
    # It is asked twice: whether the run can be shared, and then to record the intent.
    story.life.gate.unheard = {"start": 0}
    with pytest.raises(StoreUnavailable):
        ask(story)
    story.life.gate.unheard = {}
    story.wait(6.0)
    ask(story)
    story.serve()
    id_of(story.asks[-1])


def test_unsettled_identity_keeps_no_caller_waiting(story: Interleavings) -> None:
    """The first of a burst has its response; the others do not wait forever for a store that is down."""
    asked = [ask(story, "bare"), ask(story, "bare")]
    story.life.gate.unheard = {"settle_identity": 0}
    with pytest.raises(StoreUnavailable):
        story.answer(0, "created")
    assert all(each.task.done() for each in asked)
    id_of(asked[0])
    story.life.gate.unheard = {}
