"""The bodies of predictions as their callers see them, in memory, bounded in bytes.

Bodies as they were shown, and documents of runs that are split for showing, have one limit: what was used least lately
is dropped. What does not fit is rendered each time.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from cachetools import LRUCache

from gateway.domain import rendering, surrogates, tickets
from gateway.domain.documents import Family
from gateway.domain.records import PredictionView, Source
from gateway.domain.rendering import SplitDocument
from gateway.predictions.ports.outputs import CopyLinks
from gateway.predictions.recent import VIEW_BYTES
from gateway.runtime.lru import resize_lru
from gateway.runtime.pauses import LARGE, off_the_loop

_SHARING = (Source.HIT, Source.JOINED)
_Key = tuple[str, str, Family]
"""A prediction's id, the base URL of its links, and the route they stand under."""


class _Shown(NamedTuple):
    """A prediction as it was shown, and what it was then."""

    view: PredictionView
    body: bytes
    has_copies: bool
    """Whether the links in it are those of stored copies."""


def _size(kept: _Shown | SplitDocument) -> int:
    if isinstance(kept, _Shown):
        return len(kept.body) + len(kept.view.run.document) + VIEW_BYTES
    # Once as it is, once in pieces.
    return 2 * len(kept.document) + 2 * VIEW_BYTES


class PredictionBodies:
    """Renders predictions."""

    def __init__(
        self, ticket_secret: bytes, output_links: CopyLinks | None, max_bytes: int, upstream_base: str | None = None
    ) -> None:
        self._ticket_secret = ticket_secret
        self._upstream_base = upstream_base
        self._output_links = output_links
        self._kept: LRUCache[_Key | str, _Shown | SplitDocument] = LRUCache(max_bytes, getsizeof=_size)
        """Bodies, and split documents by the id of their run."""

    def resize(self, max_bytes: int) -> None:
        """Change the limit."""
        self._kept = resize_lru(self._kept, max_bytes)

    @property
    def kept_bytes(self) -> int:
        """Bytes of bodies and of split documents in memory."""
        return int(self._kept.currsize)

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()

    def show(self, view: PredictionView, base: str, family: Family, *, is_kept: bool) -> bytes:
        """Return the JSON of a prediction for its caller: the same bytes as long as nothing in it changes.

        `is_kept`: the body is kept. The answer to a create is often the only one.
        """
        key = (view.prediction.id, base, family)
        shown = self._kept.get(key)
        # Links of copies replace upstream's links when those have expired.
        has_copies = self._output_links is not None and self._output_links.are_shown(view)
        if (
            isinstance(shown, _Shown)
            and shown.view.run is view.run
            and shown.view.prediction is view.prediction
            and shown.has_copies == has_copies
        ):
            return shown.body
        body = self._render(view, base, family, self._split_document(view), has_copies=has_copies)
        if is_kept and len(body) < self._kept.maxsize // 4:
            self._kept[key] = _Shown(view, body, has_copies)
        return body

    async def show_large(self, view: PredictionView, base: str, family: Family, *, is_kept: bool) -> bytes:
        """Return what `show` returns, for a prediction that may be large: others are served meanwhile."""
        if len(view.run.document) <= LARGE:
            return self.show(view, base, family, is_kept=is_kept)
        has_copies = self._output_links is not None and self._output_links.are_shown(view)
        render = partial(self._render, view, base, family, None, has_copies=has_copies)
        return await off_the_loop(view.run.document, render)

    async def show_as_starting(self, view: PredictionView, base: str, family: Family) -> bytes:
        """Return the JSON of a prediction as if it was just created, whatever its state."""
        is_large = len(view.run.document) > LARGE
        split = None if is_large else self._split_document(view)
        render = partial(
            rendering.render,
            view,
            base,
            self._stream_path(view),
            family=family,
            as_starting=True,
            upstream_base=self._upstream_base,
            document=split,
        )
        return await off_the_loop(view.run.document, render) if is_large else render()

    def _render(
        self, view: PredictionView, base: str, family: Family, split: SplitDocument | None, *, has_copies: bool
    ) -> bytes:
        links = self.copy_links(view, base) if has_copies else None
        return rendering.render(
            view,
            base,
            self._stream_path(view),
            family=family,
            links=links,
            upstream_base=self._upstream_base,
            document=split,
        )

    def _split_document(self, view: PredictionView) -> SplitDocument | None:
        """Return the run's document as `rendering.render` needs it, from memory if it has not changed.

        `None` for a prediction on a run of its own: the next one to show that document is a poll, whose body is kept.
        """
        if view.prediction.source not in _SHARING:
            return None
        run = view.run
        split = self._kept.get(run.id)
        if isinstance(split, SplitDocument) and (split.document is run.document or split.document == run.document):
            return split
        split = rendering.split(run.document)
        if len(run.document) < surrogates.LARGE:
            with suppress(ValueError):
                # One that alone is too large is split each time.
                self._kept[run.id] = split
        return split

    def copy_links(self, view: PredictionView, base: str) -> Mapping[str, str]:
        """Return the links that replace upstream's links in a prediction; empty if upstream's are shown."""
        return self._output_links.of(view, base) if self._output_links is not None else {}

    def _stream_path(self, view: PredictionView) -> str:
        """Return the path, below the base URL, of the prediction's stream; file streams keep their prefix.

        See docs/replicate-api.md, Streaming.
        """
        ticket = tickets.ticket(self._ticket_secret, view.prediction.id)
        is_files = "/v1/files/" in (view.run.stream_url or "")
        return f"files/{tickets.FILE_PREFIX}{ticket}" if is_files else f"streams/{ticket}"
