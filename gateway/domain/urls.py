"""URLs in the form in which they are sent: ASCII, percent-encoded, with the host in its IDNA form.

Text is encoded as UTF-8, as browsers do. What is encoded already stays as it is, and nothing else is normalised:
receivers may match the path and query exactly. Callers' webhooks are normalised when they are taken; every URL that
upstream or the config names, when it is requested.
"""

import re
from binascii import a2b_qp
from urllib.parse import SplitResult, quote, urlsplit

import idna

MAX_LENGTH = 2048
"""Longest URL that a caller may give, in characters."""
MAX_SENT_LENGTH = 8000
"""Longest URL in its sent form. Servers limit the request line to about 8 KiB."""
LONGEST_HOST = 253
"""RFC 1035, 2.3.4: 255 bytes on the wire, which leave 253 for the name."""
LONGEST_URL = 8192
_LONGEST_AUTHORITY = 1024
"""Host and port, and whatever stands before an `@`."""
_PARTS = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_OTHER_SCHEME = re.compile(r"(?!https?:)([a-z][a-z0-9+.-]{1,20}):", re.IGNORECASE)
# Unreserved and reserved characters (RFC 3986, 2) and the percent sign. All others are encoded.
_SENT = "!#$%&'()*+,/:;=?@[]~"
_IS_SENT = re.compile(r"[A-Za-z0-9_.\-!#$%&'()*+,/:;=?@\[\]~]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::(\d*))?")
_ASCII_HOST = re.compile(r"[A-Za-z0-9_.~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\]")
_MAX_PORT = 65_535


def percent_decoded(text: str) -> bytes:
    """Undo percent-encoding. An escape that is none stays.

    Quoted-printable is the same escape with another sign, and is decoded in C: urllib takes 40 times as long.
    """
    return a2b_qp(text.encode("utf-8", "surrogatepass").replace(b"=", b"=3D").replace(b"%", b"="))


def as_sent(url: str) -> str:
    """Return an http or https URL as it is sent. Raise `ValueError` that says what is wrong with it, for its author."""
    if len(url) > MAX_SENT_LENGTH:
        raise ValueError(f"must be at most {MAX_SENT_LENGTH} characters long")
    parts = _PARTS.fullmatch(url)
    if parts is None:
        if (other := _OTHER_SCHEME.match(url)) is not None:
            raise ValueError(f"must be an https or http URL, not {other[1].lower()}")
        raise ValueError("must be an absolute URL, such as https://example.com/hook")
    if _CONTROL.search(url):
        raise ValueError("must not contain line breaks or other control characters")
    scheme, authority, rest = parts.groups()
    sent = f"{scheme.lower()}://{_authority(authority)}{_encoded(rest)}"
    if len(sent) > MAX_SENT_LENGTH:
        raise ValueError(f"must be at most {MAX_SENT_LENGTH} characters long when it is percent-encoded")
    return sent


def _authority(authority: str) -> str:
    if "@" in authority:
        raise ValueError("must not contain a user name or password")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ValueError("must have a valid host and port")
    host, port = _host(parts[1]), parts[2]
    if not port:
        return host
    if len(port) > len(str(_MAX_PORT)) or not 0 < int(port) <= _MAX_PORT:
        raise ValueError(f"must have a port from 1 to {_MAX_PORT}")
    return f"{host}:{int(port)}"


def _host(host: str) -> str:
    if not host:
        raise ValueError("must name a host")
    if len(host) > LONGEST_HOST:
        raise ValueError(f"must have a host of at most {LONGEST_HOST} characters")
    if not host.isascii():
        host = _idna(host)
    if not _ASCII_HOST.fullmatch(host):
        raise ValueError("must have a valid host")
    return host


def _idna(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        pass
    try:
        # Names that IDNA 2008 refuses and browsers look up, such as those with emoji or underscores.
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("must have a valid host") from None


def _encoded(rest: str) -> str:
    if _IS_SENT.fullmatch(rest):
        return rest
    try:
        return quote(rest, safe=_SENT)
    except UnicodeEncodeError:
        # A lone surrogate.
        raise ValueError("must be valid text") from None


def split(url: str) -> SplitResult:
    """Split a URL of somebody else. Raise `ValueError` for one that is malformed or too long.

    Lengths are checked first: `urllib` normalises a host to find characters that turn into delimiters, which takes
    quadratic time for some texts, and it keeps the last URLs that it has split, however long they are.
    """
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
