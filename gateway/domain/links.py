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
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
from msgspec import Raw

from gateway.domain import json_scan, large_bytes, large_json, surrogates, urls
from gateway.domain.json_scan import LINK_START, link_starts, mask
from gateway.errors import Unprocessable

FILE_ID = r"[A-Za-z0-9_-]{8,100}"
_LONGEST_FILE_ID = 100

FILES = b"/files/"
"""In every link of a file. An input without it can contain nothing that `lead_files_back` changes."""

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode
_decode_text = msgspec.json.Decoder(str).decode
_decode_optional_text = msgspec.json.Decoder(str | None).decode

MAX_FILE_LINKS = 1000
_SHORT_BODY = 65_536
"""Bytes of a body that is looked through for a link before its quotes are distinguished."""
_COLON = re.compile(rb"\s*+:")
# The parts of a URL as two kinds of parsers read them, once spaces and control characters around it, and tabs and line
# ends in it, have been removed. Browsers (WHATWG URL, 4.4) take a backslash for a slash, and any number of slashes, or
# none, for two. Python's `urllib` wants two slashes, and takes a backslash for a part of the host.
_BROWSERS_URL = re.compile(r"(https?):[/\\]*+([^/\\?#]*+)([^?#]*+)", re.IGNORECASE)
_PYTHONS_URL = re.compile(r"(https?)://([^/?#]*+)([^?#]*+)", re.IGNORECASE)
_IGNORED_AROUND = "".join(map(chr, range(0x21)))
_LEADS = re.compile(r"[\x00-\x20]*+")
_FILE_PATH = re.compile(rf".*/files/({FILE_ID})={{0,2}}", re.IGNORECASE | re.DOTALL)
_LONGEST_PATH = 1024
"""Of a file's link. Longer ones are not read; on a host where files need a permission they are refused."""
_LONGEST_HEAD = 16_384
_LONGEST_HOST = urls.LONGEST_HOST + len(":65535")
_LONGEST_LABEL = 4 * 63
"""Letters that may become one label of a host when they are normalised. More are no host."""
_DOTS_OF_HOSTS = re.compile("[.\u3002\uff0e\uff61]")
# Characters that a host loses on its way to DNS (UTS 46, "ignored").
_NOT_IN_HOSTS = dict.fromkeys(map(ord, "\u00ad\u034f\u180b\u180c\u180d\u180f\u200b\u2060\u2064\ufeff"))
_NOT_IN_HOSTS |= dict.fromkeys(range(0xFE00, 0xFE10))
_PORT = re.compile(r":([0-9]*)\Z")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
_DEFAULT_PORTS = frozenset({"", "80", "443"})
_LONGEST_KEY_SHOWN = 60
_DOTS = frozenset({".", ".."})


def lead_back(url: str | None, base: str) -> str | None:
    """Rewrite an absolute upstream link to the gateway: the part after `/v1` is appended to `base`.

    Return `None` for a link without `/v1/`, or with `..` after it: the gateway has no such URL, and clients send their
    key when they follow `next`. The first `/v1/` counts, because an owner or a model can be named `v1`.
    """
    if not url:
        return None
    try:
        parts = urls.split(url)
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
        links = {name: Raw(_encode(lead_back(url, base))) for name, url in self.links.items()}
        return large_json.encode(self.fields | links)


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


def lead_files_back(given: bytes, upstream_base: str, base: str) -> bytes:
    """Rewrite upstream's file links in an input to the gateway's: the strings that `Policy.translate_files` wrote."""
    written = _written_link(upstream_base)
    longest = len(written.pattern) + _LONGEST_FILE_ID
    view = memoryview(given)
    pieces: list[bytes | memoryview] = []
    end = 0
    # In pieces, for the sake of the other threads.
    for low in range(0, len(given), json_scan.SLICE):
        high = low + json_scan.SLICE
        for found in written.finditer(given, max(low, end), high + longest):
            if found.start() >= high:
                break
            if not given.startswith(b":", large_json.after_spaces(given, found.end())):
                pieces += [view[end : found.start()], _encode(f"{base}/files/{found[1].decode()}")]
                end = found.end()
    return large_bytes.joined([*pieces, view[end:]]) if pieces else given


