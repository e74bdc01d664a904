"""`--help`: every option says what it does, and every example is a line that the program accepts."""

import shlex
from collections.abc import Iterator

import click
import pytest

from gateway.cli import main


def commands(command: click.Command, name: str = "gateway") -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, with their names."""
    yield name, command
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from commands(below, f"{name} {word}")


COMMANDS = dict(commands(main))
EXAMPLES = [
    (name, line.strip())
    for name, command in COMMANDS.items()
    for line in (command.epilog or "").splitlines()
    if line.startswith("  ")
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_a_text(name: str):
    """Hidden options are for the program itself."""
    command = COMMANDS[name]
    assert command.help
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    assert [each.opts for each in options if not each.help] == []


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_example_is_a_line_that_the_command_accepts(name: str, line: str):
    """With the options that there are. Nothing is run."""
    assert line.startswith(f"{name} ")
    given = shlex.split(line.removeprefix(f"{name} "))
    COMMANDS[name].make_context(name, given, parent=click.Context(main))


def test_commands_with_arguments_to_think_about_have_examples():
    """The ones that a newcomer starts with, and those that change something."""
    assert {name.removeprefix("gateway ") for name, _ in EXAMPLES} >= {
        "check", "demo", "keys create", "keys change", "keys rotate", "usage", "usage adjust", "cache purge",
        "webhooks redeliver", "predictions list", "ledger export", "audit", "store copy", "simulate",
    }  # fmt: skip
