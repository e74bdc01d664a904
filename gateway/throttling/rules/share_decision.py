"""Which share of a rate a node should have, and whether that is worth a step (docs/architecture.md, Limits over nodes).

A rate whose burst is less than four times the nodes is not divided: a share of it would hold no token for seconds. One
node alone has every rate that it uses. Pure.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.domain.rates import Rate
from gateway.throttling.rules.divided_rate import KnownRate
from gateway.throttling.rules.division import Demand, divide

TOKENS_PER_NODE: Final = 4
RESERVE: Final = 1 / 8
"""Part of a request rate that no node gets while there are several, so that any of them can take tokens at once."""

_TOLERATED: Final = 0.01
_TOLERATED_PART: Final = 0.05
"""A share that differs less from what it should be stays as it is: each change is a step."""
_ENOUGH: Final = 0.9
"""A node that has less than this part of a token gets it at once."""
_RECORDED_PART: Final = 0.1


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has of a rate, and what it needs."""

    rate: Rate
    share: float
    demand: Demand
    weights: Mapping[str, float] = {}
    reserve: float = 0.0
    is_standing: bool = False
    """Whether every node has a share at all times, also one without a demand."""
    is_idle: bool = False
    """Whether the node does not use the rate any more."""


class Decision(msgspec.Struct, frozen=True):
    """What the node does."""

    kept: float
    """It gives back what it has above this."""
    wanted: float
    """It asks for this."""
    flows: Mapping[str, float]
    """What its flows get: see `division.py`."""
    is_step: bool
    """Whether there is something to give back, to ask for or to record."""
    is_short: bool
    """Whether other nodes have to give back something first."""


def is_divisible(rate: Rate, nodes: int) -> bool:
    """Say whether nodes get shares of a rate."""
    return nodes == 1 or rate.burst >= TOKENS_PER_NODE * nodes


def is_alone(need: Need, known: KnownRate, node: int) -> bool:
    """Say whether the node has all it can get of a rate that no other node uses, so that there is nothing to decide."""
    has_all = abs(need.share - (1.0 - need.reserve)) <= _TOLERATED
    return has_all and not need.is_idle and all(each.node == node for each in known.holdings)


def decide(need: Need, known: KnownRate | None, node: int, nodes: int) -> Decision:
    """Compare a node's share with what it should be. `nodes` is the number of nodes."""
    holdings = known.holdings if known is not None else ()
    using = [each for each in holdings if need.is_standing or each.share > 0.0 or each.demand]
    recorded = next((each.demand for each in holdings if each.node == node), None)
    demands = {each.node: each.demand for each in using} | {node: need.demand}
    per_second, floor = 1 / need.rate.interval, 1 / need.rate.burst
    part = divide(demands, need.weights, per_second, floor=floor, total=1.0 - need.reserve)[node]
    target = part.share if is_divisible(need.rate, nodes) and not need.is_idle else 0.0
    free = (known.rate.free + known.ended if known is not None else 1.0) - need.reserve
    shares = {each.node: each.share for each in using} | {node: need.share}
    is_starving = min(shares.values()) < _ENOUGH * floor
    tolerated = _TOLERATED_PART * floor if is_starving else max(_TOLERATED, _TOLERATED_PART * target)
    missing = target - need.share
    kept = wanted = need.share
    if missing < -tolerated or target == 0.0:
        kept = wanted = target
    elif missing > tolerated and free > tolerated / 2:
        wanted = target
    is_step = kept < need.share or wanted > kept or recorded is None or _differs(recorded, need.demand, per_second)
    return Decision(kept, wanted, part.flows, is_step, missing > tolerated and free < missing - tolerated)


def _differs(recorded: Demand, demand: Demand, per_second: float) -> bool:
    """Say whether the other nodes should know that a demand has changed."""
    for name in {*recorded, *demand}:
        before, now = recorded.get(name, 0.0), demand.get(name, 0.0)
        if abs(before - now) > _RECORDED_PART * max(before, now) + _TOLERATED * per_second:
            return True
    return bool(recorded) != bool(demand)
