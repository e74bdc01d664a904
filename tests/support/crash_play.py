"""A round of the crash matrix played: its load, and what must be true afterwards."""

import asyncio
import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.simulator import Simulator
from gateway.simulator.faults import Fault
from gateway.simulator.prediction import Prediction
from tests.support.crash_rounds import OFFICIAL, SEEDED, SEEDLESS, TEAMS, TERMINAL, USD_PER_SECOND, Asked, Matrix


@dataclass
class Found:
    """What a round came to."""

    killed: bool
    ids: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unowned: list[str] = field(default_factory=list)
    unsettled: int = 0
    loose_keys: int = 0
    money: list[str] = field(default_factory=list)
    """What of the ledger, the reservations and the counters does not agree with upstream's record."""
    reruns: int = 0
    """Requests that upstream ran again after an earlier run had ended: it was cancelled, or its entry lost."""
    upstream_runs: int = 0

    def assert_sound(self) -> None:
        """Fail if anything was lost."""
        assert not self.lost, f"lost: {self.lost}"
        assert not self.doubled, f"doubled: {self.doubled}"
        assert not self.unowned, f"nobody's: {self.unowned}"
        assert not self.unsettled, "intents are left"
        assert not self.loose_keys, "idempotency keys point to nothing"
        assert not self.money, f"money: {self.money}"


def orders_of(upstream: Simulator, mark: str, chaos: random.Random) -> list[Asked]:
    """Make a mixed load: deterministic and not, in all three forms, joined, hit, cancelled, awaited, refused, keyed."""
    registry = upstream.world.registry
    seeded, seedless = (registry.models[ref].latest for ref in (SEEDED, SEEDLESS))
    assert seeded is not None
    assert seedless is not None
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "bare": ("/v1/predictions", {"version": seeded.id}),
        "named": ("/v1/predictions", {"version": f"{SEEDED}:{seeded.id}"}),
        "official": (f"/v1/models/{OFFICIAL}/predictions", {}),
        "seedless": ("/v1/predictions", {"version": seedless.id}),
    }
    orders: list[Asked] = []

    def ask(form: str, name: str, *, seed: int | None = None, duration: Any = 0.25, **more: Any) -> Asked:
        path, body = forms[form]
        team = more.pop("team", chaos.choice(TEAMS))
        prompt = f"{mark} {form} {name} of {team}"
        given = {"prompt": prompt, "duration": duration} | ({"seed": seed} if seed is not None else {})
        shared = seed is not None and form != "seedless"
        made = Asked(team, path, {**body, "input": given}, prompt, shared=shared, **more)
        orders.append(made)
        return made

    for form in ("bare", "named", "official"):
        # A burst that joins, and latecomers that hit.
        for number in range(5):
            wait = {"Prefer": "wait=5"} if number % 2 else {}
            key = {"Idempotency-Key": f"{mark} {form} {number}"} if number < 2 else {}
            after = (0.0, 0.01, 0.03, 0.2, 0.7)[number] + chaos.random() * 0.02
            earlier = orders[-number] if number == 4 else None
            ask(form, "burst", team="alpha", seed=7, headers=wait | key, after=after, follows=earlier)
        # Many that hit at once, so that several are recorded together; one of them with a key.
        first = orders[-5]
        for number in range(8):
            key = {"Idempotency-Key": f"{mark} {form} hit"} if number == 3 else {}
            ask(form, "burst", team="alpha", seed=7, headers=key, after=0.5, follows=first)
        # One of two leaves; then both of two.
        ask(form, "one leaves", team="beta", seed=1, duration=0.5, cancel_after=0.05)
        ask(form, "one leaves", team="beta", seed=1, duration=0.5, after=0.02)
        for number in range(2):
            ask(form, "all leave", team="beta", seed=2, duration=0.9, cancel_after=0.1 * number, after=0.02 * number)
        # Runs of their own.
        for number in range(2):
            key = {"Idempotency-Key": f"{mark} {form} own {number}"} if number else {}
            ask(form, f"own {number}", headers=key, after=chaos.random() * 0.4)
        ask(form, "unwanted", duration="long", headers={"Idempotency-Key": f"{mark} {form} no"}, after=0.1)
    for number in range(3):
        ask("seedless", "together", team="alpha", seed=3, after=0.01 * number)
    for number in range(2):
        late = {"Cancel-After": "1"} if number else {}
        ask("named", "deadline", team="alpha", seed=4, duration=1.15, headers=late, after=0.02 * number)
    return orders


