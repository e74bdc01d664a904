"""A gateway as people run it, `gateway serve` with a config file, in a process of its own; and its upstream."""

import json
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.processes import KEY, SERVER_CORE, UPSTREAM_CORE, Server, part, process, reader_of_a_pipe
from bench.stub import MODEL

HEADERS = {"Authorization": f"Bearer {KEY}"}
POST = {**HEADERS, "Content-Type": "application/json"}
CREATE = f"/v1/models/{MODEL}/predictions"
BODY = json.dumps({"input": {"prompt": "a bench in the park", "seed": 7}}).encode()

TOKEN = "r8_simulator00000000000000000000000000000"
_NEVER = 10**9
_RATES = f"requests_per_minute = {_NEVER}\nburst = {_NEVER}"
_LIMITS = f"""{_RATES}
predictions_per_minute = {_NEVER}
concurrent_predictions = {_NEVER}
budget_usd_per_day = 1000000
budget_usd_per_month = 1000000
"""
_CONFIG = """
[server]
port = 0
[ops]
port = 0
[upstream]
base_url = "{upstream}/v1"
creates_per_minute = {never}
requests_per_minute = {never}
[store]
url = "{store}"
[logs]
format = "json"
level = "{level}"
[[prices.models]]
model = "{model}"
usd_per_second = 0.001
{sections}
[[teams]]
name = "bench"
scopes = ["read", "predict", "files"]
{limits}
[[teams.keys]]
name = "bench"
key_env = "BENCH_KEY"
{limits}
"""
_SERVES = re.compile(r"serves (http://[^\s\"]+)/v1; operators: (http://[^\s\"]+) ")


@contextmanager
def stub(reads: int = 2) -> Iterator[Server]:
    """Run the stub of Replicate."""
    with part("bench.stub", "--reads", str(reads), core=UPSTREAM_CORE) as server:
        yield server


@contextmanager
def gateway(
    upstream: str,
    *,
    limits: str = _LIMITS,
    log: bool = False,
    sections: str = "",
    folder: Path | None = None,
    command: Sequence[str] = ("-m", "gateway", "serve", "--config"),
    store: str | None = None,
    workers: int = 1,
) -> Iterator[Server]:
    """Run a gateway with one team and one key. `said` has the operators' address as `ops`.

    Args:
        upstream: Replicate's address, without `/v1`.
        limits: settings of the team and the key; by default every limit, set to what is never reached.
        log: write a JSON line for each request to a pipe that is read. Otherwise only warnings are logged.
        sections: further sections of the config.
        folder: where the store is; by default a temporary folder.
        command: what Python runs; the config's path is added.
        store: the store's address; by default a file in the folder.
        workers: processes on its port. More than one need a store that allows it.
    """
    with ExitStack() as stack:
        at = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        level = "info" if log else "warning"
        text = _CONFIG.format(
            upstream=upstream,
            never=_NEVER,
            store=store or f"sqlite:///{at}/gateway.db",
            level=level,
            model=MODEL,
            limits=limits,
            sections=sections,
        )
        (at / "config.toml").write_text(text)
        environ = {"REPLICATE_API_TOKEN": TOKEN, "BENCH_KEY": KEY, "GATEWAY__SERVER__WORKERS": f"{workers}"}
        complete = [sys.executable, *command, str(at / "config.toml")]
        stderr = stack.enter_context(reader_of_a_pipe()) if log else None
        started = stack.enter_context(process(complete, SERVER_CORE, environ=environ, stderr=stderr))
        for line in started.stdout:
            if (found := _SERVES.search(line.decode())) is not None:
                pids = () if workers == 1 else workers_of(started.pid, found[2], workers)
                yield Server(found[1], started.pid, {"ops": found[2]}, pids)
                return
        raise SystemExit("the gateway did not start")


def workers_of(pid: int, ops_url: str, count: int) -> tuple[int, ...]:
    """Wait until so many workers serve, and return their processes."""
    up = re.compile(rb"^replicate_gateway_worker_up{.*} 1$", re.MULTILINE)
    while len(up.findall(ask(f"{ops_url}/metrics", {})[1])) < count:
        time.sleep(0.05)
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


UNLIMITED = ""
RATES = f"{_RATES}\nper_user = {{ requests_per_minute = {_NEVER}, burst = {_NEVER} }}\n"


def ask(url: str, headers: Mapping[str, str] = HEADERS, body: bytes | None = None) -> tuple[Mapping[str, str], bytes]:
    """Send one request; return the headers and the body of the response. Exit with 1 if it is no success."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data=body, headers=dict(headers)), timeout=60
        ) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.code} {error.read()[:500].decode(errors='replace')}") from error


def finished(origin: str) -> str:
    """Create the prediction of `BODY`, wait for its end, and return its id."""
    made = json.loads(ask(origin + CREATE, {**POST, "Prefer": "wait"}, BODY)[1])
    if made["status"] != "succeeded":
        raise SystemExit(f"the prediction did not succeed: {made['status']}")
    return str(made["id"])


def hit_bytes(origin: str) -> bytes:
    """Create the prediction of `BODY` again, and return the response, which must be a hit."""
    headers, body = ask(origin + CREATE, POST, BODY)
    if "; hit" not in headers["Cache-Status"]:
        raise SystemExit(f"the second create was no hit: {headers['Cache-Status']}")
    return body


@contextmanager
def bare(method: str, path: str, body: bytes, *, log: bool = False) -> Iterator[Server]:
    """Run the bare aiohttp handler that answers these bytes, with aiohttp's access log to a pipe if asked."""
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile())
        file.write(body)
        file.flush()
        stderr = stack.enter_context(reader_of_a_pipe()) if log else None
        more = ["--log"] if log else []
        yield stack.enter_context(
            part("bench.serve", "bare", method, path, file.name, *more, core=SERVER_CORE, stderr=stderr)
        )


@contextmanager
def proxy(upstream: str) -> Iterator[Server]:
    """Run the bare aiohttp proxy."""
    with part("bench.serve", "proxy", upstream, core=SERVER_CORE) as server:
        yield server
