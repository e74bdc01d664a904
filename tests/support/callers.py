"""Teams, keys and callers to test with."""

import secrets
from typing import Any

from gateway.access.rules.api_keys import Minted, new_key
from gateway.domain.records import Key
from gateway.domain.scopes import DEFAULT_SCOPES, Scope
from gateway.domain.teams import Caller, Team

PAGE = "https://shop.example"
RED = Team(name="red", scopes=frozenset({*DEFAULT_SCOPES, Scope.TOKENS}), unbound_tokens=True)
BLUE = Team(name="blue", scopes=frozenset(DEFAULT_SCOPES), models=("acme/*",))


def issue(team: str = "red", **fields: Any) -> tuple[Minted, Key]:
    """Make a key of a team: the key itself, and its record."""
    minted = new_key(secrets.token_bytes)
    given: dict[str, Any] = {"id": minted.id, "team": team, "name": "n", "sha256": minted.sha256, "created_at": 0.0}
    return minted, Key(**(given | fields))


def caller(
    *models: tuple[str, ...],
    team: Team = RED,
    scopes: frozenset[Scope] | None = None,
    origins: tuple[str, ...] | None = None,
    user: str | None = None,
) -> Caller:
    """Make a caller with its own key."""
    return Caller(
        team=team,
        key_id="k",
        scopes=team.scopes if scopes is None else scopes,
        models=models or (("*",),),
        origins=origins,
        user=user,
    )
