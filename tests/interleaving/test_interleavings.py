"""No lost prediction, no killed neighbour, no leaked run, whatever happens in whatever order.

See docs/architecture.md, Invariants.

Hypothesis searches for short sequences of steps; the walks are long ones, each from a seed.
"""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.machine import FORMS, KEYS, OUTCOMES, PROMPTS, TEAMS, Interleavings
from tests.support.rounds import amounts, on_engine, seeds
from tests.support.stores import BACKENDS

_STEPS = 60


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("examples", amounts(25, 500))
def test_generated_steps_end_well_for_every_caller(examples: int, backend: str) -> None:
    """Hypothesis searches for a short sequence of steps that breaks an invariant."""
    run_state_machine_as_test(
        lambda: Interleavings(BACKENDS[backend]),
        settings=settings(
            deadline=None,
            max_examples=on_engine(backend, examples),
            stateful_step_count=30,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _step(story: Interleavings, chaos: random.Random) -> None:
    """Let one thing happen, of those that can."""
    waiting, runs = story.upstream.waiting, story.upstream.runs.values()
    which = chaos.randrange(1000)
    can: list[tuple[int, Any]] = [
        (
            6,
            lambda: story.ask(
                chaos.choice(TEAMS),
                chaos.choice(FORMS),
                chaos.choice(PROMPTS),
                chaos.choice((None, None, None, 5.0, 20.0)),
                chaos.choice(KEYS),
            ),
        ),
        (2, lambda: story.ask_again(which) if story.asks else None),
        (1, lambda: story.make_cancels_hard(late=chaos.random() < 0.5, fail=chaos.randrange(3))),
        (1, lambda: story.browse(chaos.choice(TEAMS))),
        (2, lambda: story.wait(chaos.choice((0.1, 1.0, 6.0)))),
    ]
    if any(not each.task.done() for each in story.asks):
        can.append((1, lambda: story.disconnect(which)))
    if story.given:
        can.append((4, lambda: story.cancel(which)))
    if any(each.run is None for each in waiting):
        can.append((1, lambda: story.take(which)))
    if waiting:
        can += [(4, lambda: story.answer(which, chaos.choice(OUTCOMES))), (3, story.serve)]
    if any(not each.is_over for each in runs):
        can.append((2, lambda: story.move(which, chaos.choice(("processing", "succeeded", "failed")))))
    if story.life.gate.is_held:
        can.append((2, story.release))
    else:
        can.append((2, story.hold))
    if story.life.gate.waiting:
        can.append((12, lambda: story.let(chaos.randint(1, 4), write_first=chaos.random() < 0.5)))
    if chaos.random() < 0.05:
        can = [(1, lambda: story.crash(taken=chaos.random() < 0.5))]
    weights, deeds = zip(*can, strict=True)
    chaos.choices(deeds, weights)[0]()
    story.everybody_sees_what_is_theirs()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", seeds(10, 200))
def test_random_walk_ends_well_for_every_caller(seed: int, backend: str) -> None:
    """Sixty steps: callers come, share, leave; upstream is slow and fails; the store lags; the gateway dies."""
    chaos = random.Random(seed)
    story = Interleavings(BACKENDS[backend])
    story.begin(chaos.randrange(4), is_served=chaos.random() < 0.5)
    try:
        for _ in range(_STEPS):
            _step(story, chaos)
    except BaseException:
        # What went wrong is said already.
        story.wrongs.append("stopped")
        raise
    finally:
        story.teardown()
