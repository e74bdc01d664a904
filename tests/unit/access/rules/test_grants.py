"""Nobody grants more than they have."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.access.rules.grants import beyond, left_open, new_key, of_holder, of_operator
from gateway.domain.limits import NO_LIMITS, Allowance, Limits
from gateway.domain.scopes import Scope
from gateway.domain.targets import Target, TargetKind
from gateway.domain.teams import Caller, Team
from tests.support.records import NOW, key

TEAM = Team(name="red", scopes=frozenset(Scope), models=("acme/*", "meta/llama"), listed_origins=("https://a.example",))
OWN = key(
    "holder",
    scopes=("predict", "read", "keys"),
    models=("acme/*",),
    expires_at=NOW + 1000,
    allowance=Allowance(own=Limits(requests_per_minute=60, microusd_per_day=5_000_000)),
)
LIMITS = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(1, 100),
    concurrent_predictions=st.none() | st.integers(1, 9),
    seconds_per_day=st.none() | st.floats(1, 9),
    microusd_per_day=st.none() | st.integers(1, 9),
)


def holder(own: Any = OWN, team: Team = TEAM) -> Caller:
    scopes = frozenset(scope for scope in Scope if own.scopes is None or scope in own.scopes)
    models = (team.models,) if own.models is None else (team.models, own.models)
    return Caller(team=team, key_id=own.id, scopes=scopes, models=models, allowance=own.allowance or NO_LIMITS)


def fields(caller: Caller, own: Any, **wanted: Any) -> list[str]:
    """Return the fields in which a key goes beyond what the holder of `own` may grant."""
    allowed = of_holder(caller.team, own, caller.allowance)
    return [field.field for field in beyond(allowed, replace(new_key(allowed), **wanted))]


def test_what_is_left_out_is_what_the_holder_has():
    """But for the scope `keys`, which must be named."""
    allowed = of_holder(TEAM, OWN, OWN.allowance or NO_LIMITS)
    made = new_key(allowed)
    assert made.scopes == ("read", "predict")
    assert (made.models, made.expires_at, made.allowance) == (OWN.models, OWN.expires_at, OWN.allowance)
    assert beyond(allowed, made) == []


def test_what_operators_leave_out_is_what_the_team_has():
    made = new_key(of_operator(TEAM))
    assert (made.scopes, made.models, made.origins, made.expires_at, made.allowance) == (None,) * 5
    assert beyond(of_operator(TEAM), made) == []
    assert beyond(of_operator(TEAM), replace(made, scopes=("account", "admin"))) == []


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"scopes": ("files",)}, "scopes"),
        ({"scopes": None}, "scopes"),
        ({"models": ("meta/llama",)}, "models"),
        ({"models": ("*",)}, "models"),
        ({"models": None}, "models"),
        ({"origins": ("https://b.example",)}, "origins"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": NOW + 1001}, "expires_at"),
        ({"allowance": None}, "limits.requests_per_minute"),
        (
            {"allowance": Allowance(own=Limits(requests_per_minute=61, microusd_per_day=1))},
            "limits.requests_per_minute",
        ),
        ({"allowance": Allowance(own=Limits(requests_per_minute=60))}, "limits.budget_usd_per_day"),
        (
            {"allowance": Allowance(own=Limits(requests_per_minute=60, microusd_per_day=1, burst=11))},
            "limits.burst",
        ),
    ],
)
def test_a_holder_grants_no_more_than_it_has(wanted: dict[str, Any], field: str):
    assert field in fields(holder(), OWN, **wanted)


def test_burst_of_both_rates_is_at_most_that_of_the_smaller():
    """A burst that is not set is a part of its rate: one that is set applies to both rates."""
    rates = Limits(requests_per_minute=600, predictions_per_minute=6)
    own = replace(OWN, allowance=Allowance(own=rates))
    for burst, refused in ((100, ["limits.burst"]), (2, ["limits.burst"]), (1, []), (None, [])):
        assert fields(holder(own), own, allowance=Allowance(own=replace(rates, burst=burst))) == refused


def test_a_holder_leaves_nothing_open_that_its_team_may_be_given_later():
    """Scopes are always listed; models unless the holder's own are open too. What is open already may stay."""
    open_ = replace(OWN, scopes=None, models=None)
    for own, key_, before, refused in (
        (OWN, open_, None, ["scopes", "models"]),
        (OWN, open_, OWN, ["scopes", "models"]),
        (OWN, open_, open_, []),
        (OWN, OWN, None, []),
        (open_, open_, None, ["scopes"]),
    ):
        allowed = of_holder(TEAM, own, NO_LIMITS)
        assert [each.field for each in left_open(allowed, key_, before)] == refused
    assert left_open(of_operator(TEAM), open_) == []


