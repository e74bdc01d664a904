"""Outcomes of creates as other nodes read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.upstream_response import Answer
from gateway.errors import (
    CallerLeft,
    GatewayError,
    RateLimited,
    StoreUnavailable,
    Unprocessable,
    UpstreamTokenRefused,
    UpstreamUnavailable,
)
from gateway.predictions.rules.create_outcomes import decode, encode_answer, encode_error

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.integers(400, 599), st.dictionaries(texts, texts, max_size=4), st.binary(max_size=200))
def test_answer_of_upstream_is_the_same_elsewhere(status: int, headers: dict[str, str], body: bytes):
    assert decode(encode_answer(Answer(status, headers, body))) == Answer(status, headers, body)


@pytest.mark.parametrize(
    "error",
    [
        CallerLeft("Gone."),
        RateLimited("Full.", retry_after=3, limit={"name": "rate", "limit": 5, "remaining": 0}),
        RateLimited("Full.", retry_after=3),
        StoreUnavailable("Away.", retry_after=1),
        UpstreamTokenRefused("No.", title="Other"),
        UpstreamUnavailable("Down."),
    ],
)
def test_error_is_the_same_elsewhere(error: GatewayError):
    said = decode(encode_error(error))
    assert isinstance(said, GatewayError)
    assert type(said) is type(error)
    assert vars(said) == vars(error)


def test_error_of_another_kind_keeps_what_it_says():
    said = decode(encode_error(Unprocessable.field("input", "is wrong")))
    assert isinstance(said, UpstreamUnavailable)
    assert said.detail == "- input: is wrong\n"
