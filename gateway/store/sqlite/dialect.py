"""The statements as SQLite takes them."""

from gateway.store.sql.queries import load

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
        "{unindexed:(.*?)}": r"+\1",
        # Rows are read one by one, so the caller sorts and stops where it likes.
        "{page:(.*?)}": "",
        "{at_most}": "",
        # One connection writes, so rows stay as they are.
        "{shared}": "",
        "{kept}": "",
    }
)
