"""`gateway webhooks`: list, redeliver, rotate-secret."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.store.interface import Store
from gateway.store.urls import open_store
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, DeliveryState
from tests.support.records import make_store

T = TypeVar("T")
NOW = 1_764_000_000.0

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text('[[teams]]\nname = "acme"\n[[teams]]\nname = "blue"\n')
    make_store(tmp_path)
    return tmp_path


def ask(*arguments: str) -> Result:
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, ["webhooks", *arguments], env=environ, prog_name="gateway")


def in_store(act: Callable[[Store], Awaitable[T]]) -> T:
    async def do() -> T:
        store = open_store("sqlite:///gateway.db")
        await store.open()
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(do())


def message(name: str, team: str) -> Delivery:
    return Delivery(
        id=f"msg_{name}",
        kind=DeliveryKind.ANNOUNCEMENT,
        team=team,
        url="https://hooks.example/x?token=secret",
        receiver="hooks.example:443",
        created_at=NOW,
    )


@pytest.fixture
def kept(folder: Path) -> None:
    """A dead letter and a queued delivery of acme, and a dead letter of blue."""

    async def fill(store: Store) -> None:
        for name, team in (("1", "acme"), ("2", "acme"), ("3", "blue")):
            await store.add_delivery(message(name, team), b"{}")
        await store.mark_dead("msg_1", NOW + 9, "answered 500", b"{}")
        await store.postpone_delivery("msg_2", NOW + 60, "no answer in time", b"{}")
        await store.mark_dead("msg_3", NOW + 9, "no connection", b"{}")

    in_store(fill)


def listed(*arguments: str) -> list[str]:
    result = ask("list", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    return [row["id"] for row in json.loads(result.stdout)["deliveries"]]


@pytest.mark.usefixtures("kept")
def test_deliveries_are_listed_by_team_and_state():
    """With the error, and without the query of the URL, which may contain a token."""
    assert listed() == ["msg_1", "msg_2", "msg_3"]
    assert listed("--state", "dead") == ["msg_1", "msg_3"]
    assert listed("--state", "queued") == ["msg_2"]
    assert listed("--team", "acme", "--state", "dead") == ["msg_1"]
    table = ask("list").stdout
    assert "answered 500" in table
    assert "hooks.example:443" in table
    assert "secret" not in table
    assert table.splitlines()[2].split()[:4] == ["msg_2", "queued", "acme", "announcement"]


def test_empty_list_is_reported_as_such():
    """No output would look like a failure."""
    assert ask("list").stdout == "No pending or failed deliveries.\n"


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("arguments", "repeated"),
    [
        (["msg_1"], {"msg_1"}),
        (["msg_2"], {"msg_2"}),
        (["--dead"], {"msg_1", "msg_3"}),
        (["--team", "acme"], {"msg_1", "msg_2"}),
        (["--team", "acme", "--dead"], {"msg_1"}),
    ],
)
def test_redeliver_selects_by_id_team_or_state(arguments: list[str], repeated: set[str]):
    """They are queued like new ones."""
    result = ask("redeliver", *arguments)
    assert (result.exit_code, result.stdout) == (0, f"{len(repeated)} queued for delivery\n")
    found = in_store(lambda store: store.deliveries(state=DeliveryState.QUEUED))
    assert {each.id for each in found if each.next_at == 0.0} == repeated


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["redeliver"], "give either an ID, or --team"),
        (["redeliver", "msg_1", "--dead"], "give either an ID, or --team"),
        (["redeliver", "msg_9"], "no delivery 'msg_9'"),
        (["redeliver", "--team", "red"], "no team 'red'"),
        (["list", "--team", "red"], "no team 'red' in the config (teams: acme, blue)"),
        (["rotate-secret", "red"], "no team 'red'"),
        (["rotate-secret", "acme", "--overlap", "soon"], "not a duration"),
    ],
)
def test_invalid_arguments_are_reported_in_a_sentence(arguments: list[str], words: str):
    """Nothing is changed."""
    result = ask(*arguments)
    assert result.exit_code != 0
    assert words in result.output
    assert "Traceback" not in result.output


def test_rotate_secret_prints_the_new_one_and_keeps_the_old_during_the_overlap():
    """Only the new secret goes to stdout."""
    first, second = ask("rotate-secret", "acme"), ask("rotate-secret", "acme", "--overlap", "2h")
    assert first.stdout.startswith("whsec_")
    assert first.stdout != second.stdout
    assert "the old secret stays valid" in first.stderr
    assert "2 old secrets stay valid" in second.stderr
    third = ask("rotate-secret", "blue", "--overlap", "0")
    assert third.stderr == "Team blue has a new webhook secret.\n"
