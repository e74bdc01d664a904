"""The predictions of all teams, for operators: searched page by page, and each with its explanation and data."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.domain import cursors, documents, surrogates
from gateway.domain.cursors import Cursor
from gateway.domain.records import LARGE_DOCUMENT, Copy, Prediction, PredictionView
from gateway.domain.teams import Caller
from gateway.errors import NotFound
from gateway.operations.explain import ExplainService
from gateway.operations.ports import PredictionRecords, PredictionViews
from gateway.operations.rules import prediction_rows
from gateway.operations.rules.prediction_rows import PredictionRow
from gateway.operations.settings import AdminSettings
from gateway.predictions.ports.search import Wanted
from gateway.runtime.large_work import LargeWork
from gateway.runtime.live import LiveSettings
from gateway.runtime.pauses import off_the_loop

MOST_ROWS: Final = 1000
_LARGE_DOCUMENTS: Final = 2
_MOST_SHARERS: Final = 100


class PredictionPage(msgspec.Struct, frozen=True):
    """A page of predictions, newest first."""

    results: list[PredictionRow]
    next: str | None
    """The cursor of the next page, in an answer its address; null at the end. A short page can have a next one."""


class DataState(StrEnum):
    """Whether the input and output of a prediction are shown."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    """`[console] show_data` is false."""
    REMOVED = "removed"
    """They are not kept any more."""
    TOO_LARGE = "too large"


class PredictionData(msgspec.Struct, frozen=True, kw_only=True):
    """What a prediction was asked, and its result, as its caller sees them."""

    input: Any = None
    output: Any = None
    logs: Any = None
    error: Any = None
    metrics: Any = None


class PredictionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with its explanation."""

    prediction: PredictionRow
    explanation: dict[str, Any]
    data: PredictionData | None
    data_state: DataState


class PredictionLog:
    """Searches and shows predictions."""

    def __init__(
        self,
        records: PredictionRecords,
        predictions: PredictionViews,
        explain: ExplainService,
        settings: LiveSettings[AdminSettings],
        on_bound: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take `on_bound`, which is called with the bound that a page or the data of a prediction has reached."""
        self._records = records
        self._predictions = predictions
        self._explain = explain
        self._settings = settings
        self._on_bound = on_bound
        self._large = LargeWork(_LARGE_DOCUMENTS)

    async def search(self, wanted: Wanted, *, limit: int, position: Cursor | None) -> PredictionPage:
        """Return the page that begins after `position`. `limit` is at most `MOST_ROWS`."""
        found = await self._records.search(
            wanted,
            limit=min(limit, MOST_ROWS),
            most_searched=self._settings.value.max_searched,
            max_bytes=self._settings.value.max_page_bytes,
            position=position,
        )
        if found.next is not None and len(found.items) < min(limit, MOST_ROWS):
            self._on_bound("page")
        following = None if found.next is None else cursors.encode(found.next)
        return PredictionPage([prediction_rows.row_of(each) for each in found.items], following)

    async def search_all(self, wanted: Wanted, most: int) -> list[PredictionRow]:
        """Return at most `most` predictions, newest first, however many pages that takes."""
        rows: list[PredictionRow] = []
        position: Cursor | None = None
        while len(rows) < most:
            page = await self.search(wanted, limit=most - len(rows), position=position)
            rows += page.results
            if page.next is None:
                break
            position = cursors.decode(page.next)
        return rows

    async def view(self, prediction_id: str, caller: Caller | None = None) -> PredictionView:
        """Return a prediction, with `caller` only one of its team, without large documents. Raise `NotFound`."""
        view = await self._records.prediction(prediction_id, most_bytes=LARGE_DOCUMENT)
        if view is None or (caller is not None and view.prediction.team != caller.team.name):
            raise NotFound
        return view

    async def detail(self, view: PredictionView, base: str, caller: Caller | None = None) -> PredictionDetail:
        """Return a prediction with its explanation, and its data as long as that is kept. Raise `NotFound`.

        `base` is the base URL of callers, for links to stored copies of output files. With `caller`, it is explained as
        to that team.
        """
        found = await self._records.found(view.prediction.id)
        if found is None:
            raise NotFound
        data, state = await self._data(view, base)
        return PredictionDetail(
            prediction=prediction_rows.row_of(found),
            explanation=(
                await self._explain.explain_to_operator(found.id)
                if caller is None
                else await self._explain.explain(caller, found.id)
            ),
            data=data,
            data_state=state,
        )

    async def sharers(self, view: PredictionView, caller: Caller | None = None) -> list[Prediction]:
        """Return other predictions that share the run of one, the oldest first; with `caller`, those of its team."""
        found = await self._records.predictions_of(view.run.id, limit=_MOST_SHARERS)
        return [
            each
            for each in found
            if each.id != view.prediction.id and (caller is None or each.team == caller.team.name)
        ]

    def files(self, view: PredictionView) -> Sequence[Copy]:
        """Return the stored copies of a prediction's output files, as far as they may be shown."""
        may_show = self._settings.value.show_data and not view.run.data_removed
        return view.run.copies if may_show and view.prediction.canceled_at is None else ()

    async def _data(self, view: PredictionView, base: str) -> tuple[PredictionData | None, DataState]:
        if not self._settings.value.show_data:
            return None, DataState.HIDDEN
        if view.run.data_removed:
            return None, DataState.REMOVED
        if view.size > self._settings.value.max_data_bytes:
            self._on_bound("data")
            return None, DataState.TOO_LARGE
        if not view.left_out:
            return await self._shown(view, base), DataState.SHOWN
        async with self._large.turn(view.prediction.team):
            whole = await self._records.prediction(view.prediction.id)
            if whole is None:
                raise NotFound
            return await self._shown(whole, base), DataState.SHOWN

    async def _shown(self, view: PredictionView, base: str) -> PredictionData:
        body = await self._predictions.show_large(view, base, documents.family_of(view.prediction.kind))
        return await off_the_loop(body, lambda: _data_of(body))


def _data_of(body: bytes) -> PredictionData:
    fields: dict[str, Raw] = surrogates.split(body)
    return PredictionData(**{name: fields.get(name) for name in PredictionData.__struct_fields__})
