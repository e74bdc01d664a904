"""Reads the parts of a form, and the names in their Content-Disposition (RFC 7578, 4.2; RFC 2183; RFC 5987).

aiohttp's parser splits at every semicolon, so it refuses file names with several, and loses the caller's spelling.
"""

import re
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from aiohttp import BodyPartReader, MultipartReader, web
from multidict import CIMultiDict

_PARAMETER: Final = re.compile(r"""[ \t]*;[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s;"]*)[ \t]*""")
"""A parameter: its name, and its value as a quoted text or as a token."""
_END: Final = re.compile(r"[ \t;]*")
_ESCAPED: Final = re.compile(r'\\(["\\])')
_EXTENDED: Final = re.compile(r"(?i:utf-8|iso-8859-1)'[A-Za-z0-9-]*'[A-Za-z0-9!#$&+.^_`|~%-]*")
_MAX_PREAMBLE: Final = 16 * 1024
"""Bytes before the first part, which mean nothing (RFC 2046, 5.1.1). They are read line by line, which is slow."""
_UNSAFE: Final = str.maketrans("", "", "\r\n\0")


class Disposition(msgspec.Struct, frozen=True):
    """What a part's header says."""

    name: str
    filename: str = ""
    spelled: str = ""
    """The parameters that name the file, as the caller wrote them, each after `; `.

    Clients escape quotation marks and backslashes differently (browsers write %22, others a backslash), and upstream
    reads what they write.
    """


def read_disposition(header: str) -> Disposition | None:
    """Read a Content-Disposition. Return `None` without a name, and for what different parsers read differently."""
    kind, semicolon, rest = header.translate(_UNSAFE).partition(";")
    rest, place = semicolon + rest, 0
    given: dict[str, str] = {}
    while (match := _PARAMETER.match(rest, place)) is not None:
        key = match[1].lower()
        if key in given:
            return None
        given[key] = match[2]
        place = match.end()
    if kind.strip().lower() != "form-data" or "name" not in given or _END.fullmatch(rest, place) is None:
        return None
    named = [key for key in ("filename", "filename*") if key in given]
    return Disposition(
        name=_value(given["name"]),
        filename=_filename(given),
        spelled="".join(f"; {key}={given[key]}" for key in named),
    )


def _value(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def _filename(given: dict[str, str]) -> str:
    extended = given.get("filename*", "")
    if _EXTENDED.fullmatch(extended):
        charset, _, text = extended.split("'", 2)
        return unquote(text, charset, "replace")
    return _value(given.get("filename", ""))


class _Part(BodyPartReader):
    """A part of a form, whatever the reader takes it for."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **(more | {"subtype": "form-data"}))


class _Reader(MultipartReader):
    part_reader_cls = _Part
    _preamble_left = _MAX_PREAMBLE

    async def _readline(self) -> bytes:
        line = await super()._readline()
        if self._at_bof:
            self._preamble_left -= len(line)
            if self._preamble_left < 0:
                raise ValueError("the text before the first part is too long")
        return line


def reader_of(request: web.Request) -> MultipartReader:
    """Return a reader of a request's form that leaves Content-Disposition to `read_disposition`."""
    headers = CIMultiDict(request.headers)
    headers["Content-Type"] = re.sub(r"form-data", "mixed", headers["Content-Type"], count=1, flags=re.IGNORECASE)
    protocol = request.protocol
    return _Reader(headers, request.content, max_field_size=protocol.max_field_size, max_headers=protocol.max_headers)
