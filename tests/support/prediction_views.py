"""Predictions with their runs, for rules that need both."""

import json
from typing import Any

from gateway.domain.records import Kind, Prediction, PredictionView, Run, RunState, Source, Status

AT = 1_764_000_000.0


def view(fields: dict[str, Any], *, document: bytes | None = None, **prediction: Any) -> PredictionView:
    """Make a prediction whose run has a document of these fields."""
    status = Status(fields["status"])
    run = Run(
        id="run_1",
        kind=Kind.PREDICTION,
        team="red",
        key_id="k1",
        target="acme/toy",
        path="/predictions",
        request=b"{}",
        state=RunState.ENDED if status.is_terminal else RunState.LIVE,
        upstream_id="u" * 26,
        status=status,
        document=json.dumps({"id": "u" * 26, **fields}).encode() if document is None else document,
        intended_at=AT,
    )
    given: dict[str, Any] = {
        "id": "p" * 26,
        "run_id": "run_1",
        "kind": Kind.PREDICTION,
        "team": "red",
        "key_id": "k1",
        "source": Source.MISS,
        "created_at": AT,
        "ticket": "t",
        "ticket_expires_at": AT + 60,
    }
    return PredictionView(Prediction(**given | prediction), run)
