"""The command line: help, config, errors, and long-running commands."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.commands.common import plain_errors, run
from gateway.errors import StoreUnavailable

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
HEAVY = ("aiohttp", "pydantic", "msgspec", "sqlite3", "prometheus_client", "PIL", "asyncio", "gateway.app")
TEN_MISTAKES = """
[server]
port = "80"
public_url = "example.com"
[ops]
host = "0.0.0.0"
[upstream]
creates_per_minute = 0
[store]
url = "mysql://x"
[cache]
share = "everyone"
[[teams]]
name = "Acme Inc"
[[teams]]
name = "b"
budget_usd_per_day = -3
scopes = ["fly"]
keys = [{}]
"""
TEN_PLACES = [
    "3  server.port", "4  server.public_url", "5  ops.token_env", "8  upstream.creates_per_minute", "10  store.url",
    "12  cache.share", '14  teams "Acme Inc" name', '17  teams "b" budget_usd_per_day', '18  teams "b" scopes[0]',
    '19  teams "b" keys "default"',
]  # fmt: skip


def ask(*arguments: str, **environ: str) -> Result:
    environ = {"REPLICATE_API_TOKEN": TOKEN, "GATEWAY_CONFIG": "", **environ}
    return CliRunner().invoke(main, arguments, env=environ, prog_name="gateway")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "demo",
        "simulate",
        "check",
        "keys",
        "keys create",
        "keys list",
        "keys revoke",
        "keys rotate",
        "ledger",
        "ledger export",
        "store",
        "store copy",
        "store migrate",
    ],
)
def test_every_command_has_help(command):
    """--help explains purpose and options, without a config."""
    result = ask(*command.split(), "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: gateway {command}")
    assert "-h, --help" in result.output


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield all commands with their names."""

    def below(name: str, group: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, group
        for each, command in group.commands.items() if isinstance(group, click.Group) else ():
            yield from below(f"{name} {each}".strip(), command)

    return below("", main)


@pytest.mark.parametrize("name", [name for name, command in every_command() if isinstance(command, click.Group)])
def test_summary_of_every_command_fits_into_a_line(name):
    """In the list of commands of a terminal of 80 columns."""
    lines = ask(*name.split(), "--help").output.partition("Commands:\n")[2].splitlines()
    assert lines
    assert not [line for line in lines if line.endswith("...")]


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"], ["keys", "create", "--help"], ["keys", "--nope"]])
def test_help_and_usage_errors_import_nothing_heavy(command):
    """They are fast."""
    code = (
        "import sys\n"
        "from gateway.cli import main\n"
        "try:\n"
        f"    main({command!r})\n"
        "except SystemExit:\n"
        f"    print(sorted(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [["check"], ["serve"], ["keys", "list"]])
@pytest.mark.parametrize("before", [True, False])
def test_config_option_works_before_and_after_the_command(folder, command, before):
    """Both are common."""
    (folder / "bad.toml").write_text("[server]\nport = -5")
    arguments = ["--config", "bad.toml", *command] if before else [*command, "--config", "bad.toml"]
    result = ask(*arguments)
    assert result.exit_code == 1
    assert "server.port: expected a port number" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["check"], ["serve"], ["keys", "list"], ["keys", "create", "acme"]])
def test_missing_config_is_reported_in_a_sentence(folder, command):
    """With the ways to name one, without a traceback."""
    result = ask(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith("no config file: pass --config FILE")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "serve"])
def test_ten_mistakes_are_reported_at_once(folder, command):
    """All can be fixed before the next try."""
    (folder / "config.toml").write_text(TEN_MISTAKES)
    result = ask(command)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.removeprefix("config.toml:").split(": ")[0] for line in lines[:-1]] == TEN_PLACES
    assert lines[-1].startswith("10 problems")