@lru_cache(maxsize=8)
def _written_link(upstream_base: str) -> re.Pattern[bytes]:
    # A quote behind a backslash is a part of a longer text. A string before a colon is a key; that is not looked for.
    return re.compile(rb"(?<!\\)" + (re.escape(f'"{upstream_base}/files/') + rf'({FILE_ID})"').encode())


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
    """The id of the file; "" if the link is too long, or parsers read different ids in it."""
    other_origin: str | None = None
    """The origin for parsers that read the URL in another way, as long as it is a file there too."""


def file_links(body: bytes) -> list[FileLink]:
    """Find the strings that are file links, at any depth. Raise `Unprocessable` if there are over `MAX_FILE_LINKS`."""
    links: list[FileLink] = []
    if len(body) < _SHORT_BODY and LINK_START.search(body) is None:
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
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    end = 0
    for place, link in _links(body):
        if replacement := replacements.get(link.url):
            pieces += [view[end : place.start], _encode(replacement)]
            end = place.end
    return large_bytes.joined([*pieces, view[end:]])


def _links(body: bytes) -> Iterator[tuple["_Place", FileLink]]:
    for place, text in _addresses(body):
        if link := _file_link(text):
            yield place, link


def addresses(body: bytes) -> Iterator[str]:
    """Yield the strings of a body that begin like an HTTP URL, in order, at any depth; without keys."""
    return (text for _, text in _addresses(body))


def replace_addresses(body: bytes, replacements: Mapping[str, str]) -> bytes:
    """Replace the strings that are equal to a URL in `replacements`. All other bytes stay unchanged."""
    if not replacements:
        return body
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    end = 0
    for place, text in _addresses(body):
        if (replacement := replacements.get(text)) is not None:
            pieces += [view[end : place.start], _encode(replacement)]
            end = place.end
    return large_bytes.joined([*pieces, view[end:]])


class _Place(NamedTuple):
    """Where a string of a body stands, with its quotes."""

    start: int
    end: int


def _addresses(body: bytes) -> Iterator[tuple[_Place, str]]:
    masked = mask(body)
    for found in link_starts(masked):
        start = found.start()
        end = masked.find(b'"', start + 1) + 1
        if not end:
            return
        if _COLON.match(masked, end) is not None:
            continue
        try:
            text = large_json.decode_string(body, start, end)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        yield _Place(start, end), text


def _file_link(text: str) -> FileLink | None:
    """Read a text as browsers do and as Python does. It is a file's link if either takes it for one."""
    # The authority and the path of a link stand in its beginning. The rest is not worth work on it.
    start = _leads(text)
    url = text[start : start + _LONGEST_HEAD]
    if len(text) <= start + _LONGEST_HEAD:
        url = url.rstrip(_IGNORED_AROUND)
    if not url.isprintable():
        url = url.replace("\t", "").replace("\n", "").replace("\r", "")
        if len(text) > start + _LONGEST_HEAD > start + 2 * len(url):
            raise Unprocessable.field("input", "the input has a link with too many line ends or tabs in it")
    origins, ids = [], []
    for pattern in (_BROWSERS_URL, _PYTHONS_URL):
        parts = pattern.match(url)
        if parts is None or not parts[2] or (file_id := _file_id(parts[3])) is None:
            continue
        if (origin := _origin(parts[1], parts[2])) is not None:
            origins.append(origin)
            ids.append(file_id)
    if not origins:
        return None
    other = origins[-1] if origins[-1] != origins[0] else None
    return FileLink(text, origins[0], ids[0] if ids[0] == ids[-1] else "", other)


def _leads(text: str) -> int:
    """Count the characters in front that are ignored."""
    found = _LEADS.match(text)
    return found.end() if found else 0


def _file_id(path: str) -> str | None:
    """Return the id in a file's path; `None` if it is no file's, "" if it is too long to be read."""
    if len(path) > _LONGEST_PATH:
        return ""
    if "%" in path:
        path = unescaped(path)
    if "\\" in path:
        path = path.replace("\\", "/")
    found = _FILE_PATH.fullmatch(posixpath.normpath(path.replace("\0", "")))
    return found[1] if found else None


