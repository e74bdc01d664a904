"""A stub of Replicate's API that costs little CPU, for benchmarks in which the simulator would be the limit.

    python -m bench.stub [--reads 2]

A raw asyncio protocol. Every create is accepted at once; the run has succeeded at its READSth read. `GET /counts` tells
how many creates and reads came. It prints a line of JSON when it is ready, and runs until it is stopped.
"""

import argparse
import asyncio
import json
import signal
import time
from itertools import islice

import msgspec

from bench.load import response_end

MODEL = "acme/bench"
VERSION = "b" * 64
SCHEMA = {
    "info": {"title": "Cog", "version": "0.1.0"},
    "openapi": "3.0.2",
    "paths": {},
    "components": {
        "schemas": {
            "Input": {
                "type": "object",
                "title": "Input",
                "properties": {
                    "prompt": {"type": "string", "title": "Prompt", "x-order": 0},
                    "seed": {"type": "integer", "title": "Seed", "x-order": 1},
                },
            },
            "Output": {"type": "string", "title": "Output"},
        }
    },
}
MOST_RUNS = 20_000
_OUTPUT = "A llama looks over the fence. " * 20
_CHAT = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_764_000_000,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _OUTPUT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 160, "total_tokens": 165},
    }
).encode()
"""For peers that speak OpenAI's API only."""


class _Body(msgspec.Struct):
    input: msgspec.Raw


_INPUT = msgspec.json.Decoder(_Body)


class Stub:
    """The runs, and the answers about them."""

    def __init__(self, reads: int) -> None:
        self.base_url = ""
        self._reads = reads
        self._runs: dict[bytes, list] = {}
        self._counts = {"creates": 0, "reads": 0}

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """Answer a request."""
        if method == b"POST" and path.endswith(b"/predictions"):
            return self._create(body)
        if path == b"/v1/chat/completions":
            return _response(200, _CHAT)
        head, _, last = path.rpartition(b"/")
        if head == b"/v1/predictions" and last in self._runs:
            return self._read(last)
        if path == f"/v1/models/{MODEL}".encode():
            return _response(200, _model())
        if path == b"/counts":
            return _response(200, json.dumps(self._counts).encode())
        if path.partition(b"?")[0] == b"/v1/predictions":
            return _response(200, b'{"previous":null,"next":null,"results":[]}')
        if path == b"/v1/account":
            return _response(200, b'{"type":"organization","username":"acme","name":"Acme"}')
        return _response(404, b'{"detail":"not found","status":404}')

    def _create(self, body: bytes) -> bytes:
        self._counts["creates"] += 1
        run_id = b"%026d" % self._counts["creates"]
        given = bytes(_INPUT.decode(body).input)
        url = f"{self.base_url}/predictions/".encode() + run_id
        start = b'{"id":"%b","model":"%b","version":"%b","input":%b,"logs":"","data_removed":false,"error":null' % (
            run_id, MODEL.encode(), VERSION.encode(), given
        )  # fmt: skip
        urls = b'"urls":{"cancel":"%b/cancel","get":"%b","web":"https://replicate.com/p/%b"}}' % (url, url, run_id)
        created = _now()
        self._runs[run_id] = [0, start, created, urls]
        if len(self._runs) > MOST_RUNS:
            # The first one stays: benchmarks poll it.
            del self._runs[next(islice(self._runs, 1, 2))]
        return _response(201, b'%b,"output":null,"status":"starting","created_at":"%b",%b' % (start, created, urls))

    def _read(self, run_id: bytes) -> bytes:
        self._counts["reads"] += 1
        run = self._runs[run_id]
        run[0] += 1
        _, start, created, urls = run
        if run[0] < self._reads:
            return _response(
                200,
                b'%b,"output":null,"source":"api","status":"processing","created_at":"%b","started_at":"%b",%b'
                % (start, created, created, urls),
            )
        return _response(
            200,
            b'%b,"output":"%b","source":"api","status":"succeeded","created_at":"%b","started_at":"%b",'
            b'"completed_at":"%b","metrics":{"predict_time":0.02,"total_time":0.03},%b'
            % (start, _OUTPUT.encode(), created, created, _now(), urls),
        )


def _now() -> bytes:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)).encode() + b".%03dZ" % (now % 1 * 1000)


def _model() -> bytes:
    owner, _, name = MODEL.partition("/")
    version = {"id": VERSION, "created_at": "2026-01-01T00:00:00Z", "cog_version": "0.9.0", "openapi_schema": SCHEMA}
    shown = {"url": f"https://replicate.com/{MODEL}", "owner": owner, "name": name, "visibility": "public"}
    return json.dumps({**shown, "description": "A model of the benchmarks", "latest_version": version}).encode()


def _response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status, len(body), body
    )  # fmt: skip


class Connection(asyncio.Protocol):
    """A connection; requests come one after another."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request. Their ends are found as those of responses."""
        data = self._buffer + data
        while (end := response_end(data)) > 0:
            method, path, _ = data[: data.index(b"\r\n")].split(b" ", 2)
            body = data[data.index(b"\r\n\r\n") + 4 : end]
            self._transport.write(self._stub.answer(method, path, body))  # type: ignore[attr-defined]
            data = data[end:]
        self._buffer = data


async def serve(reads: int) -> None:
    """Serve until terminated."""
    stub, loop, stop = Stub(reads), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0, backlog=1024)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stub.base_url = f"{origin}/v1"
    print(json.dumps({"origin": origin}), flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """Run the stub, on uvloop if it is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=2)
    reads = parser.parse_args().reads
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(reads))
    else:
        uvloop.run(serve(reads))


if __name__ == "__main__":
    main()
