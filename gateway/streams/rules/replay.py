"""Events that the gateway builds: replays of finished runs without a stored log, and ends of streams.

A replay depends only on the run's document. Every process builds the same bytes, so a reader can resume a replay with
`Last-Event-ID`. Ids are `<unix s>:<n>` as upstream's, with the second of the run's completion. Ends for a single reader
have numbers from `OWN_ENDS` on, more than upstream sends in one second. So no other event has their ids, and a reader
that resumes after one is known to have received the end (`is_own_end`). The event of a run's logs has such a number
too, because a process with less room has a replay without it (`first_after_logs`).
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

import msgspec
from msgspec import Raw

from gateway.domain import large_bytes, large_json, surrogates, times
from gateway.domain.records import Status
from gateway.streams.rules.event_log import OUTPUT, order
from gateway.streams.rules.sse import DONE, Event

_LINE_END = re.compile(r"\r\n|\r|\n")
_REASONS = {
    Status.SUCCEEDED: "{}",
    Status.FAILED: '{"reason":"error"}',
    Status.CANCELED: '{"reason":"canceled"}',
    Status.ABORTED: '{"reason":"canceled"}',
}
_DEFAULT_ERROR = "Prediction failed"
_REMOVED = "The data of this prediction has been removed."
OWN_ENDS = 1_000_000
_STEP = 64 * 1024
"""Characters of a text that are framed in one step."""
_CANCELED, _LOST, _LOST_DONE, _LOGS = range(OWN_ENDS, OWN_ENDS + 4)


class _Document(msgspec.Struct):
    status: Status
    output: Raw = Raw(b"null")
    logs: Raw = Raw(b"null")
    error: Raw = Raw(b"null")
    completed_at: str | None = None
    data_removed: bool = False


_decode_document = msgspec.json.Decoder(_Document).decode


def frame(event: str, event_id: str, data: str) -> Event:
    """Build one event as upstream writes it: `event`, `id`, `data`, in this order.

    Each line of the data becomes a `data` line; LF, CR and CR LF are line breaks. An empty line becomes `data:` without
    a space. Raise `ValueError` for a line break in the name or the id, or a NUL in the id.
    """
    if _LINE_END.search(event + event_id) or "\0" in event_id:
        raise ValueError("a name or an id must be one line, and an id must not contain NUL")
    head = f"event: {event}\nid: {event_id}\n"
    if len(data) > _STEP:
        pieces = chain((head,), _data_lines(data), ("\n",))
        return Event(large_bytes.joined(map(str.encode, pieces)), event_id, event, False)
    # A long line is found to be one at once.
    split = _LINE_END.split(data) if "\n" in data or "\r" in data else [data]
    lines = "".join(f"data: {line}\n" if line else "data:\n" for line in split)
    return Event(f"{head}{lines}\n".encode(), event_id, event, False)


def _data_lines(data: str) -> Iterator[str]:
    """Yield the `data` lines of a long text, piece by piece."""
    start = 0
    has_begun = False
    while start < len(data):
        end = start + _STEP
        end += data[end - 1 : end + 1] == "\r\n"
        first, *others = _LINE_END.split(data[start:end])
        if first:
            yield first if has_begun else f"data: {first}"
            has_begun = True
        if others:
            yield "\n" if has_begun else "data:\n"
            last = others.pop()
            yield "".join(f"data: {line}\n" if line else "data:\n" for line in others)
            has_begun = bool(last)
            if last:
                yield f"data: {last}"
        start = end
    yield "\n" if has_begun else "data:\n"


def events_of(
    document: bytes,
    ended_at: float,
    *,
    output: bytes | None = None,
    sent: int = 0,
    error_sent: bool = False,
    last_id: str | None = None,
    most_bytes: int = 0,
) -> Iterator[Event]:
    """Yield the events of a finished run: its logs, its output, an error if it failed, and `done`.

    - A list gives one event per item: chunks of text, or links of a file stream. A string gives one event.
    - Other values (objects, numbers, also as items of a list) give their JSON as it is in the document. Null and an
      empty list give none. Models with such outputs have no stream at upstream, so there is no format to match.
    - Logs give one event, before the output, if all events together have at most `most_bytes`. Its id is of the
      second before the others, whose ids are the same with and without it.
    - A run that succeeded and whose data was removed gives an error, because its output is unknown.

    `ended_at` is used in ids if the document has no `completed_at`. `output` is JSON that replaces the document's
    output, with links to stored copies.

    To complete a live stream that upstream broke off, leave out the first `sent` outputs, and the error if
    `error_sent`; ids then continue after `last_id`.

    Raise `ValueError` if the document is not one of a finished run.
    """
    try:
        read = _read(surrogates.without_halves(document))
        chunks = _chunks(read.output if output is None else surrogates.without_halves(output), sent)
        error = _text(read.error) if bytes(read.error) != b"null" else _DEFAULT_ERROR
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"not a prediction: {exc}") from exc
    if read.status not in _REASONS:
        raise ValueError(f"not finished: the prediction is {read.status}")
    if read.data_removed and output is None and read.status is Status.SUCCEEDED:
        return iter(lost(_completed_at(read.completed_at, ended_at), _REMOVED))
    end = [(DONE, _REASONS[read.status])]
    if read.status is Status.FAILED and not error_sent:
        end.insert(0, ("error", _json({"detail": error or _DEFAULT_ERROR})))
    second, first = _first_id(read.completed_at, ended_at, last_id)
    events = enumerate(chain((("output", chunk) for chunk in chunks), end), first)
    made = (frame(event, f"{second}:{number}", data) for number, (event, data) in events)
    return _with_logs(made, read.logs, second, most_bytes)


def with_links(events: Iterable[Event], links: Mapping[str, str]) -> list[Event]:
    """Replace links to files in the events, by the mapping `links`; ids and order stay the same."""
    relinked = []
    for event in events:
        link = links.get(event.data()) if event.name == OUTPUT else None
        relinked.append(event if link is None or event.id is None else frame(OUTPUT, event.id, link))
    return relinked


def canceled_done(at: float) -> Event:
    """Return the `done` event for a caller whose prediction was canceled at a time, while its run may go on."""
    return frame(DONE, f"{int(at)}:{_CANCELED}", _REASONS[Status.CANCELED])


def lost(at: float, detail: str) -> list[Event]:
    """Return the end of a stream that cannot continue without a gap: an error with the reason, and `done`."""
    error = frame("error", f"{int(at)}:{_LOST}", _json({"detail": detail}))
    return [error, frame(DONE, f"{int(at)}:{_LOST_DONE}", _REASONS[Status.FAILED])]


def is_own_end(event_id: str) -> bool:
    """Return whether this is the id of a `done` event of `canceled_done` or `lost`."""
    pair = order(event_id)
    return pair is not None and pair[1] in (_CANCELED, _LOST_DONE)


def first_after_logs(event_id: str) -> str | None:
    """Return the id of the event after that of a run's logs; `None` if this is not the id of those."""
    pair = order(event_id)
    return f"{pair[0] + 1}:0" if pair is not None and pair[1] == _LOGS else None


