"""How long a run waited for its start and how long it took, from the times that upstream gives."""

from typing import NamedTuple

import msgspec

from gateway.domain import documents, surrogates, times
from gateway.domain.targets import is_model_name


class RunTimes(NamedTuple):
    """Seconds; `None` where they are not known, or make no sense."""

    queue: float | None
    run: float | None


class _Times(msgspec.Struct):
    created_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


_decode = msgspec.json.Decoder(_Times).decode
UNKNOWN = "unknown"


def read(document: bytes) -> RunTimes:
    """Read the document of a run that has ended."""
    try:
        told = _decode(surrogates.without_halves(documents.part(document, *_Times.__struct_fields__)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RunTimes(None, None)
    return RunTimes(_between(told.created_at, told.started_at), _between(told.started_at, told.completed_at))


def _between(first: str | None, last: str | None) -> float | None:
    try:
        seconds = times.parse(last or "") - times.parse(first or "")
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 0 else None


def name_of(target: str) -> str:
    """Return the model or deployment that a run's target names, for people to read; `unknown` for a bare version."""
    model = target.partition(":")[0]
    return model if is_model_name(model) else UNKNOWN
