"""Links in an input whose content the gateway does not know: the output may change although the request does not.

A link counts by its content if it leads to one of the gateway's files or stored outputs, or is a data: URI; and by its
text if it matches a pattern of immutable links (docs/architecture.md, Sharing). Every other text that contains
`http://` or `https://` is an external link, at any depth and whatever the schema says about it, also as part of a
longer text. Texts of inputs that the config calls plain text are not looked at.
"""

import posixpath
import re
from collections.abc import Sequence
from urllib.parse import unquote

import msgspec

DEFAULT_TEXT_INPUTS = frozenset({"prompt", "negative_prompt", "system_prompt"})
"""Inputs that are plain text, unless a rule names others."""

LONGEST_LINK = 4096
"""A longer text is never an immutable link. No server takes one."""

_LINK = re.compile(r"(https?)://([^/?#@]{1,260})([^?#]*+)(?:[?#].*+)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"([A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}))(?::(\d{1,5}))?")
_SEPARATORS = re.compile(r"%(?:2f|5c|2e|25)", re.IGNORECASE)
_DOTS = frozenset({".", ".."})
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


class LinkPattern(msgspec.Struct, frozen=True):
    """Links whose content never changes. `*` in the path matches any text, `*.` before the host any subdomain."""

    scheme: str
    host: str
    port: str
    path: str

    def matches(self, link: "Link") -> bool:
        """Return whether a link matches in scheme, host, port and path."""
        return (
            (self.scheme, self.port) == (link.scheme, link.port)
            and (link.host.endswith(self.host[1:]) if self.host.startswith("*.") else link.host == self.host)
            and _matches(self.path, link.path)
        )


class Link(msgspec.Struct, frozen=True):
    """A parsed link, with the path that a server reads."""

    scheme: str
    host: str
    port: str
    path: str


def parse_pattern(text: str) -> LinkPattern:
    """Parse a pattern such as `https://cdn.example.com/*`. Raise `ValueError` if it is none."""
    prefix = "*." if "://*." in text else ""
    link = _parse(text.replace("://*.", "://", 1), otherwise="/*")
    if link is None or "*" in link.host or "?" in text or "#" in text:
        raise ValueError("expected a link with scheme and host, such as https://cdn.example.com/*")
    return LinkPattern(link.scheme, prefix + link.host, link.port, link.path)


def is_immutable(text: str, patterns: Sequence[LinkPattern]) -> bool:
    """Return whether a text is one link, and matches a pattern."""
    link = _parse(text)
    return link is not None and any(pattern.matches(link) for pattern in patterns)


def _parse(text: str, otherwise: str = "/") -> Link | None:
    """Parse a link. `None` for one that servers and clients may read in different ways."""
    if len(text) > LONGEST_LINK or "\\" in text or _UNPRINTABLE.search(text):
        return None
    parts = _LINK.fullmatch(text)
    authority = None if parts is None else _AUTHORITY.fullmatch(parts[2])
    path = None if parts is None else _path(parts[3] or otherwise)
    if parts is None or authority is None or path is None:
        return None
    scheme = parts[1].lower()
    return Link(scheme, authority[1].lower(), authority[2] or _DEFAULT_PORTS[scheme], path)


def _path(path: str) -> str | None:
    """Resolve dot segments and decode escapes. `None` for a path that is ambiguous.

    An escaped separator makes it so, and dot segments beside empty ones, which some servers drop first.
    """
    if _SEPARATORS.search(path):
        return None
    decoded = unquote(path)
    if _DOTS.isdisjoint(decoded.split("/")):
        return decoded
    if "//" in decoded:
        return None
    normal = posixpath.normpath(decoded)
    return normal + "/" if decoded.endswith("/") and normal != "/" else normal


def _matches(glob: str, path: str) -> bool:
    """Match a glob in which `*` stands for any text. Linear in both, for each `*`."""
    head, *rest = glob.split("*")
    if not rest:
        return glob == path
    *middle, tail = rest
    if not path.startswith(head) or not path.endswith(tail) or len(path) < len(head) + len(tail):
        return False
    at, end = len(head), len(path) - len(tail)
    for piece in middle:
        found = path.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


IMMUTABLE = tuple(parse_pattern(f"https://{host}/*") for host in ("replicate.delivery", "*.replicate.delivery"))
"""Upstream's output files: a link names one file for as long as that exists.

See docs/replicate-api.md, Outputs and retention.
"""
