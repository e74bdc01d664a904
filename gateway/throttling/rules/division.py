"""Divide a rate among nodes by what each of them needs (docs/architecture.md, Limits over nodes).

The demand of a node is given by flow (for the account's rates a team, for a request rate there is one), in calls per
second. The rate is shared among flows by weighted max-min fairness (D. Bertsekas, R. Gallager, "Data Networks", 1987,
6.5.2), over all nodes: a flow gets what it needs, or a share of what is left in proportion to its weight. What a flow
gets is divided among its nodes by their demand. So a team with calls on three nodes gets no more than one with as many
on one. It follows:

- All shares together are `total`, so the nodes use the whole rate.
- What nobody needs is added for what comes next: half of it in proportion to demand, half to all nodes equally.
- No node starves: each has `floor` at least.

Every node computes this from the same demands. Pure.
"""

from collections.abc import Mapping

import msgspec

Demand = Mapping[str, float]
"""Calls per second by flow, made or waiting."""

LEAST_MEASURED_SECONDS = 0.25
"""In less time, a single request would look like many a second."""
_SMOOTHED_SECONDS = 1.0
_NEGLIGIBLE = 1e-9


class Part(msgspec.Struct, frozen=True):
    """What a node gets."""

    share: float
    """Part of the rate, from 0 to 1."""
    flows: Mapping[str, float]
    """Calls per second that each flow gets at this node. A queue at the node takes them as weights."""


def smoothed(before: float, count: int, passed: float) -> float:
    """Return the calls per second after `count` in `passed` seconds: rising at once, falling within a second or two."""
    fresh = count / passed
    return max(fresh, before + (fresh - before) * min(1.0, passed / _SMOOTHED_SECONDS))


def divide(
    demands: Mapping[int, Demand],
    weights: Mapping[str, float],
    per_second: float,
    *,
    floor: float = 0.0,
    total: float = 1.0,
) -> dict[int, Part]:
    """Divide `total` of a rate of `per_second` among the nodes in `demands`. A flow without a weight has 1."""
    if not demands:
        return {}
    floor = min(floor, total / len(demands))
    needed = _sums(demands)
    granted = fair(needed, weights, per_second * total)
    flows = {
        node: {name: granted[name] * amount / needed[name] for name, amount in demand.items() if amount > _NEGLIGIBLE}
        for node, demand in demands.items()
    }
    wanted = {node: sum(demand.values()) for node, demand in demands.items()}
    used = {node: sum(each.values()) for node, each in flows.items()}
    spare = max(0.0, per_second * total - sum(used.values()))
    whole = sum(wanted.values())
    by_demand = {node: wanted[node] / whole if whole > _NEGLIGIBLE else 1 / len(demands) for node in demands}
    parts = {node: (used[node] + spare * (by_demand[node] + 1 / len(demands)) / 2) / per_second for node in demands}
    shares = _raised(parts, floor, total)
    return {node: Part(shares[node], flows[node]) for node in demands}


def fair(demand: Demand, weights: Mapping[str, float], capacity: float) -> dict[str, float]:
    """Return what each flow gets of `capacity`: what it needs, or its fair share of the rest."""
    by_need = sorted(demand, key=lambda name: (demand[name] / weights.get(name, 1.0), name))
    weight = sum(weights.get(name, 1.0) for name in demand)
    granted: dict[str, float] = {}
    for name in by_need:
        own = weights.get(name, 1.0)
        granted[name] = min(demand[name], max(0.0, capacity) * own / weight if weight > _NEGLIGIBLE else 0.0)
        capacity -= granted[name]
        weight -= own
    return granted


def _sums(demands: Mapping[int, Demand]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for demand in demands.values():
        for name, amount in demand.items():
            if amount > _NEGLIGIBLE:
                sums[name] = sums.get(name, 0.0) + amount
    return sums


def _raised(parts: Mapping[int, float], floor: float, total: float) -> dict[int, float]:
    """Raise each part to `floor`, at the cost of those above it. Together they are `total`."""
    low: set[int] = set()
    while True:
        rest = sum(part for node, part in parts.items() if node not in low)
        scale = (total - floor * len(low)) / rest if rest > _NEGLIGIBLE else 0.0
        below = {node for node, part in parts.items() if node not in low and part * scale < floor}
        if not below:
            return {node: floor if node in low else part * scale for node, part in parts.items()}
        low |= below
        if len(low) == len(parts):
            return dict.fromkeys(parts, total / len(parts))
