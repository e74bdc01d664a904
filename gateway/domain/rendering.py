"""Documents as their callers see them.

Only the top level is split, and the few fields that differ for the caller are replaced. All other fields keep
upstream's bytes (docs/architecture.md, Invariants 11). A document is split once for all predictions and all polls that
show it: each of them is then a copy of a few pieces.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import groupby
from typing import Any

import msgspec
from msgspec import Raw

from gateway.domain import documents, large_bytes, large_json, surrogates, times
from gateway.domain import links as rewrite
from gateway.domain.documents import Family, Fields
from gateway.domain.json_scan import contains
from gateway.domain.records import PredictionView, Source, Status

_decode = surrogates.split
_decode_urls = msgspec.json.Decoder(dict[str, str | None] | None).decode
_decode_any = msgspec.json.Decoder(Any).decode
_encode = msgspec.json.Encoder().encode

_SHARING = frozenset({Source.JOINED, Source.HIT})
_TIMES = ("started_at", "completed_at")
_STARTING = documents.text(Status.STARTING)
_CHANGED = frozenset(
    {"id", "urls", "webhook", "webhook_events_filter", "deadline", "created_at", *_TIMES, "status", "output", "metrics"}
)
"""The fields that `render` sets or removes, but for an input with links of files."""


class SplitDocument(msgspec.Struct, frozen=True, dict=True):
    """A run's document, read once for all predictions and all polls that show it."""

    document: bytes
    fields: Fields
    """Its fields in order. In a small document, the fields that are the same for every prediction are joined to the
    one before them (`_joined`)."""
    urls: dict[str, str | None] | None
    """Its links; `None` if it has no `urls`."""
    may_have_files: bool
    """Whether its input may have links of files."""

    @cached_property
    def times(self) -> dict[str, float | None]:
        """When the run started and ended, for those of the two fields that are there."""
        return {
            name: documents.time_of(_decode_any(bytes(self.fields[name]))) for name in _TIMES if name in self.fields
        }


def split(document: bytes, *, to_keep: bool = True) -> SplitDocument:
    """Read a document for `render`. Raise the decoder's errors. `to_keep`: it will be shown several times."""
    fields = _decode(document if document.isascii() else documents.readable(document))
    urls = _links_of(fields["urls"]) if "urls" in fields else None
    is_small = len(document) < surrogates.LARGE
    may_have_files = rewrite.FILES in document if is_small else contains(document, rewrite.FILES)
    return SplitDocument(
        document, _joined(fields, may_have_files) if to_keep and is_small else fields, urls, may_have_files
    )


def _joined(fields: Fields, may_have_files: bool) -> Fields:
    """Join neighbours that no prediction changes: the first of them gets a value that continues with the others.

    So most of a document is written by copying a few pieces.
    """
    joined: Fields = {}
    changed = _CHANGED | {"input"} if may_have_files else _CHANGED
    for is_changed, names in groupby(fields, changed.__contains__):
        part: Fields = {}
        for name in names:
            part[name] = fields[name]
        if not is_changed:
            first = next(iter(part))
            head = len(_encode({first: documents.NULL})) - len("null}")
            part = {first: Raw(_encode(part)[head:-1])}
        joined |= part
    return joined


