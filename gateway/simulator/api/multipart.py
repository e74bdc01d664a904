"""Parse multipart bodies in memory. aiohttp's reader needs a stream, but the request log needs the bytes."""

from dataclasses import dataclass
from email.message import Message

from gateway.simulator import problems


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes

    @property
    def text(self) -> str:
        """The part as text."""
        return self.data.decode("utf-8", "replace").strip()


def parse_multipart(content_type: str, body: bytes) -> list[Part]:
    """Split a form into its parts, or raise a 400."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise problems.Problem(400, {"detail": "Expected a multipart/form-data body"})
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise problems.Problem(400, {"detail": "Malformed multipart body"})
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, separator, data = piece.partition(b"\r\n\r\n")
    if not separator:
        raise problems.Problem(400, {"detail": "Malformed multipart body"})
    header = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            header[name.strip()] = value.strip()
    field = header.get_param("name", header="Content-Disposition")
    filename = header.get_filename()
    kind = header.get("Content-Type")
    return Part(field if isinstance(field, str) else "", filename, kind, data)
