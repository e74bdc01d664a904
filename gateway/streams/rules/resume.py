"""Decides where a reader of a stream starts, or resumes.

A reader without an id gets all events; one with `Last-Event-ID` gets the events after it. If some of them are no longer
available, the reader gets an `error` event and `done` (`replay.lost`) and none of the rest, because a client could not
detect a gap in the text.

`EventSource` reconnects with its last id whenever a connection ends, unless the page closes it (on `done`, as
Replicate's protocol requires) or the response is 204. So a reader that resumes after the last event of a complete
stream, or after an end that the gateway made, is `Complete` and gets a 204. A page that never closes its `EventSource`
then stops reconnecting.

An id that sorts after all events in the log may be of an event that upstream has not repeated yet: after a crash the
stored log is up to half a second older than what readers have received. Such a reader waits (`NotYet`); the caller of
`resume` decides for how long.
"""

import msgspec

from gateway.streams.rules import replay
from gateway.streams.rules.event_log import Dropped, EventLog, order

BEGINNING_DROPPED = "The beginning of this stream is no longer available. Read the prediction instead."
REST_DROPPED = "The events after that id are no longer available. Read the prediction instead."
UNKNOWN = "This stream has no event with that id to resume after. Read the prediction instead."


class ResumeAt(msgspec.Struct, frozen=True):
    """The reader continues at this cursor."""

    cursor: int


class NotYet(msgspec.Struct, frozen=True):
    """The event with the reader's id may still arrive. Decide again after new events."""


class Gap(msgspec.Struct, frozen=True):
    """The reader would miss or repeat events."""

    detail: str


class Complete(msgspec.Struct, frozen=True):
    """The reader has received all events, including the end."""


def resume(log: EventLog, last_event_id: str | None) -> ResumeAt | NotYet | Gap | Complete:
    """Decide where in a log a reader continues after the event with that id; `None` is a new reader."""
    if last_event_id is None:
        return Gap(BEGINNING_DROPPED) if log.is_behind(log.start()) else ResumeAt(log.start())
    if replay.is_own_end(last_event_id):
        return Complete()
    if not log.is_closed and _is_later(last_event_id, log.last_id):
        return NotYet()
    found = log.after(last_event_id)
    if isinstance(found, int):
        return Complete() if log.is_closed and found == log.end else ResumeAt(found)
    first = replay.first_after_logs(last_event_id)
    if first is not None and log.after(first) == log.start() + 1:
        # The same replay, without the logs.
        return ResumeAt(log.start())
    return Gap(REST_DROPPED if isinstance(found, Dropped) else UNKNOWN)


def _is_later(event_id: str, last_id: str | None) -> bool:
    wanted = order(event_id)
    last = order(last_id) if last_id is not None else (-1, -1)
    return wanted is not None and last is not None and wanted > last
