"""Who somebody is on the console, by claims."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.access.rules import console_roles
from gateway.access.rules.console_roles import Person
from gateway.access.rules.issuers import ConsoleClient, KeyLocation
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal
from gateway.access.rules.sign_in import Outcome, SignInRefusal
from tests.support.issuers import issuer

CONSOLE = ConsoleClient(
    client_id="console",
    client_secret="never shown",
    operator_claim="groups",
    operators=frozenset({"platform", "sre"}),
    lead_claim="app.leads",
    leads={"acme-leads": "acme", "acme-owners": "acme", "red-leads": "red"},
)
ID = issuer(console=CONSOLE)


def who(console: ConsoleClient = CONSOLE, /, **claims: Any) -> Any:
    return console_roles.person_of(issuer(console=console), {"sub": "ann", **claims})


def person(team: str | None, claim: str, value: str) -> Person:
    return Person(issuer="id", url=ID.keys.issuer, user="id:ann", team=team, claim=claim, value=value)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"groups": "platform"}, person(None, "groups", "platform")),
        ({"groups": ["users", "sre"]}, person(None, "groups", "sre")),
        ({"app": {"leads": "acme-leads"}}, person("acme", "app.leads", "acme-leads")),
        ({"groups": ["users"], "app": {"leads": ["x", "red-leads"]}}, person("red", "app.leads", "red-leads")),
        ({"app": {"leads": ["acme-owners", "acme-leads"]}}, person("acme", "app.leads", "acme-owners")),
        ({"groups": ["sre"], "app": {"leads": ["acme-leads", "red-leads"]}}, person(None, "groups", "sre")),
    ],
)
def test_role_follows_from_the_claims(claims: dict[str, Any], expected: Person):
    """A text or a list. Who is both is an operator."""
    assert who(**claims) == expected


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({}, "lacks the claim 'groups' and 'app.leads'"),
        ({"groups": ["users"]}, "lacks the claim 'app.leads'"),
        ({"groups": {"platform": True}}, "lacks the claim 'groups'"),
        ({"groups": ["platform", 1]}, "lacks the claim 'groups'"),
        ({"groups": "platform sre"}, "lacks the claim 'app.leads'"),
        ({"groups": "PLATFORM", "app": {"leads": "users"}}, "the claim 'groups' and 'app.leads' has no value"),
        ({"app": {"leads": ["acme-leads", "red-leads"]}}, "lead several teams"),
    ],
)
def test_nobody_else_has_a_role(claims: dict[str, Any], words: str):
    """The answer says which claim it was, and no value of the config."""
    found = who(**claims)
    assert isinstance(found, SignInRefusal)
    assert found.outcome is Outcome.NO_ROLE
    assert words in found.detail
    assert "sre" not in found.detail


def test_user_must_have_a_name():
    found = who(sub=None, groups="platform")
    assert isinstance(found, TokenRefusal)
    assert "'sub'" in found.detail


@pytest.mark.parametrize("name", ["operator_claim", "lead_claim"])
def test_email_counts_if_it_is_verified(name: str):
    """Elsewhere anybody can write any address into an account."""
    console = ConsoleClient(
        client_id="c",
        **{name: "email"},
        operators=frozenset({"ann@example.com"} if name == "operator_claim" else ()),
        leads={"ann@example.com": "acme"} if name == "lead_claim" else {},
    )
    for verified in (None, False, "true"):
        found = who(console, email="ann@example.com", email_verified=verified)
        assert isinstance(found, TokenRefusal)
        assert found.reason is Reason.EMAIL_UNVERIFIED
    assert isinstance(who(console, email="ann@example.com", email_verified=True), Person)


VALUES = st.none() | st.text(max_size=5) | st.sampled_from(["platform", "acme-leads", "red-leads"])
CLAIM = VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=3), VALUES, max_size=2)


@settings(max_examples=50)
@given(CLAIM, CLAIM)
def test_a_role_always_comes_from_a_listed_value(groups: Any, leads: Any):
    """Whatever an issuer writes into the claims."""
    found = who(groups=groups, app={"leads": leads})
    is_operator = groups in ("platform", "sre") or (
        isinstance(groups, list) and all(isinstance(each, str) for each in groups) and "platform" in groups
    )
    assert (isinstance(found, Person) and found.team is None) == is_operator
    if isinstance(found, Person):
        assert console_roles.still_allows(ID, found)
        if found.team is not None:
            assert CONSOLE.leads[found.value] == found.team


OPERATOR, LEAD = person(None, "groups", "sre"), person("acme", "app.leads", "acme-leads")


def test_role_lasts_while_the_config_gives_it():
    """Not longer: each change of what gave it takes it away."""
    assert console_roles.still_allows(ID, OPERATOR)
    assert console_roles.still_allows(ID, LEAD)
    changed = {
        "operators": {"operators": frozenset({"platform"})},
        "operator_claim": {"operator_claim": "roles"},
        "leads": {"leads": {"acme-leads": "red"}},
        "no lead": {"leads": {}},
        "lead_claim": {"lead_claim": "roles"},
    }
    ended = {
        name: [
            not console_roles.still_allows(issuer(console=replace(CONSOLE, **more)), each) for each in (OPERATOR, LEAD)
        ]
        for name, more in changed.items()
    }
    assert ended == {
        "operators": [True, False],
        "operator_claim": [True, False],
        "leads": [False, True],
        "no lead": [False, True],
        "lead_claim": [False, True],
    }
    for gone in (None, issuer(), issuer(console=CONSOLE, url="https://other.example.com")):
        assert not console_roles.still_allows(gone, OPERATOR)
        assert not console_roles.still_allows(gone, LEAD)


def test_issuer_is_found_by_its_name_if_people_sign_in_there():
    other = replace(issuer(), name="other", keys=KeyLocation(issuer="https://other.example.com"))
    assert console_roles.named([other, ID], "id") == ID
    assert console_roles.named([other, ID], "other") is None
    assert console_roles.named([other, ID], "") is None


def test_secret_is_not_in_a_text():
    assert "never shown" not in repr(ID)
