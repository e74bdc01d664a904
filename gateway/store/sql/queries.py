"""Load the statements of `queries.sql` and replace their placeholders."""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from gateway.store.sql.rows import DELIVERIES, ENTRIES, FILES, KEYS, PREDICTIONS, RESERVATIONS, RUNS, Table

_IS_LARGE = "length(r.document) + length(r.request) > :most_bytes"
"""Both engines know the length of a value without reading it."""
_LARGE = {
    each: f"CASE WHEN {_IS_LARGE} THEN {{no_bytes}} ELSE r.{each} END AS {each}" for each in ("document", "request")
}
_LEFT_OUT = f"CASE WHEN {_IS_LARGE} THEN length(r.document) + length(r.request) ELSE 0 END"

_CONDITIONS = {
    # Must be spelled as in the partial indexes; otherwise SQLite does not use them.
    "{open}": "state IN ('intended', 'live') AND cancel_asked_at IS NULL",
    "{open_other}": "other.state IN ('intended', 'live') AND other.cancel_asked_at IS NULL",
    "{shown}": "r.state <> 'intended' AND (r.upstream_id IS NOT NULL OR p.id <> r.leader_id)",
}
_SUMS = {
    "{user_sums}": 'team, day, "user", runs, joined, hits, milliseconds, microusd, saved_microusd',
    "{sums}": "sum(runs), sum(joined), sum(hits), sum(milliseconds), sum(microusd), sum(saved_microusd)",
    # The same sums from the ledger's entries. An entry that takes back a join has a negative amount, or an amount of 0
    # and a reason.
    "{audited}": """
        count(*) FILTER (WHERE kind = 'spend'),
        sum(CASE WHEN kind = 'saved_joined' THEN CASE WHEN reason = '' THEN 1 ELSE -1 END ELSE 0 END),
        count(*) FILTER (WHERE kind = 'saved_hit'),
        sum(milliseconds),
        sum(CASE WHEN kind IN ('spend', 'adjustment') THEN microusd ELSE 0 END),
        sum(CASE WHEN kind IN ('saved_hit', 'saved_joined') THEN microusd ELSE 0 END)""",
}


_RESERVED = {"user"}
"""Names of columns that are words of SQL."""


def load(words: Mapping[str, str], package: str = "gateway.store.sql", file: str = "queries.sql") -> dict[str, str]:
    """Return the statements of a file by name, in the dialect of an engine.

    `words` are patterns and what takes their place.
    """
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    for placeholder, value in _placeholders().items():
        text = text.replace(placeholder, value)
    for pattern, value in words.items():
        text = re.sub(pattern, value, text)
    _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    # Text after a statement's semicolon is a heading of the file.
    return {name: body.partition(";\n")[0] for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _placeholders() -> dict[str, str]:
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
        values[f"{{{name}}}"] = ", ".join(_quoted(each) for each in table.columns)
        values[f"{{{name}_values}}"] = ", ".join("?" for _ in table.columns)
    run = ", ".join(_LARGE.get(each, f"r.{_quoted(each)}") for each in RUNS.columns) + f", {_LEFT_OUT} AS left_out"
    prediction = ", ".join(f"p.{_quoted(each)}" for each in PREDICTIONS.columns)
    return values | {"{run_columns}": run, "{view}": f"{prediction}, {run}"}


def _quoted(column: str) -> str:
    return f'"{column}"' if column in _RESERVED else column
