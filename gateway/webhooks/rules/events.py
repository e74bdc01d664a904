"""Which webhook events a prediction's caller is due, in Replicate's semantics (docs/replicate-api.md, Webhooks).

`start` comes once, when the work has begun. `output` and `logs` come when there is more of them, together at most once
in half a second; what came too early is told when that is over, by then in its newest form. `completed` comes once,
last, and always. A caller who names no events gets `output` and `completed`.

Progress is seen by looking, so one look can bring several events: a prediction that ended between two looks, or that
was answered from a finished run, still tells that it started and what its output is before it tells its end.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from gateway.domain import documents
from gateway.domain.records import PredictionView, Status


class Event(StrEnum):
    """What a webhook is sent for."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


DEFAULT = frozenset({Event.OUTPUT, Event.COMPLETED})
THROTTLE_SECONDS = 0.5

_NOTHING = b""
# Who cancels, or is out of time, is told of that alone: their output is gone, and it may never have started.
_LEFT = frozenset({Status.CANCELED, Status.ABORTED})


class ProgressSnapshot(msgspec.Struct, frozen=True):
    """A prediction at one look, as far as events go. Output and logs are digests, empty where there is nothing."""

    status: Status
    has_started: bool = False
    output: bytes = _NOTHING
    logs: bytes = _NOTHING


class Sent(msgspec.Struct, frozen=True):
    """What a caller has been told, or need not be told any more."""

    started: bool = False
    output: bytes = _NOTHING
    logs: bytes = _NOTHING
    progress_at: float | None = None
    """When `output` or `logs` was last due."""
    completed: bool = False


class Due(msgspec.Struct, frozen=True):
    """What is to be sent, in order; what the caller has then been told; when to look again at what was held back."""

    events: tuple[Event, ...]
    told: Sent
    again_at: float | None = None


def wanted(events_filter: Sequence[str] | None) -> frozenset[Event]:
    """Return the events that a caller asked for. An empty list asks for nothing in particular, as none does."""
    return frozenset(Event(event) for event in events_filter) if events_filter else DEFAULT


def moment_of(view: PredictionView) -> ProgressSnapshot:
    """Look at a prediction. Raise `ValueError` for a document that cannot be read."""
    status = documents.shown_status(view)
    if status in _LEFT:
        return ProgressSnapshot(status)
    facts = documents.progress_of(view.run.document)
    has_started = status in (Status.PROCESSING, Status.SUCCEEDED) or facts.has_started
    return ProgressSnapshot(status, has_started, _digest(facts.output), _digest(facts.logs))


def caught_up(moment: ProgressSnapshot) -> Sent:
    """Return what a caller counts as having been told of what was so before anybody could tell."""
    return Sent(moment.has_started, moment.output, moment.logs)


def due(told: Sent, moment: ProgressSnapshot, events: frozenset[Event], now: float) -> Due:
    """Say which of the wanted `events` are due at a look. `now` is of a clock that does not go back."""
    if told.completed:
        return Due((), told)
    found: list[Event] = []
    if moment.has_started and not told.started:
        told = replace(told, started=True)
        found.append(Event.START)
    again_at = None
    if (progress := _progress(told, moment, events)) is not None:
        free_at = now if told.progress_at is None else told.progress_at + THROTTLE_SECONDS
        if now >= free_at:
            told = replace(told, output=moment.output, logs=moment.logs, progress_at=now)
            found.append(progress)
        else:
            again_at = free_at
    if moment.status.is_terminal:
        told = replace(told, completed=True)
        found.append(Event.COMPLETED)
        again_at = None
    return Due(tuple(event for event in found if event in events), told, again_at)


def _progress(told: Sent, moment: ProgressSnapshot, events: frozenset[Event]) -> Event | None:
    """Name what is new of output and logs. One body carries both, and one message tells it."""
    if Event.OUTPUT in events and moment.output not in (told.output, _NOTHING):
        return Event.OUTPUT
    if Event.LOGS in events and moment.logs not in (told.logs, _NOTHING):
        return Event.LOGS
    return None


def _digest(value: bytes | None) -> bytes:
    return _NOTHING if value is None else hashlib.blake2b(value, digest_size=16).digest()
