"""The statements as SQLite takes them."""

import re

from gateway.store.sql.queries import load
from gateway.store.sqlite.large_values import LARGE

SQL = load(
    {
        "{join}": "CROSS JOIN",
        "{lowest}": "-1e999",
        "{greatest}": "max",
        "{least}": "min",
        "{differs_from}": "IS NOT",
        "{no_bytes}": "x''",
        "{like:(.*?)}": r"GLOB \1",
        "{each:(.*?)}": r"json_each(\1)",
        "{pairs:(.*?)}": r"json_each(nullif(\1, '')) AS pair",
        "{unindexed:(.*?)}": r"+\1",
        # See large_values.py.
        r"{whole:((?:r\.)?)(\w+)}": rf"CASE WHEN length(\1\2) > {LARGE} THEN \1rowid ELSE \1\2 END",
        # Rows are read one by one, so the caller sorts and stops where it likes.
        "{page:(.*?)}": "",
        "{at_most}": "",
        # One process serves, and it holds every delivery that is held. At the start, those are of the process before.
        "{node_acts}": "0 = :node",
        "{owner_first}": ":node >= 0",
        "{holder_gone}": "held_until > 0",
        # One connection writes, so rows stay as they are.
        "{shared}": "",
        "{kept}": "",
    }
)
WITH_LARGE_VALUES = frozenset(
    name
    for name, text in SQL.items()
    if re.search(r"rowid ELSE|:document\b|:body\b|INTO (?:runs|deliveries)|UPDATE runs SET \(", text)
)
"""Statements that take or return documents, requests or bodies of deliveries."""