async def play(
    matrix: Matrix,
    mark: str,
    point: tuple[str, ...] = (),
    *,
    seed: int,
    kill_after: float | None = None,
    twice: bool = False,
) -> Found:
    """Play one round: load, crash, restart (and crash once more if `twice`), retries, quiet, questions."""
    chaos = random.Random(seed)
    upstream = matrix.upstream
    upstream.faults.set(
        Fault("delay_headers", operation="*predictions.create", seconds=0.03),
        Fault("drop_after", operation="*predictions.create", after=3, times=1),
        Fault("html_error_after", operation="*predictions.create", after=6, times=1),
    )
    orders = orders_of(upstream, mark, chaos)
    matrix.asked += orders
    before = len(upstream.predictions)
    child = await matrix.start(*point)
    try:
        await matrix.load(child, orders, chaos, kill_after)
    finally:
        await child.kill()
    killed = kill_after is not None or b"killed" in child.log.read_bytes()
    if twice:
        child = await matrix.start()
        await asyncio.sleep(chaos.random() * 0.1)
        await child.kill()
    child = await matrix.start()
    try:
        await matrix.retry(orders)
        await matrix.quiet()
        return await ask_afterwards(matrix, upstream.predictions[before:], orders, killed=killed)
    except Exception as exc:
        exc.add_note(child.log.read_text()[-6000:])
        raise
    finally:
        await child.kill()


async def ask_afterwards(matrix: Matrix, ran: list[Prediction], orders: list[Asked], *, killed: bool) -> Found:
    """Look at what callers, upstream and the database say once it is quiet."""
    found = Found(killed, upstream_runs=len(ran))
    given = {prediction_id: asked for asked in matrix.asked for prediction_id in asked.ids}
    found.ids = len(given)
    async with matrix.session() as session:
        for prediction_id, asked in given.items():
            path = f"/v1/predictions/{prediction_id}"
            async with session.get(path, headers=matrix._headers(asked.team)) as answer:
                body = await answer.json()
                if answer.status != 200 or body["status"] not in TERMINAL:
                    found.lost.append(f"{prediction_id} of {asked.prompt or 'a list'}: {answer.status} {body}")
                elif asked.canceled and prediction_id == asked.ids[0] and body["status"] != "canceled":
                    found.lost.append(f"the cancel of {prediction_id}: {body['status']}")
            other = next(team for team in TEAMS if team != asked.team)
            async with session.get(path, headers=matrix._headers(other)) as answer:
                if answer.status != 404:
                    found.lost.append(f"{prediction_id} is shown to {other}")
    owned = {row[0] for row in matrix.rows("SELECT upstream_id FROM runs")}
    found.unowned = [each.id for each in ran if each.id not in owned]
    found.unsettled = len(matrix.open_runs())
    ((found.loose_keys,),) = matrix.rows(
        "SELECT count(*) FROM idempotency AS i LEFT JOIN predictions AS p ON p.id = i.prediction_id WHERE p.id IS NULL"
    )
    _count_doubles(found, ran, orders)
    found.money = _check_money(matrix)
    return found


