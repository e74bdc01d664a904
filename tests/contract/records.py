"""Records with everything filled in that a test does not care about."""

from typing import Any

from gateway.core.records import File, Key, Kind, Prediction, Run, RunState, Source, Status

NOW = 1_764_000_000.25


def intent(run_id: str = "run1", **fields: Any) -> Run:
    return Run(
        **{
            "id": run_id,
            "kind": Kind.PREDICTION,
            "team": "red",
            "key_id": "k1",
            "target": "acme/toy",
            "path": "/predictions",
            "request": b'{"input":{}}',
            "intended_at": NOW,
        }
        | fields
    )


def live(run_id: str = "run1", **fields: Any) -> Run:
    given = {
        "state": RunState.LIVE,
        "upstream_id": f"up{run_id}",
        "live_at": NOW + 1,
        "document": b'{"status":"starting"}',
    }
    return intent(run_id, **given | fields)


def ended(run_id: str = "run1", at: float = NOW + 9, **fields: Any) -> Run:
    given = {"state": RunState.ENDED, "status": Status.SUCCEEDED, "document": b'{"output":1}', "ended_at": at}
    return live(run_id, **given | fields)


def prediction(prediction_id: str = "p1", run_id: str = "run1", **fields: Any) -> Prediction:
    return Prediction(
        **{
            "id": prediction_id,
            "run_id": run_id,
            "kind": Kind.PREDICTION,
            "team": "red",
            "key_id": "k1",
            "source": Source.MISS,
            "created_at": NOW,
            "ticket": f"ticket-{prediction_id}",
            "ticket_expires_at": NOW + 3600,
        }
        | fields
    )


def key(key_id: str = "k1", **fields: Any) -> Key:
    return Key(
        **{"id": key_id, "team": "red", "name": f"name-{key_id}", "sha256": f"sha-{key_id}", "created_at": NOW} | fields
    )


def file(file_id: str = "f1", **fields: Any) -> File:
    return File(
        **{
            "id": file_id,
            "team": "red",
            "key_id": "k1",
            "sha256": f"sha-{file_id}",
            "size": 3,
            "created_at": NOW,
            "expires_at": NOW + 86400,
            "document": b'{"id":"f"}',
        }
        | fields
    )
