"""What is asked of a key, read from JSON."""

from typing import Any

import msgspec
import pytest

from gateway.access.rules.key_requests import KeyRequest, allowance_of, invalid_fields
from gateway.config.teams import LIMIT_NAMES
from gateway.domain.limits import Allowance, Limits, allowance_by_name
from tests.support.records import NOW


def request(**body: Any) -> KeyRequest:
    return msgspec.json.decode(msgspec.json.encode(body), type=KeyRequest)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"name": "a\nb"}, "name", "1 to 64 letters"),
        ({"scopes": []}, "scopes", "must not be empty"),
        ({"scopes": ["fly"]}, "scopes", "fly: the scopes are read"),
        ({"models": ["acme"]}, "models", "expected owner/name"),
        ({"models": ["acme/" + "*a" * 17]}, "models", "at most 16 *"),
        ({"models": [f"acme/{'x' * 100}{number}" for number in range(40)]}, "models", "at most 4096 characters in all"),
        ({"origins": ["https://a.example"] * 1000}, "origins", "at most 4096 characters in all"),
        ({"origins": ["https://a.example/x"]}, "origins", "expected an origin"),
        ({"expires_at": "soon"}, "expires_at", "must be a time"),
        ({"expires_at": "2020-01-01"}, "expires_at", "in the future"),
        ({"limits": {"budget_usd_per_day": 0}}, "limits.budget_usd_per_day", "above 0"),
        ({"limits": {"budget_usd_per_day": -1}}, "limits.budget_usd_per_day", "above 0"),
        ({"limits": {"budget_usd_per_day": 0.0000001}}, "limits.budget_usd_per_day", "6 decimal places"),
        ({"limits": {"budget_usd_per_month": "1e99999"}}, "limits.budget_usd_per_month", "at most 1000000000"),
        ({"limits": {"budget_usd_per_month": "NaN"}}, "limits.budget_usd_per_month", "at most 1000000000"),
        ({"limits": {"per_user": {"budget_usd_per_day": 0}}}, "limits.per_user.budget_usd_per_day", "above 0"),
    ],
)
def test_invalid_values_are_named_by_field(body: dict[str, Any], field: str, words: str):
    (found,) = invalid_fields(request(**body), NOW)
    assert found.field == field
    assert words in found.description


@pytest.mark.parametrize(
    "body",
    [
        {"limits": {"requests_per_minute": 0}},
        {"limits": {"requests_per_minute": 1.5}},
        {"limits": {"seconds_per_day": -1}},
        {"limits": {"budget_microusd_per_day": 5}},
        {"limits": {"per_user": {"per_user": {}}}},
        {"scopes": "read"},
        {"models": ["acme/x"] * 101},
        {"id": "mine"},
        {"sha256": "ab"},
    ],
)
def test_other_types_and_names_are_refused(body: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError):
        request(**body)


def test_long_lists_make_short_messages():
    """A body can have a hundred wrong patterns."""
    (found,) = invalid_fields(request(models=["x" * 40] * 100), NOW)
    assert len(found.description) < 500


def test_limits_have_the_names_of_the_config():
    every = dict.fromkeys(LIMIT_NAMES, 5)
    made = allowance_of(request(limits={**every, "per_user": every, "per_address": every}).limits, None)
    assert made is not None
    assert allowance_by_name(made) == {**every, "per_user": every, "per_address": every}
    assert made.own.microusd_per_day == 5_000_000
    assert allowance_by_name(Allowance(own=Limits(microusd_per_day=1_250_000))) == {"budget_usd_per_day": 1.25}


def test_change_keeps_what_it_does_not_name():
    known = Allowance(own=Limits(requests_per_minute=60, microusd_per_day=5), per_user=Limits(burst=2))
    assert allowance_of(request().limits, known) == known
    changed = allowance_of(request(limits={"requests_per_minute": 30, "budget_usd_per_day": None}).limits, known)
    assert changed == Allowance(own=Limits(requests_per_minute=30), per_user=Limits(burst=2))
    assert allowance_of(request(limits={"per_user": None}).limits, known) == Allowance(own=known.own)
    assert allowance_of(request(limits=None).limits, known) is None
    assert allowance_of(request(limits={"burst": None}).limits, None) is None
