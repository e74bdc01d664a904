"""Output files: which strings of a result are files of upstream's, and when the stored copies' links stand in for them.

Upstream's links die an hour after the end (docs/replicate-api.md, Outputs and retention). While they live, a body shows
them as upstream wrote them; after that, and in hits from the start, it shows the links of the copies
(docs/architecture.md, Files and outputs). Nothing else in a body changes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from urllib.parse import quote, unquote, urlsplit

import msgspec

from gateway.domain import links as rewrite
from gateway.domain import tickets
from gateway.domain.records import Copy, Kind, PredictionView, Run, Source, Status
from gateway.sharing.rules import caching

MAX_FILES = 250
"""Files that are copied of one output. No model known gives a tenth of that; an output is what its model makes it."""
LINKS_DIE_SECONDS = 3600.0
"""When upstream removes the files, counted from the end: what has not been copied by then cannot be.

See docs/replicate-api.md, Outputs and retention.
"""
FETCH_SECONDS = 300.0
"""How long before its copies go a result is no longer shared: a caller must have time to fetch what it was shown."""

_LONGEST_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@=+~-]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}(?:; ?charset=[\w-]{1,40})?", re.ASCII)
_ANY_TYPE = "application/octet-stream"
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 300.0


class Persist(StrEnum):
    """Whose outputs are copied."""

    OFF = "off"
    SHARED = "shared"
    ALL = "all"


class OutputFile(msgspec.Struct, frozen=True):
    """A file of an output. `place` is its number among them, in the order of the document."""

    place: int
    url: str


class Files(msgspec.Struct, frozen=True):
    """The files of an output, each once; not `is_whole` if there are more than are copied."""

    found: tuple[OutputFile, ...]
    is_whole: bool


def files_of(output: bytes, is_output: Callable[[str], bool]) -> Files:
    """Find the files of an output (JSON), at any depth. `is_output` tells upstream's addresses of files from others."""
    urls = dict.fromkeys(url for url in rewrite.addresses(output) if is_output(url))
    found = tuple(OutputFile(place, url) for place, url in enumerate(urls))
    return Files(found[:MAX_FILES], len(found) <= MAX_FILES)


def is_copied(run: Run, persist: Persist) -> bool:
    """Say whether the files of a run that has ended are to be copied. A result that nobody can hit again is not."""
    match persist:
        case Persist.OFF:
            return False
        case Persist.SHARED:
            may_be_shared = run.fingerprint is not None or run.provisional is not None
            return run.status is Status.SUCCEEDED and may_be_shared and run.kind is Kind.PREDICTION
        case Persist.ALL:
            return True


def are_kept(output: bytes, copies: Sequence[Copy]) -> bool:
    """Say whether the output store has every file that an output links to: then the result may outlive the links."""
    return not caching.has_links(rewrite.replace_addresses(output, {copy.url: "" for copy in copies}))


def usable_until(copies: Sequence[Copy], ttl_seconds: float) -> float:
    """Return until when a result may be shared for all that its copies live."""
    return min(copy.stored_at for copy in copies) + ttl_seconds - FETCH_SECONDS


def are_shown(view: PredictionView, now: float) -> bool:
    """Say whether a prediction shows the links of copies, where there are any, in the place of upstream's."""
    run = view.run
    if not run.copies or run.ended_at is None:
        return False
    return view.prediction.source is Source.HIT or now >= run.ended_at + caching.LINKS_LIVE_SECONDS


def links(view: PredictionView, secret: bytes, origin: str, now: float, ttl_seconds: float) -> Mapping[str, str]:
    """Return what stands in for upstream's links in a prediction: the caller's own tickets, below `origin`."""
    if not are_shown(view, now):
        return {}
    return {
        copy.url: f"{origin}/outputs/{tickets.output_ticket(secret, view.prediction.id, copy.place, copy.sha256)}"
        f"/{name_of(copy.url)}"
        for copy in view.run.copies
        if is_alive(copy, now, ttl_seconds)
    }


def is_alive(copy: Copy, now: float, ttl_seconds: float) -> bool:
    """Say whether a copy is young enough to be read."""
    return now < copy.stored_at + ttl_seconds


def filename_of(url: str) -> str:
    """Return the name of a file as upstream gave it."""
    name = _UNPRINTABLE.sub("_", unquote(urlsplit(url).path.rpartition("/")[2], errors="replace"))
    return name if name.strip(". ") else "output"


def name_of(url: str) -> str:
    """Return the last part of a copy's link: the file's name, in letters that need no escape in a path."""
    name = _UNSAFE.sub("_", filename_of(url))
    stem, dot, suffix = name.rpartition(".")
    if dot and len(suffix) < _LONGEST_NAME // 2:
        return stem[: _LONGEST_NAME - len(suffix) - 1] + dot + suffix
    return name[:_LONGEST_NAME]


def disposition(url: str) -> str:
    """Write `Content-Disposition` (RFC 6266): shown in place, and saved under the file's own name."""
    filename, plain = filename_of(url), name_of(url)
    extended = "" if filename == plain else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'inline; filename="{plain}"{extended}'


def content_type(given: str | None) -> str:
    """Return the type that a copy is served as: upstream's, if it is one."""
    given = (given or "").strip()
    return given if _MEDIA_TYPE.fullmatch(given) else _ANY_TYPE


def pause(attempt: int, jitter: float) -> float:
    """Return the seconds after which a failed copy is tried again, first after about two. `jitter` is 0 to 1."""
    longest: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 20))
    return longest * (0.5 + jitter / 2)
