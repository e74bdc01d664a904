"""data: URIs (RFC 2397), known by the bytes that they hold and by their media type.

The parameters of the media type are ignored, because models do not see them. Only what every parser reads the same way
counts as a data: URI; anything odd (a header that is none, a stray character, broken padding, a fragment) is ordinary
text, and text that merely begins with `data:` stays text. Everything is done a piece at a time, so that no step holds
the interpreter for long; nothing as large as the file is copied for plain base64.
"""

import re
from binascii import a2b_base64
from hashlib import sha256

from gateway.domain import file_content, urls
from gateway.domain.file_content import FileContent

_TOKEN = r"[A-Za-z0-9!$&^_.+%'*`{|}~-]+"  # noqa: S105 - RFC 7230's word, no secret; without `#`
_HEADER = re.compile(
    rf'data:(?P<type>{_TOKEN}/{_TOKEN})?(?:;{_TOKEN}=(?:[^;,"#\s]*|"[^",#]*"))*(?P<base64>;(?-i:base64))?,',
    re.ASCII | re.IGNORECASE,
)
_LONGEST_HEADER = 1024
# Printable ASCII without `#`, where a URL's fragment would begin, and without `%` but for an escape.
_ESCAPED = re.compile(r"(?:[!\"$&-~]++|%[0-9A-Fa-f]{2})*+")
_SPACES = " \t\r\n"
_PIECE = 1 << 16  # a multiple of 4 characters; what is decoded of one stays in the processor's cache


def content_of(text: str) -> FileContent | None:
    """Return the content of a data: URI; `None` for text that is none."""
    if text[:5].lower() != "data:":
        return None
    header = _HEADER.match(text, 0, _LONGEST_HEADER)
    if header is None:
        return None
    if header["base64"]:
        digest = _base64_sha256(text, header.end()) or _odd_base64_sha256(text, header.end())
    else:
        data = _unescaped(text, header.end())
        digest = None if data is None else sha256(data).hexdigest()
    return None if digest is None else file_content.of_data_uri(digest, header["type"] or "")


def _base64_sha256(text: str, start: int) -> str | None:
    # Padding is right at the very end only; piece by piece it would be let through in the middle.
    if text.find("=", start, max(start, len(text) - 2)) >= 0:
        return None
    digest = sha256()
    try:
        for at in range(start, len(text), _PIECE):
            digest.update(a2b_base64(text[at : at + _PIECE], strict_mode=True))
    except ValueError:
        return None
    return digest.hexdigest()


def _odd_base64_sha256(text: str, start: int) -> str | None:
    """Read base64 that is folded into lines, as MIME does it, or escaped, as URLs do it."""
    pieces: list[str] = []
    for at in range(start, len(text), _PIECE):
        piece = text[at : at + _PIECE]
        for space in _SPACES:
            piece = piece.replace(space, "")
        pieces.append(piece)
    plain = "".join(pieces)
    if "%" in plain:
        data = _unescaped(plain, 0)
        plain = "" if data is None else data.decode("latin-1")
    elif len(plain) == len(text) - start:
        return None
    return _base64_sha256(plain, 0) if plain else None


def _unescaped(text: str, start: int) -> bytes | None:
    pieces: list[bytes] = []
    while start < len(text):
        found = _ESCAPED.match(text, start, start + _PIECE)
        if found is None or found.end() == start:
            return None
        pieces.append(urls.percent_decoded(text[start : found.end()]))
        start = found.end()
    return b"".join(pieces)
