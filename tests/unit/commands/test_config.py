"""`gateway config`: a first config that passes `gateway check`, the effective one, the schema."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft7Validator

from gateway.cli import main
from gateway.commands.config import FIRST_CONFIG

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"


def ask(*arguments: str, **environ: str) -> Result:
    given = {"REPLICATE_API_TOKEN": TOKEN, "GATEWAY_CONFIG": "", **environ}
    return CliRunner().invoke(main, arguments, env=given, prog_name="gateway")


def test_first_config_passes_the_check(folder: Path):
    """Without a warning, and with a team to create a key for."""
    written = ask("config", "init")
    assert written.exit_code == 0
    assert written.output.startswith("Wrote config.toml.")
    checked = ask("check")
    assert (checked.exit_code, checked.stderr, checked.stdout.splitlines()[-1]) == (0, "", "ok")
    created = ask("keys", "create", "my-team")
    assert created.stdout.startswith("rgw_")


def test_optional_lines_of_the_first_config_are_valid(folder: Path):
    """Each can be used by removing its #."""
    lines = FIRST_CONFIG.splitlines()
    used = [line[1:] if line.startswith("#") and line[1:2].isalpha() else line for line in lines]
    assert used != lines
    (folder / "config.toml").write_text("\n".join(used))
    checked = ask("check")
    assert (checked.exit_code, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["config", "init"], {}),
        (["config", "init", "--config", "other.toml"], {}),
        (["--config", "other.toml", "config", "init"], {}),
        (["config", "init"], {"GATEWAY_CONFIG": "other.toml"}),
    ],
)
def test_existing_file_is_not_changed(folder: Path, arguments: list[str], environ: dict[str, str]):
    """Wherever the file is named."""
    name = "other.toml" if "other.toml" in [*arguments, *environ.values()] else "config.toml"
    assert ask(*arguments, **environ).exit_code == 0
    (folder / name).write_text("mine")
    again = ask(*arguments, **environ)
    assert (again.exit_code, again.stderr) == (1, f"Error: {name} exists, and was not changed\n")
    assert (folder / name).read_text() == "mine"


def test_folder_that_does_not_exist_is_reported_in_a_sentence(folder: Path):
    """No folder is created."""
    result = ask("config", "init", "--config", "none/config.toml")
    assert (result.exit_code, result.stderr) == (1, "Error: none/config.toml: No such file or directory\n")


def test_effective_config_is_shown_with_its_sources(folder: Path):
    """Secrets need not be there, and are not shown."""
    (folder / "config.toml").write_text("[server]\nport = 8081\n")
    shown = ask("config", "show", REPLICATE_API_TOKEN="", GATEWAY__LOGS__FORMAT="json")
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert shown.exit_code == 0
    assert {"port = 8081 # config.toml:2", 'format = "json" # GATEWAY__LOGS__FORMAT', "workers = 1 # default"} <= {
        *lines
    }
    changed = ask("config", "show", "--changed").output.split()
    assert changed == ["[server]", "port", "=", "8081", "#", "config.toml:2"]


def test_invalid_config_is_not_shown_but_reported(folder: Path):
    """As by every command."""
    (folder / "config.toml").write_text("[server]\nport = -1\n")
    result = ask("config", "show")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("config.toml:2  server.port: expected")


def test_schema_is_printed(folder: Path):
    """Without a config."""
    printed = ask("config", "schema")
    assert printed.exit_code == 0
    Draft7Validator.check_schema(json.loads(printed.output))
