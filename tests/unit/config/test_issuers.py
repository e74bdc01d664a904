"""Issuers in the config: defaults, contradictions and probable mistakes."""

from typing import Any

import pytest

from gateway.assembly import settings
from gateway.config import warnings
from gateway.config.changes import diff
from tests.support.config_files import made, problems, team

PAGE = "https://app.example.com"
ACME = team(name="acme", origins=[PAGE], per_user={"budget_usd_per_day": 1})


CONSOLE: dict[str, Any] = {"client_id": "console", "operator_claim": "groups", "operators": ["platform"]}


def table(**more: Any) -> dict[str, Any]:
    """Return an issuer; `None` leaves a setting out."""
    given = {"issuer": "https://Acme.eu.auth0.com/", "audience": "https://gw.example.com", "team": "acme"} | more
    return _given(given)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    nested = {name: _given(value) if isinstance(value, dict) else value for name, value in table.items()}
    return {name: value for name, value in nested.items() if value is not None}


def found(*issuers: dict[str, Any], teams: list[dict[str, Any]] | None = None) -> dict[str, str]:
    return problems(teams=teams or [ACME, team(name="bare")], issuers=list(issuers))


def test_defaults():
    """Three lines are enough. The identifier stays as it is; the name is its host."""
    config = made(teams=[ACME], issuers=[table()])
    (issuer,) = settings.issuer_settings(config).issuers
    assert issuer.keys.issuer == "https://Acme.eu.auth0.com/"
    assert (issuer.name, issuer.user_prefix, issuer.user_claim) == ("acme.eu.auth0.com", "acme.eu.auth0.com:", "sub")
    assert issuer.audiences == {"https://gw.example.com"}
    assert not any(name.startswith("HS") or name == "none" for name in issuer.algorithms)
    assert (issuer.origins, issuer.is_native, issuer.scopes) == (None, False, None)
    assert issuer.key_id("acme") == "acme/issuer:acme.eu.auth0.com"


def test_limits_are_those_of_its_users_in_each_team():
    """Like those of a key."""
    teams = [ACME, team(name="beta", origins=[PAGE])]
    by_claim = table(team=None, team_claim="org", teams={"a": "acme", "b": "beta"}, name="id", requests_per_minute=60)
    allowances = settings.access_settings(made(teams=teams, issuers=[by_claim])).allowances
    assert {key: each.own.requests_per_minute for key, each in allowances.items()} == {
        "acme/issuer:id": 60,
        "beta/issuer:id": 60,
    }


def test_native_apps_have_no_origin():
    """It is said once, as a word: a list has origins only."""
    (issuer,) = settings.issuer_settings(made(teams=[team(name="acme")], issuers=[table(origins="none")])).issuers
    assert (issuer.is_native, issuer.origins) == (True, None)
    assert 'or "none" for native apps' in found(table(origins="None"))["issuers[0].origins"]
    assert "issuers[0].origins[0]" not in made(teams=[ACME], issuers=[table(origins=[PAGE])]).model_fields_set
    assert found(table(origins=[PAGE, "none"]))


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ({"issuer": None}, "issuer", "is missing"),
        ({"audience": None}, "audience", "is missing"),
        ({"audience": []}, "audience", "at least one audience"),
        ({"audience": None, "console": CONSOLE}, "team", "needs audience"),
        ({"console": CONSOLE | {"operator_claim": None}}, "console.operators", "needs operator_claim"),
        ({"console": CONSOLE | {"operators": None}}, "console.operator_claim", "needs operators"),
        ({"console": CONSOLE | {"lead_claim": "org"}}, "console.lead_claim", "needs leads"),
        ({"console": CONSOLE | {"leads": {"a": "acme"}}}, "console.leads", "needs lead_claim"),
        (
            {"console": CONSOLE | {"lead_claim": "org", "leads": {"a": "acne"}}},
            "console.leads.a",
            "there is no team acne (teams: acme, bare)",
        ),
        ({"console": {"client_id": "c"}}, "console", "allows nobody to sign in"),
        ({"console": CONSOLE | {"client_id": None}}, "console.client_id", "is missing"),
        ({"console": CONSOLE | {"client_id": "a b"}}, "console.client_id", "the client's id"),
        ({"console": CONSOLE | {"scopes": ["profile"]}}, "console.scopes", "needs openid"),
        ({"console": CONSOLE | {"scopes": ["openid a"]}}, "console.scopes[0]", "a scope of the issuer"),
        ({"console": CONSOLE | {"client_secret_env": "NO_SECRET"}}, "console.client_secret_env", "is not set"),
        ({"console": CONSOLE | {"client_secret_file": "/none"}}, "console.client_secret_file", "cannot be read"),
        ({"issuer": "acme.eu.auth0.com"}, "issuer", "expected an https URL"),
        ({"issuer": "http://id.example.com"}, "issuer", "is plain http"),
        ({"issuer": "http://localhost:8080/realms/a"}, "issuer", "set allow_private_addresses = true"),
        ({"jwks_url": "http://id.example.com/jwks"}, "jwks_url", "is plain http"),
        ({"algorithms": ["HS256"]}, "algorithms[0]", "HMAC (HS256) are never accepted"),
        ({"algorithms": ["none"]}, "algorithms[0]", "never accepted"),
        ({"algorithms": []}, "algorithms", "at least one"),
        ({"team": "acne"}, "team", "there is no team acne (teams: acme, bare)"),
        ({"team": None}, "", "needs team, or team_claim"),
        ({"team_claim": "org", "teams": {"a": "acme"}}, "", "has both team and team_claim"),
        ({"team": None, "team_claim": "org"}, "team_claim", "needs teams"),
        ({"teams": {"a": "acme"}}, "teams", "needs team_claim"),
        ({"team": None, "team_claim": "org", "teams": {"a": "acne"}}, "teams.a", "there is no team acne"),
        ({"scopes": ["predict", "admin"]}, "scopes", "admin: never given"),
        ({"scopes": ["account"]}, "scopes", "account: never given"),
        ({"scopes": ["tokens"]}, "scopes", "tokens: never given"),
        ({"scopes": ["train"]}, "scopes", "outside of the scopes of its teams"),
        ({"team": "bare"}, "origins", "the team bare has no origins"),
        ({"origins": ["https://evil.example"]}, "origins", "outside of the origins of the team acme"),
        ({"jwks_stale_seconds": 60}, "jwks_stale_seconds", "must not be below jwks_ttl_seconds"),
        ({"leeway_seconds": 301}, "leeway_seconds", "must not exceed 300"),
        ({"user_prefix": "a b"}, "user_prefix", "without spaces"),
        ({"leeway": 10}, "leeway", "did you mean leeway_seconds?"),
    ],
)
def test_contradictions_are_refused(more: dict[str, Any], path: str, message: str):
    """Each with its place and what to do."""
    where = f"issuers[0].{path}".rstrip(".")
    all_found = found(table(**more))
    assert message in all_found[where]
    assert all_found.keys() == {where}


