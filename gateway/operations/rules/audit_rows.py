"""How entries of the audit log are shown."""

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.domain import times
from gateway.domain.audit import AuditEntry, AuditPage, Values


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry. `team` is `None` for what belongs to no team."""

    id: str
    at: str
    actor: str
    action: str
    subject: str
    team: str | None
    before: Values | None
    after: Values | None


class AuditRows(msgspec.Struct, frozen=True, kw_only=True):
    """A page of entries, newest first."""

    results: list[AuditRow]
    next: str | None
    """The address of the next page; `None` on the last one."""


def row_of(entry: AuditEntry) -> AuditRow:
    """Return the row of an entry."""
    return AuditRow(
        id=str(entry.id),
        at=times.render(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        team=entry.team,
        before=entry.before,
        after=entry.after,
    )


def page_of(page: AuditPage, next_: str | None) -> AuditRows:
    """Return the rows of a page."""
    return AuditRows(results=[row_of(each) for each in page.entries], next=next_)


COLUMNS: Final = ("id", "at", "actor", "action", "subject", "team", "before", "after")
_IN_TABLE: Final = ("at", "actor", "action", "subject", "team")
_WIDEST: Final = 100
"""Characters of values in a table. JSON and CSV have all of them."""


def json_text(rows: Sequence[AuditRow]) -> str:
    """Return entries as JSON."""
    return json.dumps({"entries": msgspec.to_builtins(list(rows))}, indent=2, ensure_ascii=False)


def cells_of(row: AuditRow) -> list[str | None]:
    """Return the cells of an entry in CSV, with values as JSON."""
    shown = [None if each is None else json.dumps(each, ensure_ascii=False) for each in (row.before, row.after)]
    return [row.id, row.at, row.actor, row.action, row.subject, row.team, *shown]


def table_text(rows: Sequence[AuditRow]) -> str:
    """Return entries as a table for a terminal."""
    lines = [[*_IN_TABLE, "before", "after"]]
    lines += [
        [*(str(getattr(row, name) or "-") for name in _IN_TABLE), *map(_short, (row.before, row.after))] for row in rows
    ]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _short(values: Values | None) -> str:
    # A control character in a terminal can hide text.
    text = "".join(each if each.isprintable() else "?" for each in text_of(values)) or "-"
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def text_of(values: Values | None) -> str:
    """Return values in one line, for a table: `name=value` pairs."""
    return " ".join(f"{name}={_plain(value)}" for name, value in (values or {}).items() if value is not None)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
