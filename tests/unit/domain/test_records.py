"""Statuses and their order."""

import pytest

from gateway.domain.records import Status

TERMINAL = {Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.ABORTED}


@pytest.mark.parametrize("status", list(Status))
def test_four_statuses_are_terminal(status):
    """Clients stop polling at these, and only at these."""
    assert status.is_terminal == (status in TERMINAL)


def test_statuses_rank_in_the_order_of_a_run():
    """`processing` is newer than `starting`; no end replaces another."""
    assert Status.STARTING.rank < Status.PROCESSING.rank < Status.SUCCEEDED.rank
    assert len({status.rank for status in TERMINAL}) == 1


def test_statuses_are_spelled_as_upstream_spells_them():
    """They are written into bodies and databases."""
    assert [str(status) for status in Status] == [
        "starting", "processing", "succeeded", "failed", "canceled", "aborted",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="cancelled"):
        Status("cancelled")
