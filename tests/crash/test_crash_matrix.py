"""`kill -9` at every await of the create path, under load (docs/architecture.md, Invariants 8 and 9).

Each round: callers of every kind, a gateway that dies at a chosen step, another one on the same database, the callers'
retries. Afterwards no id is lost, nothing has run twice, no intent is left. `make test` plays a few points, `make
test-long` all of them, and `bench/crash.py` random ones.
"""

from pathlib import Path

import pytest

from tests.support.crash_play import play
from tests.support.crash_rounds import Matrix, crash_upstream
from tests.support.postgres import emptied_database
from tests.support.rounds import seeds, split

POINTS = [
    ("before", "start", 1),
    ("amid", "start", 5),
    ("after", "start", 3),
    ("after", "join", 2),
    ("after", "keyed-hit", 1),
    ("before", "hit", 2),
    ("amid", "hit", 1),
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
FEW = [
    ("amid", "start", 5),
    ("after", "join", 2),
    ("after", "hit", 1),
    ("amid", "create", 1),
    ("after", "create", 1),
    ("before", "record", 1),
    ("before", "settle", 1),
    ("after", "uncertain", 1),
    ("after", "look", 1),
    ("amid", "end", 4),
    ("after", "cancel", 2),
]
"""The points of `make test`: one of each kind of step."""
FEW_ON_POSTGRES = [("amid", "start", 5), ("amid", "end", 4)]
_MOST_ROUNDS = 4


def _named(point: tuple[str, str, int]) -> str:
    return " ".join(map(str, point))


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.mark.parametrize("point", split(POINTS, FEW), ids=_named)
@pytest.mark.timeout(120)
async def test_kill_at_any_step_loses_nothing_and_runs_nothing_twice(
    tmp_path: Path, point: tuple[str, str, int]
) -> None:
    """The gateway dies at that step with callers in every state; restarted, it knows everything that a caller was
    told.
    """
    await _kill_at(point, tmp_path, None)


@pytest.mark.parametrize("point", split(POINTS, FEW_ON_POSTGRES), ids=_named)
@pytest.mark.timeout(240)
async def test_kill_at_any_step_on_postgresql_loses_nothing_and_runs_nothing_twice(
    tmp_path: Path, point: tuple[str, str, int], url: str
) -> None:
    """The server ends the steps of the killed process: those that it had committed, and no others."""
    await _kill_at(point, tmp_path, url)


async def _kill_at(point: tuple[str, str, int], folder: Path, postgres: str | None) -> None:
    async with crash_upstream() as upstream:
        when, step, passage = point
        matrix = Matrix(upstream, folder, postgres)
        # When callers come is random and in real time: a round may end before the step is reached, with no kill.
        for number in range(_MOST_ROUNDS):
            found = await play(matrix, f"round{number}", (when, step, str(passage)), seed=passage + number)
            found.assert_sound()
            if found.killed:
                return
        raise AssertionError("the step was never reached")


@pytest.mark.parametrize("seed", seeds(1, 20))
@pytest.mark.timeout(120)
async def test_second_kill_during_recovery_loses_nothing(tmp_path: Path, seed: int) -> None:
    """The gateway is killed under load, and again while it recovers."""
    async with crash_upstream() as upstream:
        matrix = Matrix(upstream, tmp_path)
        found = await play(matrix, "round", seed=seed + 5, kill_after=0.25, twice=True)
        found.assert_sound()


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.long) for seed in range(20)])
@pytest.mark.timeout(240)
async def test_second_kill_during_recovery_on_postgresql_loses_nothing(tmp_path: Path, seed: int, url: str) -> None:
    async with crash_upstream() as upstream:
        matrix = Matrix(upstream, tmp_path, url)
        found = await play(matrix, "round", seed=seed + 5, kill_after=0.25, twice=True)
        found.assert_sound()
