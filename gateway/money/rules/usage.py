"""What a run used, as its terminal document tells: seconds, outputs, tokens.

See docs/replicate-api.md, Prediction object and Prices.

The document is upstream's, and the model's own metrics stand in it, so nothing in it is taken for granted: what cannot
be read counts as nothing, is never below nothing, and leaves a doubt that says why.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec
from msgspec import Raw

from gateway.domain import surrogates, times
from gateway.domain.records import Status
from gateway.money.rules import numbers

MOST_SECONDS = 7 * 24 * 3600
"""Public models are cut off after half an hour, trainings after days. What says more is no measurement.

See docs/replicate-api.md, States.
"""
MOST_OUTPUTS = 1_000_000
MOST_TOKENS = 10**9

_ZERO = Decimal(0)
_NULL = Raw(b"null")

_decode_metrics = msgspec.json.Decoder(dict[str, Raw] | None).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str | None).decode


class Doubt(StrEnum):
    """Why an amount may be other than upstream's own. A closed set of tokens, fit for logs and metrics."""

    DOCUMENT_UNREADABLE = "document-unreadable"
    """Nothing is known of the run, so nothing is charged but what its status alone tells."""
    METRICS_UNREADABLE = "metrics-unreadable"
    """They are no object, and count as absent."""
    TIME_ODD = "time-odd"
    """`predict_time` is no number, below 0, or above all bounds; it counts as absent."""
    TIME_FROM_DATES = "time-from-dates"
    """`predict_time` is absent; `completed_at` less `started_at` stands for it, as upstream itself reckons it."""
    TIME_MISSING = "time-missing"
    """There are no usable dates either: no time is charged."""
    OUTPUTS_ODD = "outputs-odd"
    """`image_count` is no count; the output itself was counted."""
    OUTPUTS_REMOVED = "outputs-removed"
    """The data had been removed before it was read: a run that succeeded counts as one output."""
    TOKENS_ODD = "tokens-odd"
    """A count of tokens is none; it counts as 0."""
    TOKENS_MISSING = "tokens-missing"
    """A run that succeeded does not tell its tokens; they count as 0."""
    AMOUNT_CAPPED = "amount-capped"
    """The amount is beyond all that can be recorded."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a run that has ended used. No quantity is below 0."""

    status: Status
    seconds: Decimal = _ZERO
    """Of upstream's work, as exact as it was written."""
    outputs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    doubts: frozenset[Doubt] = frozenset()


def usage_of(document: bytes, status: Status) -> Usage:
    """Read a run's terminal document. `status` is what the run's record says, whatever the document's own is."""
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
    """Reads a document's fields one by one and collects the doubts."""

    def __init__(self, fields: dict[str, Raw], status: Status) -> None:
        self._fields = fields
        self._has_succeeded = status is Status.SUCCEEDED
        self.doubts: set[Doubt] = set()
        self._metrics = self._read_metrics()

    def _read_metrics(self) -> dict[str, Raw]:
        try:
            return _decode_metrics(surrogates.without_halves(bytes(self._fields.get("metrics", _NULL)))) or {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.doubts.add(Doubt.METRICS_UNREADABLE)
            return {}

    def seconds(self) -> Decimal:
        told = self._number("predict_time", MOST_SECONDS, Doubt.TIME_ODD)
        if told is not None:
            return told
        started, completed = self._moment("started_at"), self._moment("completed_at")
        if started is None and not self._has_succeeded:
            return _ZERO  # It never ran.
        between = None if started is None or completed is None else Decimal(completed - started).scaleb(-9)
        if between is None or not 0 <= between <= MOST_SECONDS:
            self.doubts.add(Doubt.TIME_MISSING)
            return _ZERO
        self.doubts.add(Doubt.TIME_FROM_DATES)
        return between

    def outputs(self) -> int:
        told = self._count("image_count", MOST_OUTPUTS, Doubt.OUTPUTS_ODD)
        if told is not None:
            return told
        output = self._text("output")
        if output == b"null":
            was_removed = self._has_succeeded and self._text("data_removed") == b"true"
            if was_removed:
                self.doubts.add(Doubt.OUTPUTS_REMOVED)
            return int(was_removed)
        return min(len(_decode_list(surrogates.without_halves(output))), MOST_OUTPUTS) if output[:1] == b"[" else 1

    def tokens(self, name: str) -> int:
        told = self._count(name, MOST_TOKENS, Doubt.TOKENS_ODD)
        if told is None and self._has_succeeded:
            self.doubts.add(Doubt.TOKENS_MISSING)
        return told or 0

    def _count(self, name: str, most: int, odd: Doubt) -> int | None:
        number = self._number(name, most, odd)
        if number is None or numbers.is_whole(number):
            return None if number is None else int(number)
        self.doubts.add(odd)
        return None

    def _number(self, name: str, most: int, odd: Doubt) -> Decimal | None:
        """Read a metric exactly; `None` where there is none, or an odd one."""
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

    def _moment(self, name: str) -> int | None:
        try:
            text = _decode_text(self._fields.get(name, _NULL))
            return None if text is None else times.nanoseconds(text)
        except (ValueError, OverflowError, UnicodeDecodeError):
            return None
