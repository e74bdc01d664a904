"""What shells and scripts see of the program: its version, its exit codes, completion."""

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import hatch_build
from gateway import __version__
from gateway.cli import main
from gateway.commands.version import version
from tests.support.doc_blocks import ROOT

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
CODES = {0: "success", 1: "the config, the store or the request is wrong", 2: "the command line is wrong"}


def ask(*arguments: str, **environ: str) -> Result:
    given = {"REPLICATE_API_TOKEN": TOKEN, "GATEWAY_CONFIG": "", **environ}
    return CliRunner().invoke(main, arguments, env=given, prog_name="gateway")


def test_version_names_the_commit_of_the_build(tmp_path: Path):
    """For bug reports. A checkout has no record of a commit."""
    record = tmp_path / "commit.txt"
    assert version(record) == __version__
    record.write_text("3f2a9c1b04de\n")
    assert version(record) == f"{__version__} (3f2a9c1b04de)"
    record.write_text("")
    assert version(record) == __version__
    assert CliRunner().invoke(main, ["--version"]).output == f"gateway, version {version()}\n"


def test_commit_is_given_or_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An image is built without a history, so the commit is an argument of the build."""
    monkeypatch.delenv("GATEWAY_COMMIT", raising=False)
    assert hatch_build._commit(tmp_path) is None
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        found = hatch_build._commit(ROOT)
        assert found is not None
        assert head.stdout.startswith(found.removesuffix("-dirty"))
    monkeypatch.setenv("GATEWAY_COMMIT", "0123456789abcdef")
    assert hatch_build._commit(tmp_path) == "0123456789abcdef"
    monkeypatch.setenv("GATEWAY_COMMIT", "v1; rm -rf")
    with pytest.raises(ValueError, match="not a commit"):
        hatch_build._commit(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["config", "init"], 0),
        (["check"], 1),
        (["keys", "create", "nobody"], 1),
        (["serve"], 1),
        (["check", "--nope"], 2),
        (["keys"], 2),
        (["nope"], 2),
    ],
)
def test_exit_codes_are_those_of_the_docs(folder: Path, arguments: list[str], code: int):
    """Scripts branch on them. They are in `--help` and in docs/commands.md, in the same words."""
    config = "" if arguments[:2] == ["config", "init"] else "[[teams]]\nname = 'acme'\nscopes = ['fly']\n"
    if config:
        (folder / "config.toml").write_text(config)
    assert ask(*arguments).exit_code == code
    page = " ".join((ROOT / "docs/commands.md").read_text().split())
    helped = " ".join((main.help or "").split())
    assert f"{code} {CODES[code]}" in helped
    assert f"| {code} | {CODES[code]}" in page


def test_signals_have_the_codes_of_shells():
    """As `--help` and the docs say."""
    page, helped = (ROOT / "docs/commands.md").read_text(), " ".join((main.help or "").split())
    assert "130 and 143 ended by SIGINT or SIGTERM before it was done" in helped
    assert "| 130, 143 | ended by SIGINT or SIGTERM before it was done" in page


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_that_of_the_docs(shell: str):
    """The line of docs/commands.md prints a script for the shell."""
    page = (ROOT / "docs/commands.md").read_text()
    assert f"_GATEWAY_COMPLETE={shell}_source gateway" in page
    script = ask(_GATEWAY_COMPLETE=f"{shell}_source")
    assert script.exit_code == 0
    assert f"_GATEWAY_COMPLETE={shell}_complete" in script.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("gateway ke", {"keys"}),
        ("gateway config ", {"init", "show", "schema"}),
        ("gateway check --he", {"--health", "--help"}),
    ],
)
def test_commands_and_options_are_completed(words: str, found: set[str]):
    """The shell asks the program what comes next."""
    typed = words.split(" ")
    position = str(len(typed) - 1)
    done = ask(_GATEWAY_COMPLETE="bash_complete", COMP_WORDS="\n".join(typed), COMP_CWORD=position)
    assert set(re.findall(r"plain,(\S+)", done.stdout)) == found
