"""The statements of the store by name, for both engines: the files of `statements/`, with placeholders replaced.

{run}, {prediction}, {key}, {file}, {delivery}, {reservation}, {entry}: the columns of a record. {run_read}: those of a
run as they are read; {run_written}: without the document, which the step that wrote it has.
{run_columns}: the columns of a run `r`, without its document and request if both have more than :most_bytes, and the
bytes that were so left out. {view}: the columns of a prediction `p`, and those of its run `r`.
{open}: a run that can be joined. {unidentified}: one that has succeeded without its final identity.
{found}: the columns of a search's result; {wanted}: its filters.
{shown}: a prediction whose id a caller can know. The id of the prediction that starts a run is a placeholder until
upstream's id is known, even if the run's end was recorded before.
The dialect of an engine (`sqlite/dialect.py`, `postgres/dialect.py`) replaces the words that the engines spell
differently: {join}, {lowest}, {greatest}, {least}, {differs_from}, {no_bytes}, {like:pattern}, {each:array}, which has
the strings of a JSON array as `value`, and {pairs:object}, which has the names and texts of a JSON object, or of the
empty text, as `pair.key` and `pair.value`. {whole:column} is a column that can be very large, of the table of runs.
{join} keeps the order of a join as written in SQLite. `> ''` and `> {lowest}`, which are always true, and
{unindexed:column} make SQLite choose the intended index.
{node_acts}: the node `:node` has not ended; {holder_gone}: the node that holds a delivery has.
{owner_first}: the node `:node` may attempt a delivery. The first attempt for the end of a run is its owner's, while
that lives: it knows which earlier events it has sent.
{kept}, {shared}: rows that are read stay until the step ends, or stay as they are. Other locks are taken by
`Database.lock`.
A DELETE of rows that it looks for repeats the condition: in PostgreSQL they can have changed since.
For PostgreSQL: a parameter whose type cannot be inferred is cast, a column that an upsert changes is named with its
table, and "user" is quoted.
"""

import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from gateway.store.sql.rows import DELIVERIES, ENTRIES, FILES, KEYS, PREDICTIONS, RESERVATIONS, RUNS, Table

_IS_LARGE = "length(r.document) + length(r.request) > :most_bytes"
"""Both engines know the length of a value without reading it."""
_LARGE = {
    each: f"CASE WHEN {_IS_LARGE} THEN {{no_bytes}} ELSE {{whole:r.{each}}} END AS {each}"
    for each in ("document", "request")
}
_LEFT_OUT = f"CASE WHEN {_IS_LARGE} THEN length(r.document) + length(r.request) ELSE 0 END"

_CONDITIONS = {
    # Must be spelled as in the partial indexes; otherwise SQLite does not use them.
    "{open}": "state IN ('intended', 'live') AND cancel_asked_at IS NULL",
    "{unidentified}": """provisional IS NOT NULL AND fingerprint IS NULL
        AND state = 'ended' AND status = 'succeeded' AND data_removed = 0""",
    "{open_other}": "other.state IN ('intended', 'live') AND other.cancel_asked_at IS NULL",
    "{shown}": "r.state <> 'intended' AND (r.upstream_id IS NOT NULL OR p.id <> r.leader_id)",
}
_SEARCH = {
    "{found}": """
        p.id, p.kind, p.team, p.key_id, (SELECT name FROM keys WHERE keys.id = p.key_id) AS key_name,
        p."user", p.tags, r.target, CASE WHEN p.canceled_at IS NULL THEN r.status ELSE p.final_status END AS status,
        p.source, p.created_at, p.canceled_at, r.ended_at,
        (SELECT microusd FROM ledger WHERE ledger.run_id = p.run_id AND kind = 'spend') AS microusd,
        p.admitted, p.request_id""",
    "{wanted}": """
        (CAST(:only_team AS TEXT) IS NULL OR p.team = :only_team)
        AND (CAST(:only_key AS TEXT) IS NULL OR p.key_id = :only_key)
        AND (CAST(:only_user AS TEXT) IS NULL OR p."user" = :only_user)
        AND (CAST(:only_source AS TEXT) IS NULL OR p.source = :only_source)
        AND (CAST(:only_tag AS TEXT) IS NULL OR p.tags {like::only_tag})
        AND (
            CAST(:only_target AS TEXT) IS NULL
            OR r.target {like::only_target}
            OR r.target {like::only_versions}
        )
        AND (
            CAST(:only_status AS TEXT) IS NULL
            OR CASE WHEN p.canceled_at IS NULL THEN r.status ELSE p.final_status END = :only_status
        )
        AND {shown}""",
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


def load(words: Mapping[str, str], file: Traversable | None = None) -> dict[str, str]:
    """Return the statements of a file by name, or those of both engines, in the dialect of an engine.

    `words` are patterns and what takes their place.
    """
    folder = resources.files("gateway.store.sql").joinpath("statements")
    files = sorted(folder.iterdir(), key=lambda each: each.name) if file is None else [file]
    text = "".join(each.read_text(encoding="utf-8") for each in files)
    for placeholder, value in _placeholders().items():
        text = text.replace(placeholder, value)
    for pattern, value in words.items():
        text = re.sub(pattern, value, text)
    _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    # Text after a statement's semicolon is a heading.
    return {name: body.partition(";\n")[0] for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _placeholders() -> dict[str, str]:
    # Those of a search contain others.
    values = _SEARCH | _CONDITIONS | _SUMS
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
    values["{run_read}"] = ", ".join(
        f"{{whole:{each}}} AS {each}" if each in _LARGE else _quoted(each) for each in RUNS.columns
    )
    values["{run_written}"] = values["{run_read}"].replace("{whole:document}", "{no_bytes}")
    prediction = ", ".join(f"p.{_quoted(each)}" for each in PREDICTIONS.columns)
    return values | {"{run_columns}": run, "{view}": f"{prediction}, {run}"}


def _quoted(column: str) -> str:
    return f'"{column}"' if column in _RESERVED else column
