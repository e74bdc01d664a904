"""Bounds of transfers, as values."""

import pytest

from gateway.files.rules.transfers import WAITING_PER_PLACE, Bound, Count, Direction, TransferSettings, reached

SETTINGS = TransferSettings(max_uploads=10, max_downloads=6, max_per_team=4, max_per_public_key=2)


@pytest.mark.parametrize(
    ("total", "of_team", "of_public_key", "bound"),
    [
        (0, 0, None, None),
        (9, 3, None, None),
        (9, 3, 1, None),
        (9, 3, 2, Bound.PUBLIC_KEY),
        (9, 4, 2, Bound.PUBLIC_KEY),
        (9, 4, None, Bound.TEAM),
        (10, 3, None, Bound.TOTAL),
    ],
)
def test_the_narrowest_bound_that_is_reached_refuses(total, of_team, of_public_key, bound):
    assert reached(SETTINGS, Direction.UPLOADS, Count(total, of_team, of_public_key)) is bound


def test_each_direction_has_its_own_total():
    count = Count(6, 1, None)
    assert reached(SETTINGS, Direction.UPLOADS, count) is None
    assert reached(SETTINGS, Direction.DOWNLOADS, count) is Bound.TOTAL
    assert [SETTINGS.value(bound, Direction.DOWNLOADS) for bound in Bound] == [6, 4, 2]


def test_more_may_wait_than_be_in_progress():
    places = SETTINGS.max_per_team * WAITING_PER_PLACE
    waiting = [Count(number, number, None) for number in (places - 1, places)]
    assert [reached(SETTINGS, Direction.UPLOADS, each, times=WAITING_PER_PLACE) for each in waiting] == [
        None,
        Bound.TEAM,
    ]
