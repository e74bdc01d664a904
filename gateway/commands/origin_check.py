"""`gateway check --origin URL`: which teams' keys a web page may use, and why a browser reports a CORS error."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from gateway.config import Config, Places, Team

_SAME_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})


def origin_of(url: str) -> str:
    """Return the origin of a page as its browser sends it. Raise `UsageError` if the text is no address of a page."""
    from gateway.domain.scopes import normal_origin

    parts = urlsplit(url)
    if parts.scheme == "file" or url == "null":
        raise click.UsageError(
            "a page opened from a file has the origin null, which no team can list: serve it over http, for example "
            "with `python3 -m http.server`"
        )
    try:
        # No page has a pattern as its origin.
        return normal_origin(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".replace("*", "/"))
    except ValueError:
        raise click.UsageError("--origin expects the address of a page, such as https://app.example.com") from None


def explain(config: "Config", places: "Places", origin: str) -> tuple[list[str], bool]:
    """Return lines that say what a page of this origin may use, and whether it may use anything."""
    from gateway.domain.teams import origin_allowed

    allowed = [team for team in config.teams if origin_allowed(team.browser_origins, origin)]
    if allowed:
        return [line for team in allowed for line in _allowed(config, team, origin)], True
    names = ", ".join(team.name for team in config.teams)
    reasons = [
        f"{origin} is in no team's origins: preflights get no Access-Control-Allow-Origin, so browsers refuse the page",
        f'to allow it, add "{origin}" to the origins of a team ({names or "there is none"}) and reload',
    ]
    for index, team in enumerate(config.teams):
        if near := [listed for listed in team.browser_origins if _near(listed, origin) is not None]:
            nearest = min(near, key=lambda listed: _distance(listed, origin))
            place = places.mention(("teams", index, "origins"))
            reasons.append(f"team {team.name} lists {nearest}, which differs in {_near(nearest, origin)}: {place}")
    return reasons, False


def _allowed(config: "Config", team: "Team", origin: str) -> Iterator[str]:
    from gateway.domain.scopes import patterns_of
    from gateway.domain.teams import origin_allowed

    how = "listed" if origin in team.browser_origins else "allowed by *, so without credentials"
    for pattern in patterns_of(origin):
        if pattern in team.browser_origins and origin not in team.browser_origins:
            how = f"matched by {pattern}"
    yield f"team {team.name}: {origin} is {how}"
    for key in team.keys:
        if key.origins is not None:
            works = "works" if origin_allowed(key.origins, origin) else "does not work"
            yield f"  key {key.name} {works} from this page"
    for issuer in config.issuers:
        if team.name in issuer.all_teams:
            is_allowed = issuer.is_native or origin_allowed(issuer.origins or team.browser_origins, origin)
            yield f"  users of {issuer.name} {'can' if is_allowed else 'cannot'} call from this page"


def _near(listed: str, origin: str) -> str | None:
    """Return in what a listed origin differs, if it could have been meant as this one."""
    if listed == "*":
        return None
    is_pattern = "://*." in listed
    one, other = urlsplit(listed.replace("://*.", "://", 1)), urlsplit(origin)
    if is_pattern:
        if one.netloc == other.netloc and one.scheme == other.scheme:
            return "the host name: a pattern does not match its domain itself"
        if not (other.hostname or "").endswith(f".{one.hostname}"):
            return None
        other = other._replace(netloc=other.netloc.replace(other.hostname or "", one.hostname or "", 1))
    hosts = {one.netloc.rpartition(":")[0] or one.netloc, other.netloc.rpartition(":")[0] or other.netloc}
    same_host = one.hostname == other.hostname
    if same_host:
        parts = [("the scheme", one.scheme, other.scheme), ("the port", one.port, other.port)]
        return " and ".join(name for name, mine, theirs in parts if mine != theirs) or None
    if hosts <= _SAME_MACHINE or _bare(one.hostname) == _bare(other.hostname):
        return "the host name"
    return None


def _distance(listed: str, origin: str) -> int:
    """Return how many of scheme, host and port differ."""
    one, other = urlsplit(listed.replace("://*.", "://", 1)), urlsplit(origin)
    return sum((one.scheme != other.scheme, one.hostname != other.hostname, one.port != other.port))


def _bare(host: str | None) -> str:
    return (host or "").removeprefix("www.")
