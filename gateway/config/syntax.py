"""What is wrong with a file that is not TOML: `tomllib`'s message with the position first and, where known, a hint."""

import re
from typing import Final

_POSITION: Final = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)
_AT_END: Final = re.compile(r"(?P<what>.*) \(at end of document\)", re.DOTALL)
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_-]{1,60})\s*=\s*(?P<value>.*)")
_TABLE: Final = re.compile(r"Cannot declare \((?P<names>.*)\) twice")


def explain_syntax(message: str, text: str) -> tuple[int | None, str]:
    """Return the line of a syntax error, if it has one, and a sentence without any value of the file."""
    match = _POSITION.fullmatch(message)
    if match is None:
        ended = _AT_END.fullmatch(message)
        what = ended["what"] if ended else message
        return (text.count("\n") + 1 if ended else None), f"invalid TOML: {_lower(what)}{_hint(what, '', 0)}"
    number, column, what = int(match["line"]), int(match["column"]), match["what"]
    found = text.split("\n")
    line = found[min(number, len(found)) - 1]
    return number, f"column {column}: {_lower(what)}{_hint(what, line, column)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _hint(what: str, line: str, column: int) -> str:
    if what.startswith("Invalid value"):
        return _hint_on_value(line, column)
    if what.startswith(("Expected newline", "Illegal character")) and (key := _KEY.match(line)):
        if key["value"][:1] in ('"', "'"):
            return " (a string is on one line, and ends with the quote that it begins with)"
        return f' (one value for each line; strings need quotes: {key[1]} = "…")'
    if what.startswith("Expected '=' after a key"):
        return " (write name = value)"
    if what.startswith("Cannot overwrite a value"):
        return " (this key is given twice)"
    if (table := _TABLE.match(what)) is not None:
        name = ".".join(re.findall(r"'([^']*)'", table["names"]))
        return f" (the table [{name}] appears twice: join the two, or write [[{name}]] for a list)"
    if what.startswith("Cannot mutate immutable namespace"):
        return " (this table is also given in one line, or as a list: keep one of the two)"
    if what.startswith("Unescaped '\\'"):
        return " (write \\\\ for a backslash, or put the text in 'single quotes')"
    return ""


def _hint_on_value(line: str, column: int) -> str:
    key = _KEY.match(line)
    value = line[column - 1 :].strip()
    if not value or value.startswith("#"):
        return " (the value is missing)"
    if value.lower().rstrip(",") in ("true", "false", "yes", "no", "on", "off"):
        return " (write true or false)"
    if value.lower() in ("null", "none", "nil", "~"):
        return " (TOML has no null: remove the line)"
    return f' (strings need quotes: {key[1]} = "…")' if key else " (strings need quotes)"
