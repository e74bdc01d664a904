"""Documents as their callers see them, written plainly: split at each use, with every field on its own.

The reference for `gateway.domain.rendering`, which must write the same bytes.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.domain import documents, surrogates, times
from gateway.domain import links as rewrite
from gateway.domain.documents import Family, Fields
from gateway.domain.records import PredictionView, Source, Status

_decode_urls = msgspec.json.Decoder(dict[str, str | None] | None).decode
_decode_any = msgspec.json.Decoder(Any).decode
_encode = msgspec.json.Encoder().encode


def render(
    view: PredictionView,
    base: str,
    ticket: str,
    *,
    family: Family,
    as_starting: bool = False,
    links: Mapping[str, str] | None = None,
) -> bytes:
    """Return a prediction as its caller sees it."""
    prediction, run = view.prediction, view.run
    fields = surrogates.split(run.document if run.document.isascii() else documents.readable(run.document))
    fields["id"] = documents.text(prediction.id)
    if "urls" in fields:
        hidden = run.upstream_id if run.upstream_id != prediction.id else None
        fields["urls"] = _urls(fields["urls"], f"{base}/{family}/{prediction.id}", f"{base}/{ticket}", hidden)
    callers = {"webhook": prediction.webhook, "webhook_events_filter": prediction.webhook_events_filter}
    for name, value in callers.items():
        # Upstream's values are the gateway's own and must not be shown.
        if value is not None:
            fields[name] = Raw(_encode(value))
        elif name in fields:
            del fields[name]
    if prediction.deadline_at is not None:
        fields["deadline"] = documents.text(times.render(prediction.deadline_at))
    if prediction.source in (Source.JOINED, Source.HIT):
        _show_own_times(fields, view)
    if links and "output" in fields:
        fields["output"] = Raw(rewrite.replace_addresses(bytes(fields["output"]), links))
    if prediction.canceled_at is not None:
        _show_left(fields, prediction.final_status, prediction.canceled_at)
    elif as_starting:
        fields["status"] = documents.text(Status.STARTING)
        if "output" in fields:
            fields["output"] = documents.NULL
        for late in ("started_at", "completed_at", "metrics"):
            fields.pop(late, None)
    return _encode(fields)


def _urls(urls: Raw, self_url: str, stream_url: str | None, hidden: str | None) -> Raw:
    own = {"get": self_url, "cancel": f"{self_url}/cancel", "stream": stream_url}
    shown = {}
    for name, url in (_decode_urls(urls) or {}).items() if len(memoryview(urls)) < documents.SHORT else ():
        if url is not None and (name in own or hidden is None or hidden not in url):
            shown_url = own.get(name, url)
            if shown_url is not None:
                shown[name] = shown_url
    return Raw(_encode(shown))


def _show_left(fields: Fields, status: Status, at: float) -> None:
    fields["status"] = documents.text(status)
    fields["output"] = documents.NULL
    fields["completed_at"] = documents.text(times.render(at))


def _show_own_times(fields: Fields, view: PredictionView) -> None:
    """Set the times of a prediction that shares a run, none of them before its own creation."""
    created = view.prediction.created_at
    fields["created_at"] = documents.text(times.render(created))
    for name in ("started_at", "completed_at"):
        if name not in fields:
            continue
        at = documents.time_of(_decode_any(bytes(fields[name])))
        if at is not None and at < created:
            fields[name] = fields["created_at"]