def _with_logs(events: Iterator[Event], logs: Raw, second: int, most_bytes: int) -> Iterator[Event]:
    """Yield the event of a run's logs before the others, if all have at most so many bytes."""
    ahead: deque[Event] = deque()
    room = most_bytes
    for event in events:
        ahead.append(event)
        room -= len(event.raw)
        if room < 0:
            break
    if (first := _logs(logs, second, room)) is not None:
        yield first
    while ahead:
        # One by one: to free many events at once takes long.
        yield ahead.popleft()
    yield from events


def _logs(logs: Raw, second: int, most_bytes: int) -> Event | None:
    """Return the event of a run's logs, unless there are none, or they are too long."""
    if len(memoryview(logs)) > most_bytes:
        return None
    text = bytes(logs).strip()
    if not text.startswith(b'"') or text == b'""':
        return None
    event = frame("logs", f"{second - 1}:{_LOGS}", _text(text))
    return event if len(event.raw) <= most_bytes else None


def _read(document: bytes) -> _Document:
    if len(document) < large_json.WHOLE:
        return _decode_document(document)
    fields = large_json.split(document, _Document.__struct_fields__)
    large = {name: fields.pop(name) for name in ("output", "logs", "error") if name in fields}
    return msgspec.structs.replace(_decode_document(large_json.encode(fields)), **large)


def _chunks(output: bytes | Raw, sent: int) -> Iterator[str]:
    """Yield the texts of an output after those that were sent."""
    output = large_bytes.stripped(large_bytes.copied(output))
    kind = output[:1]
    if kind == b"[":
        return _texts(islice(large_json.items(output), sent, None))
    return islice(() if kind == b"n" else (_text(output),), sent, None)


def _texts(items: Iterable[Raw]) -> Iterator[str]:
    try:
        for item in items:
            yield _text(item)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"not a prediction: {exc}") from exc


def _text(value: bytes | Raw) -> str:
    """Return the value of a JSON string, or any other value as JSON text."""
    text = large_bytes.stripped(large_bytes.copied(value))
    return large_json.decode_string(text, 0, len(text)) if text.startswith(b'"') else text.decode()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _first_id(completed_at: str | None, ended_at: float, last_id: str | None) -> tuple[int, int]:
    """Return the two numbers of the first event's id: the second of the completion and 0, or those after `last_id`."""
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