def render(
    view: PredictionView,
    base: str,
    ticket: str,
    *,
    family: Family,
    as_starting: bool = False,
    links: Mapping[str, str] | None = None,
    upstream_base: str | None = None,
    document: SplitDocument | None = None,
) -> bytes:
    """Return a prediction as its caller sees it.

    `base` is the gateway's base URL with `/v1`, `ticket` the path of the stream below it, `family` the route of its
    links. `as_starting` shows it as upstream shows a prediction that was just created: for a sync wait that timed out,
    because clients take any status but `starting` for a result (docs/replicate-api.md, Sync mode), and for other
    responses to a create that must not have an output. `links` maps upstream's links in the output to stored copies'.
    File links of the input below `upstream_base` lead to the gateway: they were its own when they came in. `document`
    is the run's document, if it has been split before.
    """
    prediction, run = view.prediction, view.run
    read = document or split(run.document, to_keep=False)
    fields = read.fields.copy()
    fields["id"] = documents.text(prediction.id)
    if read.urls is not None:
        hidden = run.upstream_id if run.upstream_id != prediction.id else None
        fields["urls"] = _urls(read.urls, f"{base}/{family}/{prediction.id}", f"{base}/{ticket}", hidden)
    # Upstream's values are the gateway's own and must not be shown.
    if prediction.webhook is not None:
        fields["webhook"] = documents.text(prediction.webhook)
    else:
        fields.pop("webhook", None)
    if prediction.webhook_events_filter is not None:
        fields["webhook_events_filter"] = Raw(_encode(prediction.webhook_events_filter))
    else:
        fields.pop("webhook_events_filter", None)
    if prediction.deadline_at is not None:
        fields["deadline"] = documents.text(times.render(prediction.deadline_at))
    if prediction.source in _SHARING:
        _show_own_times(fields, read, prediction.created_at)
    if read.may_have_files and upstream_base is not None and "input" in fields:
        fields["input"] = Raw(rewrite.lead_files_back(large_bytes.copied(fields["input"]), upstream_base, base))
    if links and "output" in fields:
        fields["output"] = Raw(rewrite.replace_addresses(large_bytes.copied(fields["output"]), links))
    if prediction.canceled_at is not None:
        _show_left(fields, prediction.final_status, prediction.canceled_at)
    elif as_starting:
        fields["status"] = _STARTING
        if "output" in fields:
            fields["output"] = documents.NULL
        for late in ("started_at", "completed_at", "metrics"):
            fields.pop(late, None)
    return large_json.encode(fields)


def render_foreign(document: bytes, base: str, family: Family) -> bytes:
    """Return a prediction that the gateway has no record of, for callers with the scope `account`.

    Its links lead to the gateway. The stream's link is left out: there is no ticket for it, and clients would send
    their key to upstream's URL.
    """
    fields = _decode(documents.readable(document))
    prediction_id = msgspec.json.decode(fields["id"], type=str)
    if "urls" in fields:
        fields["urls"] = _urls(_links_of(fields["urls"]), f"{base}/{family}/{prediction_id}", None, None)
    return large_json.encode(fields)


def _links_of(urls: Raw) -> dict[str, str | None]:
    """Return the links of a document."""
    return (_decode_urls(urls) if len(memoryview(urls)) < documents.SHORT else None) or {}


def _urls(urls: dict[str, str | None], self_url: str, stream_url: str | None, hidden: str | None) -> Raw:
    """Point `get`, `cancel` and `stream` to the gateway. Leave out nulls, which clients reject.

    Other links are kept, except those that contain the `hidden` id: a prediction that shares a run must not reveal the
    id of the other team's prediction. See docs/replicate-api.md, Clients.
    """
    own = {"get": self_url, "cancel": f"{self_url}/cancel", "stream": stream_url}
    shown = {}
    for name, url in urls.items():
        if url is None:
            continue
        if name not in own:
            if hidden is None or hidden not in url:
                shown[name] = url
        elif (shown_url := own[name]) is not None:
            shown[name] = shown_url
    return Raw(_encode(shown))


def _show_left(fields: Fields, status: Status, at: float) -> None:
    fields["status"] = documents.text(status)
    fields["output"] = documents.NULL
    fields["completed_at"] = documents.text(times.render(at))


def _show_own_times(fields: Fields, read: SplitDocument, created: float) -> None:
    """Set the times of a prediction that shares a run, none of them before its own creation."""
    fields["created_at"] = shown = documents.text(times.render(created))
    for name, at in read.times.items():
        if at is not None and at < created:
            fields[name] = shown