def _check_money(matrix: Matrix) -> list[str]:
    """Every run of upstream's is in the ledger once, at its price; nothing is held; every sum is that of its lines."""
    wrong = []
    lines: dict[str, list[int]] = defaultdict(list)
    query = "SELECT upstream_id, microusd FROM ledger LEFT JOIN runs ON runs.id = run_id WHERE ledger.kind = 'spend'"
    for upstream_id, microusd in matrix.rows(query):
        lines[upstream_id].append(microusd)
    truth = {each.id: [_price(each)] for each in matrix.upstream.predictions}
    for upstream_id in {**truth, **lines}:
        if truth.get(upstream_id) != lines.get(upstream_id):
            wrong.append(f"{upstream_id} cost {truth.get(upstream_id)}, the ledger has {lines.get(upstream_id)}")
    for name, query in _MUST_BE_EMPTY.items():
        wrong += [f"{name}: {row}" for row in matrix.rows(query)]
    return wrong


def _price(prediction: Prediction) -> int:
    """Work out what a run costs, from what upstream tells of it."""
    seconds = 0 if prediction.status == "aborted" else prediction.metrics.get("predict_time", 0)
    return int((Decimal(str(seconds)) * Decimal(USD_PER_SECOND) * 10**6).to_integral_value())


_SUM = """
    sum(CASE WHEN kind = 'spend' THEN microusd ELSE 0 END), sum(CASE WHEN kind = 'spend' THEN 0 ELSE microusd END),
    sum(CASE kind WHEN 'spend' THEN 1 ELSE 0 END), sum(CASE kind WHEN 'saved_hit' THEN 1 ELSE 0 END)"""


_SUMS = "microusd, saved_microusd, runs, hits"


_MUST_BE_EMPTY = {
    "still held": "SELECT * FROM reservations",
    "still counted": "SELECT * FROM meters WHERE open <> 0 OR held_milliseconds <> 0 OR held_microusd <> 0",
    "a sum of a day": f"""
        SELECT team, day, key_id, target, {_SUM} FROM ledger GROUP BY 1, 2, 3, 4
        EXCEPT SELECT team, day, key_id, target, {_SUMS} FROM usage_days""",
    "a sum that has no lines": f"""
        SELECT team, day, key_id, target, {_SUMS} FROM usage_days
        EXCEPT SELECT team, day, key_id, target, {_SUM} FROM ledger GROUP BY 1, 2, 3, 4""",
    "a user's sum": f"""
        SELECT team, day, coalesce("user", ''), {_SUM} FROM ledger GROUP BY 1, 2, 3
        EXCEPT SELECT team, day, "user", {_SUMS} FROM usage_users""",
    "a team's sum": """
        SELECT scope, day, microusd FROM spent WHERE scope LIKE 'team/%'
        EXCEPT SELECT 'team/' || team, day, sum(microusd) FROM ledger WHERE kind = 'spend' GROUP BY 1, 2""",
    "a hit that saved nothing": """
        SELECT p.id, p.source FROM predictions AS p LEFT JOIN ledger AS l
            ON l.prediction_id = p.id AND l.kind = 'saved_' || p.source
        WHERE p.source IN ('hit', 'joined') AND l.id IS NULL""",
    "saved what its run did not cost": """
        SELECT s.prediction_id, s.microusd, l.microusd FROM ledger AS s JOIN ledger AS l
            ON l.run_id = s.run_id AND l.kind = 'spend'
        WHERE s.kind LIKE 'saved_%' AND abs(s.microusd) <> l.microusd""",
}


def _count_doubles(found: Found, ran: list[Prediction], orders: list[Asked]) -> None:
    """A request is run once, at any one time if it is shared, at all if it is somebody's own."""
    runs: dict[str, list[Prediction]] = defaultdict(list)
    for each in ran:
        runs[each.input["prompt"]].append(each)
    for asked in {each.prompt: each for each in orders}.values():
        of_it = sorted(runs[asked.prompt], key=lambda each: each.created_us)
        if "seedless" in asked.prompt:
            continue
        if not asked.shared and len(of_it) > 1:
            found.doubled.append(f"{asked.prompt}: {len(of_it)} runs")
        for one, other in itertools.pairwise(of_it):
            if (one.completed_us or 0) > other.created_us:
                found.doubled.append(f"{asked.prompt}: two at a time")
            elif one.status == "succeeded":
                found.reruns += 1
