"""Where a reader of a stream begins, or begins again: the decision of what is honest.

A reader without an id gets the whole; one that names its last event gets what came after it. Where a part of that can
no longer be had, the reader is told so, by an `error` event and `done` (`replay.lost`), and is given nothing of the
rest: a gap in a text looks like the text.

What `EventSource` makes of it: it comes back, with its last id, after every end of a connection, unless the page closes
it (on `done`, as Replicate's contract asks) or the answer is 204. So a reader who comes back after the last event of a
complete stream, or after an end of the gateway's own making, is `Complete`, to be answered 204: even a page that never
closes is told its end once, and is then quiet.

An id later than everything here may be of an event that has not come *again* yet: after a crash the log is up to half a
second older than what its readers have seen, and upstream tells those events once more. Such a reader waits (`NotYet`),
for as long as its caller thinks fit.
"""

import msgspec

from gateway.streams.rules import replay
from gateway.streams.rules.event_log import EventLog, Gone, order

BEGINNING_GONE = "The beginning of this stream is no longer kept. Read the prediction instead."
REST_GONE = "What came after that event is no longer kept. Read the prediction instead."
UNKNOWN = "This stream has no event of that id to go on after. Read the prediction instead."


class ResumeAt(msgspec.Struct, frozen=True):
    """The reader goes on from this cursor."""

    cursor: int


class NotYet(msgspec.Struct, frozen=True):
    """The event that the reader has seen may still come; after the next news the question is to be asked again."""


class Gap(msgspec.Struct, frozen=True):
    """The reader would miss something, or hear something twice."""

    detail: str


class Complete(msgspec.Struct, frozen=True):
    """The reader has been told everything, the end included."""


def resume(log: EventLog, last_event_id: str | None) -> ResumeAt | NotYet | Gap | Complete:
    """Say where in a log a reader goes on who has seen the event of that id, and all before it."""
    if last_event_id is None:
        return Gap(BEGINNING_GONE) if log.is_behind(log.start()) else ResumeAt(log.start())
    if replay.is_own_end(last_event_id):
        return Complete()
    if not log.is_closed and _is_later(last_event_id, log.last_id):
        return NotYet()
    found = log.after(last_event_id)
    if isinstance(found, int):
        return Complete() if log.is_closed and found == log.end else ResumeAt(found)
    return Gap(REST_GONE if isinstance(found, Gone) else UNKNOWN)


def _is_later(event_id: str, last_id: str | None) -> bool:
    asked = order(event_id)
    last = order(last_id) if last_id is not None else (-1, -1)
    return asked is not None and last is not None and asked > last
