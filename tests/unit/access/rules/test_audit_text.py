"""Entries of the audit log have no secrets, and are bounded."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rules.audit_text import LONGEST_TEXT, MOST_BYTES, MOST_VALUES, clean_text, from_json, to_json
from gateway.access.rules.key_changes import created, revoked, rotated
from tests.support.records import NOW, key

SECRET = "rgw_" + "a" * 12 + "_" + "B" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=9), JSON, max_size=6))
def test_values_stay_json_that_every_engine_stores(values):
    text = to_json(values)
    assert text is not None
    assert "\0" not in text
    assert isinstance(from_json(text), dict)


@given(st.text(max_size=20), st.text(max_size=20))
def test_secret_is_removed_wherever_it_is(before, after):
    text = to_json({"reason": f"{before} {SECRET} {after}", f"x {SECRET}": [{"deep": SECRET}]})
    assert text is not None
    assert "B" * 32 not in text


def test_secret_at_the_cut_is_removed():
    """Nothing is left of the secret; the id is none."""
    for cut in range(8, len(SECRET)):
        text = clean_text("x" * (LONGEST_TEXT - cut - 1) + " " + SECRET)
        assert "B" not in text


def test_long_values_are_cut():
    assert to_json(None) is from_json(None) is None
    assert len(clean_text("x" * 10**6)) == LONGEST_TEXT
    listed = from_json(to_json({"changed": ["x"] * (MOST_VALUES + 3)}))
    assert listed is not None
    assert listed["changed"][-1] == "and 3 more"
    named = from_json(to_json({f"n{n}": n for n in range(MOST_VALUES + 2)}))
    assert named is not None
    assert (len(named), named["…"]) == (MOST_VALUES + 1, 2)
    assert from_json(to_json({"a": ["x" * LONGEST_TEXT] * (MOST_BYTES // LONGEST_TEXT + 1)})) == {"too_long": True}
    assert from_json(to_json({"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}})) == {
        "a": {"b": {"c": {"d": {"e": {"f": "{'g': 1}"}}}}}
    }


def test_changes_of_keys_have_no_digest():
    first, second = key(expires_at=NOW), key("k2")
    for change in (created(first), rotated(first, first, second), revoked(key(revoked_at=NOW))):
        assert key().sha256 not in repr(change)
        assert change.team == "red"
