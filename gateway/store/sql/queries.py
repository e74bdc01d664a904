"""Load the statements of `queries.sql` and replace their placeholders."""

import re
from importlib import resources
from typing import Any

from gateway.store.sql.rows import DELIVERIES, ENTRIES, FILES, KEYS, PREDICTIONS, RESERVATIONS, RUNS, Table

_IS_LARGE = "length(r.document) + length(r.request) > :most_bytes"
"""SQLite knows the length of a blob without reading it."""
_LARGE = {each: f"CASE WHEN {_IS_LARGE} THEN x'' ELSE r.{each} END" for each in ("document", "request")}
_LEFT_OUT = f"CASE WHEN {_IS_LARGE} THEN length(r.document) + length(r.request) ELSE 0 END"

_CONDITIONS = {
    # Must be spelled as in the partial indexes; otherwise SQLite does not use them.
    "{open}": "state IN ('intended', 'live') AND cancel_asked_at IS NULL",
    "{open_other}": "other.state IN ('intended', 'live') AND other.cancel_asked_at IS NULL",
    "{shown}": "r.state <> 'intended' AND (r.upstream_id IS NOT NULL OR p.id <> r.leader_id)",
}
_SUMS = {
    "{user_sums}": "team, day, user, runs, joined, hits, milliseconds, microusd, saved_microusd",
    "{sums}": "sum(runs), sum(joined), sum(hits), sum(milliseconds), sum(microusd), sum(saved_microusd)",
    # The same sums from the ledger's entries. An entry that takes back a join has a negative amount, or an amount of 0
    # and a reason.
    "{audited}": """
        sum(kind = 'spend'),
        sum(CASE WHEN kind = 'saved_joined' THEN CASE WHEN reason = '' THEN 1 ELSE -1 END ELSE 0 END),
        sum(kind = 'saved_hit'),
        sum(milliseconds),
        sum(CASE WHEN kind IN ('spend', 'adjustment') THEN microusd ELSE 0 END),
        sum(CASE WHEN kind IN ('saved_hit', 'saved_joined') THEN microusd ELSE 0 END)""",
}


def _placeholders(name: str, table: Table[Any]) -> dict[str, str]:
    return {
        f"{{{name}}}": ", ".join(table.columns),
        f"{{{name}_values}}": ", ".join("?" for _ in table.columns),
    }


def _load() -> dict[str, str]:
    text = resources.files("gateway.store.sql").joinpath("queries.sql").read_text(encoding="utf-8")
    values = _CONDITIONS | _SUMS
    tables: dict[str, Table[Any]] = {
        "run": RUNS,
        "prediction": PREDICTIONS,
        "key": KEYS,
        "file": FILES,
        "delivery": DELIVERIES,
        "reservation": RESERVATIONS,
        "entry": ENTRIES,
    }
    for name, table in tables.items():
        values |= _placeholders(name, table)
    values["{run_columns}"] = ", ".join(_LARGE.get(each, f"r.{each}") for each in RUNS.columns) + f", {_LEFT_OUT}"
    values["{view}"] = ", ".join([f"p.{each}" for each in PREDICTIONS.columns]) + ", " + values["{run_columns}"]
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    # Text after a statement's semicolon is a heading of the file.
    return {name: body.partition(";\n")[0] for name, body in zip(parts[::2], parts[1::2], strict=True)}


SQL = _load()
