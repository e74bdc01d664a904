"""Whoever keeps traces: spans of requests, of what they come to, and of the calls upstream that they cause.

Attributes are from closed sets (routes, statuses, teams, results); no id of a prediction, no address and no input is
ever one. `NoTracer` is for those who want none: it does nothing, and costs as much.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol


class Span(Protocol):
    """Something that takes time."""

    trace_id: str | None
    """The trace that it belongs to."""

    def end_as(self, name: str, attributes: Mapping[str, str | int]) -> None:
        """Say what it was, now that this is known."""
        ...


class Call(Protocol):
    """A call upstream."""

    headers: Mapping[str, str]
    """What to send along, so that whoever is called can belong to the trace."""

    def ended(self, outcome: str) -> None:
        """Say that it is over: with a status, or with the name of a failure."""
        ...


class Tracer(Protocol):
    """Opens spans. Each ends with its context; within it, those opened next are its children."""

    def request(self, method: str, traceparent: str | None, tracestate: str | None) -> AbstractContextManager[Span]:
        """Open the span of a request that came in, below the span that its headers name."""
        ...

    def step(self, name: str) -> AbstractContextManager[Span]:
        """Open a span below the current one."""
        ...

    def call(self, operation: str, method: str) -> Call:
        """Open the span of a call upstream. Calls on nobody's behalf, such as the tracker's looks, have none."""
        ...


class NoSpan:
    """A span, or a call, that nobody keeps."""

    trace_id: str | None = None
    headers: Mapping[str, str] = {}

    def end_as(self, name: str, attributes: Mapping[str, str | int]) -> None:
        """Do nothing."""

    def ended(self, outcome: str) -> None:
        """Do nothing."""


NO_SPAN: Final = NoSpan()
_NOTHING: Final = nullcontext(NO_SPAN)


class NoTracer:
    """Keeps no traces."""

    def request(self, method: str, traceparent: str | None, tracestate: str | None) -> AbstractContextManager[Span]:
        """Open nothing."""
        del method, traceparent, tracestate
        return _NOTHING

    def step(self, name: str) -> AbstractContextManager[Span]:
        """Open nothing."""
        del name
        return _NOTHING

    def call(self, operation: str, method: str) -> Call:
        """Open nothing."""
        del operation, method
        return NO_SPAN


if TYPE_CHECKING:
    _: type[Tracer] = NoTracer
