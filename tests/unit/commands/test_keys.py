"""`gateway keys`: create, list, revoke, rotate."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.access.rules import api_keys
from gateway.cli import main
from gateway.domain.records import Key
from gateway.store.urls import open_store
from tests.support.records import make_store

CONFIG = """
[[teams]]
name = "acme"
models = ["acme/*", "meta/llama"]
origins = ["https://app.example.com"]
keys = [{ name = "web", sha256 = "%s", key_env = "" }]

[[teams]]
name = "blue"
""".replace(', key_env = ""', "") % ("ab" * 32)  # fmt: skip

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    make_store(tmp_path)
    return tmp_path


def ask(*arguments: str) -> Result:
    # No token in the environment: these commands do not need it.
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, ["keys", *arguments], env=environ, prog_name="gateway")


def create(*arguments: str) -> str:
    result = ask("create", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def stored() -> list[Key]:
    async def fetch() -> list[Key]:
        store = open_store("sqlite:///gateway.db")
        await store.open()
        try:
            return await store.keys()
        finally:
            await store.close()

    return asyncio.run(fetch())


def listed(*arguments: str) -> list[dict[str, Any]]:
    result = ask("list", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)["keys"]
    return rows


def test_create_prints_only_the_key_to_stdout():
    """KEY=$(gateway keys create acme) captures a working key; messages go to stderr."""
    result = ask("create", "acme")
    assert result.exit_code == 0, result.output
    key = result.stdout.removesuffix("\n")
    (record,) = stored()
    assert api_keys.parse(key) == record.id
    assert api_keys.matches(key, record.sha256)
    assert (record.team, record.name) == ("acme", record.id)
    assert (record.scopes, record.models, record.origins, record.expires_at) == (None, None, None, None)
    assert result.stderr == f"Created key {record.id} ({record.id}) of team acme. It is not shown again: save it now.\n"
    assert abs(record.created_at - time.time()) < 60


def test_key_itself_is_not_stored(folder):
    """A stolen database gives no access."""
    key = create("acme")
    secret = key.split("_")[2].encode()
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert secret not in kept
    assert api_keys.digest(key).encode() in kept or bytes.fromhex(api_keys.digest(key)) in kept


def test_create_applies_the_restrictions():
    """Scopes, targets, origins, name and expiry; options may be repeated."""
    create(
        "acme", "--name", "ci key", "--expires", "90d", "--scope", "read", "--scope", "predict", "--scope", "read",
        "--model", "acme/x*", "--origin", "HTTPS://App.example.com:443",
    )  # fmt: skip
    (record,) = stored()
    assert record.name == "ci key"
    assert record.scopes == ("read", "predict")
    assert record.models == ("acme/x*",)
    assert record.origins == ("https://app.example.com",)
    assert record.expires_at is not None
    assert record.expires_at - record.created_at == pytest.approx(90 * 86_400)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nobody"], 1, "no team 'nobody' in the config (teams: acme, blue)"),
        (["acme", "--scope", "fly"], 2, "fly: the scopes are read, predict"),
        (["acme", "--scope", "admin"], 2, "admin: not allowed for team acme (allowed: read, predict, files)"),
        (["acme", "--model", "meta/*"], 2, "meta/*: not allowed for team acme (allowed: acme/*, meta/llama)"),
        (["acme", "--model", "acme"], 2, "acme: expected owner/name"),
        (["acme", "--origin", "https://b.com"], 2, "https://b.com: not allowed for team acme"),
        (["acme", "--origin", "https://b.com/x"], 2, "expected an origin"),
        (["acme", "--expires", "soon"], 2, "not a duration: 'soon'"),
        (["acme", "--expires", "5y"], 2, "unknown unit 'y'"),
        (["acme", "--name", "web"], 1, "Team acme already has a key named web in the config"),
        (["acme", "--name", "a\nb"], 2, "must be 1 to 64 letters"),
        (["acme", "--name", ""], 0, ""),
        ([], 2, "Missing argument 'TEAM'"),
    ],
)
def test_invalid_restrictions_are_refused_with_the_allowed_ones(arguments, code, words):
    """One sentence; no key is printed or stored."""
    result = ask("create", *arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    if code:
        assert result.stdout == ""
        assert stored() == []


def test_limits_have_the_names_of_the_config():
    """They are shown in lists, and changed without a new key."""
    key = create("acme", "--requests-per-minute", "60", "--budget-usd-per-day", "0.5", "--per-address", "burst=3")
    (record,) = stored()
    assert record.allowance is not None
    assert (record.allowance.own.requests_per_minute, record.allowance.own.microusd_per_day) == (60, 500_000)
    assert record.last_four == key[-4:]
    assert ask("change", key, "--seconds-per-day", "2.5", "--unset", "budget-usd-per-day", "--name", "x").exit_code == 0
    row = listed()[1]
    assert row["limits"] == {"requests_per_minute": 60, "seconds_per_day": 2.5, "per_address": {"burst": 3}}
    assert (row["name"], row["last_four"]) == ("x", key[-4:])
    assert "requests_per_minute=60" in ask("list").stdout
    assert ask("change", key, "--unset", "limits").exit_code == 0
    assert stored()[0].allowance is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--requests-per-minute", "0"], "Invalid value for --requests-per-minute: Expected `int` >= 1"),
        (["--requests-per-minute", "many"], "Invalid value for --requests-per-minute"),
        (["--budget-usd-per-day", "-3"], "Invalid value for --budget-usd-per-day: expected a number above 0"),
        (["--budget-usd-per-day", "lots"], "Invalid value for --budget-usd-per-day"),
        (["--per-user", "speed=3"], "Invalid value for --per-user: speed=3: expected LIMIT=NUMBER"),
        (["--per-user", "burst=0"], "Invalid value for --per-user"),
    ],
)
def test_invalid_limits_are_refused_by_option(arguments, words):
    result = ask("create", "acme", *arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert stored() == []


def test_key_names_are_unique_within_a_team():
    """Another team may use the name."""
    create("acme", "--name", "ci")
    result = ask("create", "acme", "--name", "ci")
    assert result.exit_code == 1
    assert "ci" in result.stderr
    assert result.stdout == ""
    create("blue", "--name", "ci")


def test_origin_outside_of_the_teams_causes_a_warning():
    """CORS would refuse it; origins are allowed in the config."""
    result = ask("create", "blue", "--origin", "https://b.com")
    assert result.exit_code == 0
    assert "warning: CORS allows only the origins of teams in the config; add https://b.com" in result.stderr
    assert "warning" not in ask("create", "acme", "--origin", "https://app.example.com").stderr


def test_keys_are_listed_with_their_state():
    """Config keys and issued keys: valid, expired, revoked. Digests are not shown."""
    old = create("acme", "--name", "old", "--expires", "1s")
    gone = create("blue", "--name", "gone")
    assert ask("revoke", str(api_keys.parse(gone))).exit_code == 0
    time.sleep(1.05)  # the command reads the system's clock; one second is the shortest life of a key
    create("acme", "--name", "new", "--scope", "read")
    rows = listed()
    assert [(row["team"], row["name"], row["state"], row["source"]) for row in rows] == [
        ("acme", "web", "valid", "config"),
        ("acme", "old", "expired", "issued"),
        ("acme", "new", "valid", "issued"),
        ("blue", "gone", "revoked", "issued"),
    ]
    assert rows[0]["id"] == "acme/web"
    assert rows[0]["created_at"] is None
    assert rows[2]["scopes"] == ["read"]
    assert rows[3]["revoked_at"].endswith("Z")
    table = ask("list").stdout
    assert table.splitlines()[0].split() == [
        "id", "team", "name", "state", "source", "created", "expires", "last_used", "last_four", "scopes", "models",
        "origins", "limits", "created_by",
    ]  # fmt: skip
    assert len(table.splitlines()) == 5
    assert table.splitlines()[3].split()[-5:-1] == ["read", "-", "-", "-"]
    shown = json.dumps(rows) + table
    assert old not in shown
    assert api_keys.digest(old) not in shown
    assert [row["name"] for row in listed("--team", "blue")] == ["gone"]
    assert ask("list", "--team", "nobody").exit_code == 1


def test_table_lists_values_as_they_are_given_to_create(folder):
    """Values of a list are joined by commas, and can be copied."""
    create("acme", "--scope", "read", "--scope", "predict", "--origin", "https://app.example.com", "--model", "acme/*")
    assert ask("list").stdout.splitlines()[2].split()[-5:-1] == [
        "read,predict",
        "acme/*",
        "https://app.example.com",
        "-",
    ]


def test_keys_of_a_removed_team_have_no_team(folder):
    """They are refused until the config has the team again. A revoked one stays revoked."""
    create("blue", "--name", "lost")
    gone = create("blue", "--name", "gone")
    ask("revoke", gone)
    (folder / "config.toml").write_text('[[teams]]\nname = "acme"')
    assert {row["name"]: row["state"] for row in listed()} == {"lost": "no team", "gone": "revoked"}


def test_keys_are_listed_by_creator_and_counted_when_theirs_is_revoked():
    lead = str(api_keys.parse(create("acme", "--name", "lead")))
    key = create("acme", "--name", "app")
    (creator,) = {row["created_by"] for row in listed() if row["source"] == "issued"}
    assert creator.startswith("cli:")
    assert {row["name"] for row in listed("--created-by", creator)} == {"lead", "app"}
    assert listed("--created-by", f"key:{lead}") == []
    assert "created with it" not in ask("revoke", lead).stderr
    with closing(sqlite3.connect("gateway.db")) as db:
        db.execute("UPDATE keys SET created_by = ? WHERE id = ?", (f"key:{lead}", api_keys.parse(key)))
        db.commit()
    assert f"gateway keys list --created-by key:{lead}" in ask("revoke", lead).stderr


def test_empty_list_explains_how_to_create_a_key(folder):
    """JSON output stays JSON."""
    (folder / "config.toml").write_text('[[teams]]\nname = "acme"')
    assert ask("list").stdout == "No keys. Create one with: gateway keys create TEAM\n"
    assert listed() == []


def test_key_is_revoked_by_id_or_by_the_key_itself():
    """A leaked key can be pasted."""
    by_id, pasted = create("acme"), create("acme")
    for given, key in ((str(api_keys.parse(by_id)), by_id), (pasted, pasted)):
        result = ask("revoke", given)
        assert result.exit_code == 0, result.output
        assert f"Key {api_keys.parse(key)}" in result.stdout
        assert "is revoked" in result.stdout
        assert key not in result.output
    assert all(not api_keys.is_valid(record, time.time()) for record in stored())
    again = ask("revoke", pasted)
    assert again.exit_code == 0
    assert "was already revoked at 20" in again.stdout


@pytest.mark.parametrize("command", ["change", "revoke", "rotate"])
def test_unknown_and_config_keys_are_refused(command):
    """A typo in the id is an error."""
    result = ask(command, "nosuchkey123")
    assert result.exit_code == 1
    assert "no key 'nosuchkey123' (see: gateway keys list)" in result.stderr
    result = ask(command, "acme/web")
    assert result.exit_code == 1
    assert "acme/web is defined in the config: change it there" in result.stderr
    assert result.stdout == ""


def test_rotation_keeps_both_keys_valid_during_the_overlap():
    """Same name and permissions; the old key expires after the overlap."""
    old_key = create("acme", "--name", "ci", "--scope", "read", "--expires", "10d")
    result = ask("rotate", str(api_keys.parse(old_key)), "--overlap", "30m")
    assert result.exit_code == 0, result.output
    new_key = result.stdout.strip()
    old, new = sorted(stored(), key=lambda record: record.created_at)
    assert api_keys.matches(old_key, old.sha256)
    assert api_keys.matches(new_key, new.sha256)
    assert (new.name, new.scopes, new.team) == ("ci", ("read",), "acme")
    assert old.expires_at is not None
    assert new.expires_at is not None
    assert old.expires_at == pytest.approx(time.time() + 1800, abs=30)
    assert new.expires_at - new.created_at == pytest.approx(10 * 86_400)
    assert f"replaces {old.id} (expires " in result.stderr


@pytest.mark.parametrize("overlap", ["0", "0s"])
def test_rotation_without_overlap_invalidates_the_old_key_at_once(overlap):
    """For a leaked key."""
    old_key = create("acme")
    result = ask("rotate", old_key, "--overlap", overlap)
    assert result.exit_code == 0, result.output
    old, new = sorted(stored(), key=lambda record: record.created_at)
    assert not api_keys.is_valid(old, time.time())
    assert api_keys.is_valid(new, time.time())
    assert new.expires_at is None
    assert new.name == new.id


def test_revoked_key_cannot_be_rotated():
    """Rotation does not restore access."""
    key = create("acme")
    ask("revoke", key)
    result = ask("rotate", key)
    assert result.exit_code == 1
    assert "was revoked" in result.stderr
    assert result.stdout == ""
    assert ask("rotate", create("acme"), "--overlap", "long").exit_code == 2


def test_key_of_a_removed_team_cannot_be_rotated(folder):
    """It can still be revoked."""
    key = create("blue")
    (folder / "config.toml").write_text('[[teams]]\nname = "acme"')
    result = ask("rotate", key)
    assert result.exit_code == 1
    assert "Team blue is no longer in the config" in result.stderr
    assert ask("revoke", key).exit_code == 0


def test_unusable_store_is_reported_in_a_sentence(folder):
    """No traceback, and no key on stdout."""
    (folder / "file").write_text("")
    (folder / "config.toml").write_text(f'[store]\nurl = "sqlite:///file/x.db"\n{CONFIG}')
    result = ask("create", "acme")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_program_prints_only_the_key(folder):
    """From another process, while the store is open here."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "keys", "create", "acme", "--config", "config.toml"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert api_keys.parse(done.stdout.removesuffix("\n")) == stored()[0].id
