"""`gateway ledger export`."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.support.records import make_store


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text('[[teams]]\nname = "acme"\n')
    make_store(tmp_path)
    return tmp_path


def ask(*arguments: str) -> Result:
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, arguments, env=environ, prog_name="gateway")


def test_entries_are_written_as_csv_or_as_lines_of_json() -> None:
    """Another system reads every entry; a spreadsheet opens the CSV."""
    ask("usage", "adjust", "acme", "-2.50", "--reason", "a refund")
    (row,) = csv.DictReader(ask("ledger", "export").stdout.splitlines())
    assert (row["team"], row["kind"], row["usd"], row["reason"]) == ("acme", "adjustment", "-2.500000", "a refund")
    line = json.loads(ask("ledger", "export", "--format", "jsonl", "--since", "1d").stdout)
    assert (line["microusd"], str(line["id"])) == (-2_500_000, row["id"])
    assert ask("ledger", "export", "--format", "jsonl", "--team", "blue").stdout == ""
    assert ask("ledger", "export", "--since", "2026-02-02", "--until", "2026-02-01").exit_code == 2
