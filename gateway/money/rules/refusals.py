"""Limits in words and in JSON: what a refusal says, and what `GET /gateway/limits` shows.

See docs/architecture.md, Operations.
"""

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
}


def shown(standing: LimitStatus) -> dict[str, object]:
    """Return a limit as answers show it.

    Dollars are strings, with the same in micro-dollars beside them; time is in seconds; counts are counts.
    """
    body: dict[str, object] = {"name": standing.name, "of": standing.of}
    amounts = {
        "limit": standing.limit,
        "used": standing.used,
        "held": standing.held,
        "remaining": standing.remaining,
    }
    for name, quantity in amounts.items():
        body[name] = amount(standing.sort, quantity)
        if standing.sort is LimitKind.DOLLARS:
            body[f"{name}_microusd"] = quantity
    if standing.sort is LimitKind.RATE:
        # `used` and `remaining` are of the burst: what may come at once.
        body["burst"] = standing.used + standing.remaining
    body["resets_at"] = None if standing.resets_at is None else times.render(standing.resets_at)
    return body


def rate_shown(
    name: str, of: SubjectKind, *, limit: float, used: int, remaining: int, resets_at: float
) -> dict[str, object]:
    """Return a rate that is not the store's as answers show it."""
    scope = f"{of}"
    return shown(
        LimitStatus(
            name=name,
            of=of,
            scope=scope,
            sort=LimitKind.RATE,
            limit=limit,
            used=used,
            held=0,
            remaining=remaining,
            resets_at=resets_at,
        )
    )


def amount(sort: LimitKind, quantity: float) -> float | str:
    """Write how much a limit is, or how far it is used."""
    match sort:
        case LimitKind.DOLLARS:
            return money.usd(int(quantity))
        case LimitKind.SECONDS:
            return quantity / money.MILLISECONDS_PER_SECOND
        case LimitKind.RATE | LimitKind.CONCURRENCY:
            return int(quantity) if quantity == int(quantity) else quantity


def detail_of(refused: Refused, demand: ReservationRequest) -> str:
    """Say in a sentence fit for the caller which limit is in the way, whose it is, and until when."""
    standing = refused.standing
    whose, seconds = _WHOSE[standing.of], quota.seconds_to_wait(refused.retry_after)
    match standing.sort:
        case LimitKind.RATE:
            return (
                f"Request was throttled. The limit of {whose} is {standing.limit:g} predictions per minute. "
                f"Your rate limit resets in ~{seconds}s."
            )
        case LimitKind.CONCURRENCY:
            return (
                f"Request was throttled. The limit of {whose} is {standing.limit:g} predictions at a time, "
                f"and {standing.used} are under way."
            )
        case LimitKind.SECONDS:
            return _budget(standing, demand.milliseconds, lambda amount: f"{amount / 1000:g} seconds")
        case LimitKind.DOLLARS:
            return _budget(standing, demand.microusd, lambda amount: f"${money.usd(int(amount))}")


def _budget(standing: LimitStatus, asked: int, write: Callable[[float], str]) -> str:
    until = "" if standing.resets_at is None else f" It is whole again at {times.render(standing.resets_at)}."
    return (
        f"The budget of {_WHOSE[standing.of]} is {write(standing.limit)} a {standing.window}: "
        f"{write(standing.used)} are spent, {write(standing.held)} are held for predictions under way, "
        f"and this one is estimated at {write(asked)}.{until}"
    )
