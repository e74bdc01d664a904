"""Documents: the JSON bodies of predictions and trainings, as read from upstream.

Upstream's body is stored byte for byte. Where the gateway changes it, only its top level is split. `input`, `output`,
`logs` and all other fields keep upstream's bytes, so that no number and no escape sequence changes its form
(docs/architecture.md, Invariants 11). `rendering` shows documents to callers.
"""

import codecs
from itertools import chain
from typing import Any, Literal

import msgspec
from msgspec import Raw

from gateway.domain import large_bytes, large_json, long_logs, surrogates, times
from gateway.domain.records import Kind, PredictionView, Run, Status

Family = Literal["predictions", "trainings"]
Fields = dict[str, Raw]

_decode = surrogates.split
_encode = msgspec.json.Encoder().encode

_decode_optional = msgspec.json.Decoder(str | None).decode
_decode_any = msgspec.json.Decoder(Any).decode

_utf8 = codecs.getincrementaldecoder("utf-8")
_SLICE = 1 << 20
SHORT = 1 << 16
"""Bytes that a short field can have."""
_REPLACEMENT = "\ufffd"

NULL = Raw(b"null")
_EMPTY_LOGS = Raw(b'""')


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a run in one response of upstream."""

    upstream_id: str
    status: Status
    stream_url: str | None
    model: str | None
    version: str | None
    created_at: float | None
    completed_at: float | None
    document: bytes
    is_repaired: bool = False
    """Whether upstream's text was not valid and was replaced in part."""
    is_shortened: bool = False
    """Whether only the end of very long logs was kept (`long_logs.py`)."""
    is_status_unknown: bool = False
    """Whether it ended with a status that the gateway does not know. It counts as failed, also in `document`."""


class _Head(msgspec.Struct):
    id: str
    status: Any = None
    urls: dict[str, str | None] | None = None
    model: str | None = None
    version: str | None = None
    created_at: Any = None
    completed_at: Any = None
    error: Raw = Raw(b"null")

    @property
    def has_ended(self) -> bool:
        """Whether it names an end, in whatever form."""
        return self.completed_at not in (None, "")


_decode_head = msgspec.json.Decoder(_Head).decode
_STATUSES = {status.value: status for status in Status}
_LONGEST_STATUS = 40


def read_snapshot(body: bytes) -> Snapshot:
    """Read upstream's body of a prediction or training. Raise `ValueError` if it is neither.

    An unknown status together with an end (`completed_at`) is read as failed. Times that cannot be read count as
    absent. For large bodies this takes a while, and belongs in a thread. No step in it holds the interpreter for long.
    """
    whole = body.strip() if len(body) <= large_bytes.WHOLE else large_bytes.stripped(body)
    given = long_logs.shortened(whole) if len(whole) > long_logs.LARGE else whole
    document = readable(given)
    if len(document) >= surrogates.LARGE:
        try:
            surrogates.split_strictly(document)
        except msgspec.DecodeError:
            if surrogates.has_many_halves(document):
                document = surrogates.without_halves(document)
        except RecursionError as exc:
            raise ValueError("not a prediction: it is nested too deeply") from exc
    snapshot = stored_snapshot(document, is_repaired=document is not given)
    return snapshot if given is whole else msgspec.structs.replace(snapshot, is_shortened=True)


def stored_snapshot(document: bytes, *, is_repaired: bool = False) -> Snapshot:
    """Read a document that `read_snapshot` has read before. Raise `ValueError` if it is not a prediction's."""
    try:
        head = _read_head(document)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ValueError(f"not a prediction: {exc}") from exc
    if _REPLACEMENT in head.id:
        raise ValueError("not a prediction: its id is not a string")
    status = _STATUSES.get(head.status) if isinstance(head.status, str) else None
    if (is_unknown := status is None) and not head.has_ended:
        raise ValueError("not a prediction: its status is unknown, and it has not ended")
    if status is None:
        status, document = Status.FAILED, _ended_unknown(document, head)
    return Snapshot(
        upstream_id=head.id,
        status=status,
        stream_url=(head.urls or {}).get("stream"),
        model=head.model,
        version=head.version,
        created_at=time_of(head.created_at),
        completed_at=time_of(head.completed_at),
        document=document,
        is_status_unknown=is_unknown,
        is_repaired=is_repaired,
    )


def _ended_unknown(document: bytes, head: _Head) -> bytes:
    """Return the document of a run that ended with an unknown status, as one that failed. Upstream's error is kept."""
    named = f'the unknown status "{head.status[:_LONGEST_STATUS]}"' if isinstance(head.status, str) else "no status"
    error = _decode_any(bytes(head.error))
    detail = error if isinstance(error, str) and error else f"Replicate ended this prediction with {named}."
    return failed(document, detail)


def with_same(run: Run, document: bytes) -> Run:
    """Return a run with this document instead of an equal one, which would have to be read again if it is large."""
    if len(document) < surrogates.LARGE or run.document is document or run.document != document:
        return run
    return msgspec.structs.replace(run, document=document)


