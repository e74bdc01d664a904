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

T = TypeVar("T")
NOW = 1_764_000_000.0

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text('[[teams]]\nname = "acme"\n[[teams]]\nname = "blue"\n')
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
    """Acme has a dead letter and one that waits for its next try; blue has a dead letter."""

    async def fill(store: Store) -> None:
        for name, team in (("1", "acme"), ("2", "acme"), ("3", "blue")):
            await store.add_delivery(message(name, team), b"{}")
        await store.bury_delivery("msg_1", NOW + 9, "answered 500", b"{}")
        await store.postpone_delivery("msg_2", NOW + 60, "no answer in time", b"{}")
        await store.bury_delivery("msg_3", NOW + 9, "no connection", b"{}")

    in_store(fill)


def listed(*arguments: str) -> list[str]:
    result = ask("list", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    return [row["id"] for row in json.loads(result.stdout)["deliveries"]]


@pytest.mark.usefixtures("kept")
def test_deliveries_are_listed_by_team_and_state():
    """An operator sees what failed, and never the token in a receiver's URL."""
    assert listed() == ["msg_1", "msg_2", "msg_3"]
    assert listed("--state", "dead") == ["msg_1", "msg_3"]
    assert listed("--state", "queued") == ["msg_2"]
    assert listed("--team", "acme", "--state", "dead") == ["msg_1"]
    table = ask("list").stdout
    assert "answered 500" in table
    assert "hooks.example:443" in table
    assert "secret" not in table
    assert table.splitlines()[2].split()[:4] == ["msg_2", "queued", "acme", "announcement"]


def test_empty_list_is_reported():
    """Silence would be taken for a failure."""
    assert ask("list").stdout == "Nothing waits for delivery, and nothing was given up.\n"


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
def test_deliveries_are_redelivered_on_request(arguments: list[str], repeated: set[str]):
    """By id, by team, or all dead ones; as if they were new."""
    result = ask("redeliver", *arguments)
    assert (result.exit_code, result.stdout) == (0, f"{len(repeated)} to be delivered\n")
    found = in_store(lambda store: store.deliveries(state=DeliveryState.QUEUED))
    assert {each.id for each in found if each.next_at == 0.0} == repeated


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["redeliver"], "name either an ID, or --team, --dead"),
        (["redeliver", "msg_1", "--dead"], "name either an ID, or --team, --dead"),
        (["redeliver", "msg_9"], "no delivery 'msg_9'"),
        (["redeliver", "--team", "red"], "no team 'red'"),
        (["list", "--team", "red"], "no team 'red' in the config (there are: acme, blue)"),
        (["rotate-secret", "red"], "no team 'red'"),
        (["rotate-secret", "acme", "--overlap", "soon"], "not a duration"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], words: str):
    """Nothing is done, and the reason is given."""
    result = ask(*arguments)
    assert result.exit_code != 0
    assert words in result.output
    assert "Traceback" not in result.output


def test_secret_is_rotated_with_an_overlap():
    """The new secret is printed alone; the old one also signs for the requested time."""
    first, second = ask("rotate-secret", "acme"), ask("rotate-secret", "acme", "--overlap", "2h")
    assert first.stdout.startswith("whsec_")
    assert first.stdout != second.stdout
    assert "1 before it sign as well" in first.stderr
    assert "2 before it sign as well" in second.stderr
    third = ask("rotate-secret", "blue", "--overlap", "0")
    assert third.stderr == "Team blue has a new webhook secret.\n"
