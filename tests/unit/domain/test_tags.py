"""Cost tags: a header, or an object of a request, and the text that records have."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import tags
from gateway.domain.ledger import OTHER_VALUES

KEYS = frozenset({"project", "feature"})
VALUES = st.text("abcXYZ019._~:/@+-", min_size=1, max_size=tags.LONGEST_VALUE)
TAGS = st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES)
SPACE = st.text(" \t", max_size=2)


@given(TAGS, st.data())
def test_header_in_any_order_and_spacing_is_the_same_text(given_tags: dict[str, str], data: st.DataObject) -> None:
    """Equal tags are equal texts, so usage has one row for them."""
    items = data.draw(st.permutations(sorted(given_tags.items())))
    parts = [data.draw(SPACE) + key + data.draw(SPACE) + "=" + data.draw(SPACE) + value for key, value in items]
    for _ in range(data.draw(st.integers(0, 2))):
        parts.insert(data.draw(st.integers(0, len(parts))), data.draw(SPACE))
    text = tags.parse(",".join(parts), KEYS)
    assert text == tags.of(given_tags, KEYS)
    assert tags.mapping(text) == given_tags
    assert tags.pairs(text) == tuple(sorted(given_tags.items()))
    assert text == (json.dumps(given_tags, sort_keys=True, separators=(",", ":")) if given_tags else "")


@given(st.text(max_size=60) | st.text("pa=,: \t", max_size=30))
def test_any_header_is_read_or_refused_with_a_reason(header: str) -> None:
    """What is recorded has known keys and valid values only; a message is short whatever was sent."""
    try:
        text, reason = tags.parse(header, {"p", "a"}), ""
    except ValueError as exc:
        text, reason = tags.NONE, str(exc)
    assert len(reason) < 400
    assert tags.of(tags.mapping(text), {"p", "a"}) == text


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("project", "expected key=value"),
        ("=a", "there is no tag ''"),
        ("team=a", "the keys are feature, project"),
        ("Project=a", "there is no tag 'Project'"),
        ("project=", "as the value of project"),
        ("project=a b", "as the value of project"),
        ("project=a=b", "as the value of project"),
        ("project=\u00e9", "as the value of project"),
        (f"project={'a' * 101}", "1 to 100"),
        ("project=a,project=a", "'project' is given twice"),
    ],
)
def test_refusal_says_what_is_wrong(header: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        tags.parse(header, KEYS)


def test_without_keys_in_the_config_there_are_no_tags() -> None:
    assert tags.parse(" , ", ()) == tags.NONE
    with pytest.raises(ValueError, match="lists no keys"):
        tags.parse("project=a", ())


def test_no_request_can_have_the_value_of_all_others() -> None:
    """Else its usage could not be told from theirs."""
    with pytest.raises(ValueError, match="as the value of"):
        tags.parse(f"project={OTHER_VALUES}", KEYS)
