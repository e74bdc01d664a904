"""Links: upstream's made to lead back to the gateway, the gateway's turned back before they go upstream.

See docs/architecture.md, Invariants 11.

Only the links that the API itself makes are touched: `next` and `previous` of a page, `urls.get` of a file, file links
in inputs, and in outputs those of files that have been copied (`outputs.py`). Text that merely contains such a link,
and examples nested in other answers, stay as they are.
"""

import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Raw

from gateway.domain import surrogates
from gateway.errors import Unprocessable

FILE_ID = r"[A-Za-z0-9_-]{8,100}"

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode
_decode_text = msgspec.json.Decoder(str).decode
_decode_optional_text = msgspec.json.Decoder(str | None).decode

MAX_FILE_LINKS = 1000
_URL = re.compile(r"\s*+(https?)://([^/?#\s]++)([^?#\s]*+)(?:[?#]\S*+)?\s*+", re.IGNORECASE)
_FILE_PATH = re.compile(rf".*/files/({FILE_ID})={{0,2}}", re.IGNORECASE)
_PORT = re.compile(r":([0-9]*)\Z")
_DEFAULT_PORTS = frozenset({"", "80", "443"})
_LONGEST_KEY_SHOWN = 60
# To the end of the next JSON string that begins like an absolute URL, in whatever spelling. What is before it is eaten
# string by string, which is exact in well-formed JSON, and never looked back at: the time is linear and nothing is
# kept, whatever the body holds. A colon marks a key.
_REST = rb'[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACES = rb"(?: |\\[tnr]|\\u00(?:20|09|0[aAdD]))*+"
_HTTP = rb"(?:[hH]|\\u00[46]8)(?:[tT]|\\u00[57]4){2}(?:[pP]|\\u00[57]0)"
_NEXT_URL = re.compile(
    rb'[^"]*+(?:"(?!%(http)s)%(rest)s[^"]*+)*+(?P<string>"%(rest)s)(?P<key>\s*+:)?'
    % {b"http": _SPACES + _HTTP, b"rest": _REST},
    re.DOTALL,
)
_DOTS = frozenset({".", ".."})


def lead_back(url: str | None, base: str) -> str | None:
    """Turn an absolute upstream link into the gateway's: what stands after `/v1` is put after `base`.

    A link in which `/v1/` does not occur, or that climbs out of it, leads nowhere that the gateway knows, and is
    dropped: clients follow `next` with their key. The first `/v1/` counts: an owner or a model may be called so, too.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    _, marker, rest = parts.path.partition("/v1/")
    if not marker or not _DOTS.isdisjoint(re.split(r"[/\\]", unquote(rest))):
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
        fields = surrogates.split(body)
        links: dict[str, str | None] = {
            name: _decode_optional_text(fields[name]) for name in ("next", "previous") if name in fields
        }
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return PageParts(fields, links) if links and "results" in fields else None


def file_document(document: bytes, base: str) -> bytes:
    """Write a file's body with `urls.get` on the gateway."""
    fields = _decode_fields(document)
    file_id = _decode_text(fields["id"])
    fields["urls"] = Raw(_encode({"get": f"{base}/files/{file_id}"}))
    return _encode(fields)


class FileLink(msgspec.Struct, frozen=True):
    """A string of an input that leads to a file, however it is spelled.

    The spelling must not matter, because whoever fetches it undoes it: escapes, dots, a query, a user, a port.
    """

    url: str
    """The string as it stands."""
    origin: str
    """As `origin_of` writes it."""
    file_id: str


def file_links(body: bytes) -> list[FileLink]:
    """Find, at any depth, the strings that are links of files. Raise `Unprocessable` for more than anybody needs."""
    links = []
    for _, link in _links(body):
        links.append(link)
        if len(links) > MAX_FILE_LINKS:
            raise Unprocessable.field("input", f"input has more than {MAX_FILE_LINKS} file links")
    return links


def translate(body: bytes, replacements: Mapping[str, str]) -> bytes:
    """Replace the links whose URLs are in `replacements`; leave every other byte as it is."""
    if not replacements:
        return body
    pieces, end = [], 0
    for match, link in _links(body):
        if replacement := replacements.get(link.url):
            pieces += [body[end : match.start("string")], _encode(replacement)]
            end = match.end("string")
    return b"".join([*pieces, body[end:]])


def _links(body: bytes) -> Iterator[tuple[re.Match[bytes], FileLink]]:
    for match, text in _addresses(body):
        if link := _file_link(text):
            yield match, link


def addresses(body: bytes) -> Iterator[str]:
    """Give, in order, the strings of a body, at any depth, that begin like a web address; keys are none."""
    return (text for _, text in _addresses(body))


def replace_addresses(body: bytes, replacements: Mapping[str, str]) -> bytes:
    """Replace the strings that are equal to an address in `replacements`; leave every other byte as it is."""
    if not replacements:
        return body
    pieces, end = [], 0
    for match, text in _addresses(body):
        if (replacement := replacements.get(text)) is not None:
            pieces += [body[end : match.start("string")], _encode(replacement)]
            end = match.end("string")
    return b"".join([*pieces, body[end:]])


def _addresses(body: bytes) -> Iterator[tuple[re.Match[bytes], str]]:
    end = 0
    while match := _NEXT_URL.match(body, end):
        end = match.end()
        if match["key"] is not None:
            continue
        try:
            text = _decode_text(match["string"])
        except msgspec.MsgspecError:
            continue
        yield match, text


def _file_link(text: str) -> FileLink | None:
    url = _URL.fullmatch(text)
    if url is None or (found := _FILE_PATH.fullmatch(posixpath.normpath(unquote(url[3])))) is None:
        return None
    return FileLink(text, _origin(url[1], url[2]), found[1])


def _origin(scheme: str, authority: str) -> str:
    """Write an origin in one spelling: small letters, no user, no dot at the end, no port where it goes without."""
    place = unicodedata.normalize("NFKC", unquote(authority.rpartition("@")[2])).lower()
    found = _PORT.search(place)
    host, port = (place[: found.start()], found[1].lstrip("0")) if found else (place, "")
    return f"{scheme.lower()}://{host.rstrip('.')}" + ("" if port in _DEFAULT_PORTS else f":{port}")


def path_of(value: object, wanted: str, path: str = "input") -> str:
    """Name the place of a string inside a decoded input: `input.images[2]`. The input itself if it is not there."""
    rest: list[tuple[str, object]] = [(path, value)]
    while rest:
        where, item = rest.pop()
        match item:
            case str() if item == wanted:
                return where
            case dict():
                rest += [(f"{where}.{str(key)[:_LONGEST_KEY_SHOWN]}", each) for key, each in reversed(item.items())]
            case list():
                rest += [(f"{where}[{index}]", each) for index, each in reversed([*enumerate(item)])]
    return path


def origin_of(url: str) -> str:
    """Return `scheme://host[:port]` of a URL in one spelling: small letters, no user, no port where it goes without."""
    parts = urlsplit(url)
    return _origin(parts.scheme, parts.netloc)


def is_among(link: FileLink, origins: Collection[str]) -> bool:
    """Whether a link points at one of these origins. `http` and `https` of one host and port are the same place."""
    places = {origin.partition("://")[2] for origin in map(origin_of, origins)}
    return link.origin.partition("://")[2] in places
