"""The janitor: removes what is past its time, in steps so small that no request notices (design 8)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.core import documents
from gateway.errors import GatewayError
from gateway.ports import Clock, Files, Predictions

logger = logging.getLogger(__name__)

_STEP = 50
_PAUSE_BETWEEN_STEPS = 0.05
_DAY = 86_400.0


class Janitor:
    """Clears the data of ended runs, deletes old records and expired files, once a minute."""

    def __init__(
        self,
        predictions: Predictions,
        files: Files,
        clock: Clock,
        *,
        retain_data_seconds: float,
        retain_days: float,
        on_cleared: Callable[[], None],
        every_seconds: float = 60.0,
    ) -> None:
        self._predictions = predictions
        self._files = files
        self._clock = clock
        self._retain_data_seconds = retain_data_seconds
        self._retain_seconds = retain_days * _DAY
        self._on_cleared = on_cleared
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Clean for ever. A store that is away is tried again at the next turn."""
        while True:
            await self._clock.sleep(self._every_seconds)
            try:
                await self.clean()
            except GatewayError as exc:
                logger.warning("the janitor could not finish", extra={"reason": exc.detail})

    async def clean(self) -> None:
        """Clean once, all that is due."""
        await self._clear_data()
        now = self._clock.now()
        await _in_steps(partial(self._predictions.delete_records, now - self._retain_seconds))
        await _in_steps(partial(self._files.delete_expired_files, now))

    async def _clear_data(self) -> None:
        before = self._clock.now() - self._retain_data_seconds
        while runs := await self._predictions.runs_to_clear(before, _STEP):
            for run in runs:
                await self._predictions.clear_data(run.id, documents.without_data(run.document))
            self._on_cleared()
            await asyncio.sleep(_PAUSE_BETWEEN_STEPS)


async def _in_steps(delete: Callable[[int], Awaitable[int]]) -> None:
    deleted = _STEP
    while deleted == _STEP:
        deleted = await delete(_STEP)
        await asyncio.sleep(_PAUSE_BETWEEN_STEPS)
