"""One try of a job for a run: a failure is logged, one that is a defect is counted too, and neither is raised."""

import logging
from typing import Literal

from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.records import Run
from gateway.errors import GatewayError

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0

Job = Literal["poll", "cancel", "report", "observe"]
"""What a task does for a run."""


class Attempt:
    """One try of a job for a run."""

    __slots__ = ("_job", "_observer", "_run", "has_crashed", "has_failed")

    def __init__(self, job: Job, run: Run, observer: PredictionObserver) -> None:
        self._job = job
        self._run = run
        self._observer = observer
        self.has_failed = False
        self.has_crashed = False
        """It failed by a defect."""

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.has_failed = True
        extra = {"run": self._run.id, "step": self._job}
        if isinstance(error, GatewayError):
            logger.warning("following a run failed", extra=extra | {"reason": error.detail})
        else:
            logger.error("following a run crashed", extra=extra, exc_info=error)
            self._observer.tracking_crashed(self._job)
            self.has_crashed = True
        return True


def backoff(failures: int) -> float:
    """Return the seconds to wait after that many failures in a row."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 10)) if failures else 0.0
