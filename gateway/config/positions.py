"""The line of every key, table and list item of a TOML text.

`tomllib` returns values without positions, and libraries that keep the layout of a file do not say on which line a key
is. `lines` scans a text that `tomllib` has accepted, so it only has to find where keys and values begin and end.
"""

import re
import tomllib
from bisect import bisect
from collections.abc import Callable, Mapping
from typing import Final

Location = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[A-Za-z0-9_-]+')
_DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
# A multi-line string may end with up to two quotes of its own, followed by the three that close it.
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\]|\\.)*"|\'[^\']*\'',
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")


def lines(text: str) -> Mapping[Location, int]:
    """Return the line (from 1) of each location of a valid TOML text; of a location given several times, the first."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except RecursionError:
        # Nested deeper than any setting.
        return {}
    return scanner.found


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._tables: dict[Location, int] = {}
        """The last index of each array of tables."""
        self.found: dict[Location, int] = {}

    def document(self) -> None:
        prefix: Location = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            # Not TOML: `tomllib` would have refused it.
            self._at = len(self._text)
            return ""
        self._at = match.end()
        return match[0]

    def _note(self, location: Location) -> None:
        self.found.setdefault(location, bisect(self._starts, self._at))

    def _keys(self) -> list[str]:
        """Read a key such as `a."b".c`."""
        parts = []
        while True:
            part = self._skip(_KEY)
            parts.append(str(tomllib.loads(f"x={part}")["x"]) if part[:1] in ('"', "'") else part)
            if not _DOT.match(self._text, self._at):
                return parts
            self._skip(_DOT)

    def _header(self) -> Location:
        """Read `[table]` or `[[array of tables]]` and return the location of the table."""
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start, location = self._at, Location()
        self._at += brackets
        self._skip(_BLANK)
        parts = self._keys()
        self._skip(_BLANK)
        end, self._at = self._at + brackets, start
        for number, part in enumerate(parts):
            location = (*location, part)
            self._note(location)
            if number == len(parts) - 1 and brackets == 2:
                self._tables[location] = self._tables.get(location, -1) + 1
            if location in self._tables:
                location = (*location, self._tables[location])
                self._note(location)
        self._at = end
        return location

    def _pair(self, prefix: Location) -> None:
        """Read `key = value`."""
        start, location = self._at, prefix
        parts = self._keys()
        self._skip(_BLANK)
        end, self._at = self._at + 1, start  # after the equals sign
        for part in parts:
            location = (*location, part)
            self._note(location)
        self._at = end
        self._value(location)

    def _value(self, location: Location) -> None:
        self._skip(_BLANK)
        match self._text[self._at : self._at + 1]:
            case "[":
                self._items("]", lambda index: self._item((*location, index)))
            case "{":
                self._items("}", lambda _: self._pair(location))
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _item(self, location: Location) -> None:
        self._note(location)
        self._value(location)

    def _items(self, closing: str, read: Callable[[int], None]) -> None:
        """Read the comma-separated content of an array or an inline table."""
        self._at += 1
        index = 0
        self._skip(_BLANK)
        while self._text[self._at : self._at + 1] not in (closing, ""):
            read(index)
            index += 1
            self._skip(_BLANK)
            if self._text[self._at : self._at + 1] == ",":
                self._at += 1
                self._skip(_BLANK)
        self._at += 1
