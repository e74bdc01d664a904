"""Read a run's usage from its final document: seconds, outputs, tokens.

See docs/replicate-api.md, Prediction object and Prices.

The document comes from upstream and contains metrics that the model itself reports, so nothing in it is trusted: a
quantity that cannot be read counts as 0, no quantity is negative, and each problem is recorded as a `Doubt`.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec
from msgspec import Raw

from gateway.domain import json_scan, large_json, surrogates, times
from gateway.domain.large_bytes import copied
from gateway.domain.records import Status
from gateway.money.rules import numbers

MOST_SECONDS = 7 * 24 * 3600
"""Upper bound for a plausible run time. Upstream ends public models after 30 minutes and trainings after days.

See docs/replicate-api.md, States.
"""
MOST_OUTPUTS = 1_000_000
MOST_TOKENS = 10**9

_ZERO = Decimal(0)
_NULL = Raw(b"null")

_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str | None).decode


class Doubt(StrEnum):
    """Why a charge may differ from upstream's. A closed set of values, used in logs and metrics."""

    DOCUMENT_UNREADABLE = "document-unreadable"
    """The document is not valid JSON. Only a price per run is charged, by the run's status."""
    METRICS_UNREADABLE = "metrics-unreadable"
    """`metrics` is not an object. It counts as absent."""
    TIME_ODD = "time-odd"
    """`predict_time` is not a number, is negative, or is above `MOST_SECONDS`. It counts as absent."""
    TIME_FROM_DATES = "time-from-dates"
    """`predict_time` is absent. `completed_at` minus `started_at` is used instead, as upstream computes it."""
    TIME_MISSING = "time-missing"
    """There is neither `predict_time` nor usable dates. No time is charged."""
    OUTPUTS_ODD = "outputs-odd"
    """`image_count` is not a valid count. The items of the output are counted instead."""
    OUTPUTS_REMOVED = "outputs-removed"
    """Upstream removed the data before it was read. A successful run counts as one output."""
    TOKENS_ODD = "tokens-odd"
    """A token count is not a valid count. It counts as 0."""
    TOKENS_MISSING = "tokens-missing"
    """A successful run has no token count. It counts as 0."""
    STATUS_UNKNOWN = "status-unknown"
    """The run ended with a status that the gateway does not know. It counts as failed."""
    RUN_UNREADABLE = "run-unreadable"
    """Upstream's answers about the run could not be read for too long. The estimate is charged."""
    AMOUNT_CAPPED = "amount-capped"
    """The amount is larger than can be recorded. The maximum is charged."""


class _Metrics(msgspec.Struct):
    """The metrics that count. All others are skipped without being decoded."""

    predict_time: Raw = _NULL
    image_count: Raw = _NULL
    input_token_count: Raw = _NULL
    output_token_count: Raw = _NULL


_decode_metrics = msgspec.json.Decoder(_Metrics | None).decode


def _read_metrics(text: bytes) -> _Metrics:
    if len(text) >= large_json.WHOLE:
        return _Metrics(**large_json.split(text, _Metrics.__struct_fields__))
    return _decode_metrics(text) or _Metrics()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of a run that has ended. No quantity is negative."""

    status: Status
    seconds: Decimal = _ZERO
    """Upstream's run time, exactly as the document has it."""
    outputs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    doubts: frozenset[Doubt] = frozenset()


def usage_of(document: bytes, status: Status) -> Usage:
    """Read a run's final document. `status` is the one in the run's record; the document's own is ignored."""
    try:
        fields = surrogates.split(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Usage(status=status, doubts=frozenset({Doubt.DOCUMENT_UNREADABLE}))
    reading = _Reading(fields, status)
    return Usage(
        status=status,
        seconds=reading.seconds(),
        outputs=reading.outputs(),
        input_tokens=reading.tokens("input_token_count"),
        output_tokens=reading.tokens("output_token_count"),
        doubts=frozenset(reading.doubts),
    )


class _Reading:
    """Reads the fields of one document and collects doubts."""

    def __init__(self, fields: dict[str, Raw], status: Status) -> None:
        self._fields = fields
        self._has_succeeded = status is Status.SUCCEEDED
        self.doubts: set[Doubt] = set()
        self._metrics = self._read_metrics()

    def _read_metrics(self) -> dict[str, Raw]:
        try:
            metrics = _read_metrics(surrogates.without_halves(copied(self._fields.get("metrics", _NULL))))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.doubts.add(Doubt.METRICS_UNREADABLE)
            return {}
        return {name: getattr(metrics, name) for name in _Metrics.__struct_fields__}

    def seconds(self) -> Decimal:
        predict_time = self._number("predict_time", MOST_SECONDS, Doubt.TIME_ODD)
        if predict_time is not None:
            return predict_time
        started, completed = self._nanoseconds("started_at"), self._nanoseconds("completed_at")
        if started is None and not self._has_succeeded:
            return _ZERO  # It ended before it started.
        between = None if started is None or completed is None else Decimal(completed - started).scaleb(-9)
        if between is None or not 0 <= between <= MOST_SECONDS:
            self.doubts.add(Doubt.TIME_MISSING)
            return _ZERO
        self.doubts.add(Doubt.TIME_FROM_DATES)
        return between

    def outputs(self) -> int:
        image_count = self._count("image_count", MOST_OUTPUTS, Doubt.OUTPUTS_ODD)
        if image_count is not None:
            return image_count
        output = copied(self._fields.get("output", _NULL))
        if output == b"null":
            was_removed = self._has_succeeded and self._text("data_removed") == b"true"
            if was_removed:
                self.doubts.add(Doubt.OUTPUTS_REMOVED)
            return int(was_removed)
        return min(_items_of(output), MOST_OUTPUTS) if output[:1] == b"[" else 1

    def tokens(self, name: str) -> int:
        count = self._count(name, MOST_TOKENS, Doubt.TOKENS_ODD)
        if count is None and self._has_succeeded:
            self.doubts.add(Doubt.TOKENS_MISSING)
        return count or 0

    def _count(self, name: str, most: int, odd: Doubt) -> int | None:
        number = self._number(name, most, odd)
        if number is None or numbers.is_whole(number):
            return None if number is None else int(number)
        self.doubts.add(odd)
        return None

    def _number(self, name: str, most: int, odd: Doubt) -> Decimal | None:
        """Return a metric exactly; `None` if it is absent or implausible (recorded as the doubt `odd`)."""
        text = bytes(self._metrics.get(name, _NULL)).strip()
        if text == b"null":
            return None
        number = numbers.read(text)
        if number is None or not 0 <= number <= most:
            self.doubts.add(odd)
            return None
        return number or _ZERO

    def _text(self, name: str) -> bytes:
        return bytes(self._fields.get(name, _NULL)).strip()

    def _nanoseconds(self, name: str) -> int | None:
        try:
            text = _decode_text(self._fields.get(name, _NULL))
            return None if text is None else times.nanoseconds(text)
        except (ValueError, OverflowError, UnicodeDecodeError):
            return None


def _items_of(output: bytes) -> int:
    """Count the items of a JSON array."""
    if len(output) < surrogates.LARGE:
        return len(_decode_list(surrogates.without_halves(output)))
    return json_scan.items_of(output)
