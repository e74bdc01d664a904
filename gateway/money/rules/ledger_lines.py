"""Lines of the ledger as text, one by one: for other systems to read. Amounts are exact."""

from decimal import Decimal
from typing import Final

from gateway.domain import money, tags, times
from gateway.domain.ledger import LedgerLine

COLUMNS: Final = (
    "id",
    "at",
    "kind",
    "team",
    "key",
    "user",
    "target",
    "run",
    "prediction",
    "milliseconds",
    "microusd",
    "usd",
    "reason",
    "tags",
    "adjustment",
)


def record(line: LedgerLine) -> dict[str, object]:
    """Return a line as JSON can represent it: `None` for what does not apply, tags as an object."""
    given = {"usd": money.usd(line.entry.microusd), "tags": tags.mapping(line.entry.tags)}
    return dict(zip(COLUMNS, cells(line), strict=True)) | given


def cells(line: LedgerLine) -> list[object]:
    """Return the cells of a line, in the order of `COLUMNS`."""
    entry = line.entry
    return [
        line.id,
        times.render(entry.at),
        str(entry.kind),
        entry.team,
        entry.key_id or None,
        entry.user,
        entry.target or None,
        entry.run_id,
        entry.prediction_id,
        entry.milliseconds,
        entry.microusd,
        Decimal(money.usd(entry.microusd)),
        entry.reason or None,
        entry.tags or None,
        entry.adjustment_id,
    ]
