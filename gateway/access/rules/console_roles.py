"""Who somebody is on the console, by the claims of an ID token: an operator, or the lead of a team."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.access.rules import issuers
from gateway.access.rules.issuers import Issuer
from gateway.access.rules.json_web_tokens import TokenRefusal
from gateway.access.rules.sign_in import Outcome, SignInRefusal


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whom an issuer signed in to the console, and the claim that decided."""

    issuer: str
    """Its name in the config."""
    url: str
    user: str
    team: str | None
    """The team that the person leads; `None` for an operator."""
    claim: str
    value: str


def person_of(issuer: Issuer, claims: Mapping[str, Any]) -> Person | TokenRefusal | SignInRefusal:
    """Return whom a verified ID token names. Who is an operator and a lead is an operator."""
    console = issuer.console
    assert console is not None
    user = issuers.user_of(issuer, claims)
    if isinstance(user, TokenRefusal):
        return user
    refusal: TokenRefusal | None = None
    if console.operator_claim is not None:
        refusal = issuers.check_email(console.operator_claim, claims)
        for value in _values(claims, console.operator_claim):
            if refusal is None and value in console.operators:
                return _person(issuer, user, None, console.operator_claim, value)
    led: dict[str, str] = {}
    if console.lead_claim is not None:
        refusal_of_lead = issuers.check_email(console.lead_claim, claims)
        refusal = refusal or refusal_of_lead
        for value in _values(claims, console.lead_claim):
            if refusal_of_lead is None and value in console.leads:
                led.setdefault(console.leads[value], value)
    if len(led) == 1 and console.lead_claim is not None:
        ((team, value),) = led.items()
        return _person(issuer, user, team, console.lead_claim, value)
    if led:
        detail = "You lead several teams of this gateway. Sign in with an account that leads one."
        return SignInRefusal(Outcome.NO_ROLE, detail)
    return refusal or SignInRefusal(Outcome.NO_ROLE, _no_role(issuer, claims))


def still_allows(issuer: Issuer | None, person: Person) -> bool:
    """Return whether the config still gives a person the role that the session has."""
    if issuer is None or issuer.console is None or issuer.keys.issuer != person.url:
        return False
    console = issuer.console
    if person.team is None:
        return person.claim == console.operator_claim and person.value in console.operators
    return person.claim == console.lead_claim and console.leads.get(person.value) == person.team


def named(all_issuers: Iterable[Issuer], name: str) -> Issuer | None:
    """Return the issuer of that name, if people sign in to the console there."""
    return next((each for each in all_issuers if each.name == name and each.console is not None), None)


def _person(issuer: Issuer, user: str, team: str | None, claim: str, value: str) -> Person:
    return Person(issuer=issuer.name, url=issuer.keys.issuer, user=user, team=team, claim=claim, value=value)


def _values(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return issuers.texts(issuers.claim(claims, name))


def _no_role(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    """Say what is missing: the claim, or a value that the config knows."""
    console = issuer.console
    assert console is not None
    names = dict.fromkeys(name for name in (console.operator_claim, console.lead_claim) if name is not None)
    missing = [name for name in names if not _values(claims, name)]
    shown = " and ".join(f"'{name}'" for name in (missing or names))
    if missing:
        return f"Your ID token lacks the claim {shown}, or it is neither a text nor a list of texts."
    return f"You are neither an operator nor the lead of a team: the claim {shown} has no value that is known here."
