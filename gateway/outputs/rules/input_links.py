"""Recognise links of stored outputs in inputs: `<origin>/outputs/<ticket>/<name>`, in any spelling that reaches them.

Whoever fetches a link normalises it first: tabs and line ends are dropped, backslashes are slashes, escapes and dot
segments are resolved (WHATWG URL). So links are compared in that form.
"""

import posixpath
import re
from collections.abc import Collection

import msgspec

from gateway.domain import links as rewrite
from gateway.domain import tickets
from gateway.domain.tickets import OutputTicket

_LONGEST_LINK = 4096
_LONGEST_HOST = 260
"""RFC 1035, 2.3.4, and a port. A longer one is no host, and normalising it could take long."""
_TICKET = re.compile(tickets.OUTPUT_TICKET)
_AROUND = "".join(map(chr, range(0x21)))
_URL = re.compile(r"https?:[/\\]*+([^/\\?#]*+)([^?#]*+)", re.IGNORECASE)
_OUTPUT = re.compile(r"(?:.*/)?outputs/([^/]+)/([^/]+)", re.DOTALL)


class OutputLink(msgspec.Struct, frozen=True):
    """A link that has the form of a stored output's. Neither the host nor the ticket has been checked."""

    authority: str
    ticket: str
    name: str

    @property
    def parsed(self) -> OutputTicket | None:
        """The parts of the ticket; `None` if it has not the form of one."""
        return tickets.read_output_ticket(self.ticket) if _TICKET.fullmatch(self.ticket) else None

    def is_on(self, origins: Collection[str]) -> bool:
        """Return whether the link points to one of these origins. `http` and `https` are treated as the same."""
        try:
            host = rewrite.origin_of(f"http://{self.authority}").partition("://")[2]
        except ValueError:
            return False
        return host in {rewrite.origin_of(origin).partition("://")[2] for origin in origins}


def parse(text: str) -> OutputLink | None:
    """Parse a link of a stored output; `None` for any other text."""
    if len(text) > _LONGEST_LINK:
        return None
    url = text.strip(_AROUND).replace("\t", "").replace("\r", "").replace("\n", "")
    parts = _URL.match(url)
    if parts is None or not 0 < len(parts[1]) <= _LONGEST_HOST:
        return None
    path = posixpath.normpath(rewrite.unescaped(parts[2]).replace("\\", "/"))
    found = _OUTPUT.fullmatch(path)
    return OutputLink(parts[1], found[1], found[2]) if found else None
