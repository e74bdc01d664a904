"""Read-through cache of metadata: models, versions, collections, hardware, search.

Metadata is the same for every team, so all teams share one entry. A page is parsed once; for each base URL only its two
links are rewritten. An entry keeps what was shown last, so the next caller with the same base URL gets the same bytes.
Concurrent equal requests share one upstream read.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
from cachetools import LRUCache

from gateway.domain import links
from gateway.domain.links import PageParts
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.upstream import Upstream
from gateway.domain.upstream_response import Answer
from gateway.runtime.live import LiveSettings
from gateway.runtime.lru import resize_lru
from gateway.runtime.pauses import off_the_loop
from gateway.runtime.tasks import Tasks

_OVERHEAD = 1024


class MetadataSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much metadata is kept."""

    ttl_seconds: float
    """0 keeps nothing."""
    max_bytes: int


class Question(msgspec.Struct, frozen=True):
    """One read of metadata; the key of the cache."""

    operation: str
    method: str
    path: str
    query: str = ""
    body: bytes = b""
    content_type: str = ""


class Shown(msgspec.Struct):
    """An answer as it is shown to callers with one base URL."""

    base: str
    body: bytes
    tag: str
    """For the ETag. The links in a page depend on the base URL, so this does too."""
    gzipped: bytes | None = None
    """`None` until a caller accepts it, and for a body that gains less than half."""
    fields: Mapping[str, str] = {}
    """The headers of the last hit, which are the same for a second."""
    fields_key: tuple[int, int, str | None] | None = None
    """What `fields` depends on: age, time left, and whether the body is compressed."""

    def note_gzipped(self, body: bytes) -> None:
        """Keep the compressed body, if it is at most half as large: that is what the cache reckons with."""
        if 2 * len(body) <= len(self.body):
            self.gzipped = body


class Entry(msgspec.Struct):
    """A cached answer."""

    question: Question
    answer: Answer
    headers: Mapping[str, str]
    """The headers of the answer that callers see."""
    page: PageParts | None
    etag: str
    stored_at: float
    is_learned: bool = False
    """Whether the versions in it are in the version map."""
    _shown: Shown | None = None

    async def shown(self, base: str) -> Shown:
        """Return what a caller gets that uses the gateway's base URL `base`."""
        known = self._shown
        if known is None or known.base != base:
            known = self._shown = await off_the_loop(self.answer.body, partial(self._show, base))
        return known

    def _show(self, base: str) -> Shown:
        if self.page is None:
            return Shown(base, self.answer.body, self.etag)
        return Shown(base, self.page.render(base), hashlib.sha256((self.etag + base).encode()).hexdigest()[:24])


class Found(msgspec.Struct, frozen=True):
    """The result of a lookup. `age` and `ttl` are in seconds."""

    entry: Entry
    is_hit: bool
    age: float
    ttl: float


class MetadataService:
    """Answers metadata reads from memory while the entry is fresh. With `ttl_seconds` of 0 nothing is cached."""

    def __init__(
        self,
        upstream: Upstream,
        clock: Clock,
        settings: LiveSettings[MetadataSettings],
        *,
        on_lookup: Callable[[bool], None],
    ) -> None:
        self._upstream = upstream
        self._clock = clock
        self._settings = settings
        settings.subscribe(self._apply)
        self._on_lookup = on_lookup
        self._entries: LRUCache[Question, Entry] = LRUCache(settings.value.max_bytes, getsizeof=_size)
        self._generation = 0
        self._tasks = Tasks()

    def _apply(self, settings: MetadataSettings) -> None:
        self._entries = resize_lru(self._entries, settings.max_bytes)

    @property
    def size(self) -> int:
        """Size of the cache in bytes."""
        return int(self._entries.currsize)

    def known(self, question: Question) -> Found | None:
        """Answer from memory, without a coroutine: most reads end here."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        ttl = self._settings.value.ttl_seconds
        age = self._clock.monotonic() - entry.stored_at
        if age >= ttl:
            return None
        self._on_lookup(True)
        return Found(entry, True, age, ttl - age)

    async def ask(self, question: Question, *, fresh: bool = False) -> Found:
        """Answer from memory, or read from upstream. Only 200 responses are cached. `fresh` bypasses the cache.

        Raise the upstream errors. Safe to cancel: a shared read continues for the other callers.
        """
        ttl = self._settings.value.ttl_seconds
        if not ttl or fresh:
            return Found(await self._read(question, keep=False), False, 0.0, 0.0)
        if (known := self.known(question)) is not None:
            return known
        self._on_lookup(False)
        read = partial(self._read, question, keep=True)
        return Found(await self._tasks.single_flight(question, read, f"read {question.path}"), False, 0.0, ttl)

    async def _read(self, question: Question, *, keep: bool) -> Entry:
        generation = self._generation
        headers = {"Accept": "*/*"} | ({"Content-Type": question.content_type} if question.content_type else {})
        answer = await self._upstream.read(
            question.operation,
            question.path,
            method=question.method,
            query=question.query,
            body=question.body or None,
            headers=headers,
        )
        etag = (await off_the_loop(answer.body, partial(hashlib.sha256, answer.body))).hexdigest()[:24]
        # An error is passed on as it is, and can be anything.
        page = await off_the_loop(answer.body, partial(links.split_page, answer.body)) if answer.is_ok else None
        entry = Entry(question, answer, answer.shown_headers, page, etag, self._clock.monotonic())
        keep = keep and generation == self._generation
        if keep and answer.status == 200 and _size(entry) <= self._entries.maxsize:
            self._entries[question] = entry
        return entry

    def forget(self) -> None:
        """Clear the cache, because the gateway has changed something upstream. Reads in progress are not cached."""
        self._generation += 1
        self._entries.clear()
        self._tasks.forget_flights()

    async def close(self) -> None:
        """Cancel the reads in progress."""
        await self._tasks.close(0.0)


def _size(entry: Entry) -> int:
    """Return the bytes of an entry, with what it may keep later: a page as shown, and half of a body compressed."""
    question = entry.question
    asked = len(question.body) + len(question.path) + len(question.query)
    body = len(entry.answer.body)
    return body * (3 if entry.page is not None else 1) + body // 2 + asked + _OVERHEAD
