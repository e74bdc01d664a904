"""Places in the webhook queue: a create with a `webhook` reserves the place of its `completed` event.

See docs/webhooks.md, The queue.

A place is taken from the create until the event is delivered or becomes a dead letter. So an accepted create never
loses its event because a queue is full, and a team at its bound delays and refuses its own creates only.
"""

import msgspec

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, Refused

RETRY_SECONDS = 1.0
"""Retry interval while no place is free: how long a receiver takes is unknown."""


class WebhookBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many places may be taken."""

    per_team: int = 10_000
    public: int = 1_000
    """Places of one team that its web pages may take, within those of the team."""
    total: int = 50_000


class WebhookPlace(msgspec.Struct, frozen=True):
    """The place that a new prediction with a webhook needs."""

    bounds: WebhookBounds
    is_public: bool = False
    """Whether a web page asks for it."""


class Taken(msgspec.Struct, frozen=True):
    """Places that are taken."""

    of_team: int
    of_pages: int
    """Those of the team's web pages."""
    total: int


def scopes_of(team: str, *, is_public: bool) -> tuple[str, ...]:
    """Return the scopes in whose queues a create waits for a place."""
    scope = f"webhooks/{team}"
    return (scope, f"{scope}/pages") if is_public else (scope,)


def decide(team: str, place: WebhookPlace, taken: Taken) -> Refused | None:
    """Return the bound that leaves no place for a team's create; `None` if there is one."""
    bounds, scope = place.bounds, f"webhooks/{team}"
    if place.is_public and taken.of_pages >= bounds.public:
        return _refused("max_queued_public", SubjectKind.TEAM, f"{scope}/pages", bounds.public, taken.of_pages)
    if taken.of_team >= bounds.per_team:
        return _refused("max_queued", SubjectKind.TEAM, scope, bounds.per_team, taken.of_team)
    if taken.total >= bounds.total:
        return _refused("max_queued_total", SubjectKind.GATEWAY, scope, bounds.total, taken.total)
    return None


def _refused(name: str, of: SubjectKind, scope: str, limit: int, used: int) -> Refused:
    status = LimitStatus(
        name=name,
        of=of,
        scope=scope,
        kind=LimitKind.WEBHOOKS,
        limit=limit,
        used=used,
        held=0,
        remaining=0,
        resets_at=None,
    )
    return Refused(status, RETRY_SECONDS)