def unescaped(text: str) -> str:
    """Undo percent-encoding; bytes that are no UTF-8 are replaced."""
    return urls.percent_decoded(text).decode("utf-8", "replace")


def _origin(scheme: str, authority: str) -> str | None:
    """Normalise an origin: lower case, no user info, no trailing dot, no default port. `None` if it has no host.

    Lengths are checked first: sorting combining marks, as normalisation does, takes quadratic time.
    """
    address = authority.rpartition("@")[2]
    if "%" in address:
        if len(address) > 3 * _LONGEST_HOST:
            return None
        address = unescaped(address)
    if not address.isascii():
        address = _normalised(address)
    if not 0 < len(address) <= _LONGEST_HOST or not address.isprintable() or " " in address:
        return None
    address = address.lower()
    found = _PORT.search(address)
    host, port = (address[: found.start()], found[1].lstrip("0")) if found else (address, "")
    return f"{scheme.lower()}://{_numbers(host.rstrip('.'))}" + ("" if port in _DEFAULT_PORTS else f":{port}")


def _normalised(host: str) -> str:
    """Return a host in NFKC, without the characters that DNS never sees; "" for one that is too long to be a host."""
    if len(host) > _LONGEST_LABEL * 4:
        return ""
    labels = _DOTS_OF_HOSTS.split(host.translate(_NOT_IN_HOSTS))
    if max(map(len, labels)) > _LONGEST_LABEL:
        return ""
    return ".".join(unicodedata.normalize("NFKC", label) for label in labels)


def _numbers(host: str) -> str:
    """Write an IP address in its one form: `127.1`, `0x7f000001` and `[0:0::1]` are addresses, too."""
    if host[:1] == "[":
        try:
            return f"[{IPv6Address(host[1:-1].partition('%')[0])}]"
        except AddressValueError:
            return host
    parts = host.split(".")
    if len(parts) > 4 or not all(map(_NUMBER.match, parts)):
        return host
    try:
        *first, last = map(_number, parts)
    except ValueError:
        return host
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return host
    value = sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def _number(text: str) -> int:
    if text[:2] == "0x":
        return int(text[2:] or "0", 16)
    return int(text, 8 if text[0] == "0" else 10)


def path_of(value: object, wanted: str, path: str = "input") -> str:
    """Return the path of a string in a decoded input, such as `input.images[2]`; `path` itself if it is not found."""
    levels: list[tuple[object, Iterator[tuple[object, object]]]] = [("", iter([("", value)]))]
    while levels:
        step = next(levels[-1][1], None)
        if step is None:
            levels.pop()
            continue
        name, item = step
        match item:
            case str() if item == wanted:
                steps = [*(above for above, _ in levels[2:]), name] if len(levels) > 1 else []
                return path + "".join(map(_step_shown, steps))
            case dict():
                levels.append((name, iter(item.items())))
            case list():
                levels.append((name, enumerate(item)))
    return path


def _step_shown(step: object) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{str(step)[:_LONGEST_KEY_SHOWN]}"


def origin_of(url: str) -> str:
    """Return the normalised `scheme://host[:port]` of a URL: lower case, no user info, no default port."""
    parts = urls.split(url)
    return _origin(parts.scheme, parts.netloc) or f"{parts.scheme}://"


def hosts_of(origins: Collection[str]) -> frozenset[str]:
    """Return the hosts and ports of origins, for `is_on`."""
    return frozenset(origin.partition("://")[2] for origin in map(origin_of, origins))


def is_on(link: FileLink, hosts: Collection[str]) -> bool:
    """Return whether a link points to one of these hosts. `http` and `https` are treated as the same."""
    return any(
        origin is not None and origin.partition("://")[2] in hosts for origin in (link.origin, link.other_origin)
    )


def is_among(link: FileLink, origins: Collection[str]) -> bool:
    """Return whether a link points to one of these origins. `http` and `https` are treated as the same."""
    return is_on(link, hosts_of(origins))
