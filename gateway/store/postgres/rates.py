"""Rates that the nodes share (the `DividedRates` role): each step loads them, applies the rule and saves the result.

`gateway.throttling.rules.divided_rate` has what a step does, and why the nodes together never exceed a rate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from gateway.domain.rates import Rate
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.throttling.rules.divided_rate import (
    DividedRate,
    Exchange,
    Granted,
    Holding,
    KnownRate,
    KnownRates,
    Seen,
    Taken,
    Want,
)
from gateway.throttling.rules.rate_step import RateStep

T = TypeVar("T")

_RETRY_SECONDS = 1.0
_ATTEMPTS = 5
_DEMAND = msgspec.json.Decoder(dict[str, float])


class RateSteps(Connections):
    """Rates and shares."""

    async def read_rates(self, node: int, names: Sequence[str]) -> KnownRates:
        """Read rates, and the lease of the node."""
        return await self._read(lambda db: _read(db, node, names).known)

    async def exchange_shares(self, node: int, asked: Sequence[Exchange]) -> list[Granted]:
        """Give back and take shares. Frees those of nodes that have ended."""
        nothing = [Granted(0.0)] * len(asked)
        rates = {each.name: each.rate for each in asked}
        return await self._changed(node, rates, lambda held: [held.exchange(each) for each in asked], nothing)

    async def take_permits(self, node: int, asked: Sequence[Sequence[Want]]) -> list[Taken]:
        """Take single tokens of what no node holds: for each request all of them, or none."""
        nothing = [Taken([Seen(0.0, 0.0)] * len(wanted), 0, _RETRY_SECONDS) for wanted in asked]
        rates = {want.name: want.rate for wanted in asked for want in wanted}
        return await self._changed(node, rates, lambda held: held.take_permits(asked), nothing)

    async def take_turns(self, node: int, name: str, rate: Rate, weights: Mapping[str, float], count: int) -> int:
        """Take up to `count` tokens of what no node holds, while it is the node's turn; return how many."""
        return await self._changed(node, {name: rate}, lambda held: held.take_turns(name, weights, count), 0)

    async def record_throttle(self, node: int, name: str, rate: Rate, seconds: float) -> None:
        """Record what upstream said: the rate that it allows, and for how long it allows nothing."""
        await self._changed(node, {name: rate}, lambda held: held.throttle(name, rate, seconds), None)

    async def forget_rates(self, idle_seconds: float, limit: int) -> int:
        """Delete up to `limit` rates that nobody holds or has used for so long and whose buckets are full."""

        def step(db: Database) -> int:
            parameters = {"idle_seconds": idle_seconds, "limit": limit}
            return int(db.execute("forget_rates", parameters).fetchone()[0])

        return await self._write(step)

    async def _changed(self, node: int, rates: Mapping[str, Rate], step: Callable[[RateStep], T], nothing: T) -> T:
        """Run a step on locked rates. Return `nothing` if the node's lease is not valid."""

        def changed(db: Database) -> T:
            held = _lock(db, node, rates)
            if not held.known.lease_seconds > 0.0:
                return nothing
            result = step(held)
            _save(db, held)
            return result

        return await self._write(changed)


def _lock(db: Database, node: int, rates: Mapping[str, Rate]) -> RateStep:
    names = sorted(rates)
    parameters = {
        "names": names,
        # A list has one type. Limits of the config can be whole numbers, what upstream allows cannot.
        "per_minutes": [float(rates[name].per_minute) for name in names],
        "bursts": [int(rates[name].burst) for name in names],
    }
    for _ in range(_ATTEMPTS):
        db.execute("add_rates", parameters)
        db.lock(Lock.RATES, *names)
        held = _read(db, node, names)
        # One can be forgotten between the two.
        if len(held.known.rates) == len(names):
            break
    held.fill(rates)
    return held


def _save(db: Database, step: RateStep) -> None:
    if step.ended:
        db.executemany("delete_share", [{"name": name, "node": each.node} for name, each in step.ended])
    if changed := step.changed:
        db.executemany("save_rate", [_row(each) for each in changed])
    if holdings := step.holdings:
        db.executemany("save_share", [_share_row(name, each) for name, each in holdings])


def _read(db: Database, node: int, names: Sequence[str]) -> RateStep:
    rows = db.execute("known_rates", {"names": list(names), "node": node}).fetchall()
    rates: dict[str, KnownRate] = {}
    ended: list[tuple[str, Holding]] = []
    for _, _, _, name, *columns in rows:
        if name is None:
            continue
        rate = rates.get(name) or KnownRate(_rate(name, columns[:12]), ())
        if columns[12] is not None:
            holding = _holding(columns[12:18])
            # Its own share is kept also if it was ended: nothing is given to it or taken from it then.
            if columns[18] or holding.node == node:
                rate = replace(rate, holdings=(*rate.holdings, holding))
            else:
                ended.append((name, holding))
                rate = replace(rate, ended=rate.ended + holding.share)
        rates[name] = rate
    now, nodes, lease_seconds = rows[0][:3]
    return RateStep(node, KnownRates(lease_seconds or 0.0, nodes, now, rates), ended)


def _rate(name: str, columns: Sequence[float]) -> DividedRate:
    per_minute, burst, free, tokens, at, turn, paused_until, throttles, by, throttled_at, allowed, allowed_burst = (
        columns
    )
    return DividedRate(
        name=name,
        rate=Rate(per_minute, int(burst)),
        free=free,
        tokens=tokens,
        at=at,
        turn=turn,
        paused_until=paused_until,
        throttles=int(throttles),
        throttled_by=int(by),
        throttled_at=throttled_at,
        allowed=None if allowed is None else Rate(allowed, int(allowed_burst)),
    )


def _holding(columns: Sequence[object]) -> Holding:
    node, number, share, demand, turn, waits_at = columns
    return Holding(
        node=int(node),  # type: ignore[call-overload]
        number=int(number),  # type: ignore[call-overload]
        share=share,  # type: ignore[arg-type]
        demand=_DEMAND.decode(str(demand)),
        turn=turn,  # type: ignore[arg-type]
        waits_at=waits_at,  # type: ignore[arg-type]
    )


def _row(known: DividedRate) -> dict[str, object]:
    allowed = known.allowed
    return {
        "name": known.name,
        "per_minute": known.rate.per_minute,
        "burst": known.rate.burst,
        "free": known.free,
        "tokens": known.tokens,
        "at": known.at,
        "turn": known.turn,
        "paused_until": known.paused_until,
        "throttles": known.throttles,
        "throttled_by": known.throttled_by,
        "throttled_at": known.throttled_at,
        "allowed_per_minute": allowed and allowed.per_minute,
        "allowed_burst": allowed and allowed.burst,
    }


def _share_row(name: str, held: Holding) -> dict[str, object]:
    return {
        "name": name,
        "node": held.node,
        "number": held.number,
        "share": held.share,
        "demand": msgspec.json.encode(held.demand).decode(),
        "turn": held.turn,
        "waits_at": held.waits_at,
    }
