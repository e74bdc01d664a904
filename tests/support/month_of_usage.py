"""A month of usage, written into a store for tests of the dashboard and the ledger."""

import base64
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.domain import windows
from gateway.domain.ledger import Settlement
from gateway.domain.records import Kind, Prediction, Run, RunState, Source, Status
from gateway.domain.windows import Window
from gateway.predictions.ports.sharing import FinishedRuns, OpenRuns, ShareRequest
from gateway.store.sqlite import SQLiteStore

_DAY = 86_400


class Habit(NamedTuple):
    """A team's daily runs of a target: mean number, mean cost, and mean joins and hits per run."""

    team: str
    target: str
    runs: int
    microusd: int
    joined: float
    hits: float


HABITS = (
    Habit("alpha", "black-forest-labs/flux-schnell", 9, 30_000, 0.4, 1.3),
    Habit("alpha", "meta/meta-llama-3-8b-instruct", 6, 4_200, 0.2, 0.8),
    Habit("beta", "stability-ai/sdxl", 5, 18_500, 0.3, 0.5),
    Habit("beta", "acme/upscale", 3, 52_000, 0.0, 0.9),
    Habit("operator", "acme/storyteller", 2, 9_100, 0.1, 0.4),
)


async def write_month(path: Path, now: float, habits: Sequence[Habit] = HABITS, seed: int = 5) -> None:
    """Write the usage since the month began into a store's file that no gateway has open."""
    store, dice = SQLiteStore(path), random.Random(seed)
    await store.open()
    try:
        today = windows.day_of(now)
        for day in range(windows.first_day(Window.MONTH, today), today + 1):
            # Weekends are quiet; the epoch began on a Thursday.
            pace = 0.45 if (day + 3) % 7 >= 5 else 0.8 + 0.5 * dice.random()
            for habit in habits:
                for number in range(round(habit.runs * pace)):
                    at = min(day * _DAY + 30_000 + dice.random() * 40_000, now - 10)
                    await _run(store, habit, f"{day}-{habit.team}-{habit.target}-{number}", at, dice)
    finally:
        await store.close()


async def _run(store: SQLiteStore, habit: Habit, name: str, at: float, dice: random.Random) -> None:
    await store.start(_asked(habit, name, "lead", at), _of(habit, name, at))
    for _ in range(_some(habit.joined, dice)):
        await store.share(_asked(habit, name, f"join{dice.random()}", at))
    run = _of(habit, name, at)
    created = Run(
        **{field: getattr(run, field) for field in run.__struct_fields__}
        | {
            "state": RunState.LIVE,
            "upstream_id": _id("up", name),
            "live_at": at,
            "document": b'{"status":"starting"}',
            "leader_id": _id("up", name),
        }
    )
    await store.record_created(created, _prediction(habit, name, _id("up", name), at))
    microusd = round(habit.microusd * (0.7 + 0.6 * dice.random()))
    settlement = Settlement(
        at=at + 4, microusd=microusd, milliseconds=microusd // 9, target=habit.target, reason="succeeded"
    )
    await store.advance(
        run.id,
        status=Status.SUCCEEDED,
        document=b'{"status":"succeeded","output":"x"}',
        stream_url=None,
        at=at + 4,
        cache_until=at + 3600,
        settlement=settlement,
    )
    for _ in range(_some(habit.hits, dice)):
        await store.share(_asked(habit, name, f"hit{dice.random()}", at + 6))


def _id(*parts: str) -> str:
    """Return an id in Replicate's form, 26 of `[a-z2-7]`."""
    return base64.b32encode(hashlib.sha256("-".join(parts).encode()).digest()).decode().lower()[:26]


def _some(mean: float, dice: random.Random) -> int:
    return int(mean) + int(dice.random() < mean - int(mean))


def _of(habit: Habit, name: str, at: float) -> Run:
    return Run(
        id=f"run_{name}",
        kind=Kind.PREDICTION,
        team=habit.team,
        key_id=f"{habit.team}/default",
        target=habit.target,
        path="/predictions",
        request=b'{"input":{}}',
        intended_at=at,
        fingerprint=name,
    )


def _prediction(habit: Habit, name: str, prediction_id: str, at: float) -> Prediction:
    return Prediction(
        id=prediction_id,
        run_id=f"run_{name}",
        kind=Kind.PREDICTION,
        team=habit.team,
        key_id=f"{habit.team}/default",
        source=Source.MISS,
        created_at=at,
        ticket=f"ticket-{name}-{prediction_id}",
        ticket_expires_at=at + 3600,
        reason="seed",
    )


def _asked(habit: Habit, name: str, which: str, at: float) -> ShareRequest:
    return ShareRequest(
        prediction=_prediction(habit, name, _id(which, name), at),
        now=at,
        may_hit=FinishedRuns(name),
        may_join=OpenRuns(name),
    )
