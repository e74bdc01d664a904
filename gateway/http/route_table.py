"""Finds the route of a request.

aiohttp's router tries the patterns of every route below `/v1/models` one after the other, each in a coroutine. Here the
routes are kept by the first part of their path and its number of parts, so that a poll tries one pattern and a create
four.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from gateway.http.route import Route, pattern

_METHODS_OF: Final = {"GET": ("GET", "HEAD")}
"""A route with GET answers HEAD too, with the same status and headers (RFC 9110, 9.3.2). The server leaves out the
body; handlers that stream check the method themselves."""


class Match(NamedTuple):
    """The route of a request, and the parts of its path that the route names."""

    route: Route
    values: Mapping[str, str]


class NoMatch(NamedTuple):
    """No route. `methods` are those of the routes that have the path."""

    methods: frozenset[str]
    is_known: bool
    """Whether a route has this path, but for the form of an id or a name in it."""


class _Path(NamedTuple):
    """A path, and its routes by their methods."""

    pattern: re.Pattern[str]
    parts: tuple[str, ...]
    has_prefix: bool
    routes: dict[str, Route]


_NOTHING: Final = NoMatch(frozenset(), is_known=False)
_MOST_RECENT: Final = 2048
"""Matches that are kept, about 1 MB: callers poll the same prediction, and create with the same model."""


class RouteTable:
    """The routes of a listener: `public` below each of `prefixes`, `own` without a prefix."""

    def __init__(self, public: Iterable[Route], own: Iterable[Route], prefixes: Iterable[str]) -> None:
        longest_first = sorted(prefixes, key=len, reverse=True)
        self._prefix = re.compile("|".join(map(re.escape, longest_first)))
        self._paths: dict[tuple[str, int], list[_Path]] = {}
        self._recent: dict[tuple[str, str], Match] = {}
        for routes, has_prefix in ((public, True), (own, False)):
            for route in routes:
                self._add(route, has_prefix=has_prefix)

    def _add(self, route: Route, *, has_prefix: bool) -> None:
        parts = route.template.split("/")
        paths = self._paths.setdefault((parts[1], len(parts)), [])
        compiled = pattern(route.path)
        path = next((path for path in paths if path.pattern is compiled and path.has_prefix is has_prefix), None)
        if path is None:
            path = _Path(compiled, tuple(parts), has_prefix, {})
            paths.append(path)
        for method in _METHODS_OF.get(route.method, (route.method,)):
            path.routes[method] = route

    def find(self, method: str, path: str) -> Match | NoMatch:
        """Return the first route with this method and path."""
        recent = self._recent.get((method, path))
        if recent is not None:
            return recent
        found = self._search(method, path)
        if isinstance(found, Match):
            if len(self._recent) >= _MOST_RECENT:
                self._recent.clear()
            self._recent[method, path] = found
        return found

    def _search(self, method: str, path: str) -> Match | NoMatch:
        prefix = self._prefix.match(path)
        start = prefix.end() if prefix is not None else 0
        parts = path[start:].split("/")
        if len(parts) < 2 or parts[0]:
            return _NOTHING
        allowed: frozenset[str] = frozenset()
        paths = self._paths.get((parts[1], len(parts)), ())
        for known in paths:
            match = known.pattern.fullmatch(path, start if known.has_prefix else 0)
            if match is not None:
                if (route := known.routes.get(method)) is not None:
                    return Match(route, match.groupdict())
                allowed |= known.routes.keys()
        return NoMatch(allowed, is_known=any(_has_form(parts, known.parts) for known in paths))


def _has_form(parts: list[str], form: tuple[str, ...]) -> bool:
    return all(each == part or (part.startswith("{") and each) for each, part in zip(parts, form, strict=True))
