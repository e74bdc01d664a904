"""How long a run was queued and how long it ran, from the times in its document."""

from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.domain import documents, surrogates, times
from gateway.domain.targets import is_model_name


class RunTimes(NamedTuple):
    """Seconds; `None` if unknown or negative."""

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
        found = _decode(surrogates.without_halves(documents.part(document, *_Times.__struct_fields__)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RunTimes(None, None)
    return RunTimes(_between(found.created_at, found.started_at), _between(found.started_at, found.completed_at))


def _between(first: str | None, last: str | None) -> float | None:
    try:
        seconds = times.parse(last or "") - times.parse(first or "")
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 0 else None


@lru_cache(maxsize=1024)
def name_of(target: str) -> str:
    """Return the model or deployment that a run's target names, for people to read; `unknown` for a bare version."""
    model = target.partition(":")[0]
    return model if is_model_name(model) else UNKNOWN
