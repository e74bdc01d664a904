"""`gateway audit`: the log of changes, as a table, JSON and CSV."""

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.support.records import make_store

CONFIG = """
[[teams]]
name = "acme"
scopes = ["read", "predict", "keys"]

[[teams]]
name = "blue"
"""

pytestmark = pytest.mark.usefixtures("changes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    make_store(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, list(arguments), env=environ, prog_name="gateway")


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def changes(folder: Path) -> list[str]:
    """Make one change of each kind that the command line makes. Return the secrets that it printed."""
    secrets = [done("keys", "create", "acme", "--name", "ci", "--requests-per-minute", "60").strip()]
    key_id = secrets[0].split("_")[1]
    done(
        "keys", "change", key_id, "--budget-usd-per-day", "5", "--per-user", "burst=2", "--unset", "requests-per-minute"
    )
    secrets.append(done("keys", "rotate", key_id).strip())
    done("keys", "revoke", key_id)
    done("usage", "adjust", "blue", "-1.5", "--reason", "=gift", "--id", "a")
    secrets.append(done("webhooks", "rotate-secret", "blue").strip())
    return secrets


def entries(*arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(done("audit", "--format", "json", *arguments))["entries"]
    return found


def test_each_change_of_the_command_line_is_listed():
    found = entries()
    assert [each["action"] for each in found] == [
        "webhook_secret.rotated", "usage.adjusted", "key.revoked", "key.rotated", "key.changed", "key.created",
    ]  # fmt: skip
    assert all(str(each["actor"]).startswith("cli:") for each in found)
    assert found[4]["before"] == {"limits": {"requests_per_minute": 60}}
    assert found[4]["after"] == {"limits": {"budget_usd_per_day": 5, "per_user": {"burst": 2}}}


def test_filters_and_limit():
    assert [each["action"] for each in entries("--team", "blue", "--limit", "1")] == ["webhook_secret.rotated"]
    assert [each["team"] for each in entries("--action", "usage.adjusted", "--since", "1h")] == ["blue"]
    assert entries("--since", "2999-01-01") == entries("--until", "2020-01-01T00:00:00Z") == []
    assert done("audit", "--actor", "api") == "No entries.\n"
    assert run("audit", "--since", "sometimes").exit_code == 2


def test_table_and_csv_show_the_same():
    rows = list(csv.DictReader(io.StringIO(done("audit", "--format", "csv"))))
    assert [row["action"] for row in rows] == [each["action"] for each in entries()]
    assert json.loads(rows[1]["after"]) == {"microusd": -1_500_000, "reason": "=gift", "adjustment": "a"}
    lines = done("audit").splitlines()
    assert lines[0].split() == ["at", "actor", "action", "subject", "team", "before", "after"]
    assert len(lines) == 7
    assert "reason==gift" in lines[2]


def test_no_output_has_a_secret(changes: list[str]):
    shown = done("audit") + done("audit", "--format", "json") + done("audit", "--format", "csv")
    for secret in changes:
        assert secret not in shown
        assert secret.rpartition("_")[2] not in shown
