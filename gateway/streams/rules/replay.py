"""Events made by the gateway itself: the stream of a finished run of which no log was kept, and ends for their callers.

Made from a document, and from nothing else, so that the same run says the same bytes each time, in every process, and
a reader who comes back with `Last-Event-ID` goes on where it was. Ids are `<unix s>:<n>` as upstream's, with the
second of the run's completion. Ends that are for one caller, or for nobody to be added to, have numbers from
`OWN_ENDS` on, beyond what upstream counts to in one second, so that no event shares their ids, and a reader who comes
back after one is known to have been told (`is_own_end`).
"""

import re
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Raw

from gateway.domain import times
from gateway.domain.records import Status
from gateway.streams.rules.event_log import OUTPUT, order
from gateway.streams.rules.sse import DONE, Event

_LINE_END = re.compile(r"\r\n|\r|\n")
# One escape of a JSON string: a pair of surrogates, one alone (taken), or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
_REASONS = {
    Status.SUCCEEDED: "{}",
    Status.FAILED: '{"reason":"error"}',
    Status.CANCELED: '{"reason":"canceled"}',
    Status.ABORTED: '{"reason":"canceled"}',
}
_UNSAID = "Prediction failed"
_REMOVED = "The data of this prediction has been removed."
OWN_ENDS = 1_000_000
_CANCELED, _LOST, _LOST_DONE = range(OWN_ENDS, OWN_ENDS + 3)


class _Document(msgspec.Struct):
    status: Status
    output: Raw = Raw(b"null")
    error: Raw = Raw(b"null")
    completed_at: str | None = None
    data_removed: bool = False


_decode_document = msgspec.json.Decoder(_Document).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def frame(event: str, event_id: str, data: str) -> Event:
    """Build one event as upstream writes it: `event`, `id`, `data`, in this order. No other function builds one.

    A line break in the data (LF, CR or CR LF: the format knows no difference) makes several data lines; an empty line
    is `data:` with no space after it.
    """
    if _LINE_END.search(event + event_id) or "\0" in event_id:
        raise ValueError("a name or an id has one line, and an id no NUL")
    lines = "".join(f"data: {line}\n" if line else "data:\n" for line in _LINE_END.split(data))
    return Event(f"event: {event}\nid: {event_id}\n{lines}\n".encode(), event_id, event, False)


def replay(
    document: bytes,
    ended_at: float,
    *,
    output: bytes | None = None,
    sent: int = 0,
    error_said: bool = False,
    last_id: str | None = None,
) -> list[Event]:
    """Return the events of a finished run: its output, the error if it failed, and always `done`.

    - A list gives one event for each item: chunks of text, or the links of a stream of files. A string gives one.
    - What is not text (an object, a number, an item of a list that is one of these) gives its JSON, as upstream wrote
      it in the document. Null, and a list without items, give none. Models with such outputs have no stream upstream,
      so there is nothing to be like; JSON is what a reader can do most with.
    - Logs are not said again: they belong to the moments in which they came.
    - A run that succeeded and whose data is gone has no output to tell, which is not the same as none: an error.

    `ended_at` numbers the events where the document has no `completed_at`. `output` is JSON that stands in for the
    document's own: the links of stored copies.

    A live stream that upstream broke off is finished with the same function: `sent` outputs were said already and are
    left out, and the error too if it was (`error_said`); ids go on after `last_id`. The whole list is the replay with
    none of these.

    Raise `ValueError` if the document is none of a finished run.
    """
    try:
        read = _decode_document(_mended(document))
        chunks = _chunks(read.output if output is None else _mended(output))[sent:]
        error = _text(read.error) if bytes(read.error) != b"null" else _UNSAID
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"not a prediction: {exc}") from exc
    if read.status not in _REASONS:
        raise ValueError(f"not finished: the prediction is {read.status}")
    if read.data_removed and output is None and read.status is Status.SUCCEEDED:
        return lost(_completed_at(read.completed_at, ended_at), _REMOVED)
    said = [("output", chunk) for chunk in chunks]
    if read.status is Status.FAILED and not error_said:
        said.append(("error", _json({"detail": error or _UNSAID})))
    said.append((DONE, _REASONS[read.status]))
    second, first = _first_id(read.completed_at, ended_at, last_id)
    return [frame(event, f"{second}:{number}", data) for number, (event, data) in enumerate(said, first)]


def with_links(events: Iterable[Event], links: Mapping[str, str]) -> list[Event]:
    """Return the events with other links to files in the place of known ones; ids and order stay."""
    told = []
    for event in events:
        link = links.get(event.data()) if event.name == OUTPUT else None
        told.append(event if link is None or event.id is None else frame(OUTPUT, event.id, link))
    return told


def canceled_done(at: float) -> Event:
    """Return the end of the stream of a caller who cancelled, or ran out of time, whatever the run goes on to say."""
    return frame(DONE, f"{int(at)}:{_CANCELED}", _REASONS[Status.CANCELED])


def lost(at: float, detail: str) -> list[Event]:
    """Return the end of a stream that cannot go on honestly: an error that says why, and `done`."""
    error = frame("error", f"{int(at)}:{_LOST}", _json({"detail": detail}))
    return [error, frame(DONE, f"{int(at)}:{_LOST_DONE}", _REASONS[Status.FAILED])]


def is_own_end(event_id: str) -> bool:
    """Say whether this is the id of a `done` of `canceled_done` or `lost`: its reader has nothing to wait for."""
    pair = order(event_id)
    return pair is not None and pair[1] in (_CANCELED, _LOST_DONE)


def _chunks(output: bytes) -> list[str]:
    kind = bytes(output).lstrip()[:1]
    if kind == b"[":
        return [_text(item) for item in _decode_list(output)]
    return [] if kind == b"n" else [_text(output)]


def _text(value: bytes) -> str:
    """Read a string as what it says, anything else as it is written."""
    written = bytes(value).strip()
    return _decode_text(written) if written.startswith(b'"') else written.decode()


def _mended(document: bytes) -> bytes:
    """Replace halves of emoji, escapes of one surrogate alone, by U+FFFD: JSON allows them, UTF-8 cannot."""
    if b"\\ud" not in document and b"\\uD" not in document:
        return document
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], document)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _first_id(completed_at: str | None, ended_at: float, last_id: str | None) -> tuple[int, int]:
    """Return the second and the number of the first event: those of the completion, but after what was said last."""
    second = int(_completed_at(completed_at, ended_at))
    last = order(last_id) if last_id else None
    if last is None or (second, 0) > last:
        return second, 0
    return last[0], last[1] + 1


def _completed_at(completed_at: str | None, ended_at: float) -> float:
    try:
        return times.parse(completed_at) if completed_at else ended_at
    except ValueError:
        return ended_at
