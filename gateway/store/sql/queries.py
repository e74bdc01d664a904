"""The statements of `queries.sql`, by name."""

import re
from importlib import resources
from typing import Any

from gateway.store.sql.rows import DELIVERIES, ENTRIES, FILES, KEYS, PREDICTIONS, RESERVATIONS, RUNS, Table

_CONDITIONS = {
    # As the partial indexes spell it, or they would not be used.
    "{open}": "state IN ('intended', 'live') AND cancel_asked_at IS NULL",
    "{open_other}": "other.state IN ('intended', 'live') AND other.cancel_asked_at IS NULL",
    "{shown}": "r.state <> 'intended' AND (r.upstream_id IS NOT NULL OR p.id <> r.leader_id)",
}
_SUMS = {
    "{user_sums}": "team, day, user, runs, joined, hits, milliseconds, microusd, saved_microusd",
    "{sums}": "sum(runs), sum(joined), sum(hits), sum(milliseconds), sum(microusd), sum(saved_microusd)",
    # The same from the ledger's lines. A join that is taken back is a line with an amount below zero, or of nothing
    # and a reason.
    "{audited}": """
        sum(kind = 'spend'),
        sum(CASE WHEN kind = 'saved_joined' THEN CASE WHEN reason = '' THEN 1 ELSE -1 END ELSE 0 END),
        sum(kind = 'saved_hit'),
        sum(milliseconds),
        sum(CASE WHEN kind IN ('spend', 'adjustment') THEN microusd ELSE 0 END),
        sum(CASE WHEN kind IN ('saved_hit', 'saved_joined') THEN microusd ELSE 0 END)""",
}


def _words(name: str, table: Table[Any]) -> dict[str, str]:
    return {
        f"{{{name}}}": ", ".join(table.columns),
        f"{{{name}_values}}": ", ".join("?" for _ in table.columns),
    }


def _load() -> dict[str, str]:
    text = resources.files("gateway.store.sql").joinpath("queries.sql").read_text(encoding="utf-8")
    words = _words("run", RUNS) | _words("prediction", PREDICTIONS) | _words("key", KEYS) | _words("file", FILES)
    words |= _words("delivery", DELIVERIES)
    words["{sight}"] = ", ".join([f"p.{each}" for each in PREDICTIONS.columns] + [f"r.{each}" for each in RUNS.columns])
    words |= _words("reservation", RESERVATIONS) | _words("entry", ENTRIES)
    words |= _CONDITIONS | _SUMS
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    # What follows a statement's semicolon is a heading of the file.
    return {name: body.partition(";\n")[0] for name, body in zip(parts[::2], parts[1::2], strict=True)}


SQL = _load()