def test_one_issuer_may_serve_several_applications():
    """Told apart by the audience, each with a name of its own."""
    two = [table(name="a"), table(name="b", audience=["https://other.example.com"])]
    assert len(made(teams=[ACME], issuers=two).issuers) == 2
    assert "names of issuers must be unique" in found(table(), table(audience="b"))["issuers[1].name"]
    assert (
        "is also an audience of"
        in found(table(name="a"), table(name="b", audience=["x", "https://gw.example.com"]))["issuers[1].audience"]
    )


def test_issuers_need_their_extra(monkeypatch):
    """It is reported with the other problems, not as a traceback at the first token."""
    monkeypatch.setattr("gateway.config.checks.find_spec", lambda name: None)
    assert found(table()) == {"issuers": "needs the extra oidc: pip install 'WHEEL[oidc]', or '.[oidc]' in a checkout"}


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ({"user_claim": "user_metadata.id"}, "user_claim", "can be written by users themselves"),
        ({"scope_claim": "unsafe_metadata.scopes"}, "scope_claim", "can be written by users themselves"),
        ({"user_claim": "preferred_username"}, "user_claim", "can pass on to somebody else"),
        ({"requests_per_minute": 600}, "requests_per_minute", "is above the team's 60"),
    ],
)
def test_probable_mistakes_are_warned_of(more: dict[str, Any], path: str, message: str):
    """The config is valid all the same."""
    config = made(teams=[ACME | {"requests_per_minute": 60}], issuers=[table(**more)])
    said = {each.path: each.message for each in warnings(config, 0.0)}
    assert message in said[f"issuers[0].{path}"]


def test_users_of_two_issuers_are_told_apart():
    """Unless both have the same prefix: then an account at one is an account at the other."""
    same = [table(name="a", user_prefix=""), table(name="b", user_prefix="", audience="b")]
    config = made(teams=[team(name="acme", origins=[PAGE])], issuers=same)
    said = {each.path: each.message for each in warnings(config, 0.0)}
    assert "users of equal names at both issuers are one user" in said["issuers[1].user_prefix"]
    assert "a single user can use up" in said["issuers[0].per_user"]
    assert not [each for each in warnings(made(teams=[ACME], issuers=[table()]), 0.0) if "issuers" in each.path]


@pytest.mark.parametrize(("first", "second"), [("", "b:"), ("b:", ""), ("ab", "a"), ("a:", "b:")])
def test_prefix_that_begins_another_one_is_warned_of(first: str, second: str):
    """A user of the shorter one can have a name that makes the longer one of it."""
    both = [table(name="a", user_prefix=first), table(name="b", user_prefix=second, audience="b")]
    config = made(teams=[team(name="acme", origins=[PAGE])], issuers=both)
    said = {each.path: each.message for each in warnings(config, 0.0)}
    overlap = first.startswith(second) or second.startswith(first)
    assert ("issuers[1].user_prefix" in said) == overlap
    if overlap:
        assert "whose name begins with the rest" in said["issuers[1].user_prefix"]


def test_a_reload_tells_what_has_changed():
    """By the name of the issuer."""
    before = made(teams=[ACME], issuers=[table(), table(name="b", audience="b")])
    after = made(teams=[ACME], issuers=[table(audience=["x", "y"]), table(name="c", audience="c")])
    changes = {each.path: (each.old, each.new) for each in diff(before, after)}
    assert changes == {
        "issuers[acme.eu.auth0.com].audience": ('["https://gw.example.com"]', '["x", "y"]'),
        "issuers[b]": ("present", "removed"),
        "issuers[c]": ("not set", "added"),
    }


def test_impossible_value_of_a_claim_is_refused_at_its_line():
    """The name of an entry of a table can be wrong, not only its value."""
    refused = found(table(team=None, team_claim="org", teams={"a\nb": "acme", "c": "acme"}))
    assert refused == {'issuers[0].teams."a\\nb"': 'expected the value of a claim, got "a\\nb"'}
