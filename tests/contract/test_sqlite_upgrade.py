"""A file of an earlier gateway is upgraded when it is opened, and loses nothing."""

import re
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.domain.records import LARGE_DOCUMENT, Kind, Prediction, PredictionView, RunState, Source, Status
from gateway.errors import StoreUnavailable
from gateway.predictions.ports.sharing import Started
from gateway.store.sqlite import SQLiteStore
from tests.support.records import NOW, ended, file, go, intent, key, live, moved, prediction, start

FIRST_SCHEMA = resources.files("gateway.store.sqlite").joinpath("migrations/0001_records.sql").read_text()
RUN = (
    "INSERT INTO runs (id, kind, team, key_id, target, path, state, upstream_id, status, stream_url, intended_at,"
    " live_at, ended_at, cancel_asked_at, data_removed, request, document)"
    " VALUES (?, 'prediction', 'red', 'k1', 'acme/toy', '/predictions', ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?)"
)
PREDICTION = (
    "INSERT INTO predictions (id, run_id, kind, team, key_id, user, source, created_at, ticket, ticket_expires_at,"
    " deadline_at, canceled_at, webhook, webhook_events_filter)"
    " VALUES (?, ?, 'prediction', 'red', 'k1', 'ann', 'bypass', ?, ?, ?, ?, ?, ?, ?)"
)
REQUEST = b'{"input":{}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as the first version left it: an intent, a live run that was cancelled, an ended one, a cleared one."""
    path = tmp_path / "gateway.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;" + FIRST_SCHEMA)
        db.execute("PRAGMA user_version = 1")
        db.execute(RUN, ("run0", "intended", None, "starting", NOW, None, None, None, 0, REQUEST, b""))
        db.execute(RUN, ("run1", "live", "up1", "processing", NOW, NOW + 1, None, NOW + 3, 0, REQUEST, b"x" * 90_000))
        db.execute(RUN, ("run2", "ended", "up2", "succeeded", NOW, NOW + 1, NOW + 9, None, 0, REQUEST, b"done"))
        db.execute(RUN, ("run3", "ended", "up3", "failed", NOW, NOW + 1, NOW + 8, None, 1, b"", b"removed"))
        for n, at in ((1, NOW + 3), (2, None), (3, None)):
            hook = ("https://x.example/", '["start"]')
            db.execute(PREDICTION, (f"up{n}", f"run{n}", NOW + n, f"t{n}", NOW + 60, NOW + 30, at, *hook))
        db.execute(
            "INSERT INTO keys VALUES ('k1', 'red', 'name-k1', 'sha-k1', ?, NULL, NULL, NULL, NULL, NULL)", (NOW,)
        )
        db.execute("INSERT INTO versions VALUES ('5c7d', 'acme/toy')")
        db.execute("INSERT INTO secrets VALUES ('tickets', x'00ff')")
        db.execute(
            "INSERT INTO files VALUES ('f1', 'red', 'k1', 'sha-f1', 3, ?, ?, ?)", (NOW, NOW + 86400, b'{"id":"f"}')
        )
    return path


def old(n: int, canceled_at: float | None = None) -> Prediction:
    return prediction(
        f"up{n}",
        f"run{n}",
        user="ann",
        owner="user:ann",
        source=Source.BYPASS,
        created_at=NOW + n,
        ticket=f"t{n}",
        ticket_expires_at=NOW + 60,
        ticket_origins=None,
        deadline_at=NOW + 30,
        canceled_at=canceled_at,
        webhook="https://x.example/",
        webhook_events_filter=("start",),
    )


