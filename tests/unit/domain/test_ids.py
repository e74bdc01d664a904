"""Ids of predictions and runs."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import ids

RANDOM = st.binary(min_size=26, max_size=26)


@given(RANDOM)
def test_prediction_id_has_upstreams_form(random):
    """Clients and databases made for Replicate's ids accept the gateway's."""
    made = ids.prediction_id(random)
    assert re.fullmatch(ids.ID, made)
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", made)


@given(RANDOM, RANDOM)
def test_ids_of_different_randomness_differ(one, other):
    """130 bits: no id is given twice."""
    same = ids.prediction_id(one) == ids.prediction_id(other)
    assert same == ([byte % 32 for byte in one] == [byte % 32 for byte in other])


@given(
    st.binary(min_size=10, max_size=10),
    st.binary(min_size=10, max_size=10),
    st.integers(0, 2**45),
    st.integers(1, 2**40),
)
def test_run_ids_sort_by_creation(one, other, at, later):
    """A restart continues the oldest runs first."""
    assert ids.run_id(one, at / 1000) < ids.run_id(other, (at + later) / 1000 + 0.001)


@given(st.binary(min_size=10, max_size=10), st.floats(0, 2**33))
def test_run_id_looks_like_no_prediction_id(random, now):
    """The two can never be confused."""
    made = ids.run_id(random, now)
    assert re.fullmatch(r"run_[0-9a-v]{24}", made)
    assert not re.fullmatch(ids.ID, made)
