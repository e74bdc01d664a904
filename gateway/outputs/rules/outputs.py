"""Decide which strings of an output are upstream's files, and when links to stored copies replace them.

Upstream's links expire an hour after the end (docs/replicate-api.md, Outputs and retention). Until then a body shows
them unchanged. After that, and in hits from the start, it shows links to the copies (docs/architecture.md, Files and
outputs). Nothing else in a body is changed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from gateway.domain import links as rewrite
from gateway.domain import tickets
from gateway.domain.records import Copy, Kind, PredictionView, Run, Source, Status
from gateway.sharing.rules import caching

MAX_FILES = 250
"""Maximum number of files copied per output. No known model returns a tenth of that."""
MAX_LINKS = 2000
"""Links of an output, repeated ones included. The files of an output with more are not copied."""
LINKS_DIE_SECONDS = 3600.0
"""Seconds from the end until upstream removes the files. Later they cannot be copied.

See docs/replicate-api.md, Outputs and retention.
"""
FETCH_SECONDS = 300.0
"""A result is no longer shared in the last seconds before its copies expire: the caller needs time to fetch them."""

_LONGEST_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@=+~-]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}(?:; ?charset=[\w-]{1,40})?", re.ASCII)
_ANY_TYPE = "application/octet-stream"
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 300.0


class Persist(StrEnum):
    """Which outputs are copied."""

    OFF = "off"
    SHARED = "shared"
    ALL = "all"


class OutputFile(msgspec.Struct, frozen=True):
    """A file of an output. `place` is its index among them, in the order of the document."""

    place: int
    url: str


class Files(msgspec.Struct, frozen=True):
    """The distinct files of an output. `is_whole` is false if there are more than `MAX_FILES`."""

    found: tuple[OutputFile, ...]
    is_whole: bool


def files_of(output: bytes, is_output: Callable[[str], bool]) -> Files:
    """Find the files of an output (JSON), at any depth. `is_output` recognises URLs of upstream's output files."""
    urls: dict[str, None] = {}
    for number, url in enumerate(rewrite.addresses(output)):
        if number == MAX_LINKS:
            # Links of copies would have to be put in place of each of them, whenever the output is shown.
            return Files((), is_whole=False)
        if is_output(url):
            urls[url] = None
    found = tuple(OutputFile(place, url) for place, url in enumerate(urls))
    return Files(found[:MAX_FILES], len(found) <= MAX_FILES)


def is_copied(run: Run, persist: Persist) -> bool:
    """Return whether to copy the files of an ended run. With `SHARED`, only results that can be cached are copied."""
    match persist:
        case Persist.OFF:
            return False
        case Persist.SHARED:
            may_be_shared = run.fingerprint is not None or run.provisional is not None
            return run.status is Status.SUCCEEDED and may_be_shared and run.kind is Kind.PREDICTION
        case Persist.ALL:
            return True


def are_kept(output: bytes, copies: Sequence[Copy]) -> bool:
    """Return whether every file that an output links to has a copy, so that the result can outlive upstream's links."""
    return not caching.has_links(rewrite.replace_addresses(output, {copy.url: "" for copy in copies}))


def usable_until(copies: Sequence[Copy], ttl_seconds: float) -> float:
    """Return the epoch time until which the lifetime of its copies allows a result to be shared."""
    return min(copy.stored_at for copy in copies) + ttl_seconds - FETCH_SECONDS


def are_shown(view: PredictionView, now: float) -> bool:
    """Return whether a prediction shows links to its copies instead of upstream's links."""
    run = view.run
    if not run.copies or run.ended_at is None:
        return False
    return view.prediction.source is Source.HIT or now >= run.ended_at + caching.LINKS_LIVE_SECONDS


def links(view: PredictionView, secret: bytes, origin: str, now: float, ttl_seconds: float) -> Mapping[str, str]:
    """Return the replacement of each of upstream's links in a prediction: a URL below `origin` with its own ticket."""
    if not are_shown(view, now):
        return {}
    return {
        copy.url: f"{origin}/outputs/{tickets.output_ticket(secret, view.prediction.id, copy.place, copy.sha256)}"
        f"/{name_of(copy.url)}"
        for copy in view.run.copies
        if is_alive(copy, now, ttl_seconds)
    }


def is_alive(copy: Copy, now: float, ttl_seconds: float) -> bool:
    """Return whether a copy has not expired."""
    return now < copy.stored_at + ttl_seconds


def filename_of(url: str) -> str:
    """Return the name of a file from its upstream URL."""
    name = _UNPRINTABLE.sub("_", unquote(urlsplit(url).path.rpartition("/")[2], errors="replace"))
    return name if name.strip(". ") else "output"


def name_of(url: str) -> str:
    """Return the last part of a copy's link: the file's name, limited to characters that need no escaping in a path."""
    name = _UNSAFE.sub("_", filename_of(url))
    stem, dot, suffix = name.rpartition(".")
    if dot and len(suffix) < _LONGEST_NAME // 2:
        return stem[: _LONGEST_NAME - len(suffix) - 1] + dot + suffix
    return name[:_LONGEST_NAME]


def disposition(url: str, kind: Literal["inline", "attachment"] = "inline") -> str:
    """Return `Content-Disposition` (RFC 6266): show inline or save, under the file's name."""
    filename, plain = filename_of(url), name_of(url)
    extended = "" if filename == plain else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'{kind}; filename="{plain}"{extended}'


def content_type(given: str | None) -> str:
    """Return the content type to serve a copy with: upstream's, if it is a valid one."""
    given = (given or "").strip()
    return given if _MEDIA_TYPE.fullmatch(given) else _ANY_TYPE


def pause(attempt: int, jitter: float) -> float:
    """Return the seconds before a retry of a failed copy, starting at about two. `jitter` is 0 to 1."""
    longest: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 20))
    return longest * (0.5 + jitter / 2)
