"""Decide which webhook events are due, with Replicate's semantics (docs/replicate-api.md, Webhooks).

`start` is sent once, when the run has started. `output` and `logs` are sent when there is more of them, together at
most once in half a second; a change within that time is sent when it is over, in its newest form. `completed` is always
sent, once and last. A caller who names no events gets `output` and `completed`.

Progress is observed by polling, so one snapshot can make several events due. A prediction that ended between two polls,
or that is a hit, still gets `start` and `output` before `completed`.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from gateway.domain import documents
from gateway.domain.records import PredictionView, Status


class Event(StrEnum):
    """Webhook events."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


DEFAULT = frozenset({Event.OUTPUT, Event.COMPLETED})
THROTTLE_SECONDS = 0.5

_NOTHING = b""
# A cancelled or aborted prediction only gets `completed`: its output is removed, and its run may never have started.
_LEFT = frozenset({Status.CANCELED, Status.ABORTED})


class ProgressSnapshot(msgspec.Struct, frozen=True):
    """The progress of a prediction at one time. `output` and `logs` are digests; empty if there is none."""

    status: Status
    has_started: bool = False
    output: bytes = _NOTHING
    logs: bytes = _NOTHING


class Sent(msgspec.Struct, frozen=True):
    """The progress that was sent to a caller, or that need not be sent any more."""

    started: bool = False
    output: bytes = _NOTHING
    logs: bytes = _NOTHING
    progress_at: float | None = None
    """When `output` or `logs` was last due."""
    completed: bool = False


class Due(msgspec.Struct, frozen=True):
    """The events to send, in order; what is then sent; and when throttled events become due."""

    events: tuple[Event, ...]
    sent: Sent
    again_at: float | None = None


def wanted(events_filter: Sequence[str] | None) -> frozenset[Event]:
    """Return the events that a caller asked for. An empty list means the default, as no list does."""
    return frozenset(Event(event) for event in events_filter) if events_filter else DEFAULT


def snapshot_of(view: PredictionView) -> ProgressSnapshot:
    """Return the progress of a prediction. Raise `ValueError` if its document cannot be read."""
    status = documents.shown_status(view)
    if status in _LEFT:
        return ProgressSnapshot(status)
    facts = documents.progress_of(view.run.document)
    has_started = status in (Status.PROCESSING, Status.SUCCEEDED) or facts.has_started
    return ProgressSnapshot(status, has_started, _digest(facts.output), _digest(facts.logs))


def caught_up(snapshot: ProgressSnapshot) -> Sent:
    """Return the state in which all progress of a snapshot counts as sent."""
    return Sent(snapshot.has_started, snapshot.output, snapshot.logs)


def due(sent: Sent, snapshot: ProgressSnapshot, events: frozenset[Event], now: float) -> Due:
    """Return which of the wanted `events` a snapshot makes due. `now` is a monotonic time."""
    if sent.completed:
        return Due((), sent)
    found: list[Event] = []
    if snapshot.has_started and not sent.started:
        sent = replace(sent, started=True)
        found.append(Event.START)
    again_at = None
    if (progress := _progress(sent, snapshot, events)) is not None:
        free_at = now if sent.progress_at is None else sent.progress_at + THROTTLE_SECONDS
        if now >= free_at:
            sent = replace(sent, output=snapshot.output, logs=snapshot.logs, progress_at=now)
            found.append(progress)
        else:
            again_at = free_at
    if snapshot.status.is_terminal:
        sent = replace(sent, completed=True)
        found.append(Event.COMPLETED)
        again_at = None
    return Due(tuple(event for event in found if event in events), sent, again_at)


def _progress(sent: Sent, snapshot: ProgressSnapshot, events: frozenset[Event]) -> Event | None:
    """Return the event for new output or logs. The body has both, so one event is enough."""
    if Event.OUTPUT in events and snapshot.output not in (sent.output, _NOTHING):
        return Event.OUTPUT
    if Event.LOGS in events and snapshot.logs not in (sent.logs, _NOTHING):
        return Event.LOGS
    return None


def _digest(value: bytes | None) -> bytes:
    return _NOTHING if value is None else hashlib.blake2b(value, digest_size=16).digest()
