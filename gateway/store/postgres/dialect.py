"""The statements as PostgreSQL takes them."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final, NamedTuple, get_args

import msgspec

from gateway.domain.records import Prediction
from gateway.store.sql.queries import load
from gateway.store.sql.rows import PREDICTIONS, RUNS

# Not NOT EXISTS, which becomes an anti join. A row that another step has changed since the statement began is checked
# again, but PostgreSQL does not look for its partner in an anti join then: two nodes would both find it without one.
_LIVING: Final = "ARRAY(SELECT number FROM nodes WHERE ended_at IS NULL)"
_WORDS: Final = {
    "{join}": "JOIN",
    "{lowest}": "CAST('-Infinity' AS DOUBLE PRECISION)",
    "{greatest}": "greatest",
    "{least}": "least",
    "{differs_from}": "IS DISTINCT FROM",
    "{no_bytes}": "CAST('' AS BYTEA)",
    # A glob as a pattern of LIKE, whose own wildcards are escaped. Ranges in brackets are not supported.
    "{like:(.*?)}": r"LIKE replace(replace(replace(replace(replace(\1, '\\', '\\\\'), '%', '\\%'), '_', '\\_'),"
    r" '*', '%'), '?', '_')",
    "{each:(.*?)}": r"json_array_elements_text(CAST(\1 AS JSON)) AS each(value)",
    "{pairs:(.*?)}": r"json_each_text(CAST(nullif(\1, '') AS JSON)) AS pair(key, value)",
    "{unindexed:(.*?)}": r"\1",
    "{whole:(.*?)}": r"\1",
    # Rows are read as a whole, so their number is bounded.
    "{page:(.*?)}": r"ORDER BY \1 LIMIT :limit",
    "{at_most}": "LIMIT 10000",
    # The command line is no node, and has the number 0.
    "{node_acts}": "(:node = 0 OR EXISTS (SELECT 1 FROM nodes WHERE nodes.number = :node AND nodes.ended_at IS NULL))",
    # Hits come after the end of their run, and have no earlier events.
    "{owner_first}": "(attempts > 0 OR NOT EXISTS (SELECT 1 FROM runs JOIN nodes ON nodes.number = runs.owner"
    " WHERE runs.id = deliveries.run_id AND runs.owner <> :node AND nodes.ended_at IS NULL"
    " AND (runs.ended_at IS NULL OR runs.ended_at >= deliveries.created_at)))",
    "{holder_gone}": f"deliveries.held_by <> ALL ({_LIVING})",
}
_LOCKING: Final = {
    # Not FOR UPDATE: predictions join a run at the same time. What ends or cancels it waits for them.
    "{shared}": "FOR SHARE",
    "{kept}": "FOR KEY SHARE OF r",
    "{entry_kept}": "FOR NO KEY UPDATE OF e",
}
_ADDED: Final = {"run_id": "found.run_id", "source": "'hit'"}
"""Columns of a hit's prediction that the request does not have."""


def _quoted(column: str) -> str:
    return f'"{column}"'


def _typed(field: msgspec.structs.FieldInfo) -> str:
    kinds = set(get_args(field.type)) or {field.type}
    kind = "DOUBLE PRECISION" if float in kinds else "BIGINT" if kinds & {int, bool} else 'TEXT COLLATE "C"'
    return f"{_quoted(field.name)} {kind}"


_WORDS_OF_HITS: Final = {
    "{asked_columns}": ", ".join(map(_typed, msgspec.structs.fields(Prediction))),
    "{added_values}": ", ".join(_ADDED.get(each, f"asked.{_quoted(each)}") for each in PREDICTIONS.columns),
    "{kept_columns}": ", ".join(f"kept.{_quoted(each)}" for each in (*RUNS.columns, "left_out")),
}
_WORDS_OF_NODES: Final = {
    "{now}": "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)",
    "{node_lives}": "EXISTS (SELECT 1 FROM nodes WHERE nodes.number = :number AND ended_at IS NULL)",
    "{ownerless}": f"runs.owner <> ALL ({_LIVING})",
}

_OWN: Final = resources.files("gateway.store.postgres")
"""Where the statements of this engine alone are."""
_SEARCHED: Final = frozenset({"id", "run_id", "prediction_id", "sha256"})
"""Parameters of updates that are compared, not set."""


class Statement(NamedTuple):
    """A statement with `$1`, `$2`, …, and the names of its parameters; no names if they are given in order."""

    text: bytes
    names: tuple[str, ...]

    def values(self, parameters: Mapping[str, object]) -> list[object]:
        """Return the values of the parameters in order."""
        return [parameters[name] for name in self.names]

    def finds_nothing(self, values: Sequence[object]) -> bool:
        """Say whether it only looks for texts with a NUL character, which no row has, and writes none."""
        if self.text.startswith((b"SELECT", b"DELETE")):
            return True
        bad = {name for name, value in zip(self.names, values, strict=False) if "\0" in str(value)}
        return bool(bad) and self.text.startswith(b"UPDATE") and bad <= _SEARCHED


def _statement(text: str) -> Statement:
    text = re.sub(r"^\s*--.*\n", "", text, flags=re.MULTILINE)
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        if found[0].startswith("'"):
            return found[0]
        name = found[1]
        if name is None or name not in names:
            names.append(name)
            return f"${len(names)}"
        return f"${names.index(name) + 1}"

    text = re.sub(r"'[^']*'|:(\w+)|\?", numbered, text)
    return Statement(text.encode(), () if None in names else tuple(names))


def _statements(words: dict[str, str]) -> dict[str, Statement]:
    of_both = load(_WORDS | words)
    of_nodes = load(_WORDS | _WORDS_OF_NODES | words, _OWN.joinpath("nodes.sql"))
    of_hits = load(_WORDS | _WORDS_OF_HITS | words, _OWN.joinpath("hits.sql"))
    of_rates = load(_WORDS_OF_NODES, _OWN.joinpath("rates.sql"))
    return {name: _statement(text) for name, text in (of_both | of_nodes | of_hits | of_rates).items()}


SQL: Final = _statements(_LOCKING)
READING_SQL: Final = _statements(dict.fromkeys(_LOCKING, ""))
"""Without locks, which a transaction that only reads may not take."""
