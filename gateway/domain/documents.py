"""Bodies of predictions and trainings: read from upstream, shown to a caller.

Upstream's body is kept byte for byte. To show it, its top level alone is taken apart and the few fields that differ for
the caller are replaced; `input`, `output`, `logs` and everything else stay the bytes that upstream wrote, so that no
number changes its form and no text its escapes (docs/architecture.md, Invariants 11).
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Raw

from gateway.domain import links as rewrite
from gateway.domain import surrogates, times
from gateway.domain.records import Kind, PredictionView, Source, Status

Family = Literal["predictions", "trainings"]
Fields = dict[str, Raw]

_decode = surrogates.split
_decode_urls = msgspec.json.Decoder(dict[str, str | None] | None).decode
_encode = msgspec.json.Encoder().encode

_decode_optional = msgspec.json.Decoder(str | None).decode
_SHARING = frozenset({Source.JOINED, Source.HIT})

NULL = Raw(b"null")
_EMPTY_LOGS = Raw(b'""')


class Snapshot(msgspec.Struct, frozen=True):
    """What a body of upstream says of a run."""

    upstream_id: str
    status: Status
    stream_url: str | None
    model: str | None
    version: str | None
    created_at: float | None
    completed_at: float | None
    document: bytes


class _Head(msgspec.Struct):
    id: str
    status: str
    urls: dict[str, str | None] | None = None
    model: str | None = None
    version: str | None = None
    created_at: str | None = None
    completed_at: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


def read_news(body: bytes) -> Snapshot:
    """Read a prediction or training as upstream gave it. Raise `ValueError` if it is none."""
    try:
        head = _read_head(body)
        status = Status(head.status)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ValueError(f"not a prediction: {exc}") from exc
    return Snapshot(
        upstream_id=head.id,
        status=status,
        stream_url=(head.urls or {}).get("stream"),
        model=head.model,
        version=head.version,
        created_at=_time(head.created_at),
        completed_at=_time(head.completed_at),
        document=body.strip(),
    )


def _read_head(body: bytes) -> _Head:
    try:
        return _decode_head(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        whole = surrogates.without_halves(body)
        if whole is body:
            raise
        return _decode_head(whole)


def _time(text: str | None) -> float | None:
    try:
        return times.parse(text) if text else None
    except ValueError:
        return None


def text(value: str | None) -> Raw:
    """Write one JSON string, or null."""
    return Raw(_encode(value))


def render(
    view: PredictionView,
    base: str,
    ticket: str,
    *,
    family: Family,
    as_starting: bool = False,
    links: Mapping[str, str] | None = None,
) -> bytes:
    """Write a prediction as its caller sees it.

    `base` is the gateway's base URL with `/v1`; `ticket` the path of its stream below it; `family` the route under
    which its links stand. `as_starting` shows it as upstream shows one that has just been created: for a sync wait that
    ran out, whose answer must never look like a result, because clients take everything but `starting` for one
    (docs/replicate-api.md, Sync mode), and for other answers to a create that must hold no output. `links` are stored
    copies' that stand in for upstream's in the output.
    """
    prediction, run = view.prediction, view.run
    fields = _decode(run.document)
    fields["id"] = text(prediction.id)
    if "urls" in fields:
        hidden = run.upstream_id if run.upstream_id != prediction.id else None
        fields["urls"] = _urls(fields["urls"], f"{base}/{family}/{prediction.id}", f"{base}/{ticket}", hidden)
    _replace(fields, "webhook", prediction.webhook)
    _replace(fields, "webhook_events_filter", prediction.webhook_events_filter)
    if prediction.deadline_at is not None:
        fields["deadline"] = text(times.render(prediction.deadline_at))
    if prediction.source in _SHARING:
        _show_own_times(fields, view)
    if links and "output" in fields:
        fields["output"] = Raw(rewrite.replace_addresses(bytes(fields["output"]), links))
    if prediction.canceled_at is not None:
        _show_left(fields, prediction.final_status, prediction.canceled_at)
    elif as_starting:
        fields["status"] = text(Status.STARTING)
        if "output" in fields:
            fields["output"] = NULL
        for late in ("started_at", "completed_at", "metrics"):
            fields.pop(late, None)
    return _encode(fields)


def render_foreign(document: bytes, base: str, family: Family) -> bytes:
    """Write a prediction that the gateway has no record of, for the account's own view.

    Its links lead back; its stream's is left out, since there is no ticket, and clients would send their key to the
    bare one.
    """
    fields = _decode(document)
    prediction_id = msgspec.json.decode(fields["id"], type=str)
    if "urls" in fields:
        fields["urls"] = _urls(fields["urls"], f"{base}/{family}/{prediction_id}", None, None)
    return _encode(fields)


def shown_status(view: PredictionView) -> Status:
    """Return the status that the caller sees: a cancelled prediction has ended, whatever its run does."""
    return view.prediction.final_status if view.prediction.canceled_at is not None else view.run.status


def _urls(urls: Raw, self_url: str, stream_url: str | None, hidden: str | None) -> Raw:
    """Point `get`, `cancel` and `stream` at the gateway; leave out nulls, which clients refuse.

    See docs/replicate-api.md, Clients.

    Others are kept, but those that name the `hidden` id: a prediction that shares a run does not tell whose it is.
    """
    mine = {"get": self_url, "cancel": f"{self_url}/cancel", "stream": stream_url}
    shown = {}
    for name, url in (_decode_urls(urls) or {}).items():
        if url is not None and (name in mine or hidden is None or hidden not in url):
            shown[name] = mine.get(name, url)
    return Raw(_encode({name: url for name, url in shown.items() if url is not None}))


def _replace(fields: Fields, name: str, value: str | tuple[str, ...] | None) -> None:
    """Show the caller's own value; upstream's, if any, is the gateway's and stays inside."""
    if value is not None:
        fields[name] = Raw(_encode(value))
    elif name in fields:
        del fields[name]


