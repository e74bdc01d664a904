"""Single stories, each a defect once: told step by step, with the same model looking on."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.domain.create_request import Created
from gateway.domain.documents import shown_status
from gateway.domain.records import Status
from gateway.errors import StoreUnavailable, UpstreamUncertain
from tests.support.machine import Ask, Interleavings, caller


@pytest.fixture
def story() -> Iterator[Interleavings]:
    """A gateway at rest; in the end everything must have ended well."""
    made = Interleavings()
    made.begin(0, is_served=False)
    yield made
    made.teardown()


def ask(story: Interleavings, form: str = "named", what: str = "one", team: str = "alpha") -> Ask:
    """Let somebody ask, and wait for what comes of it without anything else happening."""
    story.ask(team, form, what, None, None)
    return story.asks[-1]


def id_of(asked: Ask) -> str:
    """Return the id that the caller was told."""
    created = asked.task.result()
    assert isinstance(created, Created)
    return created.view.prediction.id


@pytest.mark.parametrize("taken", [True, False])
def test_a_bare_version_that_a_crash_left_unnamed_is_joined_by_the_next_equal_request(
    story: Interleavings, *, taken: bool
) -> None:
    """A cold gateway dies between create and answer; those who run() the same again share the run that there is."""
    ask(story, "bare")
    if not taken:
        story.upstream.take(story.upstream.waiting[0])
    story.crash(taken=taken)
    story.wait(1.0)
    joined = [ask(story, form) for form in ("bare", "named", "bare")]
    assert len({id_of(each) for each in joined}) == 3
    assert len(story.upstream.sent) == 1


def test_a_bare_version_joins_a_run_that_a_named_one_began_and_a_crash_cut_short(story: Interleavings) -> None:
    """The run is recorded, which model the version is of is not: who asks by the bare id shares it all the same."""
    ask(story, "named")
    story.life.gate.is_held = True
    story.upstream.answer(story.upstream.waiting[0], "created")
    story.run_on(story._nothing())
    story.life.gate.let(write_first=True)
    story.run_on(story._nothing())
    story.crash(taken=True)
    id_of(ask(story, "bare"))
    assert len(story.upstream.sent) == 1


def test_a_bare_version_whose_crash_came_before_it_was_named_does_not_turn_callers_away(story: Interleavings) -> None:
    """The run is recorded, its identity is not: equal requests get predictions on it, and no 503."""
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


def test_a_key_whose_request_joined_before_a_crash_leads_to_a_prediction_that_is_there(story: Interleavings) -> None:
    """Leader and follower die waiting, the run ends meanwhile; the follower's retry is given an id that resolves."""
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


def test_a_cancel_is_not_forgotten_because_of_a_list_that_was_read_before(story: Interleavings) -> None:
    """One tab lists, another cancels; the slow list does not bring the prediction back to life."""
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


def test_an_orphan_is_not_given_the_run_of_an_equal_create_that_is_on_its_way(story: Interleavings) -> None:
    """Upstream's list is slow; meanwhile another caller asks the same: the search leaves that caller's run alone."""
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


def test_those_who_joined_are_answered_though_the_store_goes_away_with_the_create(story: Interleavings) -> None:
    """Upstream's answer is lost and so is the store's: nobody is left hanging."""
    asked = [ask(story), ask(story)]
    story.life.gate.unheard = {"mark_uncertain": 0}
    story.answer(0, "lost")
    assert all(isinstance(each.task.exception(), UpstreamUncertain) for each in asked)
    story.life.gate.unheard = {}


def test_an_intent_that_was_recorded_unheard_does_not_stand_in_the_way(story: Interleavings) -> None:
    """The store is slow for a moment: the caller gets a 503, and soon after the same request goes through."""
    # It is asked twice: whether the run can be shared, and then to record the intent.
    story.life.gate.unheard = {"start": 0}
    with pytest.raises(StoreUnavailable):
        ask(story)
    story.life.gate.unheard = {}
    story.wait(6.0)
    ask(story)
    story.serve()
    id_of(story.asks[-1])


def test_a_run_whose_identity_cannot_be_settled_keeps_nobody_waiting(story: Interleavings) -> None:
    """The first of a burst has its answer; the others do not wait for ever for a store that is away."""
    asked = [ask(story, "bare"), ask(story, "bare")]
    story.life.gate.unheard = {"settle_identity": 0}
    with pytest.raises(StoreUnavailable):
        story.answer(0, "created")
    assert all(each.task.done() for each in asked)
    id_of(asked[0])
    story.life.gate.unheard = {}
