"""Split URLs of others' into parts, once their lengths are known.

`urllib` normalises a host to find characters that turn into delimiters, which takes quadratic time for some texts, and
it keeps the last URLs that it has split, however long they are.
"""

from urllib.parse import SplitResult, urlsplit

LONGEST_HOST = 253
"""RFC 1035, 2.3.4: 255 bytes on the wire, which leave 253 for the name."""
LONGEST_URL = 8192
_LONGEST_AUTHORITY = 1024
"""Host and port, and whatever stands before an `@`."""


def split(url: str) -> SplitResult:
    """Split a URL. Raise `ValueError` for one that is malformed or too long."""
    if len(url) > LONGEST_URL:
        raise ValueError("the URL is too long")
    if len(url) > LONGEST_HOST and not url.isascii():
        # As `urlsplit` will: it removes these before it looks for the host.
        plain = url.replace("\t", "").replace("\r", "").replace("\n", "")
        start = plain.find("//") + 2
        ends = [end for mark in "/?#" if (end := plain.find(mark, start)) >= 0]
        authority = plain[start : min(ends, default=len(plain))]
        if len(authority) > LONGEST_HOST and not authority.isascii():
            raise ValueError("the URL's host is too long")
    parts = urlsplit(url)
    if len(parts.netloc) > _LONGEST_AUTHORITY:
        raise ValueError("the URL's host is too long")
    return parts
