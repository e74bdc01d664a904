"""Tracing: spans of requests, their steps and the calls upstream that they cause.

Attribute values are from closed sets (routes, statuses, teams, results). Prediction ids, addresses and inputs are never
attributes. `NoTracer` does nothing, for gateways without tracing.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol


class Span(Protocol):
    """A span of a request or a step."""

    trace_id: str | None
    """The id of its trace; `None` if it is not recorded."""

    def end_as(self, name: str, attributes: Mapping[str, str | int]) -> None:
        """Set the final name and the attributes."""
        ...


class Call(Protocol):
    """The span of a call upstream."""

    headers: Mapping[str, str]
    """Headers to send, which propagate the trace."""

    def ended(self, outcome: str) -> None:
        """End the span with a status or the name of a failure."""
        ...


class Tracer(Protocol):
    """Opens spans. A span ends with its context. Spans opened within the context are its children."""

    def request(self, method: str, traceparent: str | None, tracestate: str | None) -> AbstractContextManager[Span]:
        """Open the span of an incoming request, as a child of the span that its headers name."""
        ...

    def step(self, name: str) -> AbstractContextManager[Span]:
        """Open a child span of the current one."""
        ...

    def call(self, operation: str, method: str) -> Call:
        """Open the span of a call upstream. Calls outside a request, such as the tracker's polls, are not recorded."""
        ...


class NoSpan:
    """A span, or a call, that is not recorded."""

    trace_id: str | None = None
    headers: Mapping[str, str] = {}

    def end_as(self, name: str, attributes: Mapping[str, str | int]) -> None:
        """Do nothing."""

    def ended(self, outcome: str) -> None:
        """Do nothing."""


NO_SPAN: Final = NoSpan()
_NOTHING: Final = nullcontext(NO_SPAN)


class NoTracer:
    """Records nothing."""

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