async def test_upgrade_keeps_every_record(path: Path) -> None:
    """Every id, list, key, file and secret is returned as before the upgrade."""
    store = SQLiteStore(path)
    await store.open()
    try:
        runs = {
            1: live(upstream_id="up1", status=Status.PROCESSING, document=b"x" * 90_000, cancel_asked_at=NOW + 3),
            2: ended("run2", upstream_id="up2", document=b"done"),
            3: ended(
                "run3",
                NOW + 8,
                upstream_id="up3",
                status=Status.FAILED,
                document=b"removed",
                request=b"",
                data_removed=True,
            ),
        }
        for n, run in runs.items():
            # Bodies of recorded creates, which can hold secret inputs, are not kept.
            run = replace(run, leader_id=f"up{n}", request=b"")  # noqa: PLW2901
            expected = PredictionView(old(n, NOW + 3 if n == 1 else None), run)
            assert await store.prediction(f"up{n}") == expected
            by_ticket = await store.prediction_by_ticket(f"t{n}")
            assert by_ticket == (expected if expected.size <= LARGE_DOCUMENT else expected.without_document())
            assert await store.owns_upstream_id(f"up{n}")
        page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=10)
        assert [item.prediction.id for item in page.items if isinstance(item, PredictionView)] == ["up3", "up2", "up1"]
        page = await store.predictions(team="red", owner="user:ann", kind=Kind.PREDICTION, limit=10)
        assert len(page.items) == 3, "what was made before belongs to its user"
        assert [run.id for run in await store.open_runs()] == ["run0", "run1"]
        assert [run.id for run in await store.runs_to_clear(NOW + 100, NOW, 10)] == ["run2"]
        assert await store.keys() == [key()]
        assert await store.file("f1") == file()
        assert await store.model_of("5c7d") == "acme/toy"
        assert await store.secret("tickets", b"new") == b"\x00\xff"
        cancellation = await store.cancel("up1", NOW + 50)
        assert cancellation is not None
        assert not cancellation.changed
        outcome = await store.advance("run1", status=Status.CANCELED, document=b"", stream_url=None, at=NOW + 60)
        assert moved(outcome).state is RunState.ENDED
        assert isinstance(await start(store, "9", fingerprint="F"), Started)
    finally:
        await store.close()


async def test_creators_of_keys_are_found_in_the_audit_log(tmp_path: Path) -> None:
    """Those of new keys and of the successors of rotated ones. They are unknown where the log has no entry."""
    path, found = tmp_path / "gateway.sqlite", resources.files("gateway.store.sqlite").joinpath("migrations").iterdir()
    files = sorted(found, key=lambda each: each.name)
    before = [each for each in files if each.name < "0027"]
    with closing(sqlite3.connect(path)) as db:
        for each in before:
            db.executescript(each.read_text())
        db.execute(f"PRAGMA user_version = {len(before)}")
        for key_id in ("made", "next", "old"):
            values = (key_id, "red", f"name-{key_id}", "sha", NOW)
            db.execute("INSERT INTO keys (id, team, name, sha256, created_at) VALUES (?, ?, ?, ?, ?)", values)
        add = "INSERT INTO audit (at, actor, action, subject, team, after_values) VALUES (1, ?, ?, ?, 'red', ?)"
        db.execute(add, ("cli:ann", "key.created", "made", '{"name":"ci"}'))
        db.execute(add, ("key:lead", "key.rotated", "made", '{"successor":"next"}'))
        db.commit()
    store = SQLiteStore(path)
    await store.open()
    creators = {each.id: each.created_by for each in await store.keys()}
    await store.close()
    assert creators == {"made": "cli:ann", "next": "key:lead", "old": None}


async def test_intent_of_the_old_version_can_still_be_adopted(path: Path) -> None:
    """The old gateway died in the middle of a create, and the new one finds its run upstream."""
    store = SQLiteStore(path)
    await store.open()
    try:
        run, _ = await store.open_runs()
        (run_creator,) = await store.predictions_of("run0")
        assert run == intent("run0", leader_id=run_creator.id)
        assert re.fullmatch("[a-z0-9]{26}", run_creator.id)
        assert await store.prediction(run_creator.id) is None
        await store.record_created(live("run0"), prediction("up0", "run0"))
        assert [each.id for each in await store.predictions_of("run0")] == ["up0"]
    finally:
        await store.close()


async def test_upgrade_is_done_once(path: Path) -> None:
    for name in ("7", "8"):
        store = SQLiteStore(path)
        await store.open()
        await go(store, name, fingerprint=f"F{name}")
        assert len(await store.predictions_of("run0")) == 1
        await store.close()


async def test_failed_upgrade_leaves_the_file_unchanged(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE predictions")
    with pytest.raises(StoreUnavailable):
        await SQLiteStore(path).open()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (4,)
