"""Records with everything filled in that a test does not care about."""

import asyncio
import re
from pathlib import Path
from typing import Any

from gateway.domain.records import (
    Begin,
    Begun,
    File,
    Idempotency,
    Key,
    Kind,
    Outcome,
    Prediction,
    Run,
    RunState,
    Source,
    Status,
)
from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

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
        # The leader of `run1` or `r1` is `p1`.
        "leader_id": re.sub(r"^r(un)?(?=\d)", "p", run_id),
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
            "ticket_origins": ("https://app.example.com", "https://b.example"),
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
            "upstream_id": file_id,
            "document": b'{"id":"f"}',
        }
        | fields
    )


def wish(
    name: str = "1",
    *,
    fingerprint: str | None = None,
    provisional: str | None = None,
    run: dict[str, Any] | None = None,
    prediction_: dict[str, Any] | None = None,
    **fields: Any,
) -> Begin:
    """Ask for prediction `p<name>`, to lead run `run<name>` if need be; hits and joins as its identity allows."""
    is_shared = fingerprint is not None or provisional is not None
    given = {"now": NOW, "may_hit": fingerprint is not None, "may_join": is_shared}
    return Begin(
        run=intent(f"run{name}", fingerprint=fingerprint, provisional=provisional, **run or {}),
        prediction=prediction(**{"prediction_id": f"p{name}", "run_id": f"run{name}"} | (prediction_ or {})),
        **given | fields,
    )


def idempotency(key_: str = "key", body: str = "body", expires_at: float = NOW + 86400) -> Idempotency:
    return Idempotency(key_, body, expires_at)


async def lead(store: Store, name: str = "1", **fields: Any) -> Run:
    """Begin a prediction that leads; return its intent as it is recorded."""
    begun = await store.begin(wish(name, **fields))
    assert begun.outcome is Outcome.STARTED
    assert begun.run is not None
    return begun.run


async def go(store: Store, name: str = "1", **fields: Any) -> Run:
    """Lead, and have it created upstream: prediction `up<name>` on a live run, which is returned."""
    await lead(store, name, **fields)
    await store.record_created(live(f"run{name}"), prediction(f"up{name}", f"run{name}"))
    run = await store.run(f"run{name}")
    assert run is not None
    return run


async def finish(
    store: Store, name: str = "1", at: float = NOW + 9, cache_until: float | None = NOW + 1000, **fields: Any
) -> Run:
    """End a run that is live."""
    given = {"status": Status.SUCCEEDED, "document": b"done", "stream_url": None}
    run = await store.advance(f"run{name}", at=at, cache_until=cache_until, **given | fields)
    assert run is not None
    return run


async def join(store: Store, name: str, fingerprint: str = "F", **fields: Any) -> Begun:
    """Begin a prediction that joins."""
    begun = await store.begin(wish(name, fingerprint=fingerprint, **fields))
    assert begun.outcome is Outcome.JOINED
    return begun


def make_store(folder: Path) -> None:
    """Create an empty store, as the first start does; commands that read create none."""

    async def create() -> None:
        store = SQLiteStore(folder / "gateway.db")
        await store.open()
        await store.close()

    asyncio.run(create())
