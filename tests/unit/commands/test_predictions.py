"""`gateway predictions`: search with filters in three formats, and one prediction with its explanation."""

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.domain.admission_record import Admitted
from gateway.domain.ledger import Settlement
from gateway.domain.records import Kind, Source, Status
from gateway.store.urls import open_store
from tests.support.records import NOW, ended, live, make_store, prediction

CONFIG = """
[[teams]]
name = "red"
[[teams]]
name = "blue"
"""
DOCUMENT = b'{"id":"a","status":"succeeded","input":{"prompt":"a secret plan"},"output":"done","logs":""}'

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    make_store(tmp_path)
    asyncio.run(_fill())
    return tmp_path


async def _fill() -> None:
    store = open_store("sqlite:///gateway.db")
    await store.open()
    tags = '{"feature":"x","project":"apollo"}'
    starter = prediction("a", "a", user="ann", tags=tags, request_id="req-a", admitted=Admitted(1, 2, waited_seconds=3))
    await store.record_created(live("a", leader_id="a"), starter)
    settled = Settlement(at=NOW + 2, microusd=70, target="acme/toy", reason="succeeded")
    await store.advance(
        "a", status=Status.SUCCEEDED, document=DOCUMENT, stream_url=None, at=NOW + 2, settlement=settled
    )
    hit = {"team": "blue", "user": "=1+2", "source": Source.HIT, "created_at": NOW + 5, "key_id": "blue/web"}
    await store.record_created(ended("b", leader_id="b", target="bolt/toy"), prediction("b", "b", **hit))
    training = prediction("t", "t", kind=Kind.TRAINING, created_at=NOW + 1)
    await store.record_created(ended("t", leader_id="t", kind=Kind.TRAINING), training)
    await store.close()


def ask(*arguments: str) -> Result:
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, ["predictions", *arguments], env=environ, prog_name="gateway")


def listed(*arguments: str) -> list[dict[str, Any]]:
    result = ask("list", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["predictions"]
    return found


def test_all_predictions_are_listed_newest_first():
    """Trainings are among them; every column is there."""
    rows = listed()
    assert [row["id"] for row in rows] == ["b", "t", "a"]
    assert rows[2] == {
        "id": "a",
        "kind": "prediction",
        "team": "red",
        "key": "k1",
        "key_name": None,
        "user": "ann",
        "tags": {"feature": "x", "project": "apollo"},
        "target": "acme/toy",
        "status": "succeeded",
        "source": "miss",
        "created_at": "2025-11-24T16:00:00.250Z",
        "completed_at": "2025-11-24T16:00:02.250Z",
        "cost_microusd": 70,
        "saved_microusd": 0,
        "held_seconds": 3.0,
        "request_id": "req-a",
    }
    assert (rows[0]["key_name"], rows[0]["cost_microusd"], rows[0]["request_id"]) == ("web", 0, None)
    assert rows[0]["completed_at"] == "2025-11-24T16:00:09.250Z"


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("--team", "blue"), ["b"]),
        (("--key", "k1", "--kind", "training"), ["t"]),
        (("--user", "ann"), ["a"]),
        (("--target", "bolt/*"), ["b"]),
        (("--status", "failed"), []),
        (("--source", "hit"), ["b"]),
        (("--tag", "project:apollo"), ["a"]),
        (("--tag", "project:apo"), []),
        (("--since", "2025-11-24T16:00:01.000Z", "--until", "2025-11-24T16:00:02Z"), ["t"]),
        (("--since", "1h"), []),
        (("--limit", "2"), ["b", "t"]),
    ],
)
def test_filters_select(arguments: tuple[str, ...], ids: list[str]):
    assert [row["id"] for row in listed(*arguments)] == ids


def test_limit_goes_over_pages(folder: Path):
    """A page looks at few predictions; the command asks for as many pages as it needs."""
    (folder / "config.toml").write_text("[ops]\nmax_searched = 1\n" + CONFIG)
    assert [row["id"] for row in listed("--user", "ann")] == ["a"]


def test_table_and_csv():
    """The table has the important columns; cells of CSV are no formulas."""
    table = ask("list").stdout.splitlines()
    assert " ".join(table[0].split()) == "id created team key_name user target status source cost_microusd"
    assert [line.split()[0] for line in table[1:]] == ["b", "t", "a"]
    rows = list(csv.DictReader(ask("list", "--format", "csv").stdout.splitlines()))
    assert rows[0]["user"] == "'=1+2"
    assert rows[2]["tags"] == "feature=x, project=apollo"
    assert (rows[0]["key_name"], rows[1]["user"]) == ("web", "")
    assert ask("list", "--team", "green").stdout == "No predictions.\n"


def test_one_is_shown_with_its_explanation_and_data(folder: Path):
    """Input and output are shown, and not where the config says so."""
    shown = json.loads(ask("show", "a").stdout)
    assert shown["prediction"] == listed("--user", "ann")[0]
    assert shown["explanation"]["price"]["charged_microusd"] == 70
    assert shown["data_state"] == "shown"
    assert (shown["data"]["input"], shown["data"]["output"]) == ({"prompt": "a secret plan"}, "done")
    (folder / "config.toml").write_text("[console]\nshow_data = false\n" + CONFIG)
    hidden = ask("show", "a").stdout
    assert "secret plan" not in hidden
    assert (json.loads(hidden)["data"], json.loads(hidden)["data_state"]) == (None, "hidden")


async def _add_odd() -> None:
    store = open_store("sqlite:///gateway.db")
    await store.open()
    odd = rb'{"id":"odd","status":"succeeded","input":{},"output":"half of an emoji: \ud83d"}'
    await store.record_created(ended("odd", leader_id="odd", document=odd), prediction("odd", "odd"))
    await store.close()


def test_output_that_msgspec_does_not_read_is_shown_as_it_is():
    """Replicate's own bodies are kept byte for byte."""
    asyncio.run(_add_odd())
    assert json.loads(ask("show", "odd").stdout)["data"]["output"] == "half of an emoji: \ud83d"


async def _clear_and_add_large() -> None:
    store = open_store("sqlite:///gateway.db")
    await store.open()
    await store.clear_data("a", b'{"id":"a","status":"succeeded","input":{},"output":null,"data_removed":true}')
    large = b'{"id":"big","status":"succeeded","output":"' + b"x" * (9 * 1024 * 1024) + b'"}'
    await store.record_created(ended("big", leader_id="big", document=large), prediction("big", "big"))
    await store.close()


def test_data_that_is_gone_or_large_is_left_out():
    """The rest of the prediction is shown, with the reason."""
    asyncio.run(_clear_and_add_large())
    for prediction_id, state in (("a", "removed"), ("big", "too large")):
        shown = json.loads(ask("show", prediction_id).stdout)
        assert (shown["data"], shown["data_state"]) == (None, state)
        assert shown["explanation"]["prediction"] == shown["prediction"]["id"] == prediction_id


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("show", "none"), 1, "no prediction 'none'"),
        (("list", "--since", "yesterday"), 2, "expected a time"),
        (("list", "--tag", "apollo"), 2, "expected KEY:VALUE"),
        (("list", "--limit", "0"), 2, "0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], code: int, text: str):
    result = ask(*arguments)
    assert result.exit_code == code
    assert text in result.stderr
