"""Rewrite links: upstream's to the gateway's in responses, the gateway's to upstream's in requests.

See docs/architecture.md, Invariants 11.

Only links that the API itself makes are rewritten: `next` and `previous` of a page, `urls.get` of a file, file links in
inputs, and links to copied files in outputs. Texts that contain such a link among other things, and examples in other
responses, stay unchanged.
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
# Matches up to the end of the next JSON string that begins like an absolute URL, in any spelling (escapes, leading
#  spaces). Text before it is consumed string by string, which is exact in well-formed JSON. The quantifiers are
#  possessive, so there is no backtracking: time is linear for every body. A string followed by a colon is a key.
_REST = rb'[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACES = rb"(?: |\\[tnr]|\\u00(?:20|09|0[aAdD]))*+"
_HTTP = rb"(?:[hH]|\\u00[46]8)(?:[tT]|\\u00[57]4){2}(?:[pP]|\\u00[57]0)"
_NEXT_URL = re.compile(
    rb'[^"]*+(?:"(?!%(http)s)%(rest)s[^"]*+)*+(?P<string>"%(rest)s)(?P<key>\s*+:)?'
    % {b"http": _SPACES + _HTTP, b"rest": _REST},
    re.DOTALL,
)
# Matches in every body in which `_NEXT_URL` finds something. Most inputs are short texts without a URL.
_MAY_BE_URL = re.compile(rb"http|\\u00", re.IGNORECASE)
_DOTS = frozenset({".", ".."})


def lead_back(url: str | None, base: str) -> str | None:
    """Rewrite an absolute upstream link to the gateway: the part after `/v1` is appended to `base`.

    Return `None` for a link without `/v1/`, or with `..` after it: the gateway has no such URL, and clients send their
    key when they follow `next`. The first `/v1/` counts, because an owner or a model can be named `v1`.
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
    """A parsed upstream page, to be rendered for any base URL."""

    fields: dict[str, Raw]
    links: Mapping[str, str | None]

    def render(self, base: str) -> bytes:
        """Return the page with its links rewritten to `base`."""
        return _encode(self.fields | {name: Raw(_encode(lead_back(url, base))) for name, url in self.links.items()})


def split_page(body: bytes) -> PageParts | None:
    """Parse a page; return `None` if the body is no page."""
    try:
        fields = surrogates.split(body)
        links: dict[str, str | None] = {
            name: _decode_optional_text(fields[name]) for name in ("next", "previous") if name in fields
        }
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return PageParts(fields, links) if links and "results" in fields else None


def file_document(document: bytes, base: str) -> bytes:
    """Return a file's body with `urls.get` pointing to the gateway."""
    fields = _decode_fields(document)
    file_id = _decode_text(fields["id"])
    fields["urls"] = Raw(_encode({"get": f"{base}/files/{file_id}"}))
    return _encode(fields)


class FileLink(msgspec.Struct, frozen=True):
    """A string of an input that is the URL of a file.

    URLs are normalised before they are compared, because the program that fetches them normalises them too: escapes,
    dot segments, a query, user info, a port.
    """

    url: str
    """The string in the input, not normalised."""
    origin: str
    """In the form of `origin_of`."""
    file_id: str


def file_links(body: bytes) -> list[FileLink]:
    """Find the strings that are file links, at any depth. Raise `Unprocessable` if there are over `MAX_FILE_LINKS`."""
    links: list[FileLink] = []
    if _MAY_BE_URL.search(body) is None:
        return links
    for _, link in _links(body):
        links.append(link)
        if len(links) > MAX_FILE_LINKS:
            raise Unprocessable.field("input", f"input has more than {MAX_FILE_LINKS} file links")
    return links


def translate(body: bytes, replacements: Mapping[str, str]) -> bytes:
    """Replace the file links whose URLs are in `replacements`. All other bytes stay unchanged."""
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
    """Yield the strings of a body that begin like an HTTP URL, in order, at any depth; without keys."""
    return (text for _, text in _addresses(body))


def replace_addresses(body: bytes, replacements: Mapping[str, str]) -> bytes:
    """Replace the strings that are equal to a URL in `replacements`. All other bytes stay unchanged."""
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
    """Normalise an origin: lower case, no user info, no trailing dot, no default port."""
    address = unicodedata.normalize("NFKC", unquote(authority.rpartition("@")[2])).lower()
    found = _PORT.search(address)
    host, port = (address[: found.start()], found[1].lstrip("0")) if found else (address, "")
    return f"{scheme.lower()}://{host.rstrip('.')}" + ("" if port in _DEFAULT_PORTS else f":{port}")


def path_of(value: object, wanted: str, path: str = "input") -> str:
    """Return the path of a string in a decoded input, such as `input.images[2]`; `path` itself if it is not found."""
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
    """Return the normalised `scheme://host[:port]` of a URL: lower case, no user info, no default port."""
    parts = urlsplit(url)
    return _origin(parts.scheme, parts.netloc)


def is_among(link: FileLink, origins: Collection[str]) -> bool:
    """Return whether a link points to one of these origins. `http` and `https` are treated as the same."""
    hosts = {origin.partition("://")[2] for origin in map(origin_of, origins)}
    return link.origin.partition("://")[2] in hosts
