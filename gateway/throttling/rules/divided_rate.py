"""The record of a rate that several nodes share, and what each step of the store does to it.

The rate is one token bucket. Nodes hold shares of it (`node_share.py`), each with the tokens in it. What no node holds
is `free`: the record itself has a bucket of that share, from which a node can take single tokens in a step. All shares
and `free` are 1 together, and the tokens of all are at most the burst. It follows, whatever nodes do and in whatever
order their steps arrive:

- In any time t, all nodes together take at most `burst + rate * t`.
- A share is given up by its node before another node gets it. The share of a node that died is free when another node
  has ended it (`without`), and not before: nodes count their leases on clocks of their own, so one that has expired by
  the store's clock may still be used if that clock has jumped.
- A step that is repeated, or that arrives after a later one of the same node, changes nothing (`number`).

Times are by the store's clock. Pure.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from gateway.domain.rates import Rate
from gateway.throttling.rules.division import Demand, divide

_ROUNDING = 1e-6
_TURN_SECONDS = 2.0
"""A node that has not asked for so long does not wait any more."""
_RETRY_SECONDS = 0.25
_LEAST_SHARE = 0.01


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A node's share of a rate, and what it needs."""

    node: int
    number: int = 0
    """Of the node's last exchange."""
    share: float = 0.0
    demand: Demand = {}
    turn: float = 0.0
    """Finish tag of the last token that the node took in its turn: see `take_turn`."""
    waits_at: float = -math.inf
    """When it last asked for its turn."""


class DividedRate(msgspec.Struct, frozen=True, kw_only=True):
    """A rate, and the bucket of what no node holds."""

    name: str
    rate: Rate
    free: float = 1.0
    tokens: float
    at: float
    """When there were `tokens` in the bucket."""
    turn: float = 0.0
    """Virtual time of the turns: see `take_turn`."""
    paused_until: float = -math.inf
    """Until when nothing may be sent, because upstream said so."""
    throttles: int = 0
    """Number of times that upstream lowered or paused the rate."""
    throttled_by: int = 0
    """The node to which upstream said it last."""
    throttled_at: float = 0.0
    allowed: Rate | None = None
    """The rate that upstream allowed then."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What a node asks for: it keeps `kept` of its share, gives back `returned` tokens and wants `wanted`."""

    name: str
    rate: Rate
    number: int
    kept: float
    returned: float = 0.0
    wanted: float
    reserve: float = 0.0
    """The part of the rate that no node gets a share of."""
    demand: Demand = {}


class Granted(msgspec.Struct, frozen=True):
    """What the node has now, and the tokens that came with it."""

    share: float
    tokens: float = 0.0


class KnownRate(msgspec.Struct, frozen=True):
    """A rate as the store has it."""

    rate: DividedRate
    holdings: Sequence[Holding]
    """Of nodes that have not ended, and the own."""
    ended: float = 0.0
    """Shares of nodes that have ended. The next exchange frees them."""


class KnownRates(msgspec.Struct, frozen=True):
    """What a node reads before it decides about its shares."""

    lease_seconds: float
    """For how long the node's lease is valid, counted from when the read was sent; not above 0 if it is not."""
    nodes: int
    """How many nodes have not ended."""
    at: float
    """When it was read, by the store's clock."""
    rates: Mapping[str, KnownRate]


class Want(msgspec.Struct, frozen=True):
    """A token that a request needs from what no node holds of a rate. With `count=-1` one is put back."""

    name: str
    rate: Rate
    spare: float = 0.0
    """Tokens of the whole bucket that must be left."""
    count: int = 1


class Seen(msgspec.Struct, frozen=True):
    """What no node holds of a rate, after a step."""

    free: float
    tokens: float


class Taken(msgspec.Struct, frozen=True):
    """Whether a request got all its tokens."""

    seen: Sequence[Seen]
    """Of each rate, in the order of the request."""
    refused: int | None = None
    """The index of the rate that refused it; of several, that with the longest wait."""
    seconds: float = 0.0
    """After how long it can have a token; infinity if nodes hold too much of it."""


def new(name: str, rate: Rate, now: float) -> DividedRate:
    """Return the record of a rate that nobody has used: a full bucket."""
    return DividedRate(name=name, rate=rate, tokens=float(rate.burst), at=now)


