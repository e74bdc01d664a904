"""Rates that the nodes share (the `DividedRates` role): each step loads them, applies the rule and saves the result.

`gateway.throttling.rules.divided_rate` has what a step does, and why the nodes together never exceed a rate.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from gateway.domain.rates import Rate
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.throttling.ports import KnownRates
from gateway.throttling.rules import divided_rate
from gateway.throttling.rules.divided_rate import (
    DividedRate,
    Exchange,
    Granted,
    Holding,
    KnownRate,
    Seen,
    Taken,
    Want,
)

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
        """Give back and take shares. Frees those of nodes whose leases have ended."""

        def step(held: _Held) -> list[Granted]:
            return [held.exchange(each) for each in asked]

        nothing = [Granted(0.0)] * len(asked)
        return await self._changed(node, {each.name: each.rate for each in asked}, step, nothing)

    async def take_permits(self, node: int, asked: Sequence[Sequence[Want]]) -> list[Taken]:
        """Take single tokens of what no node holds: for each request all of them, or none."""

        def step(held: _Held) -> list[Taken]:
            refusals = [held.take_all(wanted) for wanted in asked]
            return [
                Taken([held.seen(want.name) for want in wanted], *refusal)
                for wanted, refusal in zip(asked, refusals, strict=True)
            ]

        nothing = [Taken([Seen(0.0, 0.0)] * len(wanted), 0, _RETRY_SECONDS) for wanted in asked]
        rates = {want.name: want.rate for wanted in asked for want in wanted}
        return await self._changed(node, rates, step, nothing)

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

    async def _changed(self, node: int, rates: Mapping[str, Rate], step: Callable[["_Held"], T], nothing: T) -> T:
        """Run a step on locked rates. Return `nothing` if the node's lease is not valid."""

        def changed(db: Database) -> T:
            held = _lock(db, node, rates)
            if not held.known.lease_seconds > 0.0:
                return nothing
            result = step(held)
            held.save(db)
            return result

        return await self._write(changed)


def _lock(db: Database, node: int, rates: Mapping[str, Rate]) -> "_Held":
    names = sorted(rates)
    parameters = {
        "names": names,
        "per_minutes": [rates[name].per_minute for name in names],
        "bursts": [rates[name].burst for name in names],
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


class _Held:
    """Rates as one step has them, locked if it changes them."""

    def __init__(self, node: int, known: KnownRates, ended: Iterable[tuple[str, Holding]]) -> None:
        self.node = node
        self.known = known
        self._rates = {name: each.rate for name, each in known.rates.items()}
        self._own = {
            name: next((each for each in rate.holdings if each.node == node), Holding(node=node))
            for name, rate in known.rates.items()
        }
        self._ended = list(ended)
        self._changed: set[str] = set()
        self._shares: set[str] = set()

    def fill(self, rates: Mapping[str, Rate]) -> None:
        """Bring buckets up to now, and free the shares of nodes that have ended."""
        self._rates = {
            name: divided_rate.filled(each, rates[name], self.known.at) for name, each in self._rates.items()
        }
        for name, holding in self._ended:
            self._rates[name] = divided_rate.without(self._rates[name], [holding])
            self._changed.add(name)

    def exchange(self, asked: Exchange) -> Granted:
        """Carry out an exchange."""
        name = asked.name
        self._rates[name], self._own[name], granted = divided_rate.exchange(self._rates[name], self._own[name], asked)
        self._changed.add(name)
        self._shares.add(name)
        return granted

    def take_all(self, wanted: Sequence[Want]) -> tuple[int | None, float]:
        """Take a token of each or none; return which rate refuses, and for how long."""
        waits = [
            divided_rate.wait(self._rates[want.name], self.known.at, want.spare) if want.count > 0 else 0.0
            for want in wanted
        ]
        seconds = max(waits, default=0.0)
        if seconds > 0.0:
            return waits.index(seconds), seconds
        for want in wanted:
            self._rates[want.name] = divided_rate.take(self._rates[want.name], want.count)
            self._changed.add(want.name)
        return None, 0.0

    def take_turns(self, name: str, weights: Mapping[str, float], count: int) -> int:
        """Take tokens while it is the node's turn; return how many."""
        others = [each for each in self.known.rates[name].holdings if each.node != self.node]
        self._changed.add(name)
        self._shares.add(name)
        for taken in range(count):
            self._rates[name], self._own[name], seconds = divided_rate.take_turn(
                self._rates[name], [self._own[name], *others], self.node, weights, self.known.at
            )
            if seconds > 0.0:
                return taken
        return count

    def throttle(self, name: str, rate: Rate, seconds: float) -> None:
        """Record what upstream said."""
        self._rates[name] = divided_rate.throttled(self._rates[name], rate, seconds, self.node, self.known.at)
        self._changed.add(name)

    def seen(self, name: str) -> Seen:
        """Return what no node holds of a rate."""
        return Seen(self._rates[name].free, self._rates[name].tokens)

    def save(self, db: Database) -> None:
        """Save what has changed."""
        if self._ended:
            db.executemany("delete_share", [{"name": name, "node": each.node} for name, each in self._ended])
        if self._changed:
            db.executemany("save_rate", [_row(self._rates[name]) for name in sorted(self._changed)])
        if self._shares:
            db.executemany("save_share", [_share_row(name, self._own[name]) for name in sorted(self._shares)])


def _read(db: Database, node: int, names: Sequence[str]) -> _Held:
    rows = db.execute("known_rates", {"names": list(names), "node": node}).fetchall()
    rates: dict[str, KnownRate] = {}
    ended: list[tuple[str, Holding]] = []
    for _, _, _, name, *columns in rows:
        if name is None:
            continue
        rate = rates.get(name) or KnownRate(_rate(name, columns[:12]), ())
        if columns[12] is not None:
            holding = _holding(columns[12:18])
            # Its own share is kept also if its lease has ended: nothing is given to it or taken from it then.
            if columns[18] or holding.node == node:
                rate = replace(rate, holdings=(*rate.holdings, holding))
            else:
                ended.append((name, holding))
                rate = replace(rate, ended=rate.ended + holding.share)
        rates[name] = rate
    now, nodes, lease_seconds = rows[0][:3]
    return _Held(node, KnownRates(lease_seconds or 0.0, nodes, now, rates), ended)


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
