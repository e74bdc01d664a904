"""`make man`: a page for every command."""

import subprocess
from pathlib import Path

import click

from gateway.cli import main
from tests.support.tools import require_tool


def commands(command: click.Command, name: str) -> set[str]:
    """Return the names of a command and all below it, joined by `-`."""
    below = command.commands if isinstance(command, click.Group) else {}
    return {name}.union(*(commands(each, f"{name}-{word}") for word, each in below.items()))


def test_every_command_has_a_man_page(tmp_path: Path):
    """With its options, as in `--help`."""
    subprocess.run([require_tool("click-man"), "--target", tmp_path, "gateway"], check=True)
    assert {path.stem for path in tmp_path.iterdir()} == commands(main, "gateway")
    assert "\\-\\-budget\\-usd\\-per\\-day" in (tmp_path / "gateway-keys-create.1").read_text()
