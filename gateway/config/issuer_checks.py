"""Checks and warnings of issuers: what their tokens may do, where their keys are, whom their claims name."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.access.browser_tokens import NEVER_PUBLIC
from gateway.access.rules.discovery import may_be_read
from gateway.config import console_checks
from gateway.config.aliases import models_outside
from gateway.config.issuers import Issuer
from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.problems import Problem
from gateway.config.report import Report
from gateway.config.teams import Team
from gateway.config.values import is_loopback
from gateway.domain.scopes import origins_outside, scopes_outside

_LONGEST_LEEWAY = 300
_WRITTEN_BY_USERS = ("user_metadata", "unsafe_metadata", "unsafeMetadata")
"""Claims that users can write themselves: of Supabase and Auth0, and of Clerk."""
_CHANGED_BY_USERS = ("preferred_username", "nickname", "name", "given_name", "family_name", "username")


def compare(config: Config, report: Report) -> None:
    """Report settings of issuers that contradict each other, or their teams."""
    for index, issuer in enumerate(config.issuers):
        at: Location = ("issuers", index)
        _compare_addresses(issuer, at, report)
        if issuer.jwks_stale_seconds < issuer.jwks_ttl_seconds:
            report.add(
                (*at, "jwks_stale_seconds"),
                f"must not be below jwks_ttl_seconds ({issuer.jwks_ttl_seconds:g})",
                uses=[(*at, "jwks_ttl_seconds")],
            )
        if issuer.leeway_seconds > _LONGEST_LEEWAY:
            message = f"must not exceed {_LONGEST_LEEWAY}: tokens are accepted for so long after their expiry"
            report.add((*at, "leeway_seconds"), message)
        if issuer.console is not None:
            console_checks.compare(config, issuer.console, (*at, "console"), report)
        if issuer.audience:
            _compare_teams(config, issuer, at, report)
        else:
            _compare_console_only(issuer, at, report)
        for number, other in enumerate(config.issuers[:index]):
            shared = sorted(set(other.audience) & set(issuer.audience))
            if other.issuer == issuer.issuer and shared:
                report.add(
                    (*at, "audience"),
                    f"{shared[0]} is also an audience of {report.places.mention(('issuers', number))}, the same "
                    "issuer: a token for both would always count for that one",
                    uses=[("issuers", number)],
                )


def _compare_console_only(issuer: Issuer, at: Location, report: Report) -> None:
    """Report what is missing of an issuer without an audience: no token of it counts instead of a key."""
    if issuer.console is None:
        report.add((*at, "audience"), "is missing: the claim aud of tokens for this gateway", uses=[(*at, "console")])
    elif issuer.team is not None or issuer.team_claim is not None or issuer.teams:
        name = "team" if issuer.team is not None else "team_claim" if issuer.team_claim is not None else "teams"
        report.add(
            (*at, name),
            "needs audience, the claim aud of tokens that count instead of keys; leave both out if people only sign in "
            "to the console here",
            uses=[(*at, "audience")],
        )


def _compare_addresses(issuer: Issuer, at: Location, report: Report) -> None:
    for name, url in (("issuer", issuer.issuer), ("jwks_url", issuer.jwks_url)):
        if url is None:
            continue
        host = urlsplit(url).hostname or ""
        if url.startswith("http:") and not is_loopback(host):
            report.add(
                (*at, name), "is plain http: whoever changes the answer on its way can sign in as anybody; use https"
            )
        elif is_loopback(host) and not issuer.allow_private_addresses:
            report.add((*at, name), "is on this machine: set allow_private_addresses = true", uses=[(*at, name)])
    if issuer.jwks_url is not None and not may_be_read(issuer.jwks_url, issuer.issuer):
        report.add((*at, "jwks_url"), "is plain http, and the issuer is not", uses=[(*at, "issuer")])


def _compare_teams(config: Config, issuer: Issuer, at: Location, report: Report) -> None:
    by_claim = issuer.team_claim is not None
    if (issuer.team is None) == (not by_claim):
        message = "has both team and team_claim; keep one" if by_claim else "needs team, or team_claim with teams"
        report.add(at, f'{message} (for example: team = "acme")', uses=[(*at, "team"), (*at, "team_claim")])
        return
    if by_claim and not issuer.teams:
        report.add(
            (*at, "team_claim"), 'needs teams, such as { "<value of the claim>" = "acme" }', uses=[(*at, "teams")]
        )
    if not by_claim and issuer.teams:
        report.add((*at, "teams"), "needs team_claim, the claim whose values it lists", uses=[(*at, "team_claim")])
        return
    named = [((*at, "team"), issuer.team)] if issuer.team is not None else []
    named += [((*at, "teams", value), name) for value, name in issuer.teams.items()]
    teams = []
    for location, name in named:
        if (team := config.team(name)) is None:
            known = ", ".join(each.name for each in config.teams) or "none"
            report.add(location, f"there is no team {name} (teams: {known})", uses=[("teams",)])
        elif team not in teams:
            teams.append(team)
    if teams:
        _compare_rights(config, issuer, teams, at, report)


def _compare_rights(config: Config, issuer: Issuer, teams: list[Team], at: Location, report: Report) -> None:
    never = [scope for scope in issuer.scopes or () if scope in NEVER_PUBLIC]
    if never:
        report.add((*at, "scopes"), f"{', '.join(never)}: never given to the users of an issuer")
    else:
        _outside("scopes", [scopes_outside(team.scopes, issuer.scopes or ()) for team in teams], at, report)
    _outside(
        "models",
        [models_outside(team, issuer.models or (), config.aliases_of(team.name)) for team in teams],
        at,
        report,
    )
    if issuer.is_native:
        return
    for team in teams:
        if not team.browser_origins:
            report.add(
                (*at, "origins"),
                f"the team {team.name} has no origins, so its web pages cannot call: set origins of the team, or "
                'origins = "none" here for native apps',
                uses=[("teams",)],
            )
        elif outside := origins_outside(team.browser_origins, issuer.origins or ()):
            report.add(
                (*at, "origins"),
                f"{', '.join(outside)}: outside of the origins of the team {team.name} "
                f"({', '.join(team.browser_origins)})",
                uses=[("teams",)],
            )


def _outside(name: str, outside: list[list[str]], at: Location, report: Report) -> None:
    """Report what no team of the issuer allows."""
    everywhere = [each for each in outside[0] if all(each in others for others in outside)]
    if everywhere:
        report.add((*at, name), f"{', '.join(everywhere)}: outside of the {name} of its teams", uses=[("teams",)])


def warnings(config: Config) -> Iterator[Problem]:
    """Yield warnings about issuers."""
    for index, issuer in enumerate(config.issuers):
        path = f"issuers[{index}]"
        console = issuer.console
        claims = {name: getattr(issuer, name) for name in ("user_claim", "team_claim", "scope_claim")}
        if console is not None:
            claims |= {f"console.{name}": getattr(console, name) for name in ("operator_claim", "lead_claim")}
        for name, given in claims.items():
            claim = given or ""
            if any(word in claim.split(".") for word in _WRITTEN_BY_USERS):
                yield Problem(f"{path}.{name}", f"{claim} can be written by users themselves: name another claim")
            elif claim in _CHANGED_BY_USERS and name != "user_claim":
                yield Problem(
                    f"{path}.{name}",
                    f"{claim} can be changed by users themselves at many providers: name a claim that only "
                    "administrators set",
                )
        if issuer.user_claim in _CHANGED_BY_USERS:
            yield Problem(
                f"{path}.user_claim",
                f"{issuer.user_claim} can change, and can pass on to somebody else: sub never does",
            )
        for other in config.issuers[:index]:
            if not set(other.all_teams) & set(issuer.all_teams):
                continue
            if other.prefix == issuer.prefix:
                yield Problem(
                    f"{path}.user_prefix",
                    f"is that of {other.name} too: users of equal names at both issuers are one user",
                )
            elif other.prefix.startswith(issuer.prefix) or issuer.prefix.startswith(other.prefix):
                shorter, longer = sorted((issuer, other), key=lambda each: len(each.prefix))
                yield Problem(
                    f"{path}.user_prefix",
                    f'{longer.name} writes "{longer.prefix}" and {shorter.name} "{shorter.prefix}": a user of '
                    f"{shorter.name} whose name begins with the rest can be one of {longer.name}",
                )
    yield from console_checks.warnings(config)
    if config.issuers and config.limits.max_token_bytes > config.server.max_header_bytes:
        yield Problem(
            "limits.max_token_bytes",
            f"{config.limits.max_token_bytes} is above server.max_header_bytes ({config.server.max_header_bytes}), "
            "which is reached first",
        )
