"""Limits as text for refusals and as JSON for `GET /gateway/limits` (docs/architecture.md, Operations)."""

from collections.abc import Callable

from gateway.domain import money, quota, times
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, Refused, ReservationRequest

_WHOSE = {
    SubjectKind.TEAM: "your team",
    SubjectKind.KEY: "your key",
    SubjectKind.USER: "your user",
    SubjectKind.ADDRESS: "your address",
    SubjectKind.ACCOUNT: "the account",
    SubjectKind.GATEWAY: "the gateway",
}


def shown(status: LimitStatus) -> dict[str, object]:
    """Return a limit in the JSON form of the gateway's API.

    Dollar amounts are strings, each with an integer of micro-dollars beside it. Times are in seconds.
    """
    body: dict[str, object] = {"name": status.name, "of": status.of, **status.tag}
    amounts = {
        "limit": status.limit,
        "used": status.used,
        "held": status.held,
        "remaining": status.remaining,
    }
    for name, quantity in amounts.items():
        body[name] = amount(status.kind, quantity)
        if status.kind is LimitKind.DOLLARS:
            body[f"{name}_microusd"] = quantity
    if status.kind is LimitKind.RATE:
        # `used` and `remaining` are parts of the burst: what is allowed at once.
        body["burst"] = status.used + status.remaining
    body["resets_at"] = None if status.resets_at is None else times.render(status.resets_at)
    return body


def amount(kind: LimitKind, quantity: float) -> float | str:
    """Convert an amount of a limit to its JSON form: dollars (string), seconds, or a count."""
    match kind:
        case LimitKind.DOLLARS:
            return money.usd(int(quantity))
        case LimitKind.SECONDS:
            return quantity / money.MILLISECONDS_PER_SECOND
        case LimitKind.RATE | LimitKind.CONCURRENCY | LimitKind.WEBHOOKS:
            return int(quantity) if quantity == int(quantity) else quantity


def detail_of(refused: Refused, demand: ReservationRequest) -> str:
    """Return the refusal's text for the caller: which limit, whose, its value, its usage and its reset time.

    For an estimate above a whole budget: that no time helps.
    """
    status = refused.status
    whose = _whose(status)
    match status.kind:
        case LimitKind.RATE:
            return (
                f"Request was throttled. The limit of {whose} is {status.limit:g} predictions per minute. "
                f"Your rate limit resets in ~{quota.seconds_to_wait(refused.retry_after)}s."
            )
        case LimitKind.CONCURRENCY:
            return (
                f"Request was throttled. The limit of {whose} is {status.limit:g} concurrent predictions; "
                f"{status.used} are in progress."
            )
        case LimitKind.WEBHOOKS:
            return (
                f"Request was throttled. The webhook queue of {whose} has {status.limit:g} places ({status.name}), and "
                "all are taken by predictions in progress and by webhooks that their receivers have not accepted yet."
            )
        case LimitKind.SECONDS:
            return _over_budget(refused, demand.milliseconds, lambda amount: f"{amount / 1000:g} seconds")
        case LimitKind.DOLLARS:
            return _over_budget(refused, demand.microusd, dollars)


def _whose(status: LimitStatus) -> str:
    return f"your tag {'='.join(status.tag.values())}" if status.tag else _WHOSE[status.of]


def _over_budget(refused: Refused, estimate: int, write: Callable[[float], str]) -> str:
    status = refused.status
    if refused.retry_after == quota.NEVER:
        return (
            f"Over budget: this prediction is estimated at {write(estimate)}, which is more than the whole budget of "
            f"{_whose(status)}: {write(status.limit)} per {status.window}. It can never pass under this budget."
        )
    resets = "" if status.resets_at is None else f" The budget resets at {times.render(status.resets_at)}."
    return (
        f"Over budget: {_whose(status)} has {write(status.limit)} per {status.window}, of which "
        f"{write(status.used)} is spent and {write(status.held)} is reserved for predictions in progress. "
        f"This prediction is estimated at {write(estimate)}.{resets}"
    )


def dollars(microusd: float) -> str:
    """Return an exact amount with at least two decimal places."""
    dollars, _, fraction = money.usd(int(microusd)).partition(".")
    return f"${dollars}.{fraction.rstrip('0').ljust(2, '0')}"
