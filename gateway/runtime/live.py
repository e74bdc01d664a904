"""Settings that a reload of the config replaces while the gateway runs.

Each concept has one frozen value and one `LiveSettings` that holds it. A service takes the holder in its constructor
and reads `.value` where it needs it, so that the next use has what was loaded last. What is derived from the value and
kept (the size of a cache, the series of a metric) is brought up to date by a listener: see `LiveSettings.subscribe`.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class LiveSettings(Generic[T]):
    """The settings of one concept. The value is immutable and is replaced as a whole.

    Code that awaits between two reads, and needs both to agree, keeps the first value in a variable.
    """

    __slots__ = ("_listeners", "value")

    def __init__(self, value: T) -> None:
        self.value = value
        """The settings that were loaded last. Only `replace_all` sets it. An attribute, because requests read it."""
        self._listeners: list[Callable[[T], None]] = []

    def subscribe(self, listener: Callable[[T], None]) -> None:
        """Call `listener` with the new value after each reload, whether or not the value differs.

        Listeners run in the order of subscription, when every concept has its new value. They must not block. One that
        raises is logged and stops nothing.
        """
        self._listeners.append(listener)

    def replace(self, value: T) -> None:
        """Replace the value and call the listeners."""
        replace_all([(self, value)])

    def _notify(self) -> None:
        for listener in self._listeners:
            try:
                listener(self.value)
            except Exception:
                logger.exception("a part could not apply new settings; restart the gateway")


def replace_all(replacements: Iterable[tuple[LiveSettings[Any], Any]]) -> None:
    """Replace the values of several holders, then call their listeners. Nothing is awaited in between."""
    replacements = tuple(replacements)
    for holder, value in replacements:
        holder.value = value
    for holder, _ in replacements:
        holder._notify()  # noqa: SLF001 - the other half of the class: all values change before any listener runs