def readable(document: bytes) -> bytes:
    """Return a document in which invalid UTF-8 is replaced by U+FFFD; the same object if it is valid."""
    if document.isascii():
        return document
    decoder = _utf8()
    try:
        for at in range(0, len(document), _SLICE):
            decoder.decode(document[at : at + _SLICE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        decoder = _utf8("replace")
        pieces = (decoder.decode(document[at : at + _SLICE]).encode() for at in range(0, len(document), _SLICE))
        return large_bytes.joined(chain(pieces, (decoder.decode(b"", final=True).encode() for _ in range(1))))
    return document


def part(document: bytes, *names: str) -> bytes:
    """Return what a large document says of a few short fields, as JSON. A small document is returned as it is.

    Fields that are longer than anything of theirs should be are left out. Raise the decoder's errors.
    """
    if len(document) < surrogates.LARGE:
        return document
    try:
        fields = surrogates.split_strictly(document)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        fields = surrogates.split_strictly(surrogates.without_halves(document))
    return _encode({name: fields[name] for name in names if name in fields and len(memoryview(fields[name])) < SHORT})


def _read_head(document: bytes) -> _Head:
    try:
        is_large = len(document) >= surrogates.LARGE
        return _decode_head(part(document, *_Head.__struct_fields__) if is_large else document)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        replaced = surrogates.without_halves(document)
        if replaced is document:
            raise
        return _decode_head(replaced)


def time_of(text: object) -> float | None:
    """Read a time of a document; `None` for what is none."""
    try:
        return times.parse(text) if isinstance(text, str) and text else None
    except ValueError:
        return None


def text(value: str | None) -> Raw:
    """Encode a JSON string, or null."""
    return Raw(_encode(value))


def shown_status(view: PredictionView) -> Status:
    """Return the status that the caller sees: of the prediction if it was cancelled, else of its run."""
    return view.prediction.final_status if view.prediction.canceled_at is not None else view.run.status


class Progress(msgspec.Struct, frozen=True):
    """The progress of a run. `output` and `logs` are JSON; `None` if there is none."""

    has_started: bool
    output: bytes | None
    logs: bytes | None


def progress_of(document: bytes) -> Progress:
    """Read the progress of a run. Raise `ValueError` if the document cannot be read."""
    try:
        fields = _decode(document)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(f"not a prediction: {exc}") from exc
    has_started, output, logs = (_given(fields, name) for name in ("started_at", "output", "logs"))
    return Progress(
        has_started=has_started is not None,
        output=output,
        logs=None if logs == bytes(_EMPTY_LOGS) else logs,
    )


def _given(fields: Fields, name: str) -> bytes | None:
    value = large_bytes.copied(fields.get(name, NULL))
    return None if value == bytes(NULL) else value


def as_running(shown: bytes, *, at_start: bool) -> bytes:
    """Change the body of an ended prediction to its state before the end, for webhooks of earlier events.

    With `at_start`, output and logs are empty too.
    """
    fields = _decode(shown)
    earlier = {"status": text(Status.PROCESSING), "error": NULL}
    if at_start:
        earlier |= {"output": NULL, "logs": _EMPTY_LOGS}
    fields |= {name: value for name, value in earlier.items() if name in fields}
    for late in ("completed_at", "metrics"):
        fields.pop(late, None)
    return large_json.encode(fields)


def times_of(document: bytes) -> tuple[float | None, float | None]:
    """Return upstream's start and end of the run as epoch times; `None` where missing."""
    try:
        fields = _decode(document)
        started, ended = (_decode_optional(fields.get(name, NULL)) for name in ("started_at", "completed_at"))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, None
    return time_of(started), time_of(ended)


def output_of(document: bytes) -> bytes:
    """Return the output as JSON; `null` if there is none."""
    return large_bytes.copied(_decode(document).get("output", NULL))


def without_data(document: bytes) -> bytes:
    """Return the document as upstream shows it an hour after the end: without input, output and logs.

    See docs/replicate-api.md, Outputs and retention.
    """
    return large_json.encode(_without_data(document) | {"data_removed": Raw(b"true")})


def shortened(document: bytes) -> bytes:
    """Return the document without input, output and logs, for a response for which there is no room."""
    return large_json.encode(_without_data(document))


def _without_data(document: bytes) -> dict[str, Raw]:
    return _decode(document) | {"input": Raw(b"{}"), "output": NULL, "logs": _EMPTY_LOGS}


def skeleton(upstream_id: str, status: Status) -> bytes:
    """Return a minimal document, in place of one that cannot be read."""
    return _encode(
        {"id": upstream_id, "status": status, "input": {}, "output": None, "logs": "", "data_removed": True, "urls": {}}
    )


def failed(document: bytes, error: str) -> bytes:
    """Return the document of a run that the gateway ended without a response of upstream."""
    return large_json.encode(_decode(document) | {"status": text(Status.FAILED), "error": text(error)})


def family_of(kind: Kind) -> Family:
    """Return the route of a kind: `predictions` or `trainings`."""
    return "trainings" if kind is Kind.TRAINING else "predictions"


def page(results: list[bytes], next_url: str | None, previous_url: str | None) -> list[bytes]:
    """Return one page of a list in pieces, with Replicate's order of fields."""
    head = _encode({"previous": previous_url, "next": next_url, "results": []}).removesuffix(b"]}")
    separated = [piece for result in results for piece in (b",", result)][1:]
    return [head, *separated, b"]}"]