def test_ten_mistakes_are_reported_by_the_program(folder):
    """As `python -m gateway check`, with GATEWAY_CONFIG and an exit code for scripts."""
    (folder / "ten.toml").write_text(TEN_MISTAKES)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check"],
        env=os.environ | {"GATEWAY_CONFIG": "ten.toml", "REPLICATE_API_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()[:-1]
    assert [line.removeprefix("ten.toml:").split(": ")[0] for line in lines] == TEN_PLACES
    assert "Traceback" not in done.stderr


ROOT = Path(__file__).parents[3]


def test_serve_runs_the_application_on_uvloop_with_logs_set_up(folder, monkeypatch):
    """`app.serve` gets the config with its secrets."""
    uvloop = pytest.importorskip("uvloop")
    app = pytest.importorskip("gateway.app")
    (folder / "config.toml").write_text('[logs]\nformat = "json"\nlevel = "error"')
    seen: dict[str, Any] = {}

    async def serve(config: Any, **options: Any) -> None:
        seen.update(config=config, loop=asyncio.get_running_loop())

    set_up: list[Any] = []
    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setattr("gateway.logs.configure", lambda *given, queued: set_up.append((*given, queued)))
    result = ask("serve")
    assert (result.exit_code, result.output) == (0, "")
    assert seen["config"].upstream.token.get_secret_value() == TOKEN
    assert isinstance(seen["loop"], uvloop.Loop)
    assert set_up == [("json", "error", [TOKEN], True)]


def test_port_in_use_is_reported_in_a_sentence(folder, monkeypatch):
    """The most frequent error at start."""
    app = pytest.importorskip("gateway.app")
    (folder / "config.toml").write_text("")

    async def serve(config: Any, **options: Any) -> None:
        raise OSError(98, "error while attempting to bind on address ('127.0.0.1', 8080): address already in use")

    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setattr("gateway.logs.configure", lambda *given, **more: None)
    result = ask("serve")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: port 8080 is in use: another process listens on 127.0.0.1:8080; stop it or choose another port "
        "([server] host and port)\n"
    )


def test_simulate_passes_its_settings(folder, monkeypatch):
    """Port, speed, faults and control; streams and outputs use the next port."""
    simulator = pytest.importorskip("gateway.simulator")
    seen: list[Any] = []

    async def simulate(settings: Any, echo: Any) -> None:
        seen.append(settings)
        echo("here")

    monkeypatch.setattr(simulator, "simulate", simulate)
    monkeypatch.setattr("gateway.logs.configure", lambda *given, **more: None)
    assert ask("simulate").output == "here\n"
    assert ask("simulate", "--port", "0", "--speed", "10", "--control").exit_code == 0
    assert ask("simulate", "--host", "0.0.0.0", "--public-host", "simulator").exit_code == 0
    assert ask("simulate", "--port", "0", "--public-host", "simulator").exit_code == 2
    first, second, third = seen
    assert (first.host, first.public_url, first.delivery_public_url) == ("127.0.0.1", None, None)
    assert (third.host, third.public_url) == ("0.0.0.0", "http://simulator:9090")
    assert third.delivery_public_url == "http://simulator:9091"
    assert (first.port, first.delivery_port, first.speed, first.control, first.faults) == (9090, 9091, 1.0, False, ())
    assert (second.port, second.delivery_port, second.speed, second.control) == (0, 0, 10.0, True)


def test_missing_file_of_faults_is_reported_in_a_sentence(folder):
    """No traceback for a typo."""
    pytest.importorskip("gateway.simulator")
    result = ask("simulate", "--faults", "nope.toml")
    assert result.exit_code == 1
    assert "nope.toml" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["simulate", "--port", "65535"],
        ["simulate", "--speed", "0"],
        ["demo", "--port", "x"],
        ["serve", "extra"],
        ["nope"],
    ],
)
def test_invalid_arguments_are_usage_errors(command):
    """Exit code 2, and a hint on help."""
    result = ask(*command)
    assert result.exit_code == 2
    assert "Usage: gateway" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("raised", "reported"),
    [
        (StoreUnavailable("The store does not answer."), "The store does not answer."),
        (FileNotFoundError(2, "No such file or directory", "x.db"), "x.db: No such file or directory"),
        (OSError("odd"), "odd"),
        (ValueError("two\nlines"), "two lines"),
        (ValueError(), "a value is out of range"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "this command needs PIL, which is not installed"),
        (KeyError("x"), "unexpected KeyError: 'x'"),
        (RuntimeError(f"with {TOKEN}"), "unexpected RuntimeError: with [redacted]"),
        (click.UsageError("used wrongly"), "used wrongly"),
    ],
)
def test_exceptions_are_reported_in_one_sentence(raised, reported):
    """No traceback and no secret."""
    with pytest.raises(click.ClickException) as caught, plain_errors():
        raise raised
    assert caught.value.message == reported
    assert caught.value.__cause__ is None


def test_control_c_ends_quietly():
    """With the exit code that shells expect."""
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130


def test_without_uvloop_asyncio_is_used(monkeypatch):
    """Uvloop is optional."""
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def which() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(which()).startswith("asyncio.")
