"""`gateway serve` as a process: what it prints, and how it refuses to start."""

import json
import socket
from pathlib import Path

import pytest

from gateway.simulator import Simulator
from tests.support.serve_command import ServeCommand, run_serve

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(60)


async def test_with_json_logs_every_line_is_json(upstream: Simulator, tmp_path: Path):
    """`docker logs gateway | jq` works from the first line to the last."""
    installed = ServeCommand(tmp_path, upstream.base_url, upstream.token)
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        async with alpha.get("/v1/account", headers={"Gateway-User": "u-42"}) as answer:
            assert answer.status == 200
        gateway.signal(15)
        assert await gateway.ended() == 0
    lines = [json.loads(line) for line in installed.log.splitlines()]
    messages = [line["message"] for line in lines]
    assert {"created a new store", "serving", "request", "stopped"} <= set(messages)
    (request,) = [line for line in lines if line["message"] == "request"]
    assert (request["key_name"], request["user"]) == ("default", "u-42")


@pytest.mark.parametrize(
    ("config", "message", "reason"),
    [
        ("[server]\nport = -1\n", "the config is invalid", "expected a port number"),
        ("[server\n", None, "expected ']'"),
        ('[store]\nurl = "sqlite:///none/gateway.db"\n', "the gateway has stopped", "there is no folder none"),
    ],
)
async def test_a_start_that_fails_is_reported_in_the_format_of_the_log(tmp_path: Path, config, message, reason):
    """As JSON where the config, or a variable, says so; else as plain lines."""
    code, out, err = await run_serve(tmp_path, config, GATEWAY__LOGS__FORMAT="json")
    lines = [json.loads(line) for line in (out + err).splitlines()]
    assert code == 1
    assert message is None or lines[-1]["message"] == message
    assert reason in json.dumps(lines[-1])
    code, out, err = await run_serve(tmp_path, config)
    assert (code, out) == (1, "")
    assert reason in err
    assert "Traceback" not in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("section", "other"), [("server", "ops"), ("ops", "server")])
async def test_a_port_that_is_taken_is_one_clear_sentence(tmp_path: Path, section: str, other: str):
    """With the setting to change, for both listeners, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = f"[{section}]\nport = {port}\n[{other}]\nport = 0\n"
        code, out, err = await run_serve(tmp_path, config, GATEWAY__LOGS__LEVEL="error")
    assert (code, out) == (1, "")
    assert err == (
        f"Error: port {port} is in use: another process listens on 127.0.0.1:{port}; stop it or choose another port "
        f"([{section}] host and port)\n"
    )
    # Nothing stays behind, such as a store.
    assert not list(tmp_path.glob("*.db*"))


async def test_replaced_settings_and_loopback_in_a_container_are_warned_of_at_the_start(tmp_path: Path):
    """The log says why the file does not count, and why a published port would reach nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = f'[server]\nhost = "localhost"\nport = {port}\n[ops]\nport = 0\n[logs]\nformat = "json"\n'
        variables = {"GATEWAY__SERVER__HOST": "127.0.0.1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        _, _, err = await run_serve(tmp_path, config, **variables)
    lines = [json.loads(line) for line in err.splitlines()]
    warned = [(line["path"], line["place"]) for line in lines if line["message"] == "check the config"]
    assert warned == [("server.host", "config.toml:2"), ("server.host", "GATEWAY__SERVER__HOST")]
    assert "is replaced by the environment variable GATEWAY__SERVER__HOST" in lines[0]["problem"]
    assert "cannot be reached from outside of this container" in lines[1]["problem"]
