"""Predictions as rows of a table, for operators. Each column is one field."""

from typing import Final

import msgspec

from gateway.domain import tags, times
from gateway.domain.records import Kind, Source, Status
from gateway.predictions.ports.search import Found

_SHARING: Final = (Source.JOINED, Source.HIT)


class PredictionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction, without its input and output."""

    id: str
    kind: Kind
    team: str
    key: str
    """The id of the key; of a browser token, that of the key that minted it."""
    key_name: str | None
    user: str | None
    tags: dict[str, str]
    """Its cost tags."""
    target: str
    status: Status
    source: Source
    """How it was answered: `miss` and `bypass` started a run, `joined` and `hit` share one."""
    created_at: str
    completed_at: str | None
    """When it ended for its caller, by the gateway's clock."""
    cost_microusd: int | None
    """What it cost, in millionths of a dollar; 0 if it shares a run, null while its run is not settled."""
    saved_microusd: int | None
    """What the run that it shares cost; 0 if it started one."""
    held_seconds: float
    """How long its create waited for limits."""
    request_id: str | None
    """The `X-Request-Id` of its create."""


COLUMNS: Final = PredictionRow.__struct_fields__


def row_of(found: Found) -> PredictionRow:
    """Return the row of a prediction."""
    is_shared = found.source in _SHARING
    completed_at = _completed_at(found)
    return PredictionRow(
        id=found.id,
        kind=found.kind,
        team=found.team,
        key=found.key_id,
        # The id of a key of the config contains its name.
        key_name=found.key_name or found.key_id.partition("/")[2] or None,
        user=found.user,
        tags=tags.mapping(found.tags),
        target=found.target,
        status=found.status,
        source=found.source,
        created_at=times.render(found.created_at),
        completed_at=None if completed_at is None else times.render(completed_at),
        cost_microusd=0 if is_shared else found.microusd,
        saved_microusd=found.microusd if is_shared else 0,
        held_seconds=0.0 if found.admitted is None else round(found.admitted.waited_seconds, 3),
        request_id=found.request_id or None,
    )


def cells_of(row: PredictionRow) -> list[object]:
    """Return the cells of a row for CSV, in the order of `COLUMNS`. Tags are as in the header `Gateway-Tags`."""
    cells = msgspec.structs.asdict(row) | {"tags": ", ".join(f"{key}={value}" for key, value in row.tags.items())}
    return list(cells.values())


def _completed_at(found: Found) -> float | None:
    if found.canceled_at is not None or found.ended_at is None:
        return found.canceled_at
    return max(found.ended_at, found.created_at)
