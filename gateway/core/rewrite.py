"""Links: upstream's made to lead back to the gateway, the gateway's turned back before they go upstream (design 2.11).

Only the links that the API itself makes are touched: `next` and `previous` of a page, `urls.get` of a file, and file
links in inputs. Text that merely contains such a link, and examples nested in other answers, stay as they are.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

FILE_ID = r"[A-Za-z0-9_-]{8,100}"

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode
_decode_text = msgspec.json.Decoder(str).decode
_decode_optional_text = msgspec.json.Decoder(str | None).decode

_FILE_LINK = re.compile(rf"(https?://[^/?#\s]+)(?:/[^?#\s]*)?/files/({FILE_ID})={{0,2}}/?", re.IGNORECASE)
# A whole JSON string. Scanning from string to string is exact in well-formed JSON. A colon marks a key.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(?P<key>\s*:)?', re.DOTALL)
_LONGEST_LINK = 4096


def lead_back(url: str | None, base: str) -> str | None:
    """Turn an absolute upstream link into the gateway's: what stands after `/v1` is put after `base`.

    A link in which `/v1/` does not occur leads nowhere that the gateway knows, and is dropped: clients follow `next`
    with their key.
    """
    if not url:
        return None
    parts = urlsplit(url)
    _, marker, rest = parts.path.rpartition("/v1/")
    if not marker:
        return None
    return f"{base}/{rest}" + (f"?{parts.query}" if parts.query else "")


class PageParts(msgspec.Struct, frozen=True):
    """An upstream page taken apart once, to be put together for any base URL."""

    fields: dict[str, Raw]
    links: Mapping[str, str | None]

    def render(self, base: str) -> bytes:
        """Write the page with its links leading back to `base`."""
        return _encode(self.fields | {name: Raw(_encode(lead_back(url, base))) for name, url in self.links.items()})


def split_page(body: bytes) -> PageParts | None:
    """Take a page apart; `None` for a body that is no page and so has no links of a page."""
    try:
        fields = _decode_fields(body)
        links: dict[str, str | None] = {
            name: _decode_optional_text(fields[name]) for name in ("next", "previous") if name in fields
        }
    except (msgspec.MsgspecError, RecursionError):
        return None
    return PageParts(fields, links) if links and "results" in fields else None


def file_document(document: bytes, base: str) -> bytes:
    """Write a file's body with `urls.get` on the gateway."""
    fields = _decode_fields(document)
    file_id = _decode_text(fields["id"])
    fields["urls"] = Raw(_encode({"get": f"{base}/files/{file_id}"}))
    return _encode(fields)


class FileLink(msgspec.Struct, frozen=True):
    """A string of an input that has the form of a file's link."""

    url: str
    origin: str
    file_id: str


def file_links(body: bytes) -> list[FileLink]:
    """Find, at any depth, the strings that are links of files. Bytes that cannot hold one are not looked at twice."""
    return [link for _, link in _links(body)] if _may_have_links(body) else []


def translate(body: bytes, replacements: Mapping[str, str]) -> bytes:
    """Replace the links whose URLs are in `replacements`; leave every other byte as it is."""
    if not replacements:
        return body
    pieces, end = [], 0
    for match, link in _links(body):
        if replacement := replacements.get(link.url):
            pieces += [body[end : match.start()], _encode(replacement)]
            end = match.start() + len(match[0]) - len(match["key"] or b"")
    return b"".join([*pieces, body[end:]])


def _may_have_links(body: bytes) -> bool:
    return b"files" in body or b"\\u" in body


def _links(body: bytes) -> Iterator[tuple[re.Match[bytes], FileLink]]:
    for match in _STRING.finditer(body):
        if match["key"] is not None or len(match[0]) > _LONGEST_LINK:
            continue
        quoted = match[0]
        if b"files" not in quoted and b"\\u" not in quoted:
            continue
        try:
            text = _decode_text(quoted)
        except msgspec.MsgspecError:
            continue
        if found := _FILE_LINK.fullmatch(text):
            yield match, FileLink(text, found[1].lower(), found[2])


def path_of(value: object, wanted: str, path: str = "input") -> str:
    """Name the place of a string inside a decoded input: `input.images[2]`. The input itself if it is not there."""
    return next(_paths(value, lambda text: text == wanted, path), path)


def _paths(value: object, test: Callable[[str], bool], path: str) -> Iterator[str]:
    match value:
        case str() if test(value):
            yield path
        case dict():
            for key, item in value.items():
                yield from _paths(item, test, f"{path}.{key}")
        case list():
            for index, item in enumerate(value):
                yield from _paths(item, test, f"{path}[{index}]")
        case _:
            return


def origin_of(url: str) -> str:
    """Return `scheme://host[:port]` of a URL, in lower case."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def is_among(link: FileLink, origins: Collection[str]) -> bool:
    """Whether a link points at one of these origins."""
    return link.origin in origins
