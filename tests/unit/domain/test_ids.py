"""Ids of predictions and runs."""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import ids

RANDOM = st.binary(min_size=20, max_size=20)
TIMES = st.floats(0, 2**33)


@given(RANDOM, TIMES)
def test_prediction_id_has_upstreams_form(random, now):
    """Clients and databases made for Replicate's ids accept the gateway's."""
    made = ids.prediction_id(random, now)
    assert re.fullmatch(ids.ID, made)
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", made)


@given(RANDOM, RANDOM, TIMES)
def test_ids_of_different_randomness_differ(one, other, now):
    """100 random bits at any time: no id is given twice, and none can be guessed."""
    same = ids.prediction_id(one, now) == ids.prediction_id(other, now)
    assert same == ([byte % 32 for byte in one] == [byte % 32 for byte in other])


def test_every_letter_is_equally_likely():
    counts = Counter(ids.random_id(bytes(range(256))))
    assert set(counts.values()) == {8}
    assert len(counts) == 32


@given(RANDOM, RANDOM, st.integers(0, 2**30 - 2), st.integers(1, 2**29))
def test_prediction_ids_sort_by_creation(one, other, at, later):
    """New predictions are neighbours in the store's indexes, within one turn of 3.4 years."""
    after = min(at + later, 2**30 - 1)
    assert ids.prediction_id(one, at / 10 + 0.01) < ids.prediction_id(other, after / 10 + 0.01)


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
