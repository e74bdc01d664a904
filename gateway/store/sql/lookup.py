"""Look up runs, and predictions with their runs."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Run
from gateway.store.sql.database import Database
from gateway.store.sql.rows import RUNS, view

Parameters = Mapping[str, str | float | None]

EVERYTHING: Final = 2**62
"""For `most_bytes`: leave nothing out."""
_LIST_BYTES = 16 * 1024 * 1024
"""A list of runs ends with the one that passes this size."""


class SharedRun(NamedTuple):
    """A run, and the bytes of its document and request if they were left out."""

    run: Run
    left_out: int


def find_run(db: Database, query: str, parameters: Parameters) -> Run | None:
    """Return the run that a statement of the store selects."""
    row = db.execute(query, parameters).fetchone()
    return None if row is None else RUNS.record(row)


def find_run_to_share(db: Database, query: str, parameters: Parameters) -> SharedRun | None:
    """Return the run that a statement of the store selects, without its document if that is large."""
    row = db.execute(query, {**parameters, "most_bytes": LARGE_DOCUMENT}).fetchone()
    return None if row is None else SharedRun(RUNS.record(row[:-1]), row[-1])


def find_view(db: Database, query: str, parameters: Parameters, most_bytes: int | None = None) -> PredictionView | None:
    """Return the prediction that a statement of the store selects, with its run."""
    most_bytes = EVERYTHING if most_bytes is None else most_bytes
    row = db.execute(query, {**parameters, "most_bytes": most_bytes}).fetchone()
    return None if row is None else view(row)


def list_runs(db: Database, query: str, parameters: Parameters) -> list[Run]:
    """Return the runs that a statement of the store selects, fewer if they are large, but one at least."""
    runs: list[Run] = []
    size = 0
    found = db.execute(query, parameters)
    for row in found:
        run = RUNS.record(row)
        runs.append(run)
        size += len(run.document) + len(run.request)
        if size > _LIST_BYTES:
            break
    found.close()
    return runs
