"""Collects the problems of a config, each with its place: a line of the file, or an environment variable."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from gateway.access.rules.api_keys import conceal
from gateway.config.positions import Location, lines
from gateway.config.problems import Problem, spell

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
DEFAULT: Final = "default"
_PATH: Final = re.compile(r'([A-Za-z0-9_-]+)|"([^"]*)"|\[([0-9]+)\]')


class Places:
    """Where settings were given: lines of a file, and environment variables. Without a file, nothing is known."""

    def __init__(
        self,
        file: str = "",
        text: str = "",
        data: Mapping[str, Any] | None = None,
        variables: Mapping[Location, str] | None = None,
    ) -> None:
        self._file = file
        self._text = text
        self._data = data or {}
        self._variables = variables or {}

    @cached_property
    def _lines(self) -> Mapping[Location, int]:
        return lines(self._text) if self._file else {}

    def line(self, location: Location) -> int | None:
        """Return the line of a location, else of the smallest part of the file that contains it."""
        prefixes = (location[:length] for length in range(len(location), 0, -1))
        return next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), None)

    def source(self, location: Location) -> str:
        """Return where a value comes from: a line of the file, a variable, or `DEFAULT`."""
        if len(location) == 2 and (variable := self._variables.get(location)) is not None:
            return variable
        return f"{self._file}:{line}" if (line := self._lines.get(location)) is not None else DEFAULT

    def problem(self, location: Location, message: str) -> Problem:
        """Return a problem with the place of its location."""
        path = spell(location)
        if (variable := self._variables.get(location[:2])) is not None:
            return Problem(path, message, variable, path)
        if (line := self.line(location)) is None:
            return Problem(path, message)
        return Problem(path, message, f"{self._file}:{line}", self._label(location))

    def locate(self, problem: Problem) -> Problem:
        """Return a problem with its place, found by its path, which must consist of known names."""
        if not problem.path or problem.place:
            return problem
        location = tuple(int(index) if index else name or quoted for name, quoted, index in _PATH.findall(problem.path))
        return self.problem(location, problem.message)

    def mention(self, location: Location) -> str:
        """Format a location for a message about another one."""
        line = self.line(location)
        return spell(location) if line is None else f"{self._label(location)} (line {line})"

    def _label(self, location: Location) -> str:
        """Format a location like `spell`, with names instead of indexes: `teams "acme" keys "web" scopes`."""
        words, rest, holder = [], location, self._data
        while len(rest) > 1 and rest[0] in ("teams", "keys", "aliases", "issuers") and isinstance(rest[1], int):
            items = holder.get(rest[0])
            item = items[rest[1]] if isinstance(items, list) and rest[1] < len(items) else None
            name = item.get("name", "default" if rest[0] == "keys" else None) if isinstance(item, dict) else None
            if item is None or not isinstance(name, str) or not _NAME.fullmatch(name):
                break
            words.append(f'{rest[0]} "{conceal(name)}"')
            rest, holder = rest[2:], item
        return " ".join([*words, spell(rest)] if rest else words)


class Report:
    """Collects problems, and the locations that are known to be invalid.

    A check that depends on an invalid location adds nothing, so that one mistake is reported once.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self._found: list[tuple[Location, str]] = []
        self._bad: set[Location] = set()

    def add(self, location: Location, message: str, *, uses: Sequence[Location] = ()) -> None:
        """Add a problem, unless `location`, or a location in `uses`, is already invalid."""
        if not self.is_bad(location) and not any(self.is_bad(use) or self._has_bad_within(use) for use in uses):
            self._found.append((location, message))

    def add_bad(self, location: Location, message: str) -> None:
        """Add a problem and mark its location as invalid. Skip a list that is empty because its items were invalid."""
        if not any(bad[:-1] == location for bad in self._bad):
            self.add(location, message)
        self.mark(location)

    def mark(self, location: Location) -> None:
        """Mark a location as invalid without adding a problem."""
        self._bad.add(location)

    def is_bad(self, location: Location) -> bool:
        """Say whether a location, or one that contains it, is invalid."""
        return any(location[:length] in self._bad for length in range(1, len(location) + 1))

    def _has_bad_within(self, location: Location) -> bool:
        return any(bad[: len(location)] == location for bad in self._bad)

    def problems(self, sections: Sequence[str]) -> list[Problem]:
        """Return the problems in the order of their lines; then those without a line, by sections and list items."""

        def order(item: tuple[Location, str]) -> tuple[float, int, list[int]]:
            location = item[0]
            section = sections.index(str(location[0])) if location and location[0] in sections else len(sections)
            indexes = [part for part in location if isinstance(part, int)]
            return self.places.line(location) or math.inf, section, indexes

        return [self.places.problem(location, message) for location, message in sorted(self._found, key=order)]