def filled(known: DividedRate, rate: Rate, now: float) -> DividedRate:
    """Return the record as it is now, with the rate as the config, or upstream, has it now.

    If the store's clock has jumped back, tokens come from now on: they do not wait until it is as late as it was.
    """
    at = known.at if known.at <= max(now, known.paused_until) else now
    passed = max(0.0, now - at)
    tokens = known.tokens + passed / known.rate.interval * known.free
    most = min(known.rate.burst, rate.burst) * known.free
    return replace(known, rate=rate, tokens=min(tokens, most), at=max(now, at))


def without(known: DividedRate, holdings: Collection[Holding]) -> DividedRate:
    """Free the shares of nodes that have ended. The tokens in them are lost."""
    return replace(known, free=min(1.0, known.free + sum(each.share for each in holdings)))


def exchange(known: DividedRate, held: Holding, asked: Exchange) -> tuple[DividedRate, Holding, Granted]:
    """Carry out an exchange, on a record that is `filled`."""
    if asked.number <= held.number:
        return known, held, Granted(held.share)
    kept = min(asked.kept, held.share)
    free = min(1.0, known.free + held.share - kept)
    tokens = min(known.tokens + asked.returned, free * asked.rate.burst)
    gained = max(0.0, min(asked.wanted - kept, free - asked.reserve))
    moved = tokens * gained / free if gained > 0.0 else 0.0
    known = replace(known, free=free - gained, tokens=tokens - moved)
    holding = replace(held, number=asked.number, share=kept + gained, demand=asked.demand)
    return known, holding, Granted(holding.share, moved)


def wait(known: DividedRate, now: float, spare: float = 0.0) -> float:
    """Return the seconds until a token beyond `spare` can be taken from a record that is `filled`.

    Infinity if nodes hold too much of the rate. `spare` is a number of tokens of the whole bucket.
    """
    needed = 1.0 + spare * known.free
    if known.free * known.rate.burst < needed - _ROUNDING:
        return math.inf
    missing = needed - known.tokens
    seconds = missing * known.rate.interval / known.free if missing > _ROUNDING else 0.0
    return max(seconds, known.paused_until - now)


def take(known: DividedRate, count: float = 1.0) -> DividedRate:
    """Take tokens from a record that is `filled`; with a negative `count`, put them back."""
    return replace(known, tokens=min(known.tokens - count, known.free * known.rate.burst))


def take_turn(
    known: DividedRate, holdings: Sequence[Holding], node: int, weights: Mapping[str, float], now: float
) -> tuple[DividedRate, Holding, float]:
    """Take a token for a node if it is its turn; return the seconds until it may ask again, 0 if it has the token.

    Start-time fair queueing over the nodes that wait, as in `fair_queue.py`: a node weighs what its flows would get if
    the rate could be divided. A node that has stopped asking loses its turn after two seconds.
    """
    own = replace(next(each for each in holdings if each.node == node), waits_at=now)
    seconds = wait(known, now)
    if seconds > 0.0:
        return known, own, seconds
    waiting = [own, *(each for each in holdings if each.node != node and each.waits_at > now - _TURN_SECONDS)]
    demands = {each.node: each.demand for each in waiting}
    parts = divide(demands, weights, 1 / known.rate.interval, floor=_LEAST_SHARE)
    # A tag far ahead is from before the queue was empty.
    ahead = known.turn + 1 / _LEAST_SHARE
    starts = {each.node: max(known.turn, min(each.turn, ahead)) for each in waiting}
    if min(waiting, key=lambda each: (starts[each.node], each.node)).node != node:
        return known, own, _RETRY_SECONDS
    own = replace(own, turn=starts[node] + 1 / parts[node].share)
    return replace(take(known), turn=starts[node]), own, 0.0


def throttled(known: DividedRate, rate: Rate, seconds: float, node: int, now: float) -> DividedRate:
    """Record what upstream said to a node: the rate that it allows, and for how long it allows nothing."""
    known = filled(known, rate, now)
    until = max(known.paused_until, now + seconds)
    return replace(
        known,
        paused_until=until,
        throttles=known.throttles + 1,
        throttled_by=node,
        throttled_at=now,
        allowed=rate,
        # Nothing is added meanwhile. Afterwards one request goes first.
        tokens=min(known.tokens, known.free),
        at=max(known.at, until),
    )
