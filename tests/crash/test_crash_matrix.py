"""`kill -9` at every await of the create path, under load (docs/architecture.md, Invariants 8 and 9).

Each round: callers in many forms, the gateway dead at a chosen passage of a chosen step, another one on the same file,
the callers' retries. Afterwards no id is lost, nothing has run twice, no intent is left. `bench/crash.py` plays more.
"""

from pathlib import Path

import pytest

from tests.support.crash_rounds import Matrix, crash_upstream, play

POINTS = [
    ("before", "start", 1),
    ("amid", "start", 5),
    ("after", "start", 3),
    ("after", "join", 2),
    ("after", "hit", 1),
    ("before", "create", 2),
    ("amid", "create", 1),
    ("after", "create", 1),
    ("before", "record", 1),
    ("amid", "record", 3),
    ("after", "record", 1),
    ("before", "learn", 1),
    ("before", "settle", 1),
    ("after", "settle", 1),
    ("before", "detach", 1),
    ("before", "discard", 1),
    ("after", "uncertain", 1),
    ("after", "look", 1),
    ("before", "end", 2),
    ("amid", "end", 4),
    ("after", "end", 3),
    ("after", "cancel", 2),
    ("before", "ask-cancel", 1),
    ("amid", "ask-cancel", 1),
    ("before", "expire", 1),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: " ".join(map(str, point)))
@pytest.mark.timeout(60)
async def test_nothing_is_lost_or_run_twice_when_the_gateway_is_killed(
    tmp_path: Path, point: tuple[str, str, int]
) -> None:
    """The gateway dies at that step with callers in every state; restarted, it knows all that anybody was told."""
    async with crash_upstream() as upstream:
        when, step, passage = point
        matrix = Matrix(upstream, tmp_path)
        found = await play(matrix, "round", (when, step, str(passage)), seed=passage)
        assert found.killed, "the step was never passed"
        found.assert_sound()


async def test_a_second_kill_on_the_way_up_loses_nothing_either(tmp_path: Path) -> None:
    """The gateway is killed under load, and again while it takes up what it finds."""
    async with crash_upstream() as upstream:
        matrix = Matrix(upstream, tmp_path)
        found = await play(matrix, "round", seed=5, kill_after=0.25, twice=True)
        found.assert_sound()
