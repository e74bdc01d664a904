"""How slowly a body may arrive."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.http.body_pace import Pace

IDLE, RATE = 30.0, 1000


def test_silence_is_bounded():
    """From the beginning and at any time."""
    pace = Pace(IDLE, RATE)
    assert pace.patience == IDLE
    pace.moved(10**9)
    assert pace.patience == IDLE


def test_byte_now_and_then_does_not_hold_a_connection():
    """A byte every 29 seconds: the minimum rate ends it after a second pause."""
    pace = Pace(IDLE, RATE)
    waits = 0
    while pace.patience >= 29.0:
        pace.waited(29.0)
        pace.moved(1)
        waits += 1
    assert waits == 1


@given(st.lists(st.floats(0.01, 29.0), min_size=1, max_size=50), st.floats(1.0, 100.0))
def test_body_at_the_minimum_rate_is_taken_whole(pauses, factor):
    """However long it takes in all."""
    pace = Pace(IDLE, RATE)
    for pause in pauses:
        assert pace.patience >= pause
        pace.waited(pause)
        pace.moved(int(pause * RATE * factor) + 1)
