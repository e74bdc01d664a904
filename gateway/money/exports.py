"""Exports of the ledger: every line, or charges in the columns of FOCUS. Memory is bounded by a page or a day."""

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from gateway.domain import csv_text
from gateway.domain.ledger import By, LedgerLine
from gateway.money.ports import Ledger
from gateway.money.rules import focus, ledger_lines

PAGE: Final = 1000


class Exporter:
    """Writes lines of the ledger as text, a piece at a time. Days are numbers as in `gateway.domain.windows`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def lines_as_csv(self, since: int, until: int, team: str | None = None) -> AsyncIterator[str]:
        """Yield the lines of the days from `since` to `until`, both included."""
        yield csv_text.write(ledger_lines.COLUMNS, ())
        async for page in self._pages(since, until, team):
            yield csv_text.write_rows(map(ledger_lines.cells, page))

    async def lines_as_json(self, since: int, until: int, team: str | None = None) -> AsyncIterator[str]:
        """Yield one JSON object for each line."""
        async for page in self._pages(since, until, team):
            yield "".join(f"{msgspec.json.encode(ledger_lines.record(line)).decode()}\n" for line in page)

    async def _pages(self, since: int, until: int, team: str | None) -> AsyncIterator[list[LedgerLine]]:
        for day in range(since, until + 1):
            after = 0
            while page := await self._ledger.lines(day, after=after, limit=PAGE, team=team):
                yield page
                after = page[-1].id

    async def charges_as_focus(
        self, since: int, until: int, team: str | None = None, *, on_missing: Callable[[int], None]
    ) -> AsyncIterator[str]:
        """Yield the charges of the days from `since` to `until` as CSV.

        At the end, call `on_missing` with the micro-dollars of charges whose lines were deleted, because they are older
        than `retain_days`, if there are any.
        """
        # Before the lines: so nothing that is spent meanwhile is taken for missing.
        sums = await self._ledger.usage(By.TEAM, since=since, until=until, team=team)
        missing = sum(each.microusd for each in sums)
        yield csv_text.write(focus.COLUMNS, ())
        for day in range(since, until + 1):
            charges = await self._ledger.charges(day, team=team)
            missing -= sum(each.microusd for each in charges)
            yield csv_text.write_rows(map(focus.row, charges))
        if missing > 0:
            on_missing(missing)