def _show_left(fields: Fields, status: Status, at: float) -> None:
    fields["status"] = text(status)
    fields["output"] = NULL
    fields["completed_at"] = text(times.render(at))


def _show_own_times(fields: Fields, view: PredictionView) -> None:
    """Give a prediction that shares a run the times of its own life, none of them before it was asked for."""
    created = view.prediction.created_at
    fields["created_at"] = text(times.render(created))
    for name in ("started_at", "completed_at"):
        if name not in fields:
            continue
        at = _time(_decode_optional(fields[name]))
        if at is not None and at < created:
            fields[name] = fields["created_at"]


class Progress(msgspec.Struct, frozen=True):
    """How far a run has come, as it is written. `None` where there is nothing."""

    has_started: bool
    output: bytes | None
    logs: bytes | None


def progress_of(document: bytes) -> Progress:
    """Read how far a run has come. Raise `ValueError` for what is no document."""
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
    value = bytes(fields.get(name, NULL))
    return None if value == bytes(NULL) else value


def as_running(shown: bytes, *, at_start: bool) -> bytes:
    """Turn a prediction as it is shown into what it was before its end: for webhooks that tell what came before.

    `at_start` shows it as it was when it had only begun, with no output and no logs.
    """
    fields = _decode(shown)
    earlier = {"status": text(Status.PROCESSING), "error": NULL}
    if at_start:
        earlier |= {"output": NULL, "logs": _EMPTY_LOGS}
    fields |= {name: value for name, value in earlier.items() if name in fields}
    for late in ("completed_at", "metrics"):
        fields.pop(late, None)
    return _encode(fields)


def times_of(document: bytes) -> tuple[float | None, float | None]:
    """Return when the work started and when it ended, as far as upstream has told."""
    try:
        fields = _decode(document)
        started, ended = (_decode_optional(fields.get(name, NULL)) for name in ("started_at", "completed_at"))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, None
    return _time(started), _time(ended)


def output_of(document: bytes) -> bytes:
    """Return the output as it is written; null where there is none."""
    return bytes(_decode(document).get("output", NULL))


def without_data(document: bytes) -> bytes:
    """Return the document as upstream shows it an hour after the end: no input, output or logs.

    See docs/replicate-api.md, Outputs and retention.
    """
    fields = _decode(document)
    fields["input"] = Raw(b"{}")
    fields["output"] = NULL
    fields["logs"] = _EMPTY_LOGS
    fields["data_removed"] = Raw(b"true")
    return _encode(fields)


def skeleton(upstream_id: str, status: Status) -> bytes:
    """Return the least that a prediction is: for a document that cannot be read any more."""
    return _encode(
        {"id": upstream_id, "status": status, "input": {}, "output": None, "logs": "", "data_removed": True, "urls": {}}
    )


def failed(document: bytes, error: str) -> bytes:
    """Return the document of a run that ended without upstream's word."""
    return _encode(_decode(document) | {"status": text(Status.FAILED), "error": text(error)})


def family_of(kind: Kind) -> Family:
    """Return the route under which a kind is listed and read."""
    return "trainings" if kind is Kind.TRAINING else "predictions"


def page(results: list[bytes], next_url: str | None, previous_url: str | None) -> bytes:
    """Write one page of a list, in the field order of Replicate's own."""
    body: Mapping[str, object] = {
        "previous": previous_url,
        "next": next_url,
        "results": [Raw(result) for result in results],
    }
    return _encode(body)
