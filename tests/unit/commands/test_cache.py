"""`gateway cache`: stats and purge, with and without a running gateway."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.domain.records import Kind, Prediction, Run, RunState, Source, Status
from gateway.predictions.ports.sharing import ShareRequest
from gateway.store.interface import Store
from gateway.store.urls import open_store
from tests.support.records import make_store

CONFIG = """
[[teams]]
name = "acme"
[[teams]]
name = "blue"
"""
NOW = time.time()

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    make_store(tmp_path)
    return tmp_path


def ask(*arguments: str, answer: str | None = None) -> Result:
    # No token in the environment: these commands do not need it.
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, ["cache", *arguments], env=environ, prog_name="gateway", input=answer)


def stats(*arguments: str) -> dict[str, float | None]:
    result = ask("stats", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, float | None] = json.loads(result.stdout)
    return found


def purged(*arguments: str) -> str:
    result = ask("purge", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


async def _finish(store: Store, number: int, team: str, target: str, *, age: float, ttl: float) -> None:
    ended, name = NOW - age, f"{number:026d}"
    intent = Run(
        id=f"run{number}", kind=Kind.PREDICTION, team=team, key_id="k", target=target, path="/predictions",
        request=b"{}", intended_at=ended, fingerprint=f"{number:064x}",
    )  # fmt: skip
    made = Prediction(
        id=f"placeholder{number}", run_id=intent.id, kind=Kind.PREDICTION, team=team, key_id="k", source=Source.MISS,
        created_at=ended, ticket=f"t{number}", ticket_expires_at=ended + 60,
    )  # fmt: skip
    await store.start(ShareRequest(prediction=made, now=ended), intent)
    document = json.dumps({"id": name, "status": "succeeded", "output": "x" * 100}).encode()
    run = Run(
        id=intent.id, kind=Kind.PREDICTION, team=team, key_id="k", target=target, path="/predictions", request=b"{}",
        intended_at=ended, fingerprint=intent.fingerprint, state=RunState.ENDED, upstream_id=name, leader_id=name,
        status=Status.SUCCEEDED, document=document, live_at=ended, ended_at=ended, cache_until=ended + ttl,
    )  # fmt: skip
    run_creator = Prediction(
        id=name, run_id=intent.id, kind=Kind.PREDICTION, team=team, key_id="k", source=Source.MISS, created_at=ended,
        ticket=f"t{number}", ticket_expires_at=ended + 60,
    )  # fmt: skip
    await store.record_created(run, run_creator)


@pytest.fixture
def results(folder: Path) -> None:
    """Three reusable results, and an expired one."""

    async def fill() -> None:
        store = open_store("sqlite:///gateway.db")
        await store.open()
        try:
            await _finish(store, 1, "acme", "acme/painter:" + "a" * 64, age=500, ttl=3600)
            await _finish(store, 2, "acme", "acme/storyteller", age=300, ttl=3600)
            await _finish(store, 3, "blue", "acme/painter:" + "a" * 64, age=100, ttl=3600)
            await _finish(store, 4, "blue", "acme/painter:" + "a" * 64, age=7200, ttl=3600)
        finally:
            await store.close()

    asyncio.run(fill())


def test_stats_of_an_empty_cache():
    """It is no error."""
    assert stats() == {"entries": 0, "bytes": 0, "oldest_ended_at": None}
    result = ask("stats")
    assert result.stdout.splitlines() == ["results  0", "bytes    0", "oldest   -"]
    assert purged("--yes") == "purged 0\n"


@pytest.mark.usefixtures("results")
def test_stats_count_reusable_results():
    """Number, size and age, without expired results."""
    found = stats()
    assert found["entries"] == 3
    assert isinstance(found["bytes"], int)
    assert 3 * 100 < found["bytes"] < 3 * 300
    assert found["oldest_ended_at"] == pytest.approx(NOW - 500, abs=0.01)
    assert stats("--team", "acme")["entries"] == 2
    assert stats("--team", "nobody")["entries"] == 0
    lines = ask("stats").stdout.splitlines()
    assert lines[0] == "results  3"
    assert lines[2].startswith("oldest   20")
    assert lines[2].endswith("Z")


@pytest.mark.usefixtures("results")
def test_purge_can_be_narrowed():
    """To targets, to a team, or both; then there is no confirmation."""
    assert purged("--target", "acme/other*") == "purged 0\n"
    assert purged("--target", "acme/painter*", "--team", "acme") == "purged 1\n"
    assert (stats()["entries"], stats("--team", "blue")["entries"]) == (2, 1)
    assert purged("--target", "acme/painter*").startswith("purged ")
    assert stats("--team", "blue")["entries"] == 0
    assert purged("--team", "acme") == "purged 1\n"
    assert stats()["entries"] == 0


@pytest.mark.usefixtures("results")
def test_full_purge_asks_for_confirmation():
    """Enter alone aborts; `y` or `--yes` confirms."""
    refused = ask("purge", answer="\n")
    assert refused.exit_code == 1
    assert "Drop all cached results?" in refused.stderr
    assert stats()["entries"] == 3
    agreed = ask("purge", answer="y\n")
    assert agreed.exit_code == 0
    assert agreed.stdout.splitlines()[-1].startswith("purged ")
    assert stats()["entries"] == 0


@pytest.mark.usefixtures("results")
def test_purge_keeps_the_predictions():
    """Only the cached results are dropped."""
    purged("--yes")

    async def look() -> tuple[Status, bool]:
        store = open_store("sqlite:///gateway.db")
        await store.open()
        try:
            view = await store.prediction(f"{1:026d}")
            assert view is not None
            return view.run.status, view.run.data_removed
        finally:
            await store.close()

    assert asyncio.run(look()) == (Status.SUCCEEDED, False)


def test_unusable_store_is_reported_in_a_sentence(folder: Path):
    """A folder in place of the file: one line, no traceback."""
    (folder / "gateway.db").unlink()
    (folder / "gateway.db").mkdir()
    for arguments in (["stats"], ["purge", "--yes"]):
        result = ask(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["stats", "purge"])
def test_commands_have_help(command: str):
    """`--help` on each."""
    result = ask(command, "--help")
    assert result.exit_code == 0
    assert "--team" in result.stdout
