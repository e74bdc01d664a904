"""Settings that a reload replaces while services read them."""

import logging

import pytest

from gateway.runtime.live import LiveSettings, replace_all


def test_reader_gets_the_new_value_at_its_next_read():
    live = LiveSettings(1)
    live.replace(2)
    assert live.value == 2


def test_listeners_run_in_order_of_subscription_when_all_values_are_new():
    """A value that depends on two settings is never computed from an old and a new one."""
    first, second = LiveSettings("a"), LiveSettings("b")
    seen: list[tuple[str, str, str]] = []
    first.subscribe(lambda value: seen.append(("one", value, second.value)))
    first.subscribe(lambda value: seen.append(("two", value, second.value)))
    second.subscribe(lambda value: seen.append(("three", first.value, value)))
    replace_all([(first, "A"), (second, "B")])
    assert seen == [("one", "A", "B"), ("two", "A", "B"), ("three", "A", "B")]


def test_failing_listener_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture):
    """A defect in one service does not leave the others with old settings."""
    first, second = LiveSettings(1), LiveSettings(1)
    seen: list[int] = []

    def fails(value: int) -> None:
        raise RuntimeError(value)

    first.subscribe(fails)
    first.subscribe(seen.append)
    second.subscribe(seen.append)
    with caplog.at_level(logging.ERROR):
        replace_all([(first, 2), (second, 3)])
    assert seen == [2, 3]
    assert "restart the gateway" in caplog.text
