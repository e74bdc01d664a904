"""Look up runs, and predictions with their runs."""

from collections.abc import Mapping

from gateway.domain.records import PredictionView, Run
from gateway.store.sql.database import Database
from gateway.store.sql.rows import RUNS, view

Parameters = Mapping[str, str | float | None]


def find_run(db: Database, query: str, parameters: Parameters) -> Run | None:
    """Return the run that a statement of `queries.sql` selects."""
    row = db.execute(query, parameters).fetchone()
    return None if row is None else RUNS.record(row)


def find_view(db: Database, query: str, parameters: Parameters) -> PredictionView | None:
    """Return the prediction that a statement of `queries.sql` selects, with its run."""
    row = db.execute(query, parameters).fetchone()
    return None if row is None else view(row)


def list_runs(db: Database, query: str, parameters: Parameters) -> list[Run]:
    """Return the runs that a statement of `queries.sql` selects."""
    return [RUNS.record(row) for row in db.execute(query, parameters)]