def test_a_holder_grants_less():
    narrow = Allowance(own=Limits(requests_per_minute=1, microusd_per_day=1, burst=10, concurrent_predictions=1))
    wanted = {"scopes": ("read", "keys"), "models": ("acme/x*",), "origins": ("https://a.example",)}
    assert fields(holder(), OWN, **wanted, expires_at=NOW + 1, allowance=narrow) == []


@pytest.mark.parametrize("scope", ["account", "admin"])
def test_a_holder_never_grants_account_or_admin(scope: str):
    """Not even one that has them."""
    own = replace(OWN, scopes=None)
    assert fields(holder(own), own, scopes=(scope,)) == ["scopes"]
    # So its own key, which has them, is none that it could create.
    assert "scopes" in [each.field for each in beyond(of_holder(TEAM, own, NO_LIMITS), own)]


@given(own=LIMITS, per_user=LIMITS, wanted=LIMITS, wanted_per_user=LIMITS)
def test_no_granted_limit_is_wider(own: Limits, per_user: Limits, wanted: Limits, wanted_per_user: Limits):
    has = replace(OWN, allowance=Allowance(own=own, per_user=per_user))
    asked = Allowance(own=wanted, per_user=wanted_per_user)
    refused = bool(fields(holder(has), has, allowance=asked))
    for may, may_be in ((own, wanted), (per_user, wanted_per_user)):
        for name in ("requests_per_minute", "concurrent_predictions", "seconds_per_day", "microusd_per_day"):
            most, given_ = getattr(may, name), getattr(may_be, name)
            if most is not None and (given_ is None or given_ > most):
                assert refused
    if asked == has.allowance:
        assert not refused


@given(
    st.lists(st.sampled_from(["acme/*", "acme/x", "meta/*", "meta/llama", "*"]), min_size=1, max_size=3, unique=True)
)
def test_no_granted_model_is_outside(models: list[str]):
    refused = bool(fields(holder(), OWN, models=tuple(models)))
    assert refused == any(model not in ("acme/*", "acme/x") for model in models)


IMAGE, STORY = Target(TargetKind.MODEL, "meta/llama"), Target(TargetKind.MODEL, "acme/story")
WITH_ALIASES = replace(TEAM, aliases={"team/image": IMAGE, "team/story": STORY, "acme/out": Target(IMAGE.kind, "x/y")})


def test_alias_is_granted_as_what_it_stands_for():
    """Whatever the alias is called. The list of the team applies to the key at each request."""
    allowed = of_operator(WITH_ALIASES)
    assert beyond(allowed, replace(new_key(allowed), models=("team/image", "team/story"))) == []
    (field,) = beyond(allowed, replace(new_key(allowed), models=("acme/out",)))
    assert (field.field, field.description.split(":")[0]) == ("models", "acme/out (an alias of x/y)")


@pytest.mark.parametrize(
    ("own", "wanted", "fits"),
    [
        (("team/story",), ("team/story",), True),
        (("team/story",), ("acme/story",), False),
        (("acme/story",), ("team/story",), False),
        (("acme/*",), ("team/story",), False),
        (("team/*",), ("team/story",), False),
        (("*",), ("team/story", "acme/*"), True),
        (("team/story", "meta/llama"), ("meta/llama", "team/story"), True),
    ],
)
def test_holder_grants_an_alias_only_by_its_name(own: tuple[str, ...], wanted: tuple[str, ...], fits: bool):
    """Whose list has the alias loses its target when it changes, and so must the keys that were granted."""
    own_key = replace(OWN, models=own)
    assert fields(holder(own_key, WITH_ALIASES), own_key, models=wanted) == ([] if fits else ["models"])
